"""FROC in a segmentation study: what runs keep is what their masks show, and older runs without it stay readable."""

import csv
import re
import shutil

import numpy as np
import pytest
from tiny_segmentation import TINY, one_run

from mrtransfer.common.errors import UserError
from mrtransfer.data.volume.case import read_case
from mrtransfer.study.outcome import load_kept, run_folder
from mrtransfer.study.report.froc import RATES, froc_view
from mrtransfer.study.run import Study
from mrtransfer.study.tasks.detection import arm_frocs
from mrtransfer.study.tasks.whole_cases import FALSE_POSITIVES, LESIONS, kept_mask
from mrtransfer.tasks.segmentation.froc import FROC_RATES
from mrtransfer.tasks.segmentation.lesions import LesionCounts, count_lesions

REGIONS = ("whole tumour", "tumour core", "enhancing tumour")


def counted(workshop, run, region):
    """Lesions found and missed, and components true and false, of every test case: counted in masks."""
    kept, member = load_kept(workshop.folder, run.key), workshop.target.mask_labels.membership[region]
    return {
        row: count_lesions(member[kept_mask(kept, row)], member[read_case(workshop.target.manifest, row).mask])
        for row in run.test.tolist()
    }


def entries(results):
    return {(entry["arm"], entry["region"]): entry for entry in results["froc"]["arms"]}


def forget(folder, keys):
    """Make the runs those of a version that kept masks only."""
    for key in keys:
        kept = load_kept(folder, key)
        arrays = {name: array for name, array in kept.items() if name not in (LESIONS, FALSE_POSITIVES)}
        np.savez_compressed(run_folder(folder, key) / "test_kept.npz", **arrays)


def test_a_run_keeps_every_lesion_and_every_false_positive_of_its_masks(planned):
    plan, workshop = planned
    for arm in TINY["arms"]:
        run = one_run(plan, arm)
        kept = load_kept(workshop.folder, run.key, LESIONS, FALSE_POSITIVES)
        assert set(kept) == {LESIONS, FALSE_POSITIVES}
        for region in range(len(REGIONS)):
            for row, counts in counted(workshop, run, region).items():
                lesions, false = (
                    table[(table[:, 0] == row) & (table[:, 1] == region), 2]
                    for table in (kept[LESIONS], kept[FALSE_POSITIVES])
                )
                assert (len(lesions), len(false)) == (counts.found + counts.missed, counts.false)
                assert np.isfinite(lesions).sum() == counts.found
                assert ((lesions == -np.inf) | ((lesions > 0) & (lesions <= 1))).all()
                assert ((false > 0) & (false <= 1)).all()


def test_validation_cases_leave_scores_and_nothing_else(planned):
    assert not list(planned[1].folder.glob("runs/*/validation_kept.npz"))


def test_the_curve_ends_where_the_masks_are(planned):
    """With every component counted, sensitivity and false positives are those of the masks, of all folds together."""
    plan, workshop = planned
    found = {(one.arm, one.region): one for one in arm_frocs(workshop, plan)}
    for number, region in enumerate(REGIONS):
        for seed, curve in found["scratch", region].curves.items():
            runs = [run for run in plan.runs if (run.arm, run.seed) == ("scratch", seed)]
            counts = [counts for run in runs for counts in counted(workshop, run, number).values()]
            total = sum(counts, LesionCounts(0, 0, 0, 0))
            assert len(counts) == 8
            assert found["scratch", region].lesions == total.found + total.missed
            assert curve.sensitivity[-1] == pytest.approx(total.found / (total.found + total.missed))
            assert curve.false_positives[-1] == pytest.approx(total.false / 8)


def test_results_and_table_have_points_scores_and_seeds(segmented, planned):
    found, (plan, workshop) = entries(segmented.results), planned
    assert set(found) == {(arm, region) for arm in TINY["arms"] for region in REGIONS}
    assert segmented.results["froc"]["rates"] == list(FROC_RATES)
    for one in arm_frocs(workshop, plan):
        entry = found[one.arm, one.region]
        by_seed = np.array([curve.at(FROC_RATES) for curve in one.curves.values()])
        assert entry["sensitivity"] == pytest.approx(by_seed.mean(0), abs=1e-6)
        assert entry["per_seed"] == pytest.approx(by_seed.mean(1), abs=1e-6)
        assert entry["score"] == pytest.approx(by_seed.mean(), abs=1e-6)
        labelled = 0 if one.arm == "as is" else 4
        assert (entry["seeds"], entry["labelled"], entry["budget"]) == ([0, 1], labelled, "all")
    with open(segmented.folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "froc" in row["metric"]]
    assert len(rows) == len(found) * (1 + 2 + len(FROC_RATES))
    told = {(row["arm"], row["metric"], row["record"]): float(row["value"]) for row in rows if not row["seed"]}
    entry = found["scratch", "tumour core"]
    assert told["scratch", "tumour core/froc", "arm"] == entry["score"]
    assert told["scratch", "tumour core/froc_at_0.125", "arm"] == entry["sensitivity"][0]


def test_the_report_draws_every_region_and_methods_say_how(segmented):
    page = segmented.report.read_text()
    section = page[page.index('<section id="lesions">') : page.index('<section id="training">')]
    for region in REGIONS:
        assert f'aria-label="FROC of {region}: share of lesions found' in section
    assert re.findall(r">(1/8|1/4|1/2|[1248])<small>%</small>", section) == ["1/8", "1/4", "1/2", "1", "2", "4", "8"]
    methods = page[page.index('<section id="methods">') :]
    assert "<b>FROC.</b> A lesion is a connected component of the reference" in methods
    assert segmented.results["froc"]["rule"] in methods


def test_arms_of_an_earlier_version_are_left_out_and_named(planned, copied):
    forget(copied, {run.key for run in planned[0].runs if run.arm == "as is"})
    results = Study.open(copied).run().results
    assert {arm for arm, _ in entries(results)} == {"scratch", "frozen"}
    (note,) = results["froc"]["notes"]
    assert note.startswith("No FROC of as is: ")
    assert note in (copied / "report.html").read_text()


def test_a_study_of_an_earlier_version_is_told_as_it_was(segmented, planned, copied):
    forget(copied, {run.key for run in planned[0].runs})
    results = Study.open(copied).run().results
    assert results == {key: value for key, value in segmented.results.items() if key != "froc"}
    page = Study.open(copied).report().read_text()
    assert 'id="lesions"' not in page
    assert "FROC" not in page


@pytest.mark.parametrize("size", [0, 300], ids=["empty", "cut short"])
@pytest.mark.parametrize("name", ["outcome.npz", "test_kept.npz"])
def test_a_damaged_file_is_named(planned, copied, name, size):
    file = run_folder(copied, one_run(planned[0], "scratch").key) / name
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"{name} is damaged; delete its folder and run the study again"):
        Study.open(copied).run()


def test_a_run_that_is_not_there_is_no_damage(planned, copied):
    shutil.rmtree(run_folder(copied, one_run(planned[0], "scratch").key))
    with pytest.raises(UserError, match=r"outcome.npz is not there: .*run 'mrtransfer study .*recipe.yaml --out"):
        Study.open(copied).report()


def test_tables_mark_the_best_score_and_tell_one_lesion_from_several():
    common = {"region": "tumour", "labelled": 4, "sensitivity": [0.5] * 7, "budget": "all"}
    arms = [
        common | {"arm": "a", "lesions": 1, "seeds": [0], "score": 0.5, "per_seed": [0.5]},
        common | {"arm": "b", "lesions": 1, "seeds": [0, 1], "score": 0.25, "per_seed": [0.1, 0.4]},
    ]
    found = {"rule": "", "rates": list(FROC_RATES), "arms": arms, "notes": []}
    view = froc_view(found, {"tumour": {"a": np.full(len(RATES), 0.5)}}, ["a", "b"])
    (group,) = view["groups"]
    assert group["lesions"] == "1 lesion"
    assert [(row["best"], row["seeds"]) for row in group["rows"]] == [(True, ""), (False, "10.0–40.0")]
    assert [name for name, _ in view["panels"]] == ["tumour"]
    assert froc_view(None, {}, ["a"]) is None
