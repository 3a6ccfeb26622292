"""Fixtures that every test may use."""

from pathlib import Path

import pytest

from mrtransfer.common.progress import be_quiet

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True, scope="session")
def _no_progress_bars():
    be_quiet()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans beside a developer's checkout; the test skips where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs real scans in ../shared/data, absent here")
    return folder


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """The folder of pretrained weights beside a developer's checkout; the test skips where it is absent."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("needs pretrained weights in ../shared/weights, absent here")
    return folder
