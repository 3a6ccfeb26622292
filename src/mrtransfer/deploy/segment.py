"""Apply a segmentation model to new scans, prepared exactly as those it was trained on."""

from collections.abc import Iterable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest, write_json
from mrtransfer.data.cases.prepare import prepare_case
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers import SUFFIXES, suffix
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.data.volume import Case, read_case, write_volume
from mrtransfer.data.volume.case import COLOURS
from mrtransfer.deploy.outputs import Finished, apply_to_each, output_folder
from mrtransfer.deploy.overlay import overlay, write_png
from mrtransfer.deploy.predict import model_folder
from mrtransfer.deploy.scans import Scan, find_scans
from mrtransfer.deploy.segmenter import Segmented, Segmenter
from mrtransfer.deploy.summary import summarise
from mrtransfer.tasks.segmentation.outputs import region_maps, to_classes
from mrtransfer.training.precision import FLOAT32, Precision, Requested, choose_device, placed
from mrtransfer.training.sliding import precision_for_prediction, predict_case
from mrtransfer.training.windows import place_windows

_WORTH_MEASURING = 2**24  # voxels of all windows; fewer are done sooner than settings are tried


def segment_scans(
    model: str | Path,
    scans: Iterable[str | Path],
    out: str | Path,
    *,
    device: str = "auto",
    precision: Requested = "auto",
) -> Finished:
    """Segment every scan that ``scans`` mean (see :func:`~mrtransfer.deploy.scans.find_scans`) into the folder ``out``.

    For each: ``<name>_mask.nii.gz`` on the scan's own grid with the mask values of the training data (for PNG, JPEG and
    alike ``<name>_mask.png``), ``<name>.json`` (see :func:`~mrtransfer.deploy.summary.summarise`), and ``<name>.png``,
    every channel with the predicted outlines. They are written as soon as the scan is done; a scan that cannot be used
    is left out and told at the end. ``model`` is a model folder or a study folder. Raises :class:`UserError` where the
    model, the names of scans or ``out`` are not right (then nothing has been written), and where a file cannot be
    written.
    """
    folder = model_folder(model)
    segmenter = Segmenter.load(folder)
    found = find_scans(scans, segmenter.channels)
    target = output_folder(Path(out), found, "masks")
    device = choose_device(device)

    def work(scan: Scan, precision: Precision | Requested) -> tuple[Precision, partial[dict[str, Any]]]:
        result = segment_scan(segmenter, scan, device=device, precision=precision, scans=len(found))
        return result.precision, partial(_write, segmenter, scan, result, target)

    return apply_to_each(found, work, "segmenting", precision)


def segment_scan(
    segmenter: Segmenter,
    scan: Scan,
    *,
    device: str = "cpu",
    precision: Precision | Requested = "auto",
    scans: int = 1,
) -> Segmented:
    """Segment one scan; raises :class:`UserError` that names the file which is damaged, or of another kind than the
    training data.

    ``precision`` auto measures what is fastest, where there is enough to do for ``scans`` scans like this one.
    """
    case = read_case(_manifest(scan), 0, with_mask=False)
    _check(case, scan, segmenter)
    prepared = prepare_case(case, segmenter.plan, segmenter.harmonise)
    image = prepared.image.astype(np.float16)  # as cases are stored for training
    modules = (segmenter.network, segmenter.head)
    if not isinstance(precision, Precision):
        precision = _precision(segmenter, image, precision, device, scans)
    with placed(precision, device, *modules):
        probabilities = predict_case(
            *modules, image, plan=segmenter.plan, loss=segmenter.loss, precision=precision, device=device,
            overlap=segmenter.overlap, mirror=segmenter.mirror,
        )  # fmt: skip
    maps = prepared.frame.to_original(probabilities)
    classes = to_classes(maps, segmenter.loss, segmenter.labels)
    if segmenter.cleaning is not None:
        classes = segmenter.cleaning.apply(classes, case.affine, segmenter.labels)
    regions = region_maps(maps, segmenter.loss, segmenter.labels)
    if segmenter.harmonise is not None:  # the training data are known by their voxels before they are harmonised
        image = prepare_case(case, segmenter.plan).image.astype(np.float16)
    return Segmented(case, classes, regions, digest([digest(image.data), image.shape]), precision)


def _precision(segmenter: Segmenter, image: np.ndarray, requested: Requested, device: str, scans: int) -> Precision:
    """What was asked for, or what is fastest where there is enough to do."""
    patch = segmenter.plan.patch
    voxels = scans * place_windows(image, patch, segmenter.overlap).count * prod(patch)
    if requested == "auto" and voxels < _WORTH_MEASURING:
        return FLOAT32
    return precision_for_prediction(
        segmenter.network, segmenter.head, image, plan=segmenter.plan, requested=requested, device=device
    )


def is_picture(scan: Scan) -> bool:
    """Whether the scan is a PNG, JPEG or alike, whose mask is to be one too."""
    kinds = [SUFFIXES.get(suffix(Location.parse(location).path)) for location in scan.locations]
    return not is_phantom(scan.locations[0]) and kinds[0] == "raster"


def _manifest(scan: Scan) -> Manifest:
    columns = ["image"] if len(scan.locations) == 1 else [f"image:{number}" for number in range(len(scan.locations))]
    table = pd.DataFrame({"sample": [scan.name], **{c: [at] for c, at in zip(columns, scan.locations, strict=True)}})
    return Manifest.create(table, Path.cwd(), "scans")


def _check(case: Case, scan: Scan, segmenter: Segmenter) -> None:
    """Refuse what the model would give an answer to that means nothing."""
    name, plan = scan.locations[0], segmenter.plan
    needed = len(segmenter.channels)
    if len(case.image) != needed:
        shown = "is a colour image" if case.channels == COLOURS else f"has {_channels(len(case.image))}"
        wanted = "colour images" if segmenter.channels == COLOURS else _channels(needed)
        raise UserError(f"{name}: {shown}, but the model was trained on {wanted} ({', '.join(segmenter.channels)})")
    if plan.dims == 3 and case.image.shape[3] == 1:
        raise UserError(f"{name}: is a single slice, but the model was trained on volumes; give the whole series")
    if "uint8" in plan.normalise and (case.image.min() < 0 or case.image.max() > 255):
        low, high = case.image.min(), case.image.max()
        raise UserError(
            f"{name}: its values reach from {low:g} to {high:g}, but the model was trained on images of 8 bits; "
            "convert it as the training images were converted"
        )


def _channels(count: int) -> str:
    return f"{count} channel{'' if count == 1 else 's'}"


def _write(segmenter: Segmenter, scan: Scan, result: Segmented, folder: Path) -> dict[str, Any]:
    """Write mask, picture and, last, the summary, which is returned."""
    labels, case = segmenter.labels, result.case
    values = labels.to_values(result.classes)
    if is_picture(scan):
        mask = folder / f"{scan.name}_mask.png"
        write_png(mask, values[..., 0] * (255 if labels.anything_else else 1))
    else:
        mask = write_volume(folder / f"{scan.name}_mask.nii.gz", values, case.affine)
    picture = folder / f"{scan.name}.png"
    write_png(picture, overlay(case, result.classes, labels, segmenter.channels))
    summary = {
        "case": scan.name,
        "files": dict(zip(segmenter.channels, scan.locations, strict=False)),
        "mask": str(mask),
        "picture": str(picture),
        **summarise(segmenter, scan, result),
    }
    write_json(folder / f"{scan.name}.json", summary)
    return summary
