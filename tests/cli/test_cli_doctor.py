"""``mrtransfer doctor`` says what is there and what is missing."""

import json

from typer.testing import CliRunner

from mrtransfer.cli import doctor
from mrtransfer.cli.main import app


def test_the_machine_and_every_dependency_are_reported():
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["disk_free_gib"] > 0
    assert {"torch", "timm", "pydicom", "typer"} <= set(found["packages"])
    assert "torch" not in found


def test_a_missing_package_is_a_problem_with_its_cure_and_exit_code_1(monkeypatch):
    monkeypatch.setattr(doctor, "packages", lambda: {"timm": None, "torch": "2.9.0"})
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "python -m pip install timm" in result.stdout


def test_little_memory_and_little_disk_are_problems():
    found = {"packages": {}, "machine": {"memory_gib": 2.0, "disk_free_gib": 1.0}}
    assert len(doctor.problems(found)) == 2
