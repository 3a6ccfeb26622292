"""``mrtransfer shift``: how far apart two domains are, and how sure that is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mrtransfer.cli.settings import read_domain, read_named
from mrtransfer.cli.show import print_json
from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import be_quiet

if TYPE_CHECKING:
    from mrtransfer.shift.settings import ShiftSettings

_DOMAIN = "A path, dataset:path or dataset:path?option=value&option=value; lists with commas."
_NAMED = "Names with commas, or name?setting=value&setting=value; repeatable."


def command(
    source: Annotated[str, typer.Argument(help=f"{_DOMAIN} For example 'phantom:?scanner=a'.")],
    target: Annotated[str, typer.Argument(help="Likewise.")],
    features: Annotated[
        list[str] | None,
        typer.Option(help=f"What is seen of a slice; the first of a family decides. {_NAMED}"),
    ] = None,
    distances: Annotated[
        list[str] | None, typer.Option(help=f"How features are compared; mmd decides. {_NAMED}")
    ] = None,
    harmonise: Annotated[
        list[str] | None, typer.Option(help=f"Preprocessing to try: does it remove the shift? {_NAMED}")
    ] = None,
    maps: Annotated[str | None, typer.Option(help="pca, tsne, umap: what to draw; none for no maps.")] = None,
    channels: Annotated[
        str | None, typer.Option(metavar="A,B[:C,D]", help="Channels to compare; after a colon those of the target.")
    ] = None,
    slices: Annotated[int | None, typer.Option(help="Slices of each volume; 8 when left out.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of a side; 128 when left out.")] = None,
    permutations: Annotated[
        int | None, typer.Option(help="Relabellings of subjects for p; 1000 when left out.")
    ] = None,
    resamples: Annotated[int | None, typer.Option(help="Bootstrap samples of subjects; 1000 when left out.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the results; below shift/ when left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say how far apart two domains are: in intensity, in content, by scanner, or not at all."""
    be_quiet(json)
    given = {
        "features": read_named(features, "--features") if features else None,
        "distances": read_named(distances, "--distances") if distances else None,
        "harmonise": read_named(harmonise, "--harmonise") if harmonise else None,
        "maps": _maps(maps),
        "slices": slices,
        "size": size,
        "permutations": permutations,
        "resamples": resamples,
        "seed": seed,
    }
    settings = _settings({key: value for key, value in given.items() if value is not None})
    picked = _channels(channels)
    domains = read_domain(source, "SOURCE"), read_domain(target, "TARGET")
    folder = out or _folder(domains[0].name, domains[1].name, [source, target, channels])
    from mrtransfer.common.files import write_json
    from mrtransfer.shift.analysis import compare_manifests
    from mrtransfer.shift.report import draw_shift_report, save_figures

    results = compare_manifests(*domains, settings, folder, picked)
    write_json(folder / "results.json", results)
    report = draw_shift_report(folder, results)
    figures = save_figures(folder, results)
    if json:
        print_json({**results, "folder": str(folder), "report": str(report), "figures": [str(one) for one in figures]})
        return
    show_shift(results)
    console = Console(highlight=False, emoji=False)
    console.print(f"report   {report}", markup=False, soft_wrap=True)
    console.print(f"figures  {folder / 'figures'}", markup=False, soft_wrap=True)
    console.print(f"numbers  {folder / 'results.json'}", markup=False, soft_wrap=True)


def show_shift(results: dict[str, Any]) -> None:
    """Print the verdict's sentence, the table of distances, what the design can show, and harmonisers' effects."""
    from mrtransfer.shift.design import p_text

    console, verdict = Console(highlight=False, emoji=False), results["verdict"]
    console.print(f"\n{verdict['sentence']}\n", style="bold", markup=False, soft_wrap=not console.is_terminal)
    console.print(_distances(results))
    corrected = p_text(verdict["smallest_p_holm"])
    told = "● decides about its kind of shift. Above chance: in standard deviations over relabelled subjects. "
    told += results["design"]["words"]
    if len(verdict["families"]) > 1:
        told += f" Corrected for {len(verdict['families'])} kinds of shift (Holm), the smallest p is {corrected}."
    console.print(told, style="dim", markup=False, soft_wrap=not console.is_terminal)
    if results["harmonised"]:
        console.print()
        console.print(_harmonised(results))
    for note in results["notes"]:
        console.print(f"• {note}", markup=False, soft_wrap=not console.is_terminal)
    console.print()


def _distances(results: dict[str, Any]) -> Table:
    from mrtransfer.shift.report.tables import distance_groups

    table = _table("feature", "distance", "value", "95 % interval", "above chance", "p", "p, Holm")
    for group in distance_groups(results):
        for place, row in enumerate(group["rows"]):
            name = group["feature"] if place == 0 else ""
            numbers = (row[key] for key in ("value", "interval", "deviations", "p", "p_holm"))
            table.add_row(Text(name), Text(row["label"] + (" ●" if row["decides"] else "")), *numbers)
    return table


def _harmonised(results: dict[str, Any]) -> Table:
    from mrtransfer.shift.report.tables import harmonised_groups

    table = _table("harmonised by", "feature", "before", "after", "above chance", "p, Holm", "shift")
    for group in harmonised_groups(results):
        for place, row in enumerate(group["rows"]):
            change = [f"{row[f'before_{key}']} → {row[f'after_{key}']}" for key in ("deviations", "p_holm")]
            name = Text(group["words"] if place == 0 else "")
            table.add_row(name, Text(row["feature"]), row["before_value"], row["after_value"], *change, row["mark"])
    return table


def _table(first: str, second: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(first, style="cyan", no_wrap=True)
    table.add_column(second, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _settings(given: dict[str, Any]) -> "ShiftSettings":
    from pydantic import ValidationError

    from mrtransfer.common.strict import first_error
    from mrtransfer.shift.settings import ShiftSettings

    try:
        return ShiftSettings.model_validate(given)
    except ValidationError as error:
        raise first_error(error, "shift") from error


def _maps(text: str | None) -> list[str] | None:
    if text is None:
        return None
    from mrtransfer.common.errors import unknown_name
    from mrtransfer.shift.maps import METHODS

    names = [name.strip() for name in text.split(",") if name.strip() and name.strip() != "none"]
    for name in names:
        if name not in METHODS:
            raise UserError(f"--maps: {unknown_name('map', name, [*METHODS, 'none'])}")
    return names


def _channels(text: str | None) -> tuple[list[str], list[str]] | None:
    if text is None:
        return None
    parts = [[name.strip() for name in part.split(",") if name.strip()] for part in text.split(":")]
    if len(parts) > 2 or not all(parts):
        raise UserError(
            f"--channels {text}: write flair,t1ce, or flair,t1ce:t1,t2 with those of the target after a colon"
        )
    return parts[0], parts[-1]


def _folder(source: str, target: str, texts: list[str | None]) -> Path:
    """A folder of its own for each pair of domains as they were written."""
    from mrtransfer.common.files import digest
    from mrtransfer.data.stored import file_name

    names = source if source == target else f"{source}-{target}"
    return Path("shift") / f"{file_name(names)}-{digest(texts, 6)}"
