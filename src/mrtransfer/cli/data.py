"""``mrtransfer data``: what is in a dataset, what is wrong with it, and how to split it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mrtransfer.cli.show import print_json
from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import be_quiet

if TYPE_CHECKING:
    import numpy as np

    from mrtransfer.data.manifest import Manifest
    from mrtransfer.data.split import Fold

app = typer.Typer(help="Audit, describe and split a dataset.", no_args_is_help=True)

Where = Annotated[str | None, typer.Argument(metavar="DIR", help="The dataset's folder, or a .csv or .parquet table.")]
Name = Annotated[
    str | None, typer.Option("--dataset", help="Kind of dataset (mrtransfer list datasets); folder where left out.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.command()
def audit(
    path: Where = None,
    dataset: Name = None,
    json: Json = False,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write the table with clusters of copies (.csv).")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", metavar="DIR", help="Save the worst pairs of copies as pictures.")
    ] = None,
) -> None:
    """Find copies, leaks across the published split, conflicting labels and shortcuts."""
    _check_table_name(write)
    be_quiet(json)
    manifest = _read(path, dataset)
    from mrtransfer.data.audit import audit as run_audit

    report = run_audit(manifest)
    written = [str(manifest.with_groups(report.groups).save(write))] if write else []
    written += [str(picture) for picture in report.save_pictures(pictures)] if pictures else []
    if json:
        print_json(report.to_json())
        return
    show_audit(report.to_json())
    for line in ([f"table written to {write}"] if write else []) + (
        [f"pictures written to {pictures}"] if pictures else []
    ):
        _console().print(line, style="dim", markup=False, soft_wrap=True)


@app.command()
def describe(path: Where = None, dataset: Name = None, json: Json = False) -> None:
    """Count samples per class and published split, subjects, channels and masks."""
    described = _read(path, dataset).describe()
    if json:
        print_json(described)
        return
    splits = list(described["splits"])
    table = _table("class", "samples", "subjects", *splits)
    for name, counts in described["classes"].items():
        known = counts["subjects"] or "unknown"
        table.add_row(Text(name), *map(str, (counts["samples"], known, *(counts["splits"].get(s, 0) for s in splits))))
    known = described["subjects"] or "unknown"
    table.add_row("all", *map(str, (described["samples"], known, *described["splits"].values())), style="bold")
    console = _console()
    console.print(Text(described["name"], style="bold"))
    console.print(table)
    for note in described["notes"]:
        console.print(note, markup=False)


@app.command()
def split(
    path: Where = None,
    dataset: Name = None,
    folds: Annotated[int | None, typer.Option(help="Folds of a cross-validation; 5 where nothing is given.")] = None,
    test: Annotated[float | None, typer.Option(help="Instead of folds: the share of one held-out test set.")] = None,
    by: Annotated[str, typer.Option(help="What must not lie on both sides: columns of the table.")] = "subject,cluster",
    seed: Annotated[int, typer.Option(help="Another seed gives another split.")] = 0,
    json: Json = False,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write the table with the split (.csv or .parquet).")
    ] = None,
) -> None:
    """Split by subject and cluster of copies, every class in proportion."""
    _check_table_name(write)
    if folds is not None and test is not None:
        raise UserError("give --folds or --test, not both")
    be_quiet(json)
    from mrtransfer.data.split import holdout, make_folds, units

    names = [name.strip() for name in by.split(",") if name.strip()]
    manifest = _read(path, dataset)
    units(manifest, names)  # a misspelt name is refused before the audit's work
    if "cluster" in names:
        manifest = _with_clusters(manifest)
    manifest = manifest.take(manifest.labels >= 0)
    unit = units(manifest, names)
    made = (
        holdout(manifest.labels, unit, test=test, seed=seed)
        if test is not None
        else make_folds(manifest.labels, unit, folds=5 if folds is None else folds, seed=seed)
    )
    if write:
        _with_split(manifest, unit, made).save(write)
    if json:
        print_json(_split_json(manifest, unit, made))
    else:
        show_split(_split_json(manifest, unit, made))
        if write:
            _console().print(f"table written to {write}", style="dim", markup=False, soft_wrap=True)


def show_audit(data: dict[str, Any]) -> None:
    """Print the findings, then the counts and the nearest neighbour's scores."""
    console = _console()
    console.print(Text(f"{data['dataset']}: {data['files']} images", style="bold"))
    for finding in data["findings"]:
        console.print(Text(f"• {finding}"), soft_wrap=not console.is_terminal)
    console.print()
    table = _table("copies", "clusters", "files", "test files with their like in training")
    for kind in ("byte_identical", "pixel_identical", "near_identical", "flipped"):
        table.add_row(
            kind.replace("_", " "), *(_shown(data[kind][key]) for key in ("clusters", "files", "test_in_train"))
        )
    console.print(table)
    console.print("Each row of the first three contains the one above; flipped is a class of its own.", style="dim")
    scores = data["nearest_neighbour"]
    if scores["published"] is not None:
        console.print()
        table = _table("nearest neighbour on 32×32 pixels", "test images", "accuracy")
        for part in ("published", "leaked", "clean"):
            table.add_row(part, str(scores["tested"][part]), _shown(scores[part]))
        console.print(table)


def show_split(data: dict[str, Any]) -> None:
    """Print how many samples of each class are tested in each fold."""
    classes = list(data["folds"][0]["test"]["classes"])
    table = _table("fold", "development", "test", "test units", *classes)
    for fold in data["folds"]:
        test = fold["test"]
        counts = (fold["index"], fold["development"], test["samples"], test["units"], *test["classes"].values())
        table.add_row(*map(str, counts))
    _console().print(f"{data['samples']} samples in {data['units']} units that stay together", markup=False)
    _console().print(table)


def _read(path: str | None, dataset: str | None) -> "Manifest":
    from mrtransfer.data.datasets import DATASETS

    if dataset is None:
        if path is None:
            raise UserError("which dataset? give its folder, or --dataset with a name of 'mrtransfer list datasets'")
        dataset = "table" if Path(path).suffix in (".csv", ".parquet") else "folder"
    manifest: Manifest = DATASETS.get(dataset)(path)
    return manifest


def _with_clusters(manifest: "Manifest") -> "Manifest":
    """The manifest with clusters of copies, found by the audit unless the table names them already."""
    from mrtransfer.data.audit import audit as run_audit
    from mrtransfer.data.readers.location import is_phantom

    if manifest.table["group"].notna().any() or is_phantom(manifest.locations(0)[0]):
        return manifest
    return manifest.with_groups(run_audit(manifest).groups)


def _with_split(manifest: "Manifest", unit: "np.ndarray", folds: "list[Fold]") -> "Manifest":
    """The table with columns ``unit`` and ``fold`` (or ``split``, for one test set); the published split is renamed."""
    from dataclasses import replace

    import pandas as pd

    table = manifest.table.assign(unit=unit)
    if table["split"].notna().any():
        table["published_split"] = table["split"]
    table["split"] = pd.Series(pd.NA, index=table.index, dtype="string")
    for fold in folds:
        if len(folds) == 1:
            table.loc[fold.development, "split"] = "train"
            table.loc[fold.test, "split"] = "test"
        else:
            table.loc[fold.test, "fold"] = fold.index
    if len(folds) > 1:
        table["fold"] = table["fold"].astype("int64")
    return replace(manifest, table=table)


def _split_json(manifest: "Manifest", unit: "np.ndarray", folds: "list[Fold]") -> dict[str, Any]:
    labels = manifest.labels
    parts = [
        {
            "index": fold.index,
            "development": len(fold.development),
            "test": {
                "samples": len(fold.test),
                "units": len(set(unit[fold.test].tolist())),
                "classes": {name: int((labels[fold.test] == c).sum()) for c, name in enumerate(manifest.classes)},
            },
        }
        for fold in folds
    ]
    return {"samples": len(manifest), "units": len(set(unit.tolist())), "folds": parts}


def _check_table_name(path: Path | None) -> None:
    """Refuse a wrong name before the work, not after it."""
    if path is not None and path.suffix not in (".csv", ".parquet"):
        raise UserError(f"--write {path}: a table's name must end in .csv or .parquet")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(Text(first), style="cyan")
    for name in others:
        table.add_column(Text(name), justify="right")
    return table


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _console() -> Console:
    return Console(highlight=False)
