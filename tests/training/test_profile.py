"""A profile says where the time went, in files that trace viewers read, and changes nothing."""

import json
import mmap
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mrtransfer.augment.image import Augment
from mrtransfer.common.errors import UserError
from mrtransfer.models.network import build_network
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.fit import train
from mrtransfer.training.peak import Peak
from mrtransfer.training.profile import profile_table, profiled, read_profile
from mrtransfer.transfer.method import parse_method


class SlowImages:
    """A store on a disk that takes its time."""

    shape = (40, 1, 32, 32)

    def __init__(self, seconds):
        self.seconds = seconds
        self.pixels = np.random.default_rng(0).integers(0, 255, self.shape, dtype=np.uint8)

    def __getitem__(self, rows):
        time.sleep(self.seconds)
        return self.pixels[rows]


def run(folder, *, epochs=2, batch=4, delay=0.0):
    backbone = build_network("cbr_tiny", seed=0)
    head = build_head("linear", backbone.features, 2, seed=0)
    method = parse_method({"name": "scratch", "epochs": epochs, "batch": batch})
    store, labels = SimpleNamespace(images=SlowImages(delay)), np.arange(40) % 2
    result = train(
        backbone, head, method, store, labels, np.arange(32), np.arange(32, 40),
        input={"normalise": "half", "channels": 3}, augment=Augment(hflip=0.5, rotate=10), profile=folder,
    )  # fmt: skip
    return [tensor.clone() for tensor in backbone.state_dict().values()], result


def rows_of(folder):
    return {row["phase"]: row for row in read_profile(folder)}


def names_in(path):
    """What a trace viewer would show."""
    events = json.loads(path.read_text())["traceEvents"]
    assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")
    return {event.get("name") for event in events}


def test_the_table_and_the_traces_of_a_training(tmp_path):
    run(tmp_path)
    rows = rows_of(tmp_path)
    assert rows["train"]["steps"] == 2 * 8 - 5  # all but those in the trace and before it
    parts = ("wait", "augment", "forward", "backward", "optimizer", "other")
    assert sum(rows["train"][part] for part in parts) == pytest.approx(rows["train"]["seconds"], rel=0.02)
    assert all(rows["train"][part] >= 0 for part in parts)
    assert rows["train"]["memory_mib"] > 50
    assert rows["validate"]["seconds"] > 0
    assert {"wait", "augment", "forward", "backward", "optimizer", "aten::convolution"} <= names_in(
        tmp_path / "train.trace.json"
    )
    assert "validation" in names_in(tmp_path / "validate.trace.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "profile.json",
        "train.trace.json",
        "validate.trace.json",
    ]


def test_a_profile_changes_nothing(tmp_path):
    (plain, expected), (weights, result) = run(None), run(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain, weights, strict=True))
    assert result.curves == expected.curves


def test_waiting_for_a_slow_disk_is_told_apart_from_work(tmp_path):
    run(tmp_path / "fast")
    run(tmp_path / "slow", delay=0.1)
    fast, slow = rows_of(tmp_path / "fast")["train"], rows_of(tmp_path / "slow")["train"]
    assert slow["read"] > 0.09
    assert slow["wait"] > 0.02
    assert slow["wait_share"] > 2 * fast["wait_share"]
    assert slow["wait"] < slow["read"] + 0.02  # part of it was read while the step before was computed


@pytest.mark.parametrize("batch", [32, 16])
def test_trainings_of_few_steps_are_profiled_as_well(tmp_path, batch):
    run(tmp_path, epochs=1, batch=batch)
    assert "forward" in names_in(tmp_path / "train.trace.json")
    assert rows_of(tmp_path)["train"]["steps"] >= 1


def test_any_block_can_be_a_phase_and_replaces_its_former_row(tmp_path):
    for _ in range(2):
        with profiled(tmp_path, "predict"):
            torch.ones(8, 8) @ torch.ones(8, 8)
    with profiled(None, "nothing"):
        pass
    assert list(rows_of(tmp_path)) == ["predict"]
    assert "aten::matmul" in names_in(tmp_path / "predict.trace.json")


def test_the_table_reads_well(tmp_path):
    run(tmp_path)
    with profiled(tmp_path, "predict"):
        pass
    lines = profile_table(read_profile(tmp_path)).splitlines()
    assert lines[0].split()[:3] == ["phase", "steps", "s/step"]
    assert [line.split()[0] for line in lines[1:]] == ["train", "validate", "predict"]
    assert len({len(line) for line in lines}) == 1
    assert "GPU" not in lines[0]


def test_without_a_profile_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="there is no profile"):
        read_profile(tmp_path)


def test_peak_memory_is_that_of_the_block():
    peak = Peak("cpu")
    peak.begin()
    peak.end()
    before = peak.most
    peak.begin()
    with mmap.mmap(-1, 256 * 2**20) as block:  # pages of its own, which no earlier test has left behind
        np.frombuffer(block, dtype=np.uint8)[::4096] = 1
    peak.end()
    assert 200 < peak.most - before < 400
