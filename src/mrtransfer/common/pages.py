"""The look that all reports share."""

from pathlib import Path

STYLE = Path(__file__).parent / "style.css"
