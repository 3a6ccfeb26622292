"""A study from recipe to verdict: nothing leaks, nothing is computed twice, and interruptions change no byte."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from mrtransfer.common.errors import UserError
from mrtransfer.deploy.predict import predict_images
from mrtransfer.study.plan import make_plan
from mrtransfer.study.recipe import load_recipe, parse_recipe
from mrtransfer.study.run import Study
from mrtransfer.study.tasks import open_workshop

TINY = {
    "name": "tiny",
    "question": "Does a network trained on T1 post-contrast help on T2?",
    "task": "classification",
    "source": {
        "dataset": "phantom", "contrast": "t1ce", "subjects": 24, "slices": 1, "first_subject": 500, "size": 32,
        "method": {"name": "scratch", "epochs": 2},
    },
    "target": {"dataset": "phantom", "contrast": "t2", "subjects": 24, "slices": 1, "size": 32, "split": {"folds": 2}},
    "input": {"size": 32, "channels": 1},
    "shared": {"network": "cbr_tiny", "normalise": "unit"},
    "arms": {
        "scratch": {"method": {"name": "scratch", "epochs": 2}},
        "frozen": {"weights": "source", "method": "linear_probe"},
        "frozen mlp": {"weights": "source", "method": {"name": "mlp_probe", "epochs": 2}, "augment": {"hflip": 0.5}},
        "fine-tuned": {"weights": "source", "method": {"name": "fine_tune", "epochs": 2}, "augment": {"hflip": 0.5}},
    },
    "budgets": [8, "all"],
    "seeds": 2,
    "resamples": 200,
    "precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def finished(tmp_path_factory, told):
    def answered(early):
        told.append((early.verdict, early.report.read_text(), early.model.exists()))

    return Study.from_recipe(TINY).run(tmp_path_factory.mktemp("study"), answered=answered)


def planned(recipe, folder):
    workshop = open_workshop(recipe, folder)
    return make_plan(recipe, workshop.target, workshop.source, workshop), workshop


def changed(**fields):
    return {**TINY, **fields}


def test_the_results_say_verdict_arms_comparisons_and_the_model(finished):
    results = json.loads((finished.folder / "results.json").read_text())
    assert results["verdict"]["sentence"] == finished.verdict
    assert {entry["arm"] for entry in results["arms"]} == set(TINY["arms"])
    assert {entry["budget"] for entry in results["arms"]} == {8, "all"}
    assert all(len(entry["seeds"]) == 2 for entry in results["arms"])
    accuracy = results["arms"][0]["metrics"]["accuracy"]
    assert accuracy["low"] <= accuracy["mean"] <= accuracy["high"]
    assert results["model"]["arm"] in TINY["arms"]
    assert len(results["runs"]) == 4 * 2 * 2 * 2  # arms × folds × budgets × seeds


def test_verdict_and_report_do_not_wait_for_the_model_that_is_handed_over(finished, told):
    verdict, page, model_was_there = told.pop()
    assert not told
    assert verdict == finished.verdict
    assert TINY["question"] in page
    assert finished.model.is_dir()
    assert not model_was_there


def test_report_and_table_are_written(finished):
    page = finished.report.read_text()
    assert TINY["question"] in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (finished.folder / "results.csv").read_text().count("\n") > 10


def test_every_subject_is_tested_once_and_never_by_a_run_that_saw_it(finished):
    recipe = parse_recipe(TINY)
    plan, workshop = planned(recipe, finished.folder)
    target = workshop.target
    tested = np.concatenate([fold.test for fold in plan.folds])
    assert sorted(tested) == list(range(len(target.labels)))
    for run in plan.runs:
        seen = set(target.units[np.concatenate([run.drawn.train, run.drawn.validation])])
        assert not seen & set(target.units[run.test])


def test_arms_are_paired_they_share_subjects_and_seeds(finished):
    recipe = parse_recipe(TINY)
    plan, _ = planned(recipe, finished.folder)
    drawn: dict[tuple, set] = {}
    for run in plan.runs:
        rows = (tuple(run.drawn.train), tuple(run.drawn.validation), tuple(run.test))
        drawn.setdefault((run.fold, run.budget, run.seed), set()).add(rows)
    assert all(len(rows) == 1 for rows in drawn.values())


def test_source_training_leaves_out_the_subjects_that_the_fold_tests(tmp_path):
    same_people = {**TINY["source"], "first_subject": 0}
    recipe = parse_recipe(changed(source=same_people))
    plan, workshop = planned(recipe, tmp_path)
    target, source = workshop.target, workshop.source
    assert len(plan.sources) == len(plan.folds)
    for run in plan.runs:
        if run.source is not None:
            trained = set(source.subjects[np.concatenate([run.source.train, run.source.validation])])
            assert not trained & set(target.subjects[run.test])
            assert run.source.excluded > 0


def test_run_again_computes_nothing_and_gives_the_same_bytes(finished):
    before = (finished.folder / "results.json").read_bytes()
    written = {path: path.stat().st_mtime_ns for path in (finished.folder / "runs").rglob("*")}
    again = Study.open(finished.folder).run()
    assert (again.folder / "results.json").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (finished.folder / "runs").rglob("*")} == written


def test_the_same_recipe_elsewhere_gives_the_same_results(finished, tmp_path):
    other = Study.from_recipe(changed(arms={k: TINY["arms"][k] for k in ("scratch", "frozen")})).run(tmp_path)
    mine = {(e["arm"], e["budget"]): e for e in finished.results["arms"]}
    for entry in other.results["arms"]:
        assert (
            entry["metrics"]["loss"]["per_seed"] == mine[entry["arm"], entry["budget"]]["metrics"]["loss"]["per_seed"]
        )


def test_a_lost_run_is_the_only_one_computed_again(finished):
    before = (finished.folder / "results.json").read_bytes()
    folders = sorted((finished.folder / "runs").iterdir())
    for path in folders[3].iterdir():
        path.unlink()
    folders[3].rmdir()
    kept = {path.name: path.stat().st_mtime_ns for path in (finished.folder / "runs").iterdir()}
    Study.open(finished.folder).run()
    now = {path.name: path.stat().st_mtime_ns for path in (finished.folder / "runs").iterdir()}
    assert {name for name in now if now[name] != kept.get(name)} == {folders[3].name}
    assert (finished.folder / "results.json").read_bytes() == before


def test_the_report_can_be_drawn_again(finished):
    finished.report.unlink()
    assert Study.open(finished.folder).report().is_file()


def test_the_model_predicts_new_images(finished, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / "scan.png")
    (row,) = predict_images(finished.model, [tmp_path / "scan.png"])
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert row["predicted"] in row["probabilities"]


def test_weights_that_saw_the_test_subjects_are_refused(finished, tmp_path):
    arms = {"leaky": {"weights": str(finished.model), "method": "linear_probe"}, "scratch": TINY["arms"]["scratch"]}
    recipe = {key: value for key, value in changed(arms=arms).items() if key != "source"}
    with pytest.raises(UserError, match=r"arms.leaky.weights: these weights were trained on \d+ of the test subjects"):
        Study.from_recipe(recipe).run(tmp_path)


def test_weights_of_another_network_are_refused_before_anything_is_trained(finished, tmp_path):
    arms = {
        "scratch": {"network": "cbr_small", "method": "scratch"},
        "wrong": {"network": "cbr_small", "weights": str(finished.model), "method": "linear_probe"},
    }
    target = {**TINY["target"], "first_subject": 900}
    with pytest.raises(UserError, match="another network"):
        Study.from_recipe(changed(arms=arms, target=target)).run(tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_budget_larger_than_the_data_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match="1000"):
        Study.from_recipe(changed(budgets=[1000])).run(tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_folder_without_study_is_refused(tmp_path):
    with pytest.raises(UserError, match="no study folder"):
        Study.open(tmp_path)
    with pytest.raises(UserError, match="no finished study"):
        Study.from_recipe(TINY).report()


def test_a_resolved_recipe_reads_back_as_itself(finished):
    recipe = load_recipe(finished.folder / "recipe.yaml")
    assert recipe == parse_recipe(TINY).model_copy(update={"shared": {}})


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_no_byte(tmp_path):
    """Five kills, then a run to the end: ``results.json`` equals that of a study which nobody disturbed."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    started = time.monotonic()
    _run_study(recipe, tmp_path / "whole").wait()
    whole = time.monotonic() - started
    draw = random.Random(0)
    killed = 0
    for _ in range(5):
        process = _run_study(recipe, tmp_path / "disturbed")
        time.sleep(draw.uniform(0.3, 0.9) * whole)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 1
    assert _run_study(recipe, tmp_path / "disturbed").wait() == 0
    assert (tmp_path / "disturbed/results.json").read_bytes() == (tmp_path / "whole/results.json").read_bytes()


def _run_study(recipe: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "mrtransfer.cli.main", "study", str(recipe), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)
