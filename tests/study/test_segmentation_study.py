"""A segmentation study from recipe to verdict: whole masks scored, a model and a report that say what they are."""

import json
import os
import random
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
from pages import assert_loads_nothing
from tiny_segmentation import TINY, laid_out, one_run

from mrtransfer.data.volume.case import read_case
from mrtransfer.models.package import load_model
from mrtransfer.study.outcome import load_kept, load_scores
from mrtransfer.study.recipe import load_recipe, parse_recipe
from mrtransfer.study.run import Study
from mrtransfer.study.tasks.whole_cases import kept_mask
from mrtransfer.tasks.segmentation.metrics import SEGMENTATION_METRICS, evaluate_subject


def states(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


class TestResults:
    def test_every_region_has_every_metric_with_its_interval(self, segmented):
        results = json.loads((segmented.folder / "results.json").read_text())
        assert results["verdict"]["sentence"] == segmented.verdict
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

    def test_run_again_computes_nothing_and_gives_the_same_bytes(self, segmented):
        before = (segmented.folder / "results.json").read_bytes()
        written = states(segmented.folder / "runs") | states(segmented.folder / "model")
        again = Study.open(segmented.folder).run()
        assert (again.folder / "results.json").read_bytes() == before
        assert states(segmented.folder / "runs") | states(segmented.folder / "model") == written
        assert (segmented.folder / "report.html").is_file()

    def test_the_recipe_that_is_kept_in_the_folder_plans_the_same_runs(self, segmented, planned):
        """``batch`` too is the plan's again, where nobody chose one."""
        read = load_recipe(segmented.folder / "recipe.yaml")
        assert {run.key for run in laid_out(read, segmented.folder)[0].runs} == {run.key for run in planned[0].runs}
        chosen = parse_recipe(TINY, ["arms.scratch.method.batch=3"])
        keys = {run.key for run in laid_out(chosen, segmented.folder)[0].runs}
        assert one_run(planned[0], "scratch").key not in keys
        assert one_run(planned[0], "frozen").key in keys


class TestModel:
    def test_the_model_folder_is_whole_and_knows_what_it_was_trained_on(self, segmented, planned):
        model = load_model(segmented.model)
        assert model.task == "segmentation"
        assert model.spec["channels"] == ["t1", "t2"]
        assert model.spec["plan"] == planned[1].plans.plan(planned[1].target, 0, None).to_json()
        assert model.spec["mask_labels"]["names"] == ["background", "necrosis", "oedema", "enhancing"]
        assert model.spec["record"]["arm"] == segmented.results["model"]["arm"]
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
    def test_it_shows_subjects_split_regions_and_every_subjects_score(self, segmented):
        page = segmented.report.read_text()
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

    def test_it_loads_nothing_from_elsewhere(self, segmented):
        assert_loads_nothing(segmented.report.read_text())

    def test_the_data_are_described_by_what_the_masks_hold(self, segmented):
        page = segmented.report.read_text()
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
def test_kill_9_at_a_random_moment_changes_no_byte(segmented, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY, sort_keys=False))
    shutil.copytree(segmented.folder / "data", tmp_path / "disturbed/data")
    process = _run_study(recipe, tmp_path / "disturbed")
    wanted = random.Random(5).randint(1, 7)
    while process.poll() is None and len(list(tmp_path.glob("disturbed/runs/*/record.json"))) < wanted:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "disturbed/results.json").exists()
    assert _run_study(recipe, tmp_path / "disturbed").wait() == 0
    assert (tmp_path / "disturbed/results.json").read_bytes() == (segmented.folder / "results.json").read_bytes()


def _run_study(recipe: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "mrtransfer.cli.main", "study", str(recipe), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)
