"""A study that is traced, and a study that two processes share."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from mrtransfer.training.profile import read_profile

TINY = {
    "question": "Two processes?",
    "task": "segmentation",
    "target": {
        "dataset": "phantom", "task": "segmentation", "contrast": "flair", "subjects": 8, "spacing": 9.0,
        "split": {"test": 0.4, "validation": 0.25},
    },
    "plan": {"batch": 2},
    "arms": {"plain": {"network": "residual_unet", "method": {"name": "scratch", "epochs": 2}}},
    "resamples": 100,
    "precision": "float32",
}  # fmt: skip


def run(folder, *launcher, options=()):
    recipe = folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "mrtransfer", "study", str(recipe), "-o", str(folder / "out"), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = next((folder / "out" / "runs").glob("*/record.json"))
    return done.stdout, json.loads(record.read_text())["curves"]


@pytest.mark.slow
def test_two_processes_started_by_torchrun_give_the_curves_of_one(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    said, alone = run(tmp_path / "one", options=("--trace",))
    assert "plain" in said
    assert "s/step" in said
    assert (tmp_path / "one" / "out" / "traces" / "plain" / "train.trace.json").is_file()
    assert {row["phase"] for row in read_profile(tmp_path / "one" / "out" / "traces" / "plain")} == {
        "train", "validate", "predict",
    }  # fmt: skip
    said, shared = run(tmp_path / "two", "-m", "torch.distributed.run", "--nproc-per-node=2")
    assert said.count("report ") == 1  # one process speaks
    for one, two in zip(alone, shared, strict=True):
        for name, value in one.items():
            # an untrained network's probabilities are close to each other, so that rounding turns some voxels over
            within = 0.02 if name.endswith("dice") else 1e-4
            assert two[name] == (None if value is None else pytest.approx(value, rel=1e-3, abs=within)), name
