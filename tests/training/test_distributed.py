"""Several processes train as one would, and nobody waits for a process that is gone.

Helpers are started once for the whole file; trainings with plain gradient descent are compared, because Adam turns the
rounding noise of a gradient that is zero in theory into full steps.
"""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from mrtransfer.augment.image import Augment
from mrtransfer.augment.volume import VolumeAugment
from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.fingerprint import fingerprint
from mrtransfer.data.cases.plan import make_plan
from mrtransfer.data.cases.store import open_cases
from mrtransfer.data.datasets import DATASETS
from mrtransfer.models.network import build_network
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training import distributed
from mrtransfer.training.fit import train
from mrtransfer.training.fit_segmentation import train_segmenter
from mrtransfer.training.handing import handed, packed
from mrtransfer.training.part import Part
from mrtransfer.training.team import PRESENT
from mrtransfer.transfer.method import parse_method

pytestmark = pytest.mark.slow
INPUT = {"normalise": "half", "channels": 3}
SGD = {"name": "scratch", "epochs": 3, "optimizer": "sgd", "rate": 1e-2}


@pytest.fixture(scope="module", autouse=True)
def _helpers():
    """Helpers find this file, and are let go when it is done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield
    for team in list(PRESENT):
        team.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes that differ in brightness, mapped from a file."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    pixels = (rng.integers(0, 60, (40, 1, 32, 32)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, pixels)
    return SimpleNamespace(images=np.load(path, mmap_mode="r")), labels


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    manifest = DATASETS.get("phantom")(
        subjects=5, task="segmentation", contrast=["flair", "t1ce"], first_subject=3, spacing=8
    )
    plan = make_plan(fingerprint(manifest, np.arange(3)), overrides={"features": [4, 8]})
    return SimpleNamespace(
        cases=open_cases(manifest, plan, tmp_path_factory.mktemp("cases")), plan=plan, labels=manifest.mask_labels
    )


def classify(images, settings, devices, **options):
    store, labels = images
    backbone = build_network("cbr_tiny", seed=0)
    head = build_head("linear", backbone.features, 3, seed=0)
    method = parse_method({**SGD, "batch": 7, **settings})
    result = train(
        backbone, head, method, store, labels, np.arange(30), np.arange(30, 40), input=INPUT, devices=devices,
        device="cpu", **options,
    )  # fmt: skip
    return (backbone, head), result


def segment(data, settings, devices, name="unet3d", **options):
    network = build_segmentation_network(
        name, in_channels=2, dims=3, features=data.plan.features, strides=data.plan.strides, seed=0
    )
    head = pixel_head(network.features, 4, seed=0)
    method = parse_method({**SGD, "batch": 4, "steps": 2, **settings})
    result = train_segmenter(
        network, head, method, data.cases, np.arange(3), np.arange(3, 5), plan=data.plan, labels=data.labels,
        devices=devices, device="cpu", **options,
    )  # fmt: skip
    return (network, head), result


def state_of(*modules):
    return [tensor.clone() for module in modules for tensor in module.state_dict().values()]


def agree(one, two, tolerance=2e-5):
    """Weights and curves are the same but for rounding."""
    (modules, result), (others, other) = one, two
    for a, b in zip(state_of(*modules), state_of(*others), strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=0, atol=tolerance * max(1, float(a.abs().max())))
    assert len(result.curves) == len(other.curves)
    for row, its in zip(result.curves, other.curves, strict=True):
        assert row == pytest.approx(its, abs=tolerance * 10)
    assert result.best_epoch == other.best_epoch


def test_two_processes_classify_as_one_does_with_uneven_shares_augmentation_and_trained_batch_norm(images):
    options = {"augment": Augment(hflip=0.5, rotate=10, noise=0.02), "seed": 3}
    settings = {"batch_norm": "train", "class_weights": "balanced"}  # the last batch of 30 rows has 2 images
    agree(classify(images, settings, 1, **options), classify(images, settings, 2, **options))


def test_two_processes_segment_as_one_does_and_thaw_frozen_stages_at_the_right_epoch(volumes):
    augment = VolumeAugment(flip=0.5, rotate=10, noise=0.1, blur=0.5)
    stage = segment(volumes, {"epochs": 1, "steps": 1}, 1)[0][0].stage_names[1]
    settings = {"freeze": stage, "freeze_epochs": 2, "batch_norm": "train"}
    one, two = (segment(volumes, settings, devices, augment=augment) for devices in (1, 2))
    agree(one, two)
    assert one[1].images_per_second > 0


def test_a_stage_that_stays_frozen_does_not_change_by_a_byte_and_nobody_waits_for_its_gradients(volumes):
    start = build_segmentation_network(
        "unet3d", in_channels=2, dims=3, features=volumes.plan.features, strides=volumes.plan.strides, seed=0
    )
    (network, _), _ = segment(volumes, {"freeze": start.stage_names[0], "batch_norm": "recalibrate"}, 2)
    for name, parameter in network.named_parameters():
        held = network.stage(start.stage_names[0]).holds(name.removeprefix("body."))
        assert torch.equal(parameter, start.get_parameter(name)) == held, name


def test_one_process_goes_on_where_two_were_interrupted_and_the_other_way_round(volumes, tmp_path):
    class KilledError(Exception):
        pass

    def kill(_):
        left.pop()
        if not left:
            raise KilledError

    whole = segment(volumes, {}, 1)
    for devices in (2, 1):
        left = [0] * 4  # in the middle of the second epoch
        folder = tmp_path / str(devices)
        with pytest.raises(KilledError):
            segment(volumes, {}, devices, folder=folder, checkpoint_seconds=0, advance=kill)
        resumed = segment(volumes, {}, 3 - devices, folder=folder, checkpoint_seconds=0)
        assert resumed[1].resumed_at == 1
        agree(whole, resumed)


def test_a_helper_that_is_killed_while_idle_is_replaced_and_at_work_ends_the_training_with_one_sentence(images):
    expected = classify(images, {}, 2)
    idle = PRESENT[0].helpers[0]
    idle.kill()
    idle.wait()
    assert classify(images, {}, 2)[1].curves == expected[1].curves

    def kill_the_helper(_):
        os.kill(PRESENT[0].helpers[0].pid, signal.SIGKILL)

    with pytest.raises(UserError, match=r"process 1 of 2 .* ended unexpectedly"):
        classify(images, {"epochs": 50}, 2, advance=kill_the_helper)
    assert not PRESENT


def test_a_problem_of_all_processes_is_told_once(images):
    with pytest.raises(UserError, match="diverged in epoch 1"):
        classify(images, {"rate": 1e30, "momentum": 0.0, "batch_norm": "freeze"}, 2)


def test_what_only_a_helper_lacks_is_told_by_the_leader_and_the_helper_stays(images):
    class Unreadable:
        def __reduce__(self):
            return open, ("no such file",)

    for _ in range(2):
        with (
            pytest.raises(UserError, match=r"process 1 of 2 cannot take part .*No such file"),
            distributed.team_of(2, "cpu") as team,
        ):
            team.lead(Unreadable())
    helper = team.helpers[0].pid
    classify(images, {"epochs": 1}, 2)
    assert alive(helper)


def test_a_helper_that_cannot_start_is_not_waited_for(monkeypatch):
    for team in list(PRESENT):
        team.close()
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(UserError, match="could not start"), distributed.team_of(2, "cpu"):
        pass


def test_helpers_end_with_the_leader_even_when_it_is_killed(tmp_path):
    script = """
import sys
from mrtransfer.training import distributed
with distributed.team_of(2, "cpu") as team:
    print(*[helper.pid for helper in team.helpers], flush=True)
    sys.stdin.read()
"""
    leader = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    helpers = [int(pid) for pid in leader.stdout.readline().split()]
    assert len(helpers) == 1
    assert all(alive(pid) for pid in helpers)
    leader.kill()
    leader.communicate()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in helpers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in helpers)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


PROGRAM = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from mrtransfer.models.network import build_network
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.distributed import is_main, rank, serve, world_size
from mrtransfer.training.fit import train
from mrtransfer.transfer.method import parse_method

def main(folder, served):
    if served and serve():
        (folder / f"served {rank()}").touch()
        return
    labels = np.arange(16) % 2
    store = SimpleNamespace(images=np.load(folder / "images.npy", mmap_mode="r"))
    backbone = build_network("cbr_tiny", seed=0)
    head = build_head("linear", backbone.features, 2, seed=0)
    method = parse_method({"name": "scratch", "epochs": 2, "batch": 4, "optimizer": "sgd"})
    for number in range(2):
        result = train(backbone, head, method, store, labels, np.arange(12), np.arange(12, 16),
                       input={"normalise": "half", "channels": 3}, folder=folder / str(number), checkpoint_seconds=0)
    weights = sum(float(p.detach().double().abs().sum()) for p in backbone.parameters())
    found = {"curves": result.curves, "weights": weights, "world": world_size(), "main": is_main()}
    (folder / f"result {rank()}.json").write_text(json.dumps(found))

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "served")
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.py").write_text(PROGRAM)
    labels = np.arange(16) % 2
    pixels = np.random.default_rng(0).integers(0, 60, (16, 1, 32, 32)) + 60 * labels[:, None, None, None]
    np.save(folder / "images.npy", pixels.astype(np.uint8))
    return folder


def started(program, folder, mode, launcher):
    """The results of a program that was started twice, by process."""
    (folder / "images.npy").write_bytes((program / "images.npy").read_bytes())
    arguments = [str(program / "program.py"), str(folder), mode]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command, each = [sys.executable, *arguments], [{}]
    if launcher == "torchrun":
        command[1:1] = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    else:
        step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "study"}
        step |= {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_JOB_ID": str(os.getpid())}
        each = [step | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(2)]
    processes = [subprocess.Popen(command, env=environment | own, stderr=subprocess.PIPE, text=True) for own in each]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return {int(path.stem.split()[1]): json.loads(path.read_text()) for path in folder.glob("result *.json")}


@pytest.fixture(scope="module")
def alone(program):
    runpy.run_path(str(program / "program.py"))["main"](program, served=False)
    return json.loads((program / "result 0.json").read_text())


def test_processes_that_torchrun_started_serve_the_first(program, alone, tmp_path):
    found = started(program, tmp_path, "served", "torchrun")
    assert list(found) == [0]
    assert (tmp_path / "served 1").exists()
    assert found[0]["world"] == 2
    for row, expected in zip(found[0]["curves"], alone["curves"], strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


def test_a_program_that_srun_started_in_all_processes_trains_together_and_ends_alike_everywhere(
    program, alone, tmp_path
):
    found = started(program, tmp_path, "all", "srun")
    assert [found[number]["main"] for number in (0, 1)] == [True, False]
    assert found[0]["curves"] == found[1]["curves"]
    assert found[0]["weights"] == found[1]["weights"]
    for row, expected in zip(found[0]["curves"], alone["curves"], strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


def test_impossible_numbers_of_devices_are_refused(images):
    with pytest.raises(UserError, match="devices: is 0; it must be 1 or more"):
        classify(images, {}, 0)
    with pytest.raises(UserError, match="has 2 images, fewer than the 3 processes that share it"):
        Part(0, 3).check_batch(2)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="this machine has 0 GPU"):
            distributed.team_of(2, "cuda").__enter__()


def test_shares_are_neighbours_that_make_up_the_whole():
    for count in range(12):
        for world in range(1, 6):
            shares = [range(count)[Part(rank, world).share(count)] for rank in range(world)]
            assert [i for share in shares for i in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            dealt = [Part(rank, world).deal(list(range(count))) for rank in range(world)]
            assert len({len(rows) for rows in dealt}) == 1
            assert sorted(row for rows in dealt for row in rows if row >= 0) == list(range(count))


def test_memory_maps_are_handed_on_by_name(tmp_path):
    np.save(tmp_path / "big.npy", np.arange(1000, dtype=np.float32).reshape(10, 100))
    mapped = np.load(tmp_path / "big.npy", mmap_mode="r")
    for array in (mapped, np.asarray(mapped), mapped[3:5], mapped.reshape(100, 10)[7]):
        message = packed({"array": array})
        assert len(message) < 500
        value, problem = handed(message)
        assert problem is None
        assert np.array_equal(value["array"], array)
    for array in (mapped[:, ::2], np.arange(5)):
        assert np.array_equal(handed(packed(array))[0], array)
    message = packed(mapped)
    (tmp_path / "big.npy").unlink()
    assert "FileNotFoundError" in handed(message)[1]


def test_batch_norm_over_two_processes_is_that_of_the_whole_batch_in_value_gradient_and_statistics():
    x = torch.randn(6, 3, 5, 4, generator=torch.manual_seed(0)) * 3 + 100
    target = torch.randn(6, 3, 5, 4, generator=torch.manual_seed(1))
    for affine, momentum in ((True, 0.1), (False, None)):
        layer = torch.nn.BatchNorm2d(3, affine=affine, momentum=momentum)
        whole = x.clone().requires_grad_()
        expected = layer(whole)
        (F.mse_loss(expected, target, reduction="none").sum() / 6).backward()
        work = Normalised(x, target, affine, momentum)
        with distributed.team_of(2, "cpu") as team:
            team.lead(work)
            value, grads, state = work(team)
        assert torch.allclose(value, expected[:2], atol=1e-5)
        assert torch.allclose(grads["x"], whole.grad[:2], atol=1e-6)
        for name, parameter in layer.named_parameters():
            assert torch.allclose(grads[name], parameter.grad, atol=1e-4), name
        for name, buffer in layer.named_buffers():
            assert torch.allclose(state[name].double(), buffer.double(), rtol=1e-5), name


class Normalised:
    """The first process has 2 samples of 6, the other 4."""

    def __init__(self, x, target, affine, momentum):
        self.x, self.target, self.affine, self.momentum = x, target, affine, momentum

    def __call__(self, team):
        import torch.distributed as dist

        from mrtransfer.training.pooled_norm import pooled_batch_norm

        layer = torch.nn.BatchNorm2d(3, affine=self.affine, momentum=self.momentum)
        rows = slice(0, 2) if team.part.rank == 0 else slice(2, 6)
        x = self.x[rows].clone().requires_grad_()
        with pooled_batch_norm(layer, team.part):
            value = layer(x)
            (F.mse_loss(value, self.target[rows], reduction="none").sum() / 6).backward()
        state = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        grads = {"x": x.grad}
        for name, parameter in layer.named_parameters():
            grads[name] = parameter.grad.clone()
            dist.all_reduce(grads[name])
        assert layer(self.x).shape == self.x.shape  # an ordinary layer again
        return value.detach(), grads, state
