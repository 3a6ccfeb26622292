"""``mrtransfer predict``: apply a study's model to new scans."""

import csv
import io
import json as json_text
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mrtransfer.cli.show import print_json
from mrtransfer.common.errors import UserError
from mrtransfer.common.files import write_text
from mrtransfer.common.progress import be_quiet

if TYPE_CHECKING:
    from mrtransfer.deploy.outputs import Finished

FORMATS = (".csv", ".json")


def command(
    model: Annotated[Path, typer.Argument(help="A model folder, or the folder of a study (its best model).")],
    scans: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or patterns: images, volumes, or k-space for a model that reconstructs. "
            "A slice: vol.nii.gz#axis=2&index=70. Several channels: "
            "flair=a.nii.gz,t1ce=b.nii.gz, or a folder with files that end in the channels' names."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="Segmentation and reconstruction: the folder for masks or images, summaries and pictures. "
            "Classification: also write a .csv or .json file.",
        ),
    ] = None,
    acceleration: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Reconstruction: undersample k-space that is fully sampled, and score the images."
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="With --acceleration: random, equispaced, equispaced_fraction, magic, magic_fraction or "
            "variable_density; by default as in training.",
        ),
    ] = None,
    centre_fraction: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="With --acceleration: the part of all columns that is kept at the centre; by default as in training.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Segment or classify scans (NIfTI, DICOM, JPEG, PNG, TIFF), or reconstruct k-space (HDF5, BART, NumPy)."""
    if json:
        be_quiet()
    from mrtransfer.deploy.predict import model_task

    task = model_task(model)
    undersampling = {"acceleration": acceleration, "mask": mask, "centre_fraction": centre_fraction}
    if task == "reconstruction":
        reconstruct(model, scans, out, json, undersampling)
        return
    for name, value in undersampling.items():
        if value is not None:
            raise UserError(
                f"--{name.replace('_', '-')} {value}: is for models that reconstruct, and {model} is for {task}; "
                "leave it out"
            )
    (segment if task == "segmentation" else classify)(model, scans, out, json)


def classify(model: Path, images: list[str], out: Path | None, json: bool) -> None:
    """Print the class of every image, and write it to ``out``."""
    if out is not None and out.suffix.lower() not in FORMATS:
        raise UserError(f"--out {out}: must end in .csv or .json")
    from mrtransfer.deploy.predict import predict_images

    predictions = predict_images(model, images)
    if out is not None:
        write_text(out, as_csv(predictions) if out.suffix.lower() == ".csv" else as_json(predictions))
    if json:
        print_json(predictions)
    else:
        show(predictions)


def segment(model: Path, scans: list[str], out: Path | None, json: bool) -> None:
    """Write masks, summaries and pictures to the folder ``out``, and print what was found."""
    if out is None:
        raise UserError("--out is missing: this model segments; name the folder for its masks, such as -o masks")
    from mrtransfer.deploy.segment import segment_scans

    finished = segment_scans(model, scans, out)
    if json:
        print_json(finished.summaries)
    elif finished.summaries:
        show_lesions(finished.summaries, out)
    _tell(finished, "segmented")


def reconstruct(model: Path, scans: list[str], out: Path | None, json: bool, undersampling: dict[str, Any]) -> None:
    """Write images, summaries and pictures to the folder ``out``, and print how k-space was sampled, and scores."""
    if out is None:
        raise UserError("--out is missing: this model reconstructs; name the folder for its images, such as -o images")
    from mrtransfer.deploy.reconstruct import reconstruct_scans

    finished = reconstruct_scans(model, scans, out, **undersampling)
    if json:
        print_json(finished.summaries)
    elif finished.summaries:
        show_images(finished.summaries, out)
    _tell(finished, "reconstructed")


def _tell(finished: "Finished", done: str) -> None:
    """Raise one :class:`UserError` about all scans that could not be used."""
    if finished.problems:
        several = len(finished.problems) + len(finished.summaries) > 1
        begin = f"{len(finished.problems)} of the scans could not be {done}: " if several else ""
        raise UserError(begin + "; ".join(finished.problems))


def as_json(predictions: list[dict[str, Any]]) -> str:
    """The predictions as a JSON list."""
    return json_text.dumps(predictions, indent=1, ensure_ascii=False) + "\n"


def as_csv(predictions: list[dict[str, Any]]) -> str:
    """The predictions with one column per class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = list(predictions[0]["probabilities"])
    writer.writerow(["image", "predicted", *classes, "warning"])
    for row in predictions:
        writer.writerow([row["image"], row["predicted"], *row["probabilities"].values(), row["warning"] or ""])
    return text.getvalue()


def show(predictions: list[dict[str, Any]]) -> None:
    """Print the predictions as a table, warnings below it."""
    classes = list(predictions[0]["probabilities"])
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("image", overflow="fold", min_width=16)
    table.add_column("predicted", style="cyan", no_wrap=True)
    for name in classes:
        table.add_column(Text(name), justify="right", overflow="fold", min_width=5)
    shared = _shared_folder([row["image"] for row in predictions])
    for row in predictions:
        values = (f"{row['probabilities'][name]:.3f}" for name in classes)
        table.add_row(Text(row["image"].removeprefix(shared)), Text(row["predicted"]), *values)
    console = Console(highlight=False)
    console.print(table)
    for row in predictions:
        if row["warning"]:
            console.print(f"{row['image']}: {row['warning']}", style="yellow", markup=False, soft_wrap=True)


def show_lesions(summaries: list[dict[str, Any]], out: Path) -> None:
    """Print the volume of every region and the largest lesion of every scan, warnings below."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("scan", overflow="fold", min_width=12)
    for name in summaries[0]["volumes_ml"]:
        table.add_column(Text(f"{name} (ml)"), justify="right", overflow="fold", min_width=7)
    table.add_column("lesions", justify="right")
    table.add_column("largest (ml)", justify="right")
    table.add_column("its centre R, A, S (mm)", justify="right", min_width=14)
    for one in summaries:
        lesions = one["lesions"]
        first = [lesion for lesion in lesions if lesion["region"] == lesions[0]["region"]] if lesions else []
        volumes = (f"{value:.2f}" for value in one["volumes_ml"].values())
        largest = (f"{first[0]['volume_ml']:.2f}", _place(first[0]["centre_mm"])) if first else ("", "")
        table.add_row(Text(one["case"]), *volumes, str(len(first)), *largest)
    _show_summaries(table, summaries, "mask", out)


def show_images(summaries: list[dict[str, Any]], out: Path) -> None:
    """Print how each k-space was sampled, and scores where the full data were there, warnings below."""
    scored = any(one["scores"] for one in summaries)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("scan", overflow="fold", min_width=12)
    table.add_column("columns sampled", justify="right", no_wrap=True)
    for heading in ("SSIM", "PSNR (dB)", "NMSE", "zero-filled (dB)") if scored else ():
        table.add_column(heading, justify="right", min_width=6)
    for one in summaries:
        sampling, scores, zero_filled = one["sampling"], one["scores"] or {}, one["zero_filled"] or {}
        row = [f"{sampling['sampled']} of {sampling['columns']} ({sampling['acceleration']:.1f}×)"]
        if scored:
            psnr = (scores.get("psnr"), ".1f"), (zero_filled.get("psnr"), ".1f")
            numbers = (scores.get("ssim"), ".3f"), psnr[0], (scores.get("nmse"), ".4f"), psnr[1]
            row += ["" if value is None else f"{value:{digits}}" for value, digits in numbers]
        table.add_row(Text(one["case"]), *row)
    _show_summaries(table, summaries, "image", out)


def _show_summaries(table: Table, summaries: list[dict[str, Any]], what: str, out: Path) -> None:
    """Print the table, every scan's warnings, and where the files are."""
    console = Console(highlight=False)
    console.print(table)
    for one in summaries:
        for warning in one["warnings"]:
            console.print(f"{one['case']}: {warning}", style="yellow", markup=False, soft_wrap=True)
    several = "s" if len(summaries) > 1 else ""
    found = f"{len(summaries)} {what}{several} with summary and picture in {out}"
    console.print(found, markup=False, soft_wrap=True)


def _place(centre: list[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in centre)


def _shared_folder(images: list[str]) -> str:
    """The folder that all images lie in, with its slash; the table leaves it out, JSON and CSV do not."""
    folder = os.path.commonpath([os.path.dirname(image) for image in images])
    return f"{folder}{os.sep}" if folder else ""
