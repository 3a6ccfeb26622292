"""Writing images to a .npy file one after another, in bounded memory."""

from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from mrtransfer.common.errors import UserError


class ImageWriter:
    """Writes uint8 (rows, C, size, size), row by row; use it in a ``with`` block.

    It does not write through a memory map, in which a full disk kills the process. C is 1 until the first image with
    more channels: then the rows so far are written again, their one channel repeated.
    """

    def __init__(self, path: Path, rows: int, size: int) -> None:
        self.path, self.rows, self.size = path, rows, size
        self.channels = 0
        self.written = 0
        self._file: IO[bytes] | None = None

    def write(self, image: np.ndarray) -> None:
        """Append ``image`` (C, size, size); raises :class:`UserError` where C fits neither 1 nor the images before."""
        channels = len(image)
        if self._file is None:
            self._file = self._start(channels)
        elif self.channels == 1 < channels:
            self._file = self._widened(self._file, channels)
        elif channels not in (1, self.channels):
            raise UserError(f"has {channels} channels, and images before it have {self.channels}; all must agree")
        whole = np.broadcast_to(image, (self.channels, self.size, self.size))
        self._file.write(np.ascontiguousarray(whole).data)
        self.written += 1

    def _start(self, channels: int) -> IO[bytes]:
        self.channels = channels
        file = open(self.path, "wb")  # noqa: SIM115 - closed when the block ends
        shape = (self.rows, channels, self.size, self.size)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return file

    def _widened(self, file: IO[bytes], channels: int) -> IO[bytes]:
        file.close()
        grey = self.path.with_suffix(".grey")
        self.path.rename(grey)
        file = self._start(channels)
        with open(grey, "rb") as old:
            np.lib.format.read_magic(old)
            np.lib.format.read_array_header_1_0(old)
            for _ in range(self.written):
                file.write(old.read(self.size * self.size) * channels)
        grey.unlink()
        return file

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
