"""Volumes: read with their place in the patient, prepared on another grid, and written back on their own."""

from mrtransfer.data.volume.case import Case, read_case
from mrtransfer.data.volume.frame import Frame, background_values, make_frame, nonzero_crop
from mrtransfer.data.volume.read import read_volume
from mrtransfer.data.volume.volume import Volume
from mrtransfer.data.volume.write import write_volume

__all__ = [
    "Case",
    "Frame",
    "Volume",
    "background_values",
    "make_frame",
    "nonzero_crop",
    "read_case",
    "read_volume",
    "write_volume",
]
