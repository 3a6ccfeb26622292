"""A reconstruction study from recipe to verdict: whole volumes scored at every acceleration, a model and a report."""

import json
import shutil

import numpy as np
import pytest
import torch
from pages import assert_loads_nothing
from tiny_reconstruction import PHANTOM, TINY, VARNET, changed
from tiny_segmentation import laid_out, one_run

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import write_fastmri
from mrtransfer.models.network import network_state
from mrtransfer.models.package import load_model
from mrtransfer.physics.masks import Sampling, seed_of
from mrtransfer.study.execute import execute, job_of
from mrtransfer.study.outcome import load_kept, load_record, load_scores
from mrtransfer.study.recipe import parse_recipe
from mrtransfer.study.run import Study
from mrtransfer.study.tasks import open_workshop
from mrtransfer.study.tasks.whole_volumes import kept_rows
from mrtransfer.tasks.reconstruction.metrics import RECONSTRUCTION_METRICS, evaluate_volume

ACCELERATIONS = ("3x", "5x")


def zero_filled(kspace, columns):
    """(S, C, H, W) → (S, H, W), by NumPy."""
    axes = (-2, -1)
    shifted = np.fft.ifftshift(kspace.astype(np.complex128) * columns, axes=axes)
    images = np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=axes)
    return np.sqrt((np.abs(images) ** 2).sum(1))


def masks(volume):
    """Of each acceleration alone, as fastMRI would draw them for this file."""
    return [
        Sampling(mask="equispaced_fraction", acceleration=value, centre_fraction=fraction).draw(
            volume.matrix[1], seed_of(volume.name)
        )
        for value, fraction in ((3, 0.15), (5, 0.1))
    ]


class TestResults:
    def test_every_acceleration_has_every_metric_with_its_interval(self, reconstructed):
        results = json.loads((reconstructed.folder / "results.json").read_text())
        assert results["verdict"]["sentence"] == reconstructed.verdict
        assert {entry["arm"] for entry in results["arms"]} == set(TINY["arms"])
        names = [
            *RECONSTRUCTION_METRICS,
            *(f"{each}/{name}" for each in ACCELERATIONS for name in RECONSTRUCTION_METRICS),
        ]
        for entry in results["arms"]:
            assert set(entry["metrics"]) == set(names)
            for value in entry["metrics"].values():
                assert value["low"] <= value["mean"] <= value["high"]
                assert len(value["per_seed"]) == 2
            for name in RECONSTRUCTION_METRICS:
                mean = np.mean([entry["metrics"][f"{each}/{name}"]["mean"] for each in ACCELERATIONS])
                assert entry["metrics"][name]["mean"] == pytest.approx(mean, abs=2e-6)
        assert results["design"]["main"] == "ssim"
        assert (results["design"]["unit"], results["design"]["units"]) == ("volume", 4)

    def test_scores_are_those_of_images_under_the_masks_of_the_files_names(self, reconstruction):
        plan, workshop = reconstruction
        run = one_run(plan, "zero-filled")
        scores = load_scores(workshop.folder, run.key, "test")
        assert scores.rows.tolist() == run.test.tolist()
        for row, values in zip(scores.rows.tolist(), scores.values, strict=True):
            volume = workshop.target.store.volume(row)
            slices = [volume.read(index) for index in range(volume.slices)]
            kspace, target = (np.stack([getattr(one, name) for one in slices]) for name in ("kspace", "target"))
            each = [
                evaluate_volume(zero_filled(kspace, mask.columns), target, float(target.max()))
                for mask in masks(volume)
            ]
            wanted = [[found[name] for name in RECONSTRUCTION_METRICS] for found in each]
            assert values == pytest.approx(np.concatenate([np.mean(wanted, axis=0), *wanted]), abs=1e-4)

    def test_what_is_applied_as_it_is_is_the_source_model_and_runs_once_for_all_seeds(self, reconstruction):
        plan, workshop = reconstruction
        for name in ("as it is", "as it is + MRA", "zero-filled"):
            runs = [run for run in plan.runs if run.arm == name]
            assert {run.seed for run in runs} == {0, 1}
            assert len({run.key for run in runs}) == 1
        run = one_run(plan, "as it is")
        network = load_model(workshop.source_folder(run.source)).network
        row = int(run.test[0])
        volume, target = workshop.target.store.volume(row), workshop.target.target(row)
        mask = masks(volume)[0]
        kspace = np.stack([volume.read(index).kspace for index in range(volume.slices)]) * mask.columns
        columns = torch.from_numpy(mask.columns).expand(len(kspace), -1)
        with torch.no_grad():
            images = network(torch.from_numpy(kspace), columns, torch.full((len(kspace),), mask.centre))
        found = evaluate_volume(images, torch.from_numpy(target), float(target.max()))
        column = workshop.measures.names.index("3x/ssim")
        assert load_scores(workshop.folder, run.key, "test").values[0, column] == pytest.approx(found["ssim"], abs=1e-5)

    def test_arms_share_the_source_that_was_learned_with_their_augmentation(self, reconstruction):
        plan, _ = reconstruction
        assert len(plan.sources) == 2
        assert [source.arm.augment is not None for source in plan.sources] == [False, True]
        assert one_run(plan, "frozen").source.key == one_run(plan, "as it is").source.key
        assert one_run(plan, "as it is + MRA").source.key != one_run(plan, "as it is").source.key

    def test_frozen_cascades_are_those_of_the_source_and_both_domains_are_remembered(self, reconstruction, tmp_path):
        plan, workshop = reconstruction
        run = one_run(plan, "frozen")
        workshop.make_model(run, job_of(run, workshop), tmp_path / "model", {})
        model = load_model(tmp_path / "model")
        of_source = set(workshop.source.subjects[[*run.source.train, *run.source.validation]])
        of_target = set(workshop.target.subjects[[*run.drawn.train, *run.drawn.validation]])
        assert set(model.spec["provenance"]["subjects"]) == of_source | of_target
        tuned = network_state(model.network)
        learned = network_state(load_model(workshop.source_folder(run.source)).network)
        held = {name for name in tuned if name.startswith(("sens_net.", "cascades.0."))}
        assert 0 < len(held) < len(tuned)
        assert all(torch.equal(tuned[name], learned[name]) for name in held)

    def test_run_again_computes_nothing_and_gives_the_same_bytes(self, reconstructed):
        def states(folder):
            return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

        before = (reconstructed.folder / "results.json").read_bytes()
        written = [states(reconstructed.folder / name) for name in ("runs", "model", "sources")]
        again = Study.open(reconstructed.folder).run()
        assert (again.folder / "results.json").read_bytes() == before
        assert [states(reconstructed.folder / name) for name in ("runs", "model", "sources")] == written

    def test_one_slice_of_a_test_volume_is_kept_and_only_by_runs_that_are_shown(self, reconstruction):
        plan, workshop = reconstruction
        first, second = (run for run in plan.runs if run.arm == "scratch")
        assert not load_kept(workshop.folder, second.key)
        kept = load_kept(workshop.folder, first.key)
        assert set(kept) == {f"slice_{row}" for row in first.test}
        assert all((image.dtype, image.shape) == (np.float16, (40, 40)) for image in kept.values())
        kept = load_kept(workshop.folder, one_run(plan, "zero-filled").key)
        row = int(first.test[0])
        volume = workshop.target.store.volume(row)
        image = zero_filled(volume.read(volume.slices // 2).kspace[None], masks(volume)[1].columns)[0]
        assert kept[f"slice_{row}"] == pytest.approx(image / volume.max_value, abs=1e-3)

    def test_of_many_volumes_a_bounded_number_of_slices_is_kept(self):
        test = np.arange(10, 1010)
        assert len(kept_rows(test)) == 64
        assert kept_rows(test)[[0, -1]].tolist() == [10, 1009]
        assert kept_rows(test[:5]).tolist() == test[:5].tolist()


class TestModel:
    def test_the_model_folder_is_whole_and_knows_what_it_was_trained_on(self, reconstructed):
        model = load_model(reconstructed.model)
        assert model.task == "reconstruction"
        assert model.spec["sampling"]["acceleration"] == [3.0, 5.0]
        assert (model.spec["coils"], model.spec["matrix"]) == ([3], [[40, 40]])
        assert model.spec["record"]["arm"] == reconstructed.results["model"]["arm"]
        assert len(model.head) == 0

    def test_a_classical_method_can_be_handed_over_too(self, reconstruction, tmp_path):
        plan, workshop = reconstruction
        run = one_run(plan, "L1-wavelet")
        workshop.make_model(run, job_of(run, workshop), tmp_path / "model", {})
        model = load_model(tmp_path / "model")
        assert not model.network.learns
        assert model.network.description["options"]["iterations"] == 3


class TestReport:
    def test_it_shows_volumes_accelerations_curves_and_how_volumes_were_masked(self, reconstructed):
        page = reconstructed.report.read_text()
        assert TINY["question"] in page
        for place in ("best", "median", "worst"):
            assert f'alt="{place} volume: reference, zero-filled and every arm, with errors and a detail"' in page
        assert page.count("data:image/jpeg;base64,") == 3
        assert "<h3>By acceleration</h3>" in page
        for each in ACCELERATIONS:
            assert f'<th scope="rowgroup">{each}</th>' in page
        for told in ("training loss", "validation loss", "validation SSIM", "validation PSNR (dB)"):
            assert page.count(f'aria-label="{told} of all arms over epochs"') == 2  # of the arms, and of the sources
        assert "as it is, frozen" in page  # who starts from the plain source
        assert "5-fold with 10 % of the lines at the centre" in page
        assert "Every test volume" in page
        assert "Rendered, not scanned" in page

    def test_it_loads_nothing_from_elsewhere(self, reconstructed):
        assert_loads_nothing(reconstructed.report.read_text())

    def test_it_can_be_drawn_again(self, reconstructed, tmp_path):
        folder = shutil.copytree(reconstructed.folder, tmp_path / "study")
        page = (folder / "report.html").read_bytes()
        (folder / "report.html").unlink()
        assert Study.open(folder).report().read_bytes() == page

    def test_arms_whose_runs_kept_no_slices_are_left_out_of_the_pictures(self, reconstruction, tmp_path):
        plan, workshop = reconstruction
        folder = shutil.copytree(workshop.folder, tmp_path / "study")
        with_all = [picture.image.shape for picture in workshop.context(plan).slices]
        for run in plan.runs:
            if run.arm != "scratch":
                (folder / "runs" / run.key / "test_kept.npz").unlink(missing_ok=True)
        _, again = laid_out(parse_recipe(TINY), folder)
        shown = [picture.image.shape for picture in again.context(plan).slices]
        assert len(shown) == len(with_all) == 3
        assert all(one[1] < other[1] for one, other in zip(shown, with_all, strict=True))


class TestSettings:
    def test_with_one_acceleration_there_is_one_score(self, tmp_path):
        sampling = {"mask": "random", "acceleration": 4, "centre_fraction": 0.1}
        recipe = parse_recipe(changed(sampling=sampling, arms={"zero-filled": {"network": "zero_filled"}}, compare=[]))
        plan, workshop = laid_out(recipe, tmp_path)
        execute(plan, workshop, lambda _: None)
        assert workshop.measures.names == RECONSTRUCTION_METRICS
        assert load_scores(workshop.folder, plan.runs[0].key, "test").values.shape == (len(plan.runs[0].test), 3)

    @pytest.mark.slow
    def test_all_volumes_may_be_tested_where_no_arm_learns_from_any(self, tmp_path):
        target = {**PHANTOM, "subjects": 3, "split": {"test": 1}}
        arms = {name: TINY["arms"][name] for name in ("as it is", "zero-filled")}
        finished = Study(parse_recipe(changed(target=target, arms=arms, compare=[]))).run(tmp_path / "study")
        assert finished.results["design"]["units"] == 3
        assert {entry["labelled"] for entry in finished.results["arms"]} == {0}
        assert "with no labelled volumes, it is open whether zero-filled is better than “as it is”" in finished.verdict
        assert "With no labelled volumes" in finished.report.read_text()
        assert load_model(finished.model).network.name == "varnet"
        seen = load_model(finished.model).spec["provenance"]["subjects"]
        assert len(seen) == 4
        assert all("knee" in name for name in seen)

    @pytest.mark.slow
    def test_without_validation_the_arm_that_is_asked_about_is_handed_over(self, tmp_path):
        target = {**PHANTOM, "subjects": 3, "split": {"test": 1}}
        arms = {name: TINY["arms"][name] for name in ("zero-filled", "L1-wavelet")}
        for asked, other in (("L1-wavelet", "zero-filled"), ("zero-filled", "L1-wavelet")):
            recipe = parse_recipe(changed(target=target, source=None, arms=arms, compare=[[asked, other]]))
            finished = Study(recipe).run(tmp_path / "study")
            assert finished.results["model"]["arm"] == asked

    def test_masks_names_and_augmentation_are_part_of_what_a_run_is(self, reconstruction, reconstructed):
        plan, _ = reconstruction
        key = one_run(plan, "scratch").key

        def of(data):
            return one_run(laid_out(parse_recipe(data), reconstructed.folder)[0], "scratch").key

        assert of(TINY) == key
        sampling = {**TINY["sampling"], "centre_fraction": [0.2, 0.1]}
        arms = {**TINY["arms"], "scratch": {**TINY["arms"]["scratch"], "augment": "mraugment"}}
        assert len({key, of(changed(sampling=sampling)), of(changed(arms=arms))}) == 3

    def test_the_curves_are_those_of_validation_volumes(self, reconstruction):
        plan, workshop = reconstruction
        curves = load_record(workshop.folder, one_run(plan, "scratch").key)["curves"]
        assert [row["epoch"] for row in curves] == [0, 1, 2]
        assert all(0 < row["validation_ssim"] < 1 for row in curves)


def written(folder, name, **options):
    generator = np.random.default_rng(len(name))
    kspace = generator.normal(size=(1, 3, 40, 40)) + 1j * generator.normal(size=(1, 3, 40, 40))
    return write_fastmri(folder / f"{name}.h5", kspace.astype(np.complex64), **options)


def own_files(folder, **fields):
    target = {"dataset": "kspace", "path": str(folder), "split": {"test": 0.5}}
    arms = {"zero-filled": {"network": "zero_filled"}}
    return parse_recipe({**changed(**fields), "source": None, "target": target, "arms": arms, "compare": []})


class TestBadInput:
    def test_undersampled_files_are_refused_by_name(self, tmp_path):
        written(tmp_path, "a")
        written(tmp_path, "test", mask=np.arange(40) % 2 == 0)
        with pytest.raises(UserError, match=r"test\.h5: is undersampled already"):
            open_workshop(own_files(tmp_path), tmp_path / "study")

    def test_copies_of_one_volume_stay_together(self, tmp_path):
        first = written(tmp_path, "a")
        shutil.copy(first, tmp_path / "b.h5")
        written(tmp_path, "third")
        units = open_workshop(own_files(tmp_path), tmp_path / "study").target.units
        assert units[0] == units[1] != units[2]

    def test_no_centre_lines_is_told_before_anything_is_trained(self, tmp_path):
        written(tmp_path, "a")
        sampling = {"mask": "random", "acceleration": 4, "centre_fraction": 0.01}
        with pytest.raises(UserError, match=r"sampling\.centre_fraction: 0\.01 leaves no centre line.*a\.h5"):
            open_workshop(own_files(tmp_path, sampling=sampling), tmp_path / "study")

    def test_too_few_centre_lines_for_a_classical_arm_are_told_before_the_source_is_learned(self, reconstructed):
        sampling = {"mask": "random", "acceleration": [3, 6], "centre_fraction": [0.15, 0.05]}
        arms = {name: TINY["arms"][name] for name in ("as it is", "L1-wavelet")}
        recipe = parse_recipe(changed(sampling=sampling, arms=arms, compare=[]))
        with pytest.raises(UserError, match=r"^arms\.L1-wavelet: .*centre.*6-fold undersampled"):
            laid_out(recipe, reconstructed.folder)

    def test_labels_are_refused(self, tmp_path):
        recipe = parse_recipe(changed(target={**TINY["target"], "labels": {"a": "b"}}))
        with pytest.raises(UserError, match="labels are for classes and masks"):
            open_workshop(recipe, tmp_path)

    def test_a_stage_that_is_not_there_is_told_before_the_source_is_learned(self, reconstructed):
        arms = {"only": {"weights": "source", "method": {"name": "fine_tune", "freeze": "cascades.9"}}}
        with pytest.raises(UserError, match=r"arms\.only\.method: unknown stage in freeze 'cascades\.9'"):
            laid_out(parse_recipe(changed(arms=arms, compare=[])), reconstructed.folder)

    def test_one_coil_is_too_few_for_a_network_of_several(self, tmp_path):
        target = {**PHANTOM, "coils": 1, "subjects": 4, "split": {"test": 0.5}}
        arms = {"only": {"network": VARNET, "method": "scratch"}}
        recipe = parse_recipe({**changed(target=target, arms=arms, compare=[]), "source": None})
        with pytest.raises(UserError, match="network varnet: it needs several coils"):
            laid_out(recipe, tmp_path)
