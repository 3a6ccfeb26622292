"""What a study's report shows of the shift between source and target."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrtransfer.shift.report import shift_section
from mrtransfer.study.shift import FOLDER


def shift_view(folder: Path, found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The results' ``shift`` ready to print; ``folder`` is the study's, where the maps were left."""
    if not found:
        return None
    return {
        "sentence": found["verdict"]["sentence"],
        "notes": found["notes"],
        "section": shift_section(folder / FOLDER, found),
    }
