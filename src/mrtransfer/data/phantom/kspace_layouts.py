"""Layouts of k-space: a phantom's volumes as HDF5 files in the folders of fastMRI."""

from pathlib import Path

from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import progress
from mrtransfer.data.kspace.write import write_fastmri
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.phantom.kspace import render_kspace
from mrtransfer.data.phantom.kspace_scan import is_kspace, parse_kspace
from mrtransfer.data.phantom.randomness import Stream, generator

_FOLDERS = {"train": "train", "validation": "val", "test": "test"}


def write_fastmri_folders(
    manifest: Manifest,
    directory: Path,
    *,
    validation: float = 0.2,
    test: float = 0.0,
    acceleration: float = 4,
    centre_fraction: float = 0.08,
    seed: int = 0,
) -> None:
    """FastMRI: ``multicoil_train/<sample>.h5``, ``multicoil_val/…`` and ``multicoil_test/…``, by subject.

    ``validation`` and ``test`` are parts of the subjects; the manifest's own ``split`` is kept where it has one. Test
    files are undersampled (``equispaced_fraction`` of :mod:`mrtransfer.physics.masks`) and hold a mask and no images,
    as the published ones. Volumes of one coil go into ``singlecoil_…``.
    """
    if not is_kspace(manifest.locations(0)[0]):
        raise UserError("layout fastmri: holds k-space; build the manifest with task='reconstruction'")
    from mrtransfer.physics.masks import Sampling, seed_of

    sampling = Sampling(mask="equispaced_fraction", acceleration=(acceleration,), centre_fraction=(centre_fraction,))
    split = _split(manifest, validation, test, seed)
    with progress("writing k-space", len(manifest)) as advance:
        for row in range(len(manifest)):
            scan = parse_kspace(manifest.locations(row)[0])
            kspace = render_kspace(scan.location)
            alone = kspace.shape[1] == 1
            folder = directory / f"{'singlecoil' if alone else 'multicoil'}_{_FOLDERS[split[row]]}"
            folder.mkdir(parents=True, exist_ok=True)
            table = manifest.table.iloc[row]
            name = f"{table['sample']}.h5"
            write_fastmri(
                folder / name,
                kspace[:, 0] if alone else kspace,
                crop=scan.crop,
                mask=sampling.draw(scan.matrix[1], seed_of(name)).columns if split[row] == "test" else None,
                acquisition=scan.acquisition,
                spacing=scan.spacing,
                subject=str(table["subject"]),
                scanner=scan.scanner,
            )
            advance(1)


def _split(manifest: Manifest, validation: float, test: float, seed: int) -> list[str]:
    """train, validation or test for each row; all volumes of a subject are on one side."""
    if manifest.table["split"].notna().all():
        return [str(part) for part in manifest.table["split"]]
    if min(validation, test) < 0 or validation + test >= 1:
        raise UserError(f"layout fastmri: validation is {validation}, test {test}; 0 or more, together below 1")
    subjects = manifest.table["subject"]
    order = generator(seed, Stream.SPLIT).permutation(subjects.unique())
    counts = [round(part * len(order)) for part in (validation, test)]
    side = dict.fromkeys(order[: counts[0]], "validation") | dict.fromkeys(order[counts[0] : sum(counts)], "test")
    return [side.get(subject, "train") for subject in subjects]
