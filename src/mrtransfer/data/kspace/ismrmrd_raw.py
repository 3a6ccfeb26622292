"""Raw acquisitions in ISMRMRD's HDF5 layout: readouts one by one, sorted here into slices of 2-D Cartesian k-space.

Inati et al., Magn Reson Med 77 (2017) 411; the layout of a record is read from the file itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace.files import hdf5, text_of
from mrtransfer.data.kspace.header import Header
from mrtransfer.data.kspace.sampled import acquired
from mrtransfer.data.kspace.volume import KspaceVolume

COUNTERS = ("contrast", "phase", "repetition", "set")
"""What may tell several images of one slice apart; an option of each name chooses one."""
_NOISE, _CALIBRATION, _REVERSED = 19, 20, 22  # flags, counted from 1
_NO_IMAGE = (_NOISE, 23, 24, 26, 27, 28, 29, 30, 31)  # navigators, phase correction, feedback, dummies, …


def group_of(opened: h5py.File) -> str | None:
    """The group that holds raw acquisitions; None where there is none."""
    for name in ("dataset", *opened):
        group = opened.get(name)
        if isinstance(group, h5py.Group) and "data" in group and "xml" in group:
            return str(name)
    return None


@dataclass(frozen=True, eq=False)
class _Readouts:
    """Which readouts make which slice, and where their samples belong."""

    file: Path
    group: str
    shape: tuple[int, int, int]
    """(C, H, W) of a slice."""
    rows: np.ndarray
    """(n,) the number of each readout in the file, increasing."""
    slices: np.ndarray
    """(n,) its slice, 0, 1, …"""
    columns: np.ndarray
    """(n,) its column."""
    centres: np.ndarray
    """(n,) the sample at the centre of k-space."""
    kept: np.ndarray
    """(n, 2) its first sample that counts, and one past the last."""
    backwards: np.ndarray
    """(n,) bool: sampled from the other end."""

    def __call__(self, index: int, target: bool) -> tuple[np.ndarray, np.ndarray | None]:
        coils, height, width = self.shape
        kspace = np.zeros((width, coils, height), np.complex64)
        several = np.zeros(width, np.int64)
        of_slice = np.flatnonzero(self.slices == index)
        with hdf5(self.file) as opened:
            data = opened[self.group]["data"].fields("data")[self.rows[of_slice]]
        for number, samples in zip(of_slice, data, strict=True):
            line = np.asarray(samples, np.float32).view(np.complex64).reshape(coils, -1)
            centre, (first, end) = self.centres[number], self.kept[number]
            if self.backwards[number]:
                line, centre = line[:, ::-1], line.shape[1] - 1 - centre
                first, end = line.shape[1] - end, line.shape[1] - first
            start = height // 2 - centre
            kspace[self.columns[number], :, start + first : start + end] += line[:, first:end]
            several[self.columns[number]] += 1
        kspace /= np.maximum(several, 1)[:, None, None]  # averages
        return kspace.transpose(1, 2, 0), None


def open_raw(file: Path, group: str, choice: Mapping[str, int]) -> KspaceVolume:
    """The volume in ``group`` of ``file``; ``choice`` says which contrast, phase, repetition or set is meant.

    Rows are along the readout with its oversampling, columns as the header numbers the phase encoding, so that k-space
    is as in fastMRI's files; lines that were measured more than once are averaged. The crop is the header's field of
    view, on k-space's own grid. Raises :class:`UserError` that names ``file`` for what is not 2-D and Cartesian, and
    for several images of a slice of which none is chosen.
    """
    with hdf5(file) as opened:
        header = Header.parse(text_of(opened[group]["xml"][()]), str(file))
        heads = opened[group]["data"].fields("head")[:]
    _check_header(header, file)
    rows = _imaging(heads, header)
    rows = _chosen(heads, rows, choice, file)
    heads = heads[rows]
    _check_heads(heads, file)
    source = _sorted(file, group, rows, heads, header)
    slices, (coils, height, width) = int(source.slices.max()) + 1, source.shape
    sampled = np.zeros((slices, width), bool)
    sampled[source.slices, source.columns] = True
    if (sampled != sampled[0]).any():
        other = int(np.flatnonzero((sampled != sampled[0]).any(axis=1))[0])
        raise UserError(f"{file}: slices 0 and {other} have different phase-encoding lines; all slices must agree")
    columns, padding = acquired(sampled[0])
    return KspaceVolume(
        location=str(file),
        name=file.name,
        slices=slices,
        coils=coils,
        matrix=(height, width),
        crop=_crop(header),
        source=source,
        columns=columns,
        padding=padding,
        acquisition=header.protocol,
        subject=header.subject,
        scanner=header.system,
        spacing=header.spacing((height, width)),
    )


def _check_header(header: Header, file: Path) -> None:
    if header.trajectory != "cartesian":
        raise UserError(f"{file}: its trajectory is {header.trajectory}; only Cartesian acquisitions are read")
    if header.encoded[2] > 1:
        raise UserError(f"{file}: is a 3-D acquisition of {header.encoded[2]} partitions; only 2-D slices are read")
    if header.encodings > 1:
        raise UserError(f"{file}: has {header.encodings} encoding spaces; only acquisitions of one are read")


def _imaging(heads: np.ndarray, header: Header) -> np.ndarray:
    """The readouts that belong to the image; lines for calibration alone do where they are of the same scan."""
    other = [*_NO_IMAGE, *([] if header.calibration in ("", "embedded") else [_CALIBRATION])]
    bits = np.uint64(sum(1 << (flag - 1) for flag in other))
    return np.flatnonzero((heads["flags"] & bits) == 0)


def _chosen(heads: np.ndarray, rows: np.ndarray, choice: Mapping[str, int], file: Path) -> np.ndarray:
    for counter in COUNTERS:
        numbers = np.unique(heads["idx"][counter][rows])
        if counter in choice:
            if choice[counter] not in numbers:
                listed = ", ".join(map(str, numbers[:8]))
                raise UserError(f"{file}: has no {counter} {choice[counter]}; there are {listed or 'none'}")
            rows = rows[heads["idx"][counter][rows] == choice[counter]]
        elif len(numbers) > 1:
            listed = ", ".join(map(str, numbers[:8]))
            raise UserError(
                f"{file}: holds several images of a slice, {counter} {listed}; choose one, as in "
                f"{file.name}#{counter}={numbers[0]}"
            )
    if not len(rows):
        raise UserError(f"{file}: holds no readouts of an image; export it again")
    return rows


def _check_heads(heads: np.ndarray, file: Path) -> None:
    channels = np.unique(heads["active_channels"])
    if len(channels) > 1 or channels[0] < 1:
        raise UserError(f"{file}: its readouts have {', '.join(map(str, channels))} coils; all must have as many")


def _sorted(file: Path, group: str, rows: np.ndarray, heads: np.ndarray, header: Header) -> _Readouts:
    """Every readout's place; the line through the centre of k-space is column ``y // 2``, as in fastMRI's files."""
    height, width, _ = header.encoded
    samples = heads["number_of_samples"].astype(np.int64)
    centres = heads["center_sample"].astype(np.int64)
    kept = np.stack([heads["discard_pre"].astype(np.int64), samples - heads["discard_post"]], axis=1)
    backwards = (heads["flags"] & np.uint64(1 << (_REVERSED - 1))) != 0
    columns = heads["idx"]["kspace_encode_step_1"].astype(np.int64)
    columns += width // 2 - (header.lines[1] if header.lines else width // 2)
    first = np.where(backwards, samples - kept[:, 1], kept[:, 0])
    start = height // 2 - np.where(backwards, samples - 1 - centres, centres) + first
    end = start + kept[:, 1] - kept[:, 0]
    if ((start < 0) | (end > height) | (2 * (end - start) <= height)).any():
        raise UserError(
            f"{file}: readouts of {samples[0]} samples centred at {centres[0]} do not fit the {height} of its header's "
            "encodedSpace; where oversampling was removed, the header must say so"
        )
    if ((columns < 0) | (columns >= width)).any():
        raise UserError(f"{file}: its phase-encoding lines do not fit the {width} of its header's encodedSpace")
    _, slices = np.unique(heads["idx"]["slice"], return_inverse=True)
    coils = int(heads["active_channels"][0])
    return _Readouts(file, group, (coils, height, width), rows, slices, columns, centres, kept, backwards)


def _crop(header: Header) -> tuple[int, int]:
    """The header's field of view, in samples of k-space's own grid: scanners interpolate what they reconstruct."""
    if header.encoded_fov is None or header.recon_fov is None:
        return min(header.recon[0], header.encoded[0]), min(header.recon[1], header.encoded[1])
    parts = [recon / encoded for recon, encoded in zip(header.recon_fov[:2], header.encoded_fov[:2], strict=True)]
    height, width = (min(size, round(size * part)) for size, part in zip(header.encoded[:2], parts, strict=True))
    return height, width
