"""Harmonised stores: fitted on chosen rows, applied to all, kept beside the pixels they were made from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mrtransfer.common.files import digest, read_json, write_json
from mrtransfer.common.progress import progress
from mrtransfer.data.cases.reading import each_case
from mrtransfer.data.harmoniser import FittedHarmoniser, Harmoniser
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.store import Store
from mrtransfer.data.stored import Sources, about, open_or_build
from mrtransfer.data.threads import in_threads

FORMAT = 1  # raise it when the same pixels would become others
_FILE = "images.npy"
Groups = Sequence[str] | np.ndarray


def fit_on_images(
    harmoniser: Harmoniser, store: Store, rows: Sequence[int] | np.ndarray, *, groups: Groups | None = None
) -> FittedHarmoniser:
    """Learn the reference from ``rows`` of ``store``, and nothing else.

    ``groups`` (N,): rows of the same name count as one image, see :func:`harmonised_images`.
    """
    return harmoniser.fit(in_groups(store.images, np.asarray(rows, dtype=np.int64), groups))


def harmonised_images(
    store: Store, fitted: FittedHarmoniser, directory: str | Path, *, groups: Groups | None = None
) -> Store:
    """``store`` with every image harmonised: uint8, rounded and cut off at 0 and 255, in ``directory``.

    It is named by the pixels it was made from and by what ``fitted`` is, so it is made once and never out of date.
    ``groups`` (N,), for example the subjects: images of the same name are slices of one scan, and change by the same
    function of intensity (:meth:`FittedHarmoniser.stack`); "" or None: each image by itself. Raises :class:`UserError`
    where the channels are not those that ``fitted`` knows.
    """
    options = {
        "format": FORMAT,
        "pixels": store.content,
        "harmonise": fitted.to_json(),
        "groups": None if groups is None else digest([str(name) for name in groups]),
    }
    sources = Sources("harmonised", Path(directory), [], options)
    return open_or_build(sources, directory, _opened, lambda folder: _build(store, fitted, groups, folder / _FILE))


def fit_on_cases(
    harmoniser: Harmoniser, manifest: Manifest, rows: Sequence[int] | np.ndarray, *, cache: str | Path | None = None
) -> FittedHarmoniser:
    """Learn the reference from the raw cases at ``rows`` of ``manifest``, before any plan normalises them.

    Hand the result to :func:`~mrtransfer.data.cases.store.open_cases`. ``cache`` is a folder in which it is kept, named
    by settings and the state of the files. Raises one :class:`UserError` that names all cases that cannot be read.
    """
    chosen = [int(row) for row in rows]
    whole = Sources.of(manifest, {})
    files = Sources(whole.name, whole.root, [whole.locations[row] for row in chosen], {"format": FORMAT})
    name = digest([files.fingerprint(), harmoniser.model_dump(mode="json")])
    file = None if cache is None else Path(cache) / f"harmoniser-{name}.json"
    if file is not None and file.is_file():
        return FittedHarmoniser.from_json(read_json(file), str(file))
    fitted = harmoniser.fit(each_case(manifest, chosen, lambda _, case: case.image, "looking at"))
    if file is not None:
        write_json(file, fitted.to_json())
    return fitted


def _grouped(rows: np.ndarray, groups: Groups | None) -> Iterator[np.ndarray]:
    """``rows`` of each group, in order of the first; those without a name one by one."""
    together: dict[str, list[int]] = {}
    for row in rows.tolist():
        name = "" if groups is None else str(groups[row])
        together.setdefault(f"group {name}" if name else f"row {row}", []).append(row)
    yield from (np.array(several) for several in together.values())


def _opened(folder: Path, meta: dict[str, Any]) -> Store | None:
    """The store in ``folder``; None where it is not as described."""
    images = np.load(folder / _FILE, mmap_mode="r")
    whole = list(images.shape) == meta["shape"]
    return Store(images, meta["content"], np.array(meta["row_digests"]), folder) if whole else None


def _build(store: Store, fitted: FittedHarmoniser, groups: Groups | None, file: Path) -> dict[str, Any]:
    """Write ``file``; returns its shape and digests."""
    shape = list(store.images.shape)
    with open(file, "wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(out, header)
        digests = write_harmonised(out, store.images, fitted, groups)
    return {"shape": shape, "row_digests": digests, "content": digest([digests, shape])}


def write_harmonised(
    out: IO[bytes], images: np.ndarray, fitted: FittedHarmoniser, groups: Groups | None = None
) -> list[str]:
    """Write ``images`` (N, C, H, W), harmonised, to ``out`` from where it is, in order and in their own type.

    Returns a digest of each. Not through a memory map, in which a full disk kills the process.
    """
    first, size = out.tell(), images[0].nbytes if len(images) else 0
    digests = [""] * len(images)

    def one(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with about(f"in row {rows[0] + 1}"):
            found = fitted.stack(np.asarray(images[rows], np.float32))
        return rows, _as(images.dtype, found)

    with progress(f"harmonising ({fitted.harmoniser.words})", len(images)) as advance:
        for rows, several in in_threads(one, _grouped(np.arange(len(images)), groups)):
            for row, image in zip(rows.tolist(), several, strict=True):
                out.seek(first + row * size)
                out.write(image.tobytes())
                digests[row] = digest(image.tobytes() + repr(image.shape).encode())
            advance(len(rows))
    return digests


def _as(dtype: np.dtype[Any], images: np.ndarray) -> np.ndarray:
    """``images`` in another type; rounded and cut off at its ends where it is one of whole numbers."""
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        images = np.clip(np.rint(images), ends.min, ends.max)
    return np.ascontiguousarray(images, dtype=dtype)


def in_groups(images: np.ndarray, rows: np.ndarray, groups: Groups | None) -> Iterator[np.ndarray]:
    """``images`` (N, C, H, W) at ``rows``, those of one group as one image (C, n, H, W)."""
    return (np.asarray(images[together]).swapaxes(0, 1) for together in _grouped(rows, groups))
