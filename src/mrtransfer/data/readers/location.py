"""A location names the pixels of one image: a file, and where needed the part of it that is meant."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from mrtransfer.common.errors import UserError

PHANTOM = "phantom:"
_FRAGMENT = re.compile(r"[A-Za-z_]\w*=[^&#=]*(&[A-Za-z_]\w*=[^&#=]*)*")


class Location(NamedTuple):
    """``scan.nii.gz#axis=2&index=70`` taken apart: the path, and the options behind ``#``."""

    path: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> "Location":
        """Take a location apart. A ``#`` that is not followed by ``key=value`` belongs to the file's name."""
        path, hash_sign, fragment = text.rpartition("#")
        if not hash_sign or not _FRAGMENT.fullmatch(fragment):
            return cls(text, {})
        return cls(path, dict(part.split("=", 1) for part in fragment.split("&")))

    def __str__(self) -> str:
        fragment = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.path}#{fragment}" if fragment else self.path

    def file(self, root: Path) -> Path:
        """The file's path; a relative one is relative to ``root``."""
        return Path(root) / self.path

    def only(self, *known: str) -> dict[str, str]:
        """The options; any that a reader does not know is refused."""
        for key in self.options:
            if key not in known:
                raise UserError(f"{self}: unknown option {key!r} behind '#'; known here: {', '.join(known) or 'none'}")
        return self.options

    def number(self, key: str, default: int) -> int:
        """The option ``key`` as a whole number."""
        try:
            return int(self.options.get(key, default))
        except ValueError as error:
            raise UserError(f"{self}: {key} must be a whole number, for example {key}=3") from error


def is_phantom(location: str) -> bool:
    """Whether the location is rendered by the built-in phantom, so that no file belongs to it."""
    return location.startswith(PHANTOM)


def moved(location: str, root: Path, new_root: Path) -> str:
    """The same pixels as seen from ``new_root``; absolute paths and phantom locations stay as they are."""
    if is_phantom(location):
        return location
    path, options = Location.parse(location)
    if os.path.isabs(path):
        return location
    try:
        path = Path(os.path.relpath(Path(root, path).absolute(), Path(new_root).absolute())).as_posix()
    except ValueError:  # another drive on Windows: no relative path exists
        path = str(Path(root, path).absolute())
    return str(Location(path, options))
