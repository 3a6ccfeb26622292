"""The ISMRMRD header: what an acquisition was meant to be, as XML.

Inati et al., ISMRM raw data format: a proposed standard for MRI raw datasets, Magn Reson Med 77 (2017).
"""

import re
from dataclasses import dataclass
from typing import Self
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from mrtransfer.common.errors import UserError

Triple = tuple[int, int, int]
Lengths = tuple[float, float, float]
_NAMESPACE = "http://www.ismrm.org/ISMRMRD"
_NOBODY = re.compile(r"x+|0+|-+|anon\w*|unknown|none|n/?a", re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """The part of an ISMRMRD header that matters here; x is along the readout, y the phase encoding, z the slices."""

    encoded: Triple
    """Matrix of k-space; y includes columns that were not acquired."""
    recon: Triple
    """Matrix of the image."""
    encoded_fov: Lengths | None = None
    """mm."""
    recon_fov: Lengths | None = None
    lines: tuple[int, int] | None = None
    """The number of the last phase-encoding line, counted from 0, and of the one through the centre of k-space."""
    acceleration: float = 1.0
    coils: int | None = None
    system: str = ""
    subject: str = ""
    """The patient's id; empty where a placeholder stands for it."""
    protocol: str = ""
    trajectory: str = "cartesian"
    calibration: str = ""
    """Where the calibration lines of an accelerated scan are: embedded, separate, …"""
    encodings: int = 1

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """Read the header ``text`` of the file that errors call ``where``."""
        try:
            root = ElementTree.fromstring(text)
        except (ElementTree.ParseError, ValueError) as error:
            raise UserError(f"{where}: its ISMRMRD header is not valid XML ({error}); export it again") from error
        found = _Found(root, where)
        limits = "encoding/encodingLimits/kspace_encoding_step_1"
        parallel = "encoding/parallelImaging"
        subject = found.text("subjectInformation/patientID")
        return cls(
            encoded=found.matrix("encoding/encodedSpace/matrixSize"),
            recon=found.matrix("encoding/reconSpace/matrixSize"),
            encoded_fov=found.lengths("encoding/encodedSpace/fieldOfView_mm"),
            recon_fov=found.lengths("encoding/reconSpace/fieldOfView_mm"),
            lines=found.pair(f"{limits}/maximum", f"{limits}/center"),
            acceleration=found.number(f"{parallel}/accelerationFactor/kspace_encoding_step_1") or 1.0,
            coils=round(found.number("acquisitionSystemInformation/receiverChannels") or 0) or None,
            system=found.text("acquisitionSystemInformation/systemModel"),
            subject="" if _NOBODY.fullmatch(subject) else subject,
            protocol=found.text("measurementInformation/protocolName"),
            trajectory=found.text("encoding/trajectory").lower() or "cartesian",
            calibration=found.text(f"{parallel}/calibrationMode").lower(),
            encodings=max(1, len(found.all("encoding"))),
        )

    def padding(self, width: int) -> tuple[int, int] | None:
        """The first acquired of ``width`` columns and one past the last, as fastMRI defines them; None for all.

        The line through the centre of k-space is column ``y // 2``. A header of another width says nothing.
        """
        if self.lines is None or self.encoded[1] != width:
            return None
        last, centre = self.lines
        start = width // 2 - centre
        first, end = max(start, 0), min(start + last + 1, width)
        return None if first >= end or (first, end) == (0, width) else (first, end)

    def spacing(self, matrix: tuple[int, int]) -> Lengths | None:
        """mm between rows, between columns and from slice to slice of the image whose k-space is ``matrix`` (H, W).

        The image on k-space's own grid: a scanner's interpolated one (``recon``) may have smaller pixels.
        """
        for fov, size in ((self.encoded_fov, self.encoded), (self.recon_fov, self.recon)):
            if fov is not None and (size is self.recon or size[:2] == matrix):
                thick = self.recon_fov or fov
                return fov[0] / size[0], fov[1] / size[1], thick[2] / self.recon[2]
        return None

    def to_xml(self) -> str:
        """The header as XML that is valid by the ISMRMRD schema; an unknown field of view is written as 0."""
        last, centre = self.lines or (self.encoded[1] - 1, self.encoded[1] // 2)
        named = f"<subjectInformation><patientID>{escape(self.subject)}</patientID></subjectInformation>"
        return (
            f'<?xml version="1.0" encoding="utf-8"?>\n<ismrmrdHeader xmlns="{_NAMESPACE}">'
            f"{named if self.subject else ''}"
            "<acquisitionSystemInformation>"
            f"<systemModel>{escape(self.system)}</systemModel><receiverChannels>{self.coils or 1}</receiverChannels>"
            "</acquisitionSystemInformation>"
            "<experimentalConditions><H1resonanceFrequency_Hz>0</H1resonanceFrequency_Hz></experimentalConditions>"
            "<encoding>"
            f"<encodedSpace>{_space(self.encoded, self.encoded_fov)}</encodedSpace>"
            f"<reconSpace>{_space(self.recon, self.recon_fov)}</reconSpace>"
            "<encodingLimits><kspace_encoding_step_1>"
            f"<minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>"
            "</kspace_encoding_step_1></encodingLimits>"
            f"<trajectory>{self.trajectory}</trajectory>"
            "<parallelImaging><accelerationFactor>"
            f"<kspace_encoding_step_1>{round(self.acceleration)}</kspace_encoding_step_1>"
            "<kspace_encoding_step_2>1</kspace_encoding_step_2>"
            "</accelerationFactor></parallelImaging>"
            "</encoding></ismrmrdHeader>\n"
        )


def _space(matrix: Triple, fov: Lengths | None) -> str:
    sizes = "".join(f"<{axis}>{size}</{axis}>" for axis, size in zip("xyz", matrix, strict=True))
    lengths = "".join(f"<{axis}>{mm:g}</{axis}>" for axis, mm in zip("xyz", fov or (0.0, 0.0, 0.0), strict=True))
    return f"<matrixSize>{sizes}</matrixSize><fieldOfView_mm>{lengths}</fieldOfView_mm>"


class _Found:
    """Elements of a header by path, whatever its namespace."""

    def __init__(self, root: ElementTree.Element, where: str) -> None:
        self.root, self.where = root, where

    def all(self, path: str) -> list[ElementTree.Element]:
        return self.root.findall("/".join(f"{{*}}{part}" for part in path.split("/")))

    def text(self, path: str) -> str:
        found = self.all(path)
        return (found[0].text or "").strip() if found else ""

    def number(self, path: str) -> float | None:
        text = self.text(path)
        try:
            return float(text) if text else None
        except ValueError as error:
            raise UserError(f"{self.where}: {path} in its ISMRMRD header is {text!r}; it must be a number") from error

    def pair(self, first: str, second: str) -> tuple[int, int] | None:
        one, two = self.number(first), self.number(second)
        return None if one is None or two is None else (round(one), round(two))

    def matrix(self, path: str) -> Triple:
        sizes = [self.number(f"{path}/{axis}") for axis in "xyz"]
        x, y, z = (round(size) if size is not None else 0 for size in sizes)
        if min(x, y) < 1:
            raise UserError(f"{self.where}: its ISMRMRD header does not say {path} (x, y and z, 1 or more)")
        return x, y, max(z, 1)

    def lengths(self, path: str) -> Lengths | None:
        x, y, z = (self.number(f"{path}/{axis}") or 0.0 for axis in "xyz")
        return (x, y, z) if min(x, y, z) > 0 else None
