"""Apply a reconstruction model to new k-space."""

import hashlib
from collections.abc import Iterable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path, digest, write_bytes, write_json
from mrtransfer.common.progress import progress
from mrtransfer.data.kspace import KspaceStore, KspaceVolume, open_volume
from mrtransfer.data.volume import write_volume
from mrtransfer.deploy.contact_sheet import contact_sheet
from mrtransfer.deploy.kspace_scans import OWN, find_kspace
from mrtransfer.deploy.kspace_summary import summarise_reconstruction
from mrtransfer.deploy.outputs import Finished, apply_to_each, output_folder
from mrtransfer.deploy.predict import model_folder
from mrtransfer.deploy.reconstructor import Reconstructed, TrainedReconstructor, as_option
from mrtransfer.deploy.scans import Scan
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.physics.masks import SampledColumns, Sampling, restrict
from mrtransfer.tasks.reconstruction.pictures import to_png
from mrtransfer.training.fit_reconstruction import precision_for_reconstruction
from mrtransfer.training.precision import FLOAT32, Precision, Requested, choose_device
from mrtransfer.training.reconstruct import check_volume, columns_by_name, reconstruct_volume

DATASET = "reconstruction"
"""What fastMRI's challenge calls the images in a submitted file."""
_WORTH_MEASURING = 2**23  # samples of a coil; fewer are done sooner than settings are tried


def reconstruct_scans(
    model: str | Path,
    scans: Iterable[str | Path],
    out: str | Path,
    *,
    acceleration: float | None = None,
    mask: str | None = None,
    centre_fraction: float | None = None,
    device: str = "auto",
    precision: Requested = "auto",
) -> Finished:
    """Reconstruct all k-space that ``scans`` mean (:func:`~mrtransfer.deploy.kspace_scans.find_kspace`) into ``out``.

    For each file: ``<name>_reconstruction.nii.gz``, magnitudes (rows, columns, slices) in the unit of the file;
    ``<name>_reconstruction.h5`` with the same as fastMRI's submissions hold them, ``reconstruction`` (S, h, w);
    ``<name>.json`` (see :func:`~mrtransfer.deploy.kspace_summary.summarise_reconstruction`); ``<name>.png``, the middle
    slice. K-space that was undersampled when it was measured keeps its own columns. Fully sampled k-space is
    undersampled by ``acceleration``, with ``mask`` and ``centre_fraction`` as in training where they are not given, and
    scored against all of it.

    Files are written as soon as a scan is done; a scan that cannot be used is left out and told at the end. ``model``
    is a model folder or a study folder. Raises :class:`UserError` where the model, an option, the names of scans or
    ``out`` are not right (then nothing has been written), and where a file cannot be written.
    """
    reconstructor = TrainedReconstructor.load(model_folder(model))
    sampling = reconstructor.undersampling(acceleration, mask, centre_fraction)
    found = find_kspace(scans)
    target = output_folder(Path(out), found, "images")
    device = choose_device(device)

    def work(scan: Scan, precision: Precision | Requested) -> tuple[Precision, partial[dict[str, Any]]]:
        result = reconstruct_scan(reconstructor, scan, sampling, device=device, precision=precision, scans=len(found))
        summary = summarise_reconstruction(reconstructor, scan, result, sampling)
        return result.precision, partial(_write, scan, result, summary, target)

    return apply_to_each(found, work, "reconstructing", precision)


def reconstruct_scan(
    reconstructor: TrainedReconstructor,
    scan: Scan,
    sampling: Sampling | None = None,
    *,
    device: str = "cpu",
    precision: Precision | Requested = "auto",
    scans: int = 1,
) -> Reconstructed:
    """Reconstruct one scan; raises :class:`UserError` that names its file where that is damaged, or does not fit.

    ``sampling``: how fully sampled k-space is undersampled. ``precision`` auto measures what is fastest, where there is
    enough to do for ``scans`` scans like this one.
    """
    volume = open_volume(scan.locations[0], Path())
    check_volume(reconstructor.network, volume)
    drawn = _drawn(volume, sampling, reconstructor.sampling.acceleration[0])
    content, targets = _read(volume)
    if not isinstance(precision, Precision):
        precision = _precision(reconstructor, volume, sampling, precision, device, scans)
    columns_of = None if drawn is None else lambda _: drawn
    with progress(f"reconstructing {scan.name}", volume.slices) as advance:
        images = reconstruct_volume(
            reconstructor.network, volume, columns_of=columns_of, precision=precision, device=device, advance=advance
        )
    if not np.isfinite(images).all():
        raise UserError(f"{volume.location}: the model makes NaN or infinite values of it, so it is of no use here")
    zero_filled = reconstruct_volume(
        build_reconstruction_network("zero_filled"), volume, columns_of=columns_of, device=device
    )
    columns = drawn.columns if drawn is not None else volume.columns
    assert columns is not None  # one of the two is there, or _drawn had refused it
    return Reconstructed(
        volume=volume,
        images=images,
        zero_filled=zero_filled,
        targets=targets,
        max_value=_max_value(volume, targets),
        columns=restrict(columns, volume.padding),
        drawn=drawn,
        digest=content,
        precision=precision,
    )


def _drawn(volume: KspaceVolume, sampling: Sampling | None, trained: float) -> SampledColumns | None:
    """The columns that are kept of fully sampled k-space; None where it was undersampled when it was measured."""
    if not volume.fully_sampled:
        return None
    if sampling is None:
        raise UserError(
            f"{volume.location}: is fully sampled, so there is nothing to reconstruct; add --acceleration "
            f"{trained:g} to leave out lines and see how near the model comes to the full data"
        )
    try:
        return columns_by_name(sampling, volume)
    except UserError as problem:
        raise UserError(f"{volume.location}: {as_option(str(problem))}") from problem


def _read(volume: KspaceVolume) -> tuple[str, np.ndarray | None]:
    """The digest of its k-space, by which training data are known, and its targets (S, h, w); each slice is checked."""
    kspace, targets = hashlib.sha256(), []
    for index in range(volume.slices):
        samples, image = volume.arrays(index)
        kspace.update(samples.data)
        if image is not None:
            targets.append(image)
    columns = None if volume.columns is None else volume.columns.astype(int).tolist()
    shape = [volume.slices, volume.coils, *volume.matrix]
    return digest([kspace.hexdigest(), shape, columns, volume.padding]), np.stack(targets) if targets else None


def _max_value(volume: KspaceVolume, targets: np.ndarray | None) -> float:
    if volume.stored_max is not None:
        return volume.stored_max
    return float(targets.max()) if targets is not None else 0.0


def _precision(
    reconstructor: TrainedReconstructor,
    volume: KspaceVolume,
    sampling: Sampling | None,
    requested: Requested,
    device: str,
    scans: int,
) -> Precision:
    """What was asked for, or what is fastest where there is enough to do."""
    if requested == "auto" and scans * volume.slices * prod(volume.matrix) < _WORTH_MEASURING:
        return FLOAT32
    store = KspaceStore(volume.name, Path(), (volume.location,), ({"max": volume.stored_max},))
    return precision_for_reconstruction(
        reconstructor.network,
        store,
        sampling=sampling or reconstructor.sampling,
        requested=requested,
        device=device,
    )


def _write(scan: Scan, result: Reconstructed, summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write images, picture and, last, the summary, which is returned with the names of the files."""
    spacing = result.volume.spacing or (1.0, 1.0, 1.0)
    volume = write_volume(
        folder / f"{scan.name}{OWN}.nii.gz", np.moveaxis(result.images, 0, -1), np.diag([*spacing, 1.0])
    )
    submission = folder / f"{scan.name}{OWN}.h5"
    with atomic_path(submission) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset(DATASET, data=result.images)
    picture = folder / f"{scan.name}.png"
    write_bytes(picture, to_png(contact_sheet(result)))
    files = {"images": str(volume), "submission": str(submission), "picture": str(picture)}
    summary = {"case": scan.name, "file": scan.locations[0], **files, **summary}
    write_json(folder / f"{scan.name}.json", summary)
    return summary
