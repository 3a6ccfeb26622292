"""Reconstructions learn, are scored as fastMRI scores, survive being killed, and refuse what they cannot learn from."""

import json

import h5py
import numpy as np
import pytest
import torch
from kspace_volumes import kspace_of, store_of
from states import KilledError, kill_after, same, state_of

from mrtransfer.augment.kspace import MRAugment
from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.kspace import open_kspace
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.physics.masks import Sampling, seed_of
from mrtransfer.tasks.reconstruction.losses import build_loss
from mrtransfer.tasks.reconstruction.metrics import evaluate_volume
from mrtransfer.training.fit_reconstruction import precision_for_reconstruction, slices_per_step, train_reconstructor
from mrtransfer.training.module import Progress
from mrtransfer.training.part import Part
from mrtransfer.training.precision import FLOAT32, Precision
from mrtransfer.training.profile import read_profile
from mrtransfer.training.reconstruct import columns_by_name, reconstruct_volume
from mrtransfer.training.reconstructor import ReconstructionTrainee
from mrtransfer.training.slices import EpochSlices, ReconstructionTask, SliceBatches
from mrtransfer.training.team import PRESENT
from mrtransfer.transfer.method import parse_method

TRAIN, VALIDATION = np.arange(3), np.arange(3, 5)
SAMPLING = Sampling(mask="random", acceleration=(3, 4), centre_fraction=(0.16, 0.1))
AUGMENT = MRAugment(schedule="constant", strength=1.0)
VARNET = {"cascades": 2, "channels": 2, "pools": 1, "sens_channels": 2, "sens_pools": 1}
UNET = {"channels": 4, "pools": 1}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Five volumes of two slices each, the last with columns that were never acquired."""
    padded = kspace_of(9)
    padded[..., :4] = padded[..., 29:] = 0
    return store_of(tmp_path_factory.mktemp("volumes"), [{}, {}, {}, {}, {"kspace": padded, "padding": (4, 29)}])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Volumes of two matrix sizes, two numbers of coils and two crops."""
    given = [{"slices": 3}, {"slices": 3}, {"height": 40}, {"coils": 2, "slices": 1}, {"crop": (20, 24)}]
    return store_of(tmp_path_factory.mktemp("mixed"), given)


def model(name="unet", seed=0, **options):
    options = (UNET if name == "unet" else VARNET) | options
    return build_reconstruction_network(name, options=options, seed=seed)


def run(volumes, settings=None, *, network=None, rows=TRAIN, validation=VALIDATION, **options):
    network = network or model()
    method = parse_method({"name": "scratch", "epochs": 2, "rate": 3e-3, **(settings or {})})
    result = train_reconstructor(network, method, volumes, rows, validation, **({"sampling": SAMPLING} | options))
    return network, result


def task_of(volumes, settings=None, *, rows=TRAIN, augment=None, seed=0):
    method = parse_method({"name": "scratch", "batch": 1, **(settings or {})})
    loss = build_loss().weights
    return ReconstructionTask(method, rows, VALIDATION, seed, FLOAT32, volumes, SAMPLING, loss, augment)


def scores_of(network, volumes, rows):
    """The mean metrics of whole volumes under the masks that their names fix."""
    found = []
    for volume in map(volumes.volume, rows):
        drawn = columns_by_name(SAMPLING, volume)
        images = reconstruct_volume(network, volume, columns_of=lambda _, drawn=drawn: drawn)
        targets = np.stack([volume.read(index).target for index in range(volume.slices)])
        found.append(evaluate_volume(images, targets, volume.max_value))
    return {name: np.mean([one[name] for one in found]) for name in found[0]}


class TestLearning:
    @pytest.mark.parametrize("name", ["unet", pytest.param("varnet", marks=pytest.mark.slow)])
    def test_a_short_training_beats_zero_filled_and_every_epoch_has_its_row(self, volumes, name):
        network = model(name, channels=8, pools=2)
        _, result = run(volumes, {"epochs": 10, "rate": 5e-3, "validate_every": 5}, network=network)
        assert [row["epoch"] for row in result.curves] == list(range(11))
        names = {"epoch", "train_loss", "train_ssim", "validation_loss", "validation_ssim", "validation_psnr"}
        assert all(set(row) == names for row in result.curves)
        assert result.curves[0]["train_ssim"] is None
        assert result.curves[1]["validation_psnr"] is None
        assert result.curves[10]["train_loss"] < result.curves[1]["train_loss"]
        best = result.curves[result.best_epoch]
        plain = scores_of(build_reconstruction_network("zero_filled"), volumes, VALIDATION)
        assert best["validation_loss"] < 1 - plain["ssim"]

    @pytest.mark.slow
    def test_a_network_learns_from_the_phantoms_k_space(self, tmp_path):
        manifest = DATASETS.get("phantom")(
            subjects=5, task="reconstruction", anatomy="knee", coils=4, matrix=64, slices=3, contrast="pd"
        )
        volumes = open_kspace(manifest, tmp_path)
        network = model("varnet", channels=4)
        _, result = run(volumes, {"epochs": 6, "rate": 1e-2}, network=network, augment=MRAugment())
        plain = scores_of(build_reconstruction_network("zero_filled"), volumes, VALIDATION)
        assert result.curves[result.best_epoch]["validation_loss"] < 1 - plain["ssim"]

    @pytest.mark.parametrize("loss", ["l1", {"ssim": 0.8, "l1": 0.2}])
    def test_validation_scores_are_those_of_a_plain_computation(self, volumes, loss):
        network, result = run(volumes, {"select": "last"}, loss=loss)
        row, expected = result.curves[-1], scores_of(network, volumes, VALIDATION)
        assert row["validation_ssim"] == pytest.approx(expected["ssim"], abs=1e-6)
        assert row["validation_psnr"] == pytest.approx(expected["psnr"], abs=1e-4)
        losses = []
        for volume in map(volumes.volume, VALIDATION):
            drawn = SAMPLING.draw(32, seed_of(volume.name))
            images = torch.from_numpy(reconstruct_volume(network, volume, columns_of=lambda _, drawn=drawn: drawn))
            targets = torch.from_numpy(np.stack([volume.read(index).target for index in range(2)]))
            losses.append(float(build_loss(loss)(images, targets, torch.full((2,), volume.max_value))))
        assert row["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert row["train_loss"] != pytest.approx(1 - row["train_ssim"], abs=1e-3)

    def test_gradients_of_all_parameters_are_finite_also_where_slices_and_coils_are_empty(self, tmp_path):
        kspace = kspace_of()
        kspace[0] = 0
        kspace[:, 1] = 0
        volumes = store_of(tmp_path, [{"kspace": kspace}])
        for augment in (None, AUGMENT):
            task = task_of(volumes, {"batch": 2}, rows=np.array([0]), augment=augment)
            network = model("varnet")
            trainee = ReconstructionTrainee(network, torch.nn.Sequential(), task, Progress())
            trainee.measured = lambda _: torch.no_grad()
            loss, _ = trainee.step_loss(EpochSlices(task, trainee.slices, 1, 0)[0])
            loss.backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())

    def test_the_best_epoch_has_the_highest_ssim_and_its_weights_are_kept(self, volumes):
        settings = {"epochs": 6, "rate": 0.05, "schedule": "constant", "validate_every": 2, "steps": 2}
        network, result = run(volumes, settings)
        ssim = {row["epoch"]: row["validation_ssim"] for row in result.curves[1:] if row["validation_ssim"] is not None}
        assert sorted(ssim) == [2, 4, 6]
        assert result.best_epoch == max(ssim, key=ssim.get)
        assert scores_of(network, volumes, VALIDATION)["ssim"] == pytest.approx(ssim[result.best_epoch], abs=1e-6)

    def test_a_fine_tuned_model_is_never_worse_on_validation_than_the_one_it_started_from(self, volumes):
        network, _ = run(volumes, {"rate": 1e-2})
        start = state_of(network)
        harmful = {"name": "fine_tune", "optimizer": "sgd", "backbone_rate": 5.0, "steps": 1, "epochs": 1}
        _, result = run(volumes, harmful, network=network)
        assert result.best_epoch == 0
        assert same(start, state_of(network))

    def test_frozen_cascades_do_not_change_by_a_byte_and_the_others_do(self, volumes):
        network = model("varnet")
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        run(volumes, {"freeze": "cascades.0", "steps": 3, "select": "last", "rate": 0.1}, network=network)
        for name, tensor in network.state_dict().items():
            held = not name.startswith("body.cascades.1.")
            assert torch.equal(tensor, before[name]) == held, name

    def test_other_formats_train_to_much_the_same_and_leave_ordinary_modules(self, volumes):
        settings = {"select": "last", "epochs": 1}
        _, plain = run(volumes, settings)
        for precision in (Precision("float32", True), Precision("bfloat16", True)):
            network, result = run(volumes, settings, precision=precision)
            assert all(tensor.is_contiguous() for tensor in state_of(network))
            assert result.curves[-1]["train_loss"] == pytest.approx(plain.curves[-1]["train_loss"], rel=0.05)


class TestSlices:
    @pytest.mark.parametrize("batch", [1, 2, 4])
    def test_a_pass_shows_every_slice_once_in_batches_of_one_size(self, mixed, batch):
        slices = SliceBatches(mixed, np.arange(5), batch, seed=0)
        every = {(row, index) for row in range(5) for index in range(mixed.volume(row).slices)}
        for visit in range(3):
            batches = slices.of(visit)
            assert len(batches) == len(slices)
            shown = [tuple(item) for items in batches for item in items.tolist()]
            assert len(shown) == len(every)
            assert set(shown) == every
            for items in batches:
                assert 1 <= len(items) <= batch
                kinds = {(v.coils, v.matrix, v.crop) for v in (mixed.volume(row) for row, _ in items)}
                assert len(kinds) == 1
        assert any(not np.array_equal(a, b) for a, b in zip(slices.of(0), slices.of(1), strict=True))

    def test_epochs_of_few_steps_go_on_where_the_last_one_ended(self, volumes):
        task = task_of(volumes)
        slices = SliceBatches(volumes, TRAIN, 1, 0)
        shown = [tuple(items[0]) for epoch in range(3) for _, items in EpochSlices(task, slices, 4, epoch).batches]
        assert len(shown) == 12
        assert {shown.count(item) for item in shown} == {2}

    def test_masks_are_drawn_anew_at_every_visit_and_do_not_depend_on_what_else_is_trained(self, volumes):
        def masks(epoch, rows=TRAIN, batch=1, **options):
            task = task_of(volumes, {"batch": batch}, rows=rows, **options)
            slices = SliceBatches(volumes, rows, batch, task.seed)
            found = {}
            epoch_slices = EpochSlices(task, slices, len(slices), epoch)
            for number in range(len(slices)):
                _, items = epoch_slices.batches[number]
                for item, columns in zip(items.tolist(), epoch_slices[number]["columns"], strict=True):
                    found[tuple(item)] = columns.tobytes()
            return found

        first = masks(0)
        assert len(set(first.values())) == len(first)
        assert masks(0) == first
        assert masks(0, batch=4, augment=AUGMENT) == first
        assert masks(0, rows=TRAIN[1:]).items() <= first.items()
        assert all(masks(1)[item] != mask for item, mask in first.items())
        assert all(masks(0, seed=1)[item] != mask for item, mask in first.items())

    def test_processes_share_a_batch_and_one_may_get_nothing(self, volumes):
        task = task_of(volumes, {"batch": 5})
        slices = SliceBatches(volumes, TRAIN, 5, 0)
        whole, (left, right) = (EpochSlices(task, slices, 2, 0)), (
            EpochSlices(task, slices, 2, 0, Part(rank, 2)) for rank in range(2)
        )  # fmt: skip
        for number in range(2):
            parts = [one[number] for one in (left, right)]
            assert sum(len(part["images"]) for part in parts) == whole[number]["size"] == parts[0]["size"]
            present = [part for part in parts if len(part["images"])]
            assert torch.equal(torch.cat([part["images"] for part in present]), whole[number]["images"])
            assert len(present) == (1 if whole[number]["size"] == 1 else 2)

    def test_the_batch_is_one_slice_unless_it_was_chosen(self, volumes, mixed):
        assert slices_per_step(parse_method("scratch")) == slices_per_step(parse_method("fine_tune")) == 1
        seen = []
        run(volumes, {"epochs": 1}, advance=seen.append)
        assert seen == [1] * 6
        seen.clear()
        run(mixed, {"epochs": 1, "batch": 4}, rows=np.arange(5), advance=seen.append)
        assert sorted(seen) == [1, 2, 2, 2, 4]


class TestWhatTheNetworkSees:
    def seen(self, volumes, monkeypatch, rows=TRAIN, **options):
        """K-space and columns of every training step, in order."""
        found = []
        forward = ReconstructionTrainee.forward

        def noted(trainee, kspace, columns, centre):
            found.append((kspace.clone(), columns.clone()))
            return forward(trainee, kspace, columns, centre)

        with monkeypatch.context() as patch:
            patch.setattr(ReconstructionTrainee, "forward", noted)
            _, result = run(volumes, {"select": "last", "epochs": 1}, rows=rows, **options)
        return found, result

    def test_only_sampled_columns_and_none_that_were_never_acquired(self, volumes, monkeypatch):
        found, _ = self.seen(volumes, monkeypatch, rows=np.array([4]))
        for kspace, columns in found:
            assert torch.equal(kspace.abs().sum(dim=(1, 2)) > 0, columns)
            assert not columns[0, :4].any()
            assert not columns[0, 29:].any()
            assert 5 <= columns.sum() <= 20

    def test_augmentation_comes_before_the_mask_and_spreads_signal_over_all_columns(self, volumes, monkeypatch):
        found, _ = self.seen(volumes, monkeypatch, rows=np.array([4] * 6), augment=AUGMENT)
        for kspace, columns in found:
            assert torch.equal(kspace.abs().sum(dim=(1, 2)) > 0, columns)
        assert any(columns[0, :4].any() or columns[0, 29:].any() for _, columns in found)

    def test_an_augmentation_that_has_not_begun_changes_nothing(self, volumes, monkeypatch):
        plain, expected = self.seen(volumes, monkeypatch)
        waiting, result = self.seen(volumes, monkeypatch, augment=MRAugment(delay=1))
        moved, other = self.seen(volumes, monkeypatch, augment=AUGMENT)
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(plain, waiting, strict=True))
        assert result.curves[1] == pytest.approx(expected.curves[1], rel=1e-4)
        assert not any(torch.equal(a[0], b[0]) for a, b in zip(plain, moved, strict=True))
        assert other.curves[1]["validation_ssim"] != expected.curves[1]["validation_ssim"]

    def test_a_validation_file_that_is_undersampled_keeps_its_own_columns(self, tmp_path):
        kspace = kspace_of(7)
        mask = SAMPLING.draw(32, 5).columns
        targets = store_of(tmp_path / "full", [{"kspace": kspace}]).volume(0)
        images = np.stack([targets.read(index).target for index in range(2)])
        volumes = store_of(tmp_path, [{}, {"kspace": kspace, "mask": mask, "targets": images}])
        network, result = run(volumes, {"epochs": 1}, rows=np.array([0]), validation=np.array([1]))
        own = evaluate_volume(reconstruct_volume(network, volumes.volume(1)), images, volumes.volume(1).max_value)
        assert result.curves[1]["validation_ssim"] == pytest.approx(own["ssim"], abs=1e-6)


class TestResuming:
    @pytest.mark.parametrize(
        ("name", "killed_at", "settings"),
        [
            ("unet", [2], {"select": "best", "validate_every": 2}),
            ("unet", [5, 5], {"select": "best", "validate_every": 2}),
            (
                "varnet",
                [5, 3],
                {
                    "select": "last",
                    "optimizer": "sgd",
                    "freeze": "sens_net",
                    "freeze_epochs": 1,
                    "batch_norm": "recalibrate",
                },
            ),
        ],
    )
    def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(self, volumes, tmp_path, name, settings, killed_at):
        settings = {**settings, "epochs": 4, "steps": 4}
        options = {"augment": MRAugment(), "seed": 7, "checkpoint_seconds": 0, "loss": {"ssim": 1, "l1": 1}}
        whole, expected = run(volumes, settings, network=model(name), **options)
        for steps in killed_at:
            with pytest.raises(KilledError):
                run(volumes, settings, network=model(name), folder=tmp_path, advance=kill_after(steps), **options)
        resumed, result = run(volumes, settings, network=model(name), folder=tmp_path, **options)
        assert result.resumed_at == sum(steps // 4 for steps in killed_at)
        assert same(state_of(whole), state_of(resumed))
        assert result.curves == expected.curves
        assert result.best_epoch == expected.best_epoch

    def test_the_checkpoint_of_other_masks_losses_or_augmentation_is_not_used(self, volumes, tmp_path):
        options = {"folder": tmp_path, "checkpoint_seconds": 0}
        settings = {"steps": 1, "epochs": 1}
        run(volumes, settings, **options)
        assert run(volumes, settings, **options)[1].resumed_at == 1
        for other in (
            {"loss": "l1"},
            {"augment": AUGMENT},
            {"sampling": SAMPLING.model_copy(update={"mask": "magic"})},
        ):
            assert run(volumes, settings, **options, **other)[1].resumed_at == 0

    def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(self, volumes):
        one, two, three = (run(volumes, {"epochs": 1}, augment=AUGMENT, seed=seed)[0] for seed in (3, 3, 4))
        assert same(state_of(one), state_of(two))
        assert not same(state_of(one), state_of(three))


class TestRefusals:
    def test_volumes_without_full_k_space_or_targets_are_refused_by_name(self, tmp_path):
        mask = SAMPLING.draw(32, 5).columns
        volumes = store_of(tmp_path, [{}, {"mask": mask}])
        with pytest.raises(UserError, match=r"v1\.h5: is undersampled .*give fully sampled files"):
            run(volumes, rows=np.array([0, 1]), validation=np.array([], dtype=np.int64))
        with pytest.raises(UserError, match=r"v1\.h5: is undersampled and holds no reconstructed images .*validation"):
            run(volumes, rows=np.array([0]), validation=np.array([1]))

    def test_one_coil_for_a_network_of_several_and_a_small_matrix_are_refused_by_name(self, tmp_path):
        volumes = store_of(tmp_path, [{}, {"kspace": kspace_of()[:, 0]}, {"height": 10, "crop": (8, 8)}])
        with pytest.raises(UserError, match=r"v1\.h5: network varnet: it needs several coils"):
            run(volumes, network=model("varnet"), rows=np.array([0, 1]), validation=np.array([0]))
        network = build_reconstruction_network("unet", options={"channels": 2, "pools": 3})
        with pytest.raises(UserError, match=r"v2\.h5: network unet: a matrix of 10×32 is too small"):
            run(volumes, network=network, rows=np.array([0]), validation=np.array([2]))

    def test_an_empty_volume_and_no_volume_are_refused(self, volumes, tmp_path):
        empty = store_of(tmp_path, [{"kspace": np.zeros((1, 3, 36, 32), np.complex64)}])
        with pytest.raises(UserError, match=r"v0\.h5: the largest value of its images is 0\.0"):
            run(empty, rows=np.array([0]), validation=np.array([0]))
        with pytest.raises(UserError, match="there is no volume to learn from"):
            run(volumes, rows=np.array([], dtype=np.int64))

    def test_nan_in_a_file_that_was_sound_when_it_was_listed_ends_the_training_with_its_name(self, tmp_path):
        volumes = store_of(tmp_path, [{}])
        with h5py.File(tmp_path / "v0.h5", "r+") as file:
            file["kspace"][1, 0, 0, 0] = np.nan
        with pytest.raises(UserError, match=r"v0\.h5: slice 1: k-space holds 1 NaN"):
            run(volumes, rows=np.array([0]), validation=np.array([], dtype=np.int64))

    def test_masks_that_do_not_fit_the_width_are_refused_before_training(self, volumes):
        sparse = Sampling(mask="random", acceleration=(4, 8), centre_fraction=(0.1, 0.01))
        with pytest.raises(UserError, match=r"0\.01 leaves no centre line; a width of 32"):
            run(volumes, sampling=sparse)

    def test_methods_that_cannot_train_a_reconstruction_are_refused_in_one_sentence(self, volumes):
        for settings, said in (
            ({"class_weights": "balanced"}, "class_weights: is for classification"),
            ({"head": "mlp"}, "head: mlp is for classification"),
            ({"freeze": "all"}, "freeze: all leaves nothing to train"),
            ({"freeze": "up_conv.0", "freeze_epochs": 1}, r"freeze: up_conv\.0 leaves nothing to train"),
            ({"freeze": "cascades.7"}, "unknown stage in freeze"),
            ({"optimizer": "sgd", "rate": 1e30, "momentum": 0.0}, "diverged in epoch 1"),
        ):
            with pytest.raises(UserError, match=said):
                run(volumes, settings)
        with pytest.raises(UserError, match="network zero_filled: has nothing to train"):
            run(volumes, network=build_reconstruction_network("zero_filled"))
        with pytest.raises(UserError, match="unknown loss 'sim'"):
            run(volumes, loss="sim")
        counting = model()
        counting.body.add_module("norm", torch.nn.BatchNorm2d(2))
        with pytest.raises(UserError, match="batch_norm: recalibrate is not for reconstruction"):
            run(volumes, {"batch_norm": "recalibrate"}, network=counting)

    def test_weights_that_are_not_numbers_are_refused_before_training(self, volumes):
        network = model()
        with torch.no_grad():
            next(network.parameters()).fill_(np.nan)
        with pytest.raises(UserError, match="before training: the validation images are not numbers"):
            run(volumes, network=network)


def test_the_precision_is_measured_on_a_slice_by_its_ssim_and_leaves_the_network_as_it_was(volumes):
    network = model()
    before = state_of(network)
    chosen = precision_for_reconstruction(network, volumes, sampling=SAMPLING)
    assert chosen.measured["difference"]["float32 channels_last"] < 1e-3
    assert chosen.measured["ssim"].keys() == {"float32", "float32 channels_last", "bfloat16 channels_last"}
    assert chosen.measured["ssim"][chosen.name] == pytest.approx(chosen.measured["ssim"]["float32"], abs=0.0011)
    assert same(before, state_of(network))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert precision_for_reconstruction(network, volumes, sampling=SAMPLING, requested="float32") == FLOAT32
    classical = build_reconstruction_network("sense")
    assert precision_for_reconstruction(classical, volumes, sampling=SAMPLING, requested="bfloat16") == FLOAT32


def test_a_faster_format_whose_images_are_worse_is_not_chosen(volumes, monkeypatch):
    network = model()
    forward = type(network).forward

    def blurred(own, kspace, columns, centre=None):
        images = forward(own, kspace, columns, centre)
        coarse = torch.is_autocast_enabled(kspace.device.type)
        return images + 0.05 * images.roll(3, dims=1) if coarse else images

    monkeypatch.setattr(type(network), "forward", blurred)
    monkeypatch.setattr(
        "mrtransfer.training.precision._least_seconds",
        lambda steps, _: {name: 1.0 if "bfloat16" in name else 2.0 for name in steps},
    )
    chosen = precision_for_reconstruction(network, volumes, sampling=SAMPLING)
    assert chosen.dtype == "float32"
    assert chosen.measured["difference"]["bfloat16 channels_last"] < 0.1  # near enough for a classifier


def test_a_profile_tells_the_parts_of_a_step_apart(volumes, tmp_path):
    run(volumes, {"epochs": 2}, augment=AUGMENT, profile=tmp_path)
    rows = {row["phase"]: row for row in read_profile(tmp_path)}
    assert all(rows["train"][part] > 0 for part in ("augment", "forward", "backward", "optimizer", "read"))
    assert rows["validate"]["seconds"] > 0
    names = {event.get("name") for event in json.loads((tmp_path / "train.trace.json").read_text())["traceEvents"]}
    assert {"wait", "augment", "forward", "backward", "optimizer"} <= names


@pytest.mark.slow
class TestTwoProcesses:
    """Plain gradient descent: Adam turns the rounding noise of a gradient that is zero in theory into full steps."""

    SETTINGS = {"epochs": 3, "optimizer": "sgd", "rate": 1e-2}  # noqa: RUF012

    @pytest.fixture(scope="class", autouse=True)
    def _helpers(self):
        yield
        for team in list(PRESENT):
            team.close()

    def agree(self, one, two):
        (network, result), (other, others) = one, two
        for a, b in zip(state_of(network), state_of(other), strict=True):
            assert torch.allclose(a, b, rtol=0, atol=2e-5 * max(1, float(a.abs().max())))
        for row, its in zip(result.curves, others.curves, strict=True):
            assert row == pytest.approx(its, abs=2e-4)
        assert result.best_epoch == others.best_epoch

    def test_they_train_as_one_does_with_uneven_and_empty_shares_and_stages_that_thaw(self, volumes):
        settings = {**self.SETTINGS, "batch": 5, "freeze": "sens_net", "freeze_epochs": 2}  # 6 slices: 5 and 1
        one, two = (
            run(volumes, settings, network=model("varnet"), augment=AUGMENT, devices=devices, device="cpu")
            for devices in (1, 2)
        )
        self.agree(one, two)

    def test_one_goes_on_where_two_were_interrupted(self, mixed, tmp_path):
        settings = {**self.SETTINGS, "batch": 2}
        options = {"rows": np.arange(5), "device": "cpu"}
        whole = run(mixed, settings, **options)
        with pytest.raises(KilledError):
            run(mixed, settings, devices=2, folder=tmp_path, checkpoint_seconds=0, advance=kill_after(9), **options)
        resumed = run(mixed, settings, folder=tmp_path, checkpoint_seconds=0, **options)
        assert resumed[1].resumed_at == 1
        self.agree(whole, resumed)

    def test_a_batch_smaller_than_their_number_is_refused(self, volumes):
        with pytest.raises(UserError, match=r"batch: .* fewer than the 2 processes"):
            run(volumes, self.SETTINGS, devices=2, device="cpu")
