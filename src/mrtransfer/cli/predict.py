"""``mrtransfer predict``: apply a study's model to new images."""

import csv
import io
import json as json_text
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mrtransfer.cli.show import print_json
from mrtransfer.common.errors import UserError
from mrtransfer.common.files import write_text
from mrtransfer.common.progress import be_quiet

FORMATS = (".csv", ".json")


def command(
    model: Annotated[Path, typer.Argument(help="A model folder, or the folder of a study (its best model).")],
    images: Annotated[
        list[str], typer.Argument(help="Files, folders or patterns; a slice: vol.nii.gz#axis=2&index=70")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also write a .csv or .json file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Predict classes with probabilities for JPEG, PNG, TIFF, DICOM and NIfTI images."""
    if out is not None and out.suffix.lower() not in FORMATS:
        raise UserError(f"--out {out}: must end in .csv or .json")
    if json:
        be_quiet()
    from mrtransfer.deploy.predict import predict_images

    predictions = predict_images(model, images)
    if out is not None:
        write_text(out, as_csv(predictions) if out.suffix.lower() == ".csv" else as_json(predictions))
    if json:
        print_json(predictions)
    else:
        show(predictions)


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


def _shared_folder(images: list[str]) -> str:
    """The folder that all images lie in, with its slash; the table leaves it out, JSON and CSV do not."""
    folder = os.path.commonpath([os.path.dirname(image) for image in images])
    return f"{folder}{os.sep}" if folder else ""
