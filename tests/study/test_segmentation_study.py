"""A segmentation study from recipe to verdict: plans from training data alone, nothing leaks, whole masks scored."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.fingerprint import fingerprint
from mrtransfer.data.cases.plan import SegmentationPlan, make_plan
from mrtransfer.data.cases.store import open_cases
from mrtransfer.data.volume.case import read_case
from mrtransfer.models.network import network_state
from mrtransfer.models.package import load_model
from mrtransfer.study.execute import job_of
from mrtransfer.study.outcome import load_kept, load_record, load_scores
from mrtransfer.study.plan import make_plan as make_study_plan
from mrtransfer.study.recipe import DatasetSpec, load_recipe, parse_recipe
from mrtransfer.study.run import Study
from mrtransfer.study.tasks import open_workshop
from mrtransfer.study.tasks.volumes import open_volumes
from mrtransfer.study.tasks.whole_cases import kept_mask
from mrtransfer.tasks.segmentation.metrics import SEGMENTATION_METRICS, evaluate_subject

PHANTOM = {"dataset": "phantom", "task": "segmentation", "spacing": 8.0, "subjects": 8}
TINY = {
    "name": "tiny",
    "question": "Does a network trained on FLAIR and T1 post-contrast help on T1 and T2?",
    "task": "segmentation",
    "source": {
        **PHANTOM, "contrast": ["flair", "t1ce"], "first_subject": 4, "method": {"name": "scratch", "epochs": 2},
    },
    "target": {**PHANTOM, "contrast": ["t1", "t2"], "split": {"folds": 2, "validation": 0.25}},
    "plan": {"features": [4, 8], "patch": [16, 16, 16], "batch": 2},
    "shared": {"network": "residual_unet"},
    "arms": {
        "scratch": {"method": {"name": "scratch", "epochs": 2}},
        "as is": {"weights": "source", "method": "zero_shot"},
        "frozen": {"weights": "source", "method": {"name": "fine_tune", "epochs": 1, "freeze": "encoder1"}},
    },
    "seeds": 2,
    "resamples": 200,
    "precision": "float32",
}  # fmt: skip
"""Phantoms 0 to 7 are the target, 4 to 11 the source: half of them are the same people."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return Study.from_recipe(TINY).run(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def planned(finished):
    """The finished study's plan and the tools of its folder."""
    return laid_out(parse_recipe(TINY), finished.folder)


@pytest.fixture(scope="module")
def tuned(planned, tmp_path_factory):
    """The folder of a model that learned on the source, then on the target."""
    plan, workshop = planned
    run, folder = one_run(plan, "frozen"), tmp_path_factory.mktemp("tuned") / "model"
    workshop.make_model(run, job_of(run, workshop), folder, {})
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished study's folder that a test may change."""
    return Path(shutil.copytree(finished.folder, tmp_path / "study"))


def laid_out(recipe, folder):
    workshop = open_workshop(recipe, folder)
    plan = make_study_plan(recipe, workshop.target, workshop.source, workshop)
    workshop.check_weights(plan)
    return plan, workshop


def changed(**fields):
    return {**TINY, **fields}


def one_run(plan, arm, fold=0):
    return next(run for run in plan.runs if (run.arm, run.fold) == (arm, fold))


def states(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


class TestResults:
    def test_every_region_has_every_metric_with_its_interval(self, finished):
        results = json.loads((finished.folder / "results.json").read_text())
        assert results["verdict"]["sentence"] == finished.verdict
        assert {entry["arm"] for entry in results["arms"]} == set(TINY["arms"])
        regions = ("whole tumour", "tumour core", "enhancing tumour")
        for entry in results["arms"]:
            names = {
                *SEGMENTATION_METRICS,
                *(f"{region}/{name}" for region in regions for name in SEGMENTATION_METRICS),
            }
            assert set(entry["metrics"]) == names
            for value in entry["metrics"].values():
                assert value["low"] <= value["mean"] <= value["high"]
                assert len(value["per_seed"]) == 2
            mean = np.mean([entry["metrics"][f"{region}/dice"]["mean"] for region in regions])
            assert entry["metrics"]["dice"]["mean"] == pytest.approx(mean, abs=1e-5)
        assert results["design"]["units"] == 8
        assert results["design"]["main"] == "dice"

    def test_scores_are_those_of_the_kept_masks_against_the_masks_of_the_data(self, planned):
        plan, workshop = planned
        run = one_run(plan, "scratch", fold=1)
        kept, scores = load_kept(workshop.folder, run.key), load_scores(workshop.folder, run.key, "test")
        assert scores.rows.tolist() == run.test.tolist()
        for row, values in zip(scores.rows.tolist(), scores.values, strict=True):
            case = read_case(workshop.target.manifest, row)
            predicted = kept_mask(kept, row)
            found = evaluate_subject([predicted], [case.mask], [case.spacing], workshop.target.mask_labels)
            assert [found[name] for name in workshop.measures.names] == values.tolist()

    def test_references_are_read_once_and_stay_what_they_are(self, planned):
        target = replace(planned[1].target)
        first, again = target.reference(3), target.reference(3)
        again[:] = 9
        case = read_case(target.manifest, 3)
        for mask in (first, target.reference(3)):
            assert mask.dtype == np.uint8
            assert (mask == case.mask).all()

    def test_run_again_computes_nothing_and_gives_the_same_bytes(self, finished):
        before = (finished.folder / "results.json").read_bytes()
        written = states(finished.folder / "runs") | states(finished.folder / "model")
        again = Study.open(finished.folder).run()
        assert (again.folder / "results.json").read_bytes() == before
        assert states(finished.folder / "runs") | states(finished.folder / "model") == written
        assert (finished.folder / "report.html").is_file()

    def test_the_recipe_that_is_kept_in_the_folder_plans_the_same_runs(self, finished, planned):
        """``batch`` too is the plan's again, where nobody chose one."""
        read = load_recipe(finished.folder / "recipe.yaml")
        assert {run.key for run in laid_out(read, finished.folder)[0].runs} == {run.key for run in planned[0].runs}
        chosen = parse_recipe(TINY, ["arms.scratch.method.batch=3"])
        keys = {run.key for run in laid_out(chosen, finished.folder)[0].runs}
        assert one_run(planned[0], "scratch").key not in keys
        assert one_run(planned[0], "frozen").key in keys


class TestLeaks:
    def test_every_subject_is_tested_once_and_never_by_a_run_that_saw_it(self, planned):
        plan, workshop = planned
        target, source = workshop.target, workshop.source
        assert sorted(np.concatenate([fold.test for fold in plan.folds])) == list(range(8))
        for run in plan.runs:
            seen = {*target.subjects[run.drawn.train], *target.subjects[run.drawn.validation]}
            if run.source is not None:
                seen |= {*source.subjects[run.source.train], *source.subjects[run.source.validation]}
                assert run.source.excluded == len(set(source.subjects) & set(target.subjects[run.test])) > 0
            assert not seen & set(target.subjects[run.test])

    def test_arms_are_paired_they_share_subjects_and_seeds(self, planned):
        drawn: dict[tuple, set] = {}
        for run in planned[0].runs:
            rows = (tuple(run.drawn.train), tuple(run.drawn.validation), tuple(run.test))
            drawn.setdefault((run.fold, run.budget, run.seed), set()).add(rows)
        assert all(len(rows) == 1 for rows in drawn.values())

    def test_folds_share_the_source_training_where_nobody_is_in_both_domains(self, tmp_path):
        elsewhere = {**TINY["source"], "first_subject": 100, "subjects": 3, "validation": 0.3}
        target = {**TINY["target"], "subjects": 4}
        plan, _ = laid_out(parse_recipe(changed(source=elsewhere, target=target)), tmp_path)
        assert len(plan.folds) == 2
        assert len(plan.sources) == 1
        assert plan.sources[0].excluded == 0

    @pytest.mark.parametrize("first", [0, 8], ids=["of the target", "of the source alone"])
    def test_weights_that_saw_the_test_subjects_are_refused(self, tuned, tmp_path, first):
        arms = {"scratch": TINY["arms"]["scratch"], "leaky": {"weights": str(tuned), "method": "fine_tune"}}
        target = {**TINY["target"], "first_subject": first, "subjects": 4}
        recipe = {key: value for key, value in changed(arms=arms, target=target, seeds=1).items() if key != "source"}
        with pytest.raises(UserError, match=r"arms.leaky.weights: these weights were trained on \d+ of the test subj"):
            Study.from_recipe(recipe).run(tmp_path)
        assert not (tmp_path / "runs").exists()


class TestPlans:
    def test_a_folds_plan_is_made_from_its_development_cases_alone(self, planned):
        plan, workshop = planned
        for fold in plan.folds:
            (file,) = workshop.folder.glob(f"plans/fold-{fold.index}-*.json")
            found = fingerprint(workshop.target.manifest, fold.development)
            assert json.loads((file.parent / f"fingerprint-{file.name}").read_text()) == found.to_json()
            assert found.cases == 4
            expected = make_plan(found, overrides=TINY["plan"])
            assert SegmentationPlan.load(file) == expected == workshop.plans.plan(workshop.target, fold.index, None)

    def test_the_source_has_the_targets_grid_and_patches_and_its_own_intensities(self, planned):
        plan, workshop = planned
        target, source = (workshop.plans.plan(domain, 0, None) for domain in (workshop.target, workshop.source))
        same = {"version", "dims", "spacing", "patch", "batch", "features", "strides", "foreground"}
        assert target.model_dump(include=same) == source.model_dump(include=same)
        tested = set(workshop.target.subjects[plan.folds[0].test])
        rows = [row for row, name in enumerate(workshop.source.subjects) if name not in tested]
        assert source.class_frequencies == fingerprint(workshop.source.manifest, np.array(rows)).class_frequencies

    def test_an_edited_plan_is_honoured_and_gives_its_fold_other_runs(self, planned, copied):
        (file,) = copied.glob("plans/fold-0-*.json")
        plan = json.loads(file.read_text())
        file.write_text(json.dumps({**plan, "features": [6, 12], "batch": 1}))
        other, workshop = laid_out(parse_recipe(TINY), copied)
        for before, after in zip(planned[0].runs, other.runs, strict=True):
            assert (before.key == after.key) == (after.fold == 1)
        assert len(other.sources) == 2
        run = one_run(other, "scratch")
        network = workshop.build(run.spec, workshop.target, 0, 0)
        assert network.description["features"] == [6, 12]
        # the model that is handed over starts from the first fold's source, and has its plan
        assert workshop.plans.plan(workshop.target, -1, None) == workshop.plans.plan(workshop.target, 0, None)
        trained = workshop.train(job_of(run, workshop))
        assert trained.network.description["features"] == [6, 12]

    @pytest.mark.parametrize(
        ("edit", "said"),
        [
            ({"patch": [16, 16, 15]}, r"patch: is 15 voxels along Z.*a multiple of 2, such as 16"),
            ({"bach": 2}, r"unknown key 'bach': did you mean 'batch'\?"),
            ({"normalise": ["zscore"]}, r"normalise has 1 entries; right is one for each of the 2 channels \(t1, t2\)"),
        ],
    )
    def test_a_wrong_edit_is_one_sentence_with_file_and_key(self, copied, edit, said):
        (file,) = copied.glob("plans/fold-0-*.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), **edit}))
        with pytest.raises(UserError, match=said) as caught:
            Study.open(copied).run()
        assert str(caught.value).startswith(f"{file}: ")
        assert "\n" not in str(caught.value)

    def test_other_data_under_the_same_names_get_a_plan_of_their_own(self, copied):
        before = set(copied.glob("plans/fold-*.json"))
        coarser = parse_recipe(TINY, ["target.spacing=9.0"])
        workshop = open_workshop(coarser, copied)
        assert workshop.plans.plan(workshop.target, 0, None).spacing == (9.0, 9.0, 9.0)
        assert before < set(copied.glob("plans/fold-*.json"))


class TestTransfer:
    def test_the_source_model_as_it_is_is_applied_once_per_fold(self, planned):
        plan, workshop = planned
        runs = [run for run in plan.runs if run.arm == "as is"]
        assert len(runs) == 4
        assert len({run.key for run in runs}) == 2
        for run in runs:
            record, source = load_record(workshop.folder, run.key), load_model(workshop.source_folder(run.source)).spec
            assert record["curves"] == []
            assert record["clean"] == source["postprocess"]  # the target's labels have no say in it

    def test_curves_begin_with_the_state_before_training(self, planned):
        plan, workshop = planned
        record = load_record(workshop.folder, one_run(plan, "scratch").key)
        assert [row["epoch"] for row in record["curves"]] == [0, 1, 2]
        assert {"train_loss", "train_dice", "validation_loss", "validation_dice"} <= set(record["curves"][1])

    def test_the_head_comes_from_the_source_where_the_classes_agree(self, planned):
        plan, workshop = planned
        run = one_run(plan, "frozen")
        job, record = job_of(run, workshop), {}
        head = workshop.fresh_head(job, workshop.initial(*arguments(job))[0], record)
        source = load_model(workshop.source_folder(run.source))
        assert (head[0].weight == source.head[0].weight).all()
        heads = {name: load_record(workshop.folder, one_run(plan, name).key).get("head") for name in TINY["arms"]}
        assert heads == {"scratch": "random", "as is": None, "frozen": "from the source model"}

    def test_the_head_is_fresh_where_classes_are_merged_differently(self, copied):
        target = {**TINY["target"], "labels": {"*": "tumour"}}
        arms = {"tuned": {"weights": "source", "method": {"name": "fine_tune", "epochs": 1}}}
        plan, workshop = laid_out(parse_recipe(changed(target=target, arms=arms, seeds=1)), copied)
        assert workshop.target.mask_labels.names == ("background", "tumour")
        run = plan.runs[0]
        workshop.train_source(run.source)
        trained = workshop.train(job_of(run, workshop))
        assert trained.record["head"] == "random"
        assert trained.head[0].out_channels == 2
        assert trained.record["weights"]["counts"]["fresh"] == 0

    def test_a_method_without_training_is_refused_early_where_classes_differ(self, copied):
        target = {**TINY["target"], "labels": {"*": "tumour"}}
        arms = {"as is": TINY["arms"]["as is"]}
        with pytest.raises(UserError, match=r"arms.as is.method: zero_shot predicts the source's classes \(necrosis, "):
            laid_out(parse_recipe(changed(target=target, arms=arms)), copied)
        arms = {"as is": {"method": "zero_shot"}}
        with pytest.raises(UserError, match="zero_shot: needs a trained model"):
            laid_out(parse_recipe(changed(arms=arms)), copied)

    def test_channels_may_differ_where_the_recipe_says_how(self, copied):
        target = {**TINY["target"], "contrast": "t2"}
        plain = {"tuned": {"weights": "source", "method": {"name": "fine_tune", "epochs": 1}}}
        with pytest.raises(UserError, match=r"arms.tuned: .*set channels: mean\|sum\|repeat\|zero_pad"):
            laid_out(parse_recipe(changed(target=target, arms=plain)), copied)
        arms = {"tuned": {**plain["tuned"], "weights": {"kind": "source", "channels": "mean"}}}
        plan, workshop = laid_out(parse_recipe(changed(target=target, arms=arms, seeds=1)), copied)
        run = plan.runs[0]
        workshop.train_source(run.source)
        network, report = workshop.initial(*arguments(job_of(run, workshop)))
        assert network.in_channels == 1
        theirs, own = network_state(load_model(workshop.source_folder(run.source)).network), network_state(network)
        adapted = [row.name for row in report.rows if row.status == "adapted"]
        assert adapted
        for name in adapted:
            assert theirs[name].shape[1] == 2
            assert np.allclose(own[name], theirs[name].mean(1, keepdim=True), atol=1e-6)
        assert workshop.train(job_of(run, workshop)).record["best_epoch"] in (0, 1)

    def test_what_is_frozen_keeps_its_bytes(self, planned):
        plan, workshop = planned
        run = one_run(plan, "frozen")
        before = network_state(load_model(workshop.source_folder(run.source)).network)
        method = run.spec.method.model_copy(update={"select": "last"})  # the state before training may be the best
        job = replace(job_of(run, workshop), arm=run.spec.model_copy(update={"method": method}))
        after = network_state(workshop.train(job).network)
        assert {name for name in before if before[name].numpy().tobytes() != after[name].numpy().tobytes()} == {
            name for name in before if not name.startswith("encoder1.")
        }

    def test_a_stage_that_is_not_there_is_told_before_training(self, copied):
        wrong = parse_recipe(TINY, ["arms.frozen.method.freeze=encoder7"])
        with pytest.raises(UserError, match=r"arms.frozen.method: unknown stage in freeze 'encoder7'"):
            laid_out(wrong, copied)


def arguments(job):
    return job.arm, job.weights, job.source, job.domain, job.fold, job.seed


class TestModel:
    def test_the_model_folder_is_whole_and_knows_what_it_was_trained_on(self, finished, planned):
        model = load_model(finished.model)
        assert model.task == "segmentation"
        assert model.spec["channels"] == ["t1", "t2"]
        assert model.spec["plan"] == planned[1].plans.plan(planned[1].target, 0, None).to_json()
        assert model.spec["mask_labels"]["names"] == ["background", "necrosis", "oedema", "enhancing"]
        assert model.spec["record"]["arm"] == finished.results["model"]["arm"]
        subjects = set(model.spec["provenance"]["subjects"])
        assert {f"phantom:phantom-{number:04d}" for number in range(8)} <= subjects
        (run,) = {run.source.key: run for run in planned[0].runs if run.source and run.fold == 0}.values()
        of_source = set(planned[1].source.subjects[[*run.source.train, *run.source.validation]])
        assert (of_source <= subjects) == (model.spec["record"]["arm"] != "scratch")

    def test_a_tuned_model_has_seen_the_subjects_of_both_domains(self, planned, tuned):
        plan, workshop = planned
        run = one_run(plan, "frozen")
        seen = set(load_model(tuned).spec["provenance"]["subjects"])
        of_target = set(workshop.target.subjects[[*run.drawn.train, *run.drawn.validation]])
        of_source = set(workshop.source.subjects[[*run.source.train, *run.source.validation]])
        assert seen == of_target | of_source
        assert of_source - of_target


class TestReport:
    def test_it_shows_subjects_split_regions_and_every_subjects_score(self, finished):
        page = finished.report.read_text()
        assert TINY["question"] in page
        for word in ("best", "median", "worst"):
            assert f'alt="{word} subject with outlines of reference and prediction"' in page
        assert page.count("data:image/jpeg;base64,") == 3
        assert 'class="bars"' in page
        assert "Region by region" in page
        for region in ("whole tumour", "tumour core", "enhancing tumour"):
            assert f">{region}</th>" in page
        for number in range(8):
            assert f"<span>phantom-{number:04d}</span>" in page
        assert "the rule of BraTS" in page

    def test_it_loads_nothing_from_elsewhere(self, finished):
        page = finished.report.read_text()
        assert set(re.findall(r"https?://[^\s\"']+", page)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        for link in re.findall(r'(?:src|href)="([^"]*)"', page):
            assert link.startswith(("#", "data:image/"))
        assert "<script" not in page

    def test_the_data_are_described_by_what_the_masks_hold(self, finished):
        page = finished.report.read_text()
        data = page[page.index('<section id="data">') : page.index('<section id="subjects">')]
        assert "without a label" not in data
        for name in ("necrosis", "oedema", "enhancing"):
            assert name in data
        assert "8 independent units" in data

    def test_it_can_be_drawn_again(self, copied):
        page = (copied / "report.html").read_bytes()
        (copied / "report.html").unlink()
        assert Study.open(copied).report().read_bytes() == page


@pytest.mark.slow
def test_kill_9_at_a_random_moment_changes_no_byte(finished, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY, sort_keys=False))
    shutil.copytree(finished.folder / "data", tmp_path / "disturbed/data")
    process = _run_study(recipe, tmp_path / "disturbed")
    wanted = random.Random(5).randint(1, 7)
    while process.poll() is None and len(list(tmp_path.glob("disturbed/runs/*/record.json"))) < wanted:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "disturbed/results.json").exists()
    assert _run_study(recipe, tmp_path / "disturbed").wait() == 0
    assert (tmp_path / "disturbed/results.json").read_bytes() == (finished.folder / "results.json").read_bytes()


def _run_study(recipe: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "mrtransfer.cli.main", "study", str(recipe), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


FLAT = {
    "name": "flat",
    "question": "Does it run on slices?",
    "task": "segmentation",
    "target": {"dataset": "lgg", "split": {"test": 0.5, "validation": 0.3}},
    "shared": {"network": {"name": "unet", "encoder": "resnet18", "depth": 3, "decoder": [16, 8, 4]}},
    "plan": {"batch": 4},
    "arms": {"scratch": {"method": {"name": "scratch", "epochs": 1}}},
    "inference": {"clean": "none"},
    "resamples": 200,
    "precision": "float32",
}


class TestSlices:
    @pytest.fixture(scope="class")
    def slices(self, tmp_path_factory):
        """6 subjects of 3 slices with a disc, brighter than the noise around it; on some slices it is absent."""
        root = tmp_path_factory.mktemp("scans") / "kaggle_3m"
        random = np.random.default_rng(0)
        x, y = np.mgrid[:40, :36]
        for number in range(18):
            subject = f"TCGA_CS_{4940 + number // 3}_19960909"
            mask = np.hypot(x - 12 - number % 7, y - 15) < (0 if number % 3 == 2 else 4 + number % 4)
            pixels = random.integers(20, 120, (40, 36, 3)) + 100 * mask[..., None]
            name = root / subject / f"{subject}_{number % 3 + 1}"
            name.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(f"{name}.tif")
            Image.fromarray((255 * mask).astype(np.uint8)).save(f"{name}_mask.tif")
        return root

    @pytest.fixture(scope="class")
    def finished(self, slices, tmp_path_factory):
        target = {**FLAT["target"], "path": str(slices)}
        return Study.from_recipe({**FLAT, "target": target}).run(tmp_path_factory.mktemp("flat"))

    def test_slices_are_scored_pooled_by_subject(self, finished):
        plan, workshop = laid_out(load_recipe(finished.folder / "recipe.yaml"), finished.folder)
        (run,) = plan.runs
        assert workshop.plans.plan(workshop.target, 0, None).dims == 2
        assert len(run.test) == 9
        kept, scores = load_kept(workshop.folder, run.key), load_scores(workshop.folder, run.key, "test")
        assert scores.rows.tolist() == run.test[::3].tolist()
        for first, value in zip(scores.rows, scores.values[:, workshop.measures.names.index("dice")], strict=True):
            own = range(first, first + 3)
            predicted = np.stack([kept_mask(kept, row)[..., 0] > 0 for row in own])
            files = [workshop.target.manifest.root / workshop.target.manifest.table["mask"].iloc[row] for row in own]
            reference = np.stack([np.asarray(Image.open(file)) > 0 for file in files])
            assert value == pytest.approx(2 * (predicted & reference).sum() / (predicted.sum() + reference.sum()))
        assert finished.results["design"]["units"] == 3
        assert not any("/" in name for name in finished.results["arms"][0]["metrics"])  # one region

    def test_pictures_are_audited_and_shown_flat(self, finished):
        page = finished.report.read_text()
        assert "What the audit found" in page
        assert "Channels from left to right: red, green, blue." in page
        assert "Region by region" not in page

    def test_the_model_is_one_for_pictures(self, finished):
        model = load_model(finished.model)
        assert model.spec["plan"]["normalise"] == ["uint8"] * 3
        assert model.network.dims == 2
        assert model.network.encoder_prefix == "encoder.model."


def test_phantom_slices_are_cases_of_one_subject(tmp_path):
    target = {
        "dataset": "phantom", "task": "segmentation", "contrast": ["t1", "t2"], "subjects": 4, "slices": 2, "size": 32,
        "split": {"test": 0.5, "validation": 0.3},
    }  # fmt: skip
    recipe = parse_recipe({**FLAT, "target": target, "plan": {}, "shared": {"network": "residual_unet"}})
    plan, workshop = laid_out(recipe, tmp_path)
    own = workshop.plans.plan(workshop.target, 0, None)
    assert (own.dims, own.patch) == (2, (32, 32, 1))
    assert len(workshop.target.manifest) == 8
    assert len(np.unique(workshop.target.units)) == 4
    for run in plan.runs:
        assert not set(workshop.target.units[run.test]) & set(workshop.target.units[run.drawn.train])
    store = workshop.store(workshop.target, 0, recipe.arms["scratch"])
    assert store.channels == ("t1", "t2")
    assert all(store.image(row).shape == (2, 32, 32, 1) for row in range(8))


@pytest.mark.real_data
class TestRealData:
    """Published scans come in with their classes, their plan and their pixels."""

    def prepared(self, folder, spec):
        domain = open_volumes(DatasetSpec.model_validate(spec), folder, ("subject", "cluster"))
        rows = np.arange(len(domain.manifest))
        plan = make_plan(fingerprint(domain.manifest, rows, cache=folder))
        store = open_cases(domain.manifest, plan, folder / "cases")
        for row in rows.tolist():
            assert store.image(row).shape[1:] == store.mask(row).shape
            assert store.frame(row).shape == domain.reference(row).shape
        return domain, plan, store

    def test_lgg(self, real_data, tmp_path):
        chosen = sorted(path for path in (real_data / "lgg_segmentation").iterdir() if path.is_dir())[:3]
        for path in chosen:
            shutil.copytree(path, tmp_path / "lgg" / path.name)
        domain, plan, store = self.prepared(tmp_path, {"dataset": "lgg", "path": str(tmp_path / "lgg")})
        assert domain.mask_labels.region_names == ("tumour",)
        assert domain.audit is not None
        assert len(np.unique(domain.units)) == 3
        assert (plan.dims, plan.patch, plan.normalise, plan.spacing) == (2, (256, 256, 1), ("uint8",) * 3, None)
        assert store.channels == ("red", "green", "blue")

    def test_hippocampus(self, real_data, tmp_path):
        root = tmp_path / "Task04"
        for name in ("imagesTr", "labelsTr"):
            (root / name).mkdir(parents=True)
            for path in sorted((real_data / "decathlon_hippocampus" / name).glob("*.nii.gz"))[:6]:
                shutil.copy(path, root / name)
        domain, plan, store = self.prepared(tmp_path, {"dataset": "decathlon", "path": str(root)})
        assert domain.mask_labels.region_names == ("label_1", "label_2")
        assert (plan.dims, plan.spacing, plan.crop) == (3, (1.0, 1.0, 1.0), "none")
        assert set(plan.class_frequencies) == {"background", "label_1", "label_2"}
        assert all((store.foreground(row, 2)).size for row in range(6))

    def test_brats(self, real_data, tmp_path):
        spec = {"dataset": "brats", "path": str(real_data / "brats2021"), "channels": ["flair", "t1ce"]}
        domain, plan, store = self.prepared(tmp_path, spec)
        assert domain.mask_labels.region_names == ("whole tumour", "tumour core", "enhancing tumour")
        assert (plan.crop, plan.normalise) == ("nonzero", ("zscore_nonzero",) * 2)
        assert store.shapes.prod() < 240 * 240 * 155
        assert np.bincount(store.mask(0).ravel())[1:].tolist() == np.bincount(domain.reference(0).ravel())[1:].tolist()

    def test_open_ms(self, real_data, tmp_path):
        spec = {
            "dataset": "volumes", "path": str(real_data / "open_ms"), "mask": "*/GOLD_STANDARD*",
            "channels": {"flair": "*/FLAIR_*"}, "classes": {"lesion": 1},
        }  # fmt: skip
        domain, plan, store = self.prepared(tmp_path, spec)
        assert domain.subjects.tolist() == ["open_ms:patient07", "open_ms:patient19"]
        assert (plan.dims, plan.spacing) == (3, (1.0, 1.0, 1.0))
        assert store.labelled.all()
