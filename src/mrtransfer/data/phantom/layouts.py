"""Layouts: write a rendered dataset as real files in the folder structure of a published one, to try its adapter on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import pandas as pd
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.files import atomic_path
from mrtransfer.common.progress import progress
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.phantom.kspace_layouts import write_fastmri_folders
from mrtransfer.data.phantom.kspace_scan import is_kspace
from mrtransfer.data.phantom.randomness import Stream, generator
from mrtransfer.data.phantom.render import mask_of, parse, render
from mrtransfer.data.phantom.volume_layouts import write_brats, write_decathlon, write_volumes
from mrtransfer.data.phantom.volume_scan import is_volume

# As the Kaggle set spells its class folders.
FOLDER_NAMES = MappingProxyType(
    {
        "glioma": "glioma_tumor",
        "meningioma": "meningioma_tumor",
        "pituitary": "pituitary_tumor",
        "no_tumour": "no_tumor",
    }
)
FIGSHARE_CODES = MappingProxyType({"meningioma": 1, "glioma": 2, "pituitary": 3})
LGG_CHANNELS = ("t1", "flair", "t1ce")


def write(manifest: Manifest, layout: str, directory: str | Path, **options: Any) -> Path:
    """Write the images of a phantom ``manifest`` under ``directory`` as one of :data:`LAYOUTS`; returns ``directory``.

    * ``folder`` (``test=0.2``, ``quality=90``, ``seed=0``): ``Training|Testing/<class>/*.jpg`` as the Kaggle four-class
      set; every subject is on one side; the manifest's own ``split`` is kept where it has one
    * ``lgg``: ``kaggle_3m/<subject>/<subject>_<slice>.tif`` with the channels pre-contrast, FLAIR, post-contrast and
      ``…_mask.tif``; needs ``contrast=[t1, flair, t1ce]``
    * ``figshare`` (``folds=5``, ``seed=0``): ``1.mat`` … in MATLAB 7.3, and ``cvind.mat``; tumours only
    * ``brats`` (``year=2020`` or 2023), ``decathlon``, ``volumes``: see :mod:`mrtransfer.data.phantom.volume_layouts`;
      of volumes, which are of ``task: segmentation``
    * ``fastmri``: see :mod:`mrtransfer.data.phantom.kspace_layouts`; of k-space, which is of ``task: reconstruction``

    All files are there or none: ``directory`` must be absent or empty. Raises :class:`UserError`.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    directory = Path(directory)
    if directory.exists():
        if not directory.is_dir() or any(directory.iterdir()):
            raise UserError(f"{directory}: is there already and not an empty folder; choose a new one")
        directory.rmdir()
    with atomic_path(directory) as temporary:
        temporary.mkdir()
        LAYOUTS[layout](manifest, temporary, **options)
    return directory


def write_folder(manifest: Manifest, directory: Path, *, test: float = 0.2, quality: int = 90, seed: int = 0) -> None:
    """The Kaggle four-class set: JPEG files in class folders below ``Training`` and ``Testing``."""
    _need_single_channel(manifest, "folder")
    table = manifest.table
    split = table["split"].to_numpy(dtype=object)
    if table["split"].isna().any():
        chosen = _subjects_of(manifest, test, seed)
        split = np.where(table["subject"].isin(chosen).to_numpy(dtype=bool), "test", "train")
    with progress("writing images", len(table)) as advance:
        for row in range(len(table)):
            label = str(table["label"].iloc[row])
            folder = directory / ("Testing" if split[row] == "test" else "Training") / FOLDER_NAMES.get(label, label)
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(render(manifest.locations(row)[0]))
            # The published files are RGB although the scans are grey.
            image.convert("RGB").save(folder / f"{table['sample'].iloc[row]}.jpg", quality=quality)
            advance(1)


def write_lgg(manifest: Manifest, directory: Path) -> None:
    """The LGG set: three-channel TIFF slices and 0/255 masks, those without tumour included."""
    _need_slices(manifest, "lgg")
    if any(channel not in manifest.channels for channel in LGG_CHANNELS):
        raise UserError(
            f"layout lgg: the manifest has the channels {', '.join(manifest.channels)}; "
            f"build it with contrast={list(LGG_CHANNELS)}"
        )
    table = manifest.table
    order = [manifest.channels.index(channel) for channel in LGG_CHANNELS]
    numbers = table.groupby("subject").cumcount() + 1
    with progress("writing slices", len(table)) as advance:
        for row in range(len(table)):
            subject = str(table["subject"].iloc[row])
            stem = directory / "kaggle_3m" / subject / f"{subject}_{numbers.iloc[row]}"
            stem.parent.mkdir(parents=True, exist_ok=True)
            locations = manifest.locations(row)
            image = np.stack([render(locations[channel]) for channel in order], axis=-1)
            mask = mask_of(parse(locations[0]), "whole")
            Image.fromarray(image).save(f"{stem}.tif")
            Image.fromarray(np.uint8(255) * mask).save(f"{stem}_mask.tif")
            advance(1)


def write_figshare(manifest: Manifest, directory: Path, *, folds: int = 5, seed: int = 0) -> None:
    """The figshare set 1512427: one MATLAB 7.3 file per slice, and the patients' folds in ``cvind.mat``."""
    _need_single_channel(manifest, "figshare")
    table = manifest.table
    for label in table["label"].unique():
        if label not in FIGSHARE_CODES:
            raise UserError(
                f"layout figshare: has no class {label!r}; build the manifest with lesions={list(FIGSHARE_CODES)}"
            )
    with progress("writing slices", len(table)) as advance:
        for row in range(len(table)):
            location = manifest.locations(row)[0]
            mask = mask_of(parse(location), "core")
            with _matlab_file(directory / f"{row + 1}.mat") as file:
                struct = file.create_group("cjdata")
                struct.attrs["MATLAB_class"] = np.bytes_("struct")
                _put(struct, "PID", str(table["subject"].iloc[row]))
                # Scanner units instead of grey values, as the published int16 images have.
                _put(struct, "image", render(location).astype(np.int16) * 8)
                _put(struct, "label", float(FIGSHARE_CODES[str(table["label"].iloc[row])]))
                _put(struct, "tumorBorder", _border(mask))
                _put(struct, "tumorMask", mask)
            advance(1)
    with _matlab_file(directory / "cvind.mat") as file:
        _put(file, "cvind", _folds(table["subject"], folds, seed)[:, None])


LAYOUTS: MappingProxyType[str, Callable[..., None]] = MappingProxyType(
    {
        "folder": write_folder,
        "lgg": write_lgg,
        "figshare": write_figshare,
        "brats": write_brats,
        "decathlon": write_decathlon,
        "volumes": write_volumes,
        "fastmri": write_fastmri_folders,
    }
)


def _need_slices(manifest: Manifest, layout: str) -> None:
    if is_volume(manifest.locations(0)[0]) or is_kspace(manifest.locations(0)[0]):
        raise UserError(f"layout {layout}: holds slices; build the manifest with slices=4, or with another task")


def _need_single_channel(manifest: Manifest, layout: str) -> None:
    _need_slices(manifest, layout)
    if len(manifest.channels) != 1:
        raise UserError(
            f"layout {layout}: holds one contrast per image, the manifest has {', '.join(manifest.channels)}; "
            "build it with one contrast"
        )


def _subjects_of(manifest: Manifest, part: float, seed: int) -> list[str]:
    """About ``part`` of the subjects of every class, at least one of each."""
    draw = generator(seed, Stream.SPLIT)
    chosen: list[str] = []
    for _, rows in manifest.table.groupby("label", sort=True):
        subjects = np.array(rows["subject"].unique(), dtype=object)
        chosen += draw.permutation(subjects)[: max(1, round(part * len(subjects)))].tolist()
    return chosen


def _folds(subjects: "pd.Series[str]", folds: int, seed: int) -> NDArray[np.float64]:
    """(n,) fold from 1 by subject."""
    names = subjects.unique()
    order = generator(seed, Stream.SPLIT).permutation(len(names))
    fold = {name: float(place % folds + 1) for name, place in zip(names, order, strict=True)}
    return subjects.map(fold).to_numpy(dtype=np.float64)


def _border(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(1, 2k) points x1, y1, x2, y2, … (pixels from 1) along the outline of the mask's largest part."""
    padded = np.pad(mask, 1).astype(np.float64)
    lines: Sequence[Any] = contour_generator(z=padded).lines(0.5)
    longest = max(lines, key=len, default=np.zeros((0, 2)))
    return longest.reshape(1, -1)


def _matlab_file(path: Path) -> h5py.File:
    """An HDF5 file with the 512-byte header by which MATLAB knows its own version 7.3."""
    file = h5py.File(path, "w", userblock_size=512)
    file.close()
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, written by mrtransfer".ljust(116) + bytes(8) + b"\x00\x02IM"
    with open(path, "r+b") as raw:
        raw.write(header)
    return h5py.File(path, "a")


def _put(group: h5py.Group, name: str, value: str | float | NDArray[Any]) -> None:
    """Write a value as MATLAB does: axes reversed, characters and logicals as integers that say what they are."""
    if isinstance(value, str):
        kind = "char"
        data: NDArray[Any] = np.array([[ord(letter)] for letter in value], dtype=np.uint16)
    else:
        array = np.atleast_2d(value)
        kind = "logical" if array.dtype == bool else {"float64": "double"}.get(str(array.dtype), str(array.dtype))
        data = (array.astype(np.uint8) if kind == "logical" else array).T
    dataset = group.create_dataset(name, data=data)
    dataset.attrs["MATLAB_class"] = np.bytes_(kind)
    if kind in ("char", "logical"):
        dataset.attrs["MATLAB_int_decode"] = np.int32(2 if kind == "char" else 1)
