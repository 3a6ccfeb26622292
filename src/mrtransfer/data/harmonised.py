"""Harmonised stores: fitted on chosen rows, applied to all, kept beside the pixels they were made from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
    chosen = np.asarray(rows, dtype=np.int64)
    return harmoniser.fit(np.asarray(store.images[one]).swapaxes(0, 1) for one in _grouped(chosen, groups))


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
    """Write ``file``; returns its shape and digests. Not through a memory map: a full disk would kill the process."""
    shape = list(store.images.shape)
    digests = [""] * len(store)

    def one(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with about(f"{rows[0] + 1} of the store"):
            found = fitted.stack(np.asarray(store.images[rows], np.float32))
        return rows, np.clip(np.rint(found), 0, 255).astype(np.uint8)

    with progress(f"harmonising ({fitted.harmoniser.words})", len(store)) as advance, open(file, "wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(out, header)
        first = out.tell()
        for rows, images in in_threads(one, _grouped(np.arange(len(store)), groups)):
            for row, image in zip(rows.tolist(), images, strict=True):
                out.seek(first + row * image.nbytes)
                out.write(np.ascontiguousarray(image).data)
                digests[row] = digest(image.tobytes() + repr(image.shape).encode())
            advance(len(rows))
    return {"shape": shape, "row_digests": digests, "content": digest([digests, shape])}
