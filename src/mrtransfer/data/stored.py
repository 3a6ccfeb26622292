"""What all stores share: named by the state of every file, built whole or not at all, the outdated ones removed."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path, digest, file_digest, read_json, write_json
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers.location import Location, is_phantom

META = "meta.json"
_NAMED = 5  # problems that are told in full

S = TypeVar("S")


@dataclass(frozen=True)
class Sources:
    """What a store is made from: locations, and the options by which they are turned into pixels."""

    name: str
    root: Path
    locations: list[list[str]]
    options: dict[str, Any]

    @classmethod
    def of(cls, manifest: Manifest, options: dict[str, Any], *, masks: bool = False) -> Self:
        """The images of ``manifest``, with ``masks`` their masks too."""
        locations = [manifest.locations(row) for row in range(len(manifest))]
        if masks:
            column = manifest.table["mask"].fillna("").tolist()
            locations = [[*images, mask] for images, mask in zip(locations, column, strict=True)]
        return cls(manifest.name, manifest.root, locations, options)

    @property
    def inputs(self) -> str:
        """Names what is asked for: the same images with the same options, whatever the files hold by now."""
        return digest([str(self.root.absolute()), self.locations, self.options])

    def fingerprint(self) -> str:
        """Names what comes out: locations, options, and the state of every file (for the phantom, of its code)."""
        states: dict[str, Any] = {}
        code: list[str] = []
        for location in (location for several in self.locations for location in several if location):
            if is_phantom(location):
                code = code or _phantom_code()
                continue
            path = Location.parse(location).path
            if path not in states:
                states[path] = _state(self.root / path)
        return digest([self.locations, self.options, states, code])


def _state(path: Path) -> list[Any] | None:
    """Size and times of a file; of all its files, where ``path`` is a folder (a DICOM series)."""
    try:
        found = os.stat(path)
        if path.is_dir():
            return [[file.name, _state(file)] for file in sorted(path.iterdir()) if not file.is_dir()]
    except OSError:
        return None  # the reader will say what is wrong with it
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _phantom_code() -> list[str]:
    rooms = (resources.files("mrtransfer.data") / "phantom", resources.files("mrtransfer") / "physics")
    return [file_digest(path) for room in rooms for path in sorted(Path(str(room)).glob("**/*.py"))]


def open_or_build(
    sources: Sources,
    directory: str | Path,
    opened: Callable[[Path, dict[str, Any]], S | None],
    build: Callable[[Path], dict[str, Any]],
) -> S:
    """The store of ``sources`` in ``directory``, built first where it is absent, out of date or damaged.

    ``build(folder)`` writes the pixels into an empty folder and returns what its description must say beside what all
    stores say. ``opened(folder, description)`` opens a store; it returns None, or raises OSError, ValueError or
    KeyError, where the pixels are not what the description says. Processes that build the same store at once each build
    one; the first that is whole is used by all.
    """
    inputs, fingerprint = sources.inputs, sources.fingerprint()
    folder = Path(directory) / f"{file_name(sources.name)}-{fingerprint}"
    was_there = folder.exists()  # asked first: what appears from now on is another process's, and whole
    store = _opened(folder, fingerprint, opened)
    if store is not None:
        return store
    if was_there:
        shutil.rmtree(folder, ignore_errors=True)  # damaged: its build was whole, so something happened to it since
    with _another_may_be_first(), atomic_path(folder) as temporary:
        temporary.mkdir()
        described = build(temporary)
        if sources.fingerprint() != fingerprint:
            raise UserError(f"{sources.name}: its files changed while they were being read; run the same command again")
        named = {"inputs": inputs, "fingerprint": fingerprint}
        write_json(temporary / META, {**described, **sources.options, **named})
    _remove_outdated(folder, inputs)
    store = _opened(folder, fingerprint, opened)
    if store is None:
        raise UserError(f"{folder}: was changed by another program while it was written; run the same command again")
    return store


def file_name(name: str) -> str:
    """``name`` as it may be part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


def _opened(folder: Path, fingerprint: str, opened: Callable[[Path, dict[str, Any]], S | None]) -> S | None:
    """The store in ``folder``; None where it is absent or damaged."""
    try:
        meta = read_json(folder / META)
        return opened(folder, meta) if meta["fingerprint"] == fingerprint else None
    except (OSError, EOFError, ValueError, KeyError, UserError):  # EOFError: NumPy of an empty file
        return None


@contextmanager
def _another_may_be_first() -> Iterator[None]:
    """A rename onto a folder that appeared a moment ago fails; that folder is as good as ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _remove_outdated(folder: Path, inputs: str) -> None:
    """Remove stores of the same images and options whose files have changed since; open memory maps stay valid."""
    for other in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        try:
            outdated = other != folder and read_json(other / META).get("inputs") == inputs
        except (OSError, UserError):
            continue
        if outdated:
            shutil.rmtree(other, ignore_errors=True)


@contextmanager
def about(sample: str) -> Iterator[None]:
    """Let a :class:`UserError` name the sample."""
    try:
        yield
    except UserError as problem:
        raise UserError(f"sample {sample}: {problem}") from problem


def unusable(
    name: str, total: int, problems: Sequence[tuple[str, UserError]], kind: str = "images", listed: int = 0
) -> UserError:
    """One error for all ``problems`` (sample, what is wrong): the first in full, ``listed`` more samples by name."""
    told = "; ".join(str(problem) for _, problem in problems[:_NAMED])
    others = [sample for sample, _ in problems[_NAMED:]]
    more = f"; and {len(others)} more" if others else ""
    if others and listed:
        more += f": {', '.join(others[:listed])}{', …' if len(others) > listed else ''}"
    return UserError(f"{name}: {len(problems)} of {total} {kind} cannot be used: {told}{more}")
