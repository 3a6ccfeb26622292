"""What was made of k-space, in numbers: how it was sampled, how near the images are, and what to be careful about."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.deploy.reconstructor import Reconstructed, TrainedReconstructor
from mrtransfer.deploy.scans import Scan
from mrtransfer.deploy.summary import SEEN, SEEN_SUBJECT
from mrtransfer.models.weights import splits_in
from mrtransfer.physics.masks import Sampling
from mrtransfer.tasks.reconstruction.metrics import evaluate_volume

ORIENTATION = (
    "unknown: files of k-space hold no patient geometry; the axes are rows, columns and slices of the acquisition, not "
    "right, anterior and superior"
)
NO_SIZE = "the file does not say how large its pixels are: 1 mm is assumed, in slices of 1 mm"
OWN_COLUMNS = "was undersampled when it was measured: its own columns are used, whatever --acceleration says"
OTHER_SAMPLING = "the model was trained with {}, not with {}"
OTHER_ACQUISITION = "the model was trained on {}, and this is {}"
SIMULATED = "its k-space is simulated from an image, not measured"
SEEN_SPLIT = "the model was trained on {} of {} as published: scores of those files say nothing"
WORSE = "the images are further from the full data than zero-filled ones ({:.1f} and {:.1f} dB): the model does not fit"


def summarise_reconstruction(
    reconstructor: TrainedReconstructor, scan: Scan, result: Reconstructed, asked: Sampling | None
) -> dict[str, Any]:
    """The summary of one volume, as JSON can write it.

    ``kspace``: slices, coils, rows and columns, protocol, whether it was simulated. ``sampling``: how many of the
    columns that a full acquisition has were used, the acceleration that comes to, and if columns were left out here,
    by which mask. ``scores`` (SSIM, PSNR in dB, NMSE) and those of the zero-filled images, where the full data are
    there; a PSNR that is infinite is None. ``grid`` of the images; ``model`` (digest of its weights) and ``precision``;
    ``warnings``. Raises :class:`UserError` that names the file where no score can be taken.
    """
    volume = result.volume
    scores, without = (_scores(result, images) for images in (result.images, result.zero_filled))
    return {
        "kspace": {
            "slices": volume.slices,
            "coils": volume.coils,
            "rows": volume.matrix[0],
            "columns": volume.matrix[1],
            "acquisition": volume.acquisition or None,
            "simulated": volume.simulated,
        },
        "sampling": _sampling(result, asked),
        "scores": scores,
        "zero_filled": without,
        "grid": {
            "shape": [*volume.crop, volume.slices],
            "spacing_mm": list(volume.spacing) if volume.spacing else None,
            "orientation": ORIENTATION,
        },
        "network": reconstructor.network.name,
        "model": reconstructor.digest,
        "precision": result.precision.name,
        "warnings": [
            *_seen(reconstructor, scan, result),
            *_unlike_training(reconstructor, result, asked),
            *_odd(result, asked, scores, without),
        ],
    }


def _scores(result: Reconstructed, images: np.ndarray) -> dict[str, float | None] | None:
    if result.targets is None:
        return None
    try:
        found = evaluate_volume(images, result.targets, result.max_value)
    except UserError as problem:
        raise UserError(f"{result.volume.location}: {problem}") from problem
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _sampling(result: Reconstructed, asked: Sampling | None) -> dict[str, Any]:
    used = asked if result.drawn is not None else None
    return {
        "columns": len(result.sampled),
        "sampled": int(result.sampled.sum()),
        "acceleration": result.acceleration,
        "mask": "measured" if used is None else used.mask,
        "asked_acceleration": None if used is None else used.acceleration[0],
        "centre_fraction": None if used is None else used.centre_fraction[0],
    }


def _seen(reconstructor: TrainedReconstructor, scan: Scan, result: Reconstructed) -> list[str]:
    """Whether the scan, its subject or the published split it may be of was trained on; what says most, alone."""
    provenance = reconstructor.provenance
    if result.digest in set(provenance.get("row_digests", ())):
        return [SEEN]
    known = set(provenance.get("subjects", ()))
    subjects = [name for name in _names(scan, result) if name in known]
    if subjects:
        return [SEEN_SUBJECT.format(subjects[0])]
    splits = splits_in(provenance, "its dataset") if result.targets is not None else {}
    return [SEEN_SPLIT.format(" and ".join(named), dataset) for dataset, named in splits.items() if named]


def _names(scan: Scan, result: Reconstructed) -> list[str]:
    """What the subject may be called: what the file says, its path from any folder on, and its folders' names."""
    if is_phantom(scan.locations[0]):
        return []
    parts = Path(Location.parse(scan.locations[0]).path).absolute().with_suffix("").parts[1:]
    return [result.volume.subject, *("/".join(parts[start:]) for start in reversed(range(len(parts)))), *parts[::-1]]


def _unlike_training(reconstructor: TrainedReconstructor, result: Reconstructed, asked: Sampling | None) -> list[str]:
    found = []
    trained, acquisition = reconstructor.sampling, result.volume.acquisition
    if asked is not None and result.drawn is not None:
        alike = asked.mask == trained.mask and asked.acceleration[0] in trained.acceleration
        found += [] if alike else [OTHER_SAMPLING.format(_words(trained), _words(asked))]
    if acquisition and reconstructor.acquisitions and acquisition not in reconstructor.acquisitions:
        found.append(OTHER_ACQUISITION.format(", ".join(reconstructor.acquisitions), acquisition))
    return found


def _words(sampling: Sampling) -> str:
    return f"{sampling.mask} at {' and '.join(f'{value:g}' for value in sampling.acceleration)}"


def _odd(
    result: Reconstructed,
    asked: Sampling | None,
    scores: dict[str, float | None] | None,
    without: dict[str, float | None] | None,
) -> list[str]:
    found = []
    if asked is not None and result.drawn is None:
        found.append(OWN_COLUMNS)
    if result.volume.simulated:
        found.append(SIMULATED)
    if result.volume.spacing is None:
        found.append(NO_SIZE)
    own, zero_filled = ((one or {}).get("psnr") for one in (scores, without))
    if own is not None and zero_filled is not None and own < zero_filled:
        found.append(WORSE.format(own, zero_filled))
    return found
