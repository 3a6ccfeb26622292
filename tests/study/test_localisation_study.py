"""A detection study says where its networks look: right numbers on the right images, the same after interruptions."""

import csv
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mrtransfer.augment.prepare import to_input
from mrtransfer.common.errors import UserError
from mrtransfer.models.network import build_network
from mrtransfer.study.outcome import load_kept
from mrtransfer.study.plan import make_plan
from mrtransfer.study.probes import fit_heads
from mrtransfer.study.recipe import parse_recipe
from mrtransfer.study.report.localisation import localisation_view
from mrtransfer.study.run import Study
from mrtransfer.study.tasks import open_workshop
from mrtransfer.study.tasks.localisation import CAM_ROWS, CAMS, MOST_CAMS, REFUSED, ROWS, SCORES
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.tasks.localisation.gradcam import grad_cam, grad_cams
from mrtransfer.tasks.localisation.scores import LOCALISATION_METRICS, score_heat

SIZE = 160  # what test_vit is made for


def write_blobs(folder, *, subjects=16, masked=True):
    """Noise, with a bright ellipse in every second image of a subject; masks of the ellipses."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:80, :100]
    table = []
    for number in range(2 * subjects):
        image = draw.normal(60, 12, (80, 100))
        mask = np.zeros((80, 100), dtype=bool)
        if number % 2:
            top, left = draw.uniform(18, 62), draw.uniform(18, 82)
            mask = ((rows - top) / 11) ** 2 + ((columns - left) / 14) ** 2 < 1
            image[mask] += 140
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
        Image.fromarray(np.uint8(255) * mask).save(folder / f"{number:02d}_mask.png")
        table.append(
            {
                "sample": f"{number:02d}",
                "subject": f"s{number // 2:02d}",
                "label": "tumour" if number % 2 else "none",
                "image": f"{number:02d}.png",
                "mask": f"{number:02d}_mask.png" if masked else None,
            }
        )
    pd.DataFrame(table).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def recipe_of(table, **changes):
    return {
        "name": "blobs",
        "question": "Where is it?",
        "task": "classification",
        "target": {"dataset": "table", "path": str(table), "split": {"folds": 2}},
        "input": {"size": SIZE, "channels": 1},
        "shared": {"network": "test_resnet", "normalise": "unit"},
        "arms": {
            "tuned": {"method": {"name": "scratch", "epochs": 2, "batch": 8}},
            "frozen": {"method": "linear_probe"},
            "transformer": {"network": "test_vit", "method": "linear_probe"},
        },
        "budgets": [6, "all"],
        "seeds": 2,
        "resamples": 200,
        "precision": "float32",
    } | changes


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return write_blobs(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def finished(blobs, tmp_path_factory):
    return Study.from_recipe(recipe_of(blobs)).run(tmp_path_factory.mktemp("study"))


def opened(study):
    recipe = Study.open(study.folder).recipe
    workshop = open_workshop(recipe, study.folder)
    return workshop, make_plan(recipe, workshop.target, workshop.source, workshop)


def arms(study):
    return {entry["arm"]: entry for entry in study.results["localisation"]["arms"]}


def test_every_arm_with_maps_has_its_scores_with_intervals(finished):
    found = finished.results["localisation"]
    assert [(entry["arm"], entry["budget"], entry["seeds"]) for entry in found["arms"]] == [
        ("tuned", "all", [0, 1]),
        ("frozen", "all", [0, 1]),
    ]
    for entry in found["arms"]:
        assert list(entry["metrics"]) == list(LOCALISATION_METRICS)
        assert all(value["low"] <= value["mean"] <= value["high"] for value in entry["metrics"].values())
    assert [(entry["a"], entry["b"]) for entry in found["comparisons"]] == [("frozen", "tuned")] * 3
    assert "left out of the localisation scores" in found["rule"]
    assert found["design"]["units"] == found["design"]["samples"] == 16
    assert found["grids"] == {"tuned": [5, 5], "frozen": [5, 5]}


def test_a_difference_is_that_of_the_arms(finished):
    found = finished.results["localisation"]
    for entry in found["comparisons"]:
        a, b = (arms(finished)[entry[side]]["metrics"][entry["metric"]]["mean"] for side in "ab")
        assert entry["difference"] == pytest.approx(a - b, abs=2e-6)
        assert "verdict" not in entry


def test_a_network_without_maps_is_noted(finished):
    (note,) = finished.results["localisation"]["notes"]
    assert note.startswith("transformer was not asked where it looks")
    assert "test_vit gives" in note
    assert "transformer" in {entry["arm"] for entry in finished.results["arms"]}


def test_a_network_that_tells_bright_from_dark_points_at_what_is_bright(finished):
    found = arms(finished)["frozen"]["metrics"]
    nothing = finished.results["localisation"]["uninformed"]
    assert found["pointing"]["mean"] > 0.8 > 0.3 > nothing["pointing"]
    assert found["heat_inside"]["mean"] > 1.3 * nothing["heat_inside"]


def test_the_scores_are_those_of_class_activation_maps_made_by_hand(finished):
    workshop, plan = opened(finished)
    for seed in (0, 1):
        runs = [run for run in plan.runs if (run.arm, run.budget, run.seed) == ("frozen", "all", seed)]
        network, _ = workshop.initial(runs[0].spec, runs[0].weights, None, workshop.target, 0, seed)
        heads = fit_heads(runs, workshop.features(runs[0].spec, network), workshop)
        scores = []
        for run, head in zip(runs, heads, strict=True):
            for row in run.test[workshop.target.labels[run.test] == 1]:
                x = to_input(torch.from_numpy(workshop.target.store.images[[row]]), channels=1, normalise="unit")
                with torch.no_grad():
                    maps = network.eval().maps(x)[0]
                cam = np.einsum("f,fhw->hw", head.weight[1], maps.numpy()).clip(0)
                heat = torch.nn.functional.interpolate(torch.from_numpy(cam)[None, None], SIZE, mode="bilinear")
                scores.append(score_heat(heat[0, 0].numpy(), workshop.masks.mask(row)))
        for name in LOCALISATION_METRICS:
            expected = np.mean([score[name] for score in scores])  # one image a subject
            assert arms(finished)["frozen"]["metrics"][name]["per_seed"][seed] == pytest.approx(expected, abs=1e-4)


def test_only_runs_at_the_largest_budget_are_asked_and_only_one_seed_keeps_heat_maps(finished):
    workshop, plan = opened(finished)
    for run in plan.runs:
        kept = load_kept(finished.folder, run.key)
        if run.budget != "all":
            assert kept == {}
        elif run.arm == "transformer":
            assert set(kept) == {REFUSED}
        else:
            np.testing.assert_array_equal(kept[ROWS], run.test[workshop.target.labels[run.test] == 1])
            assert kept[SCORES].shape == (len(kept[ROWS]), 3)
            assert (CAMS in kept) == (run.seed == 0)
        if CAMS in kept:
            assert kept[CAMS].dtype == np.float16
            assert kept[CAMS].shape == (len(kept[CAM_ROWS]), 5, 5)
            assert len(kept[CAM_ROWS]) <= MOST_CAMS


def test_lost_runs_are_asked_again_and_give_the_same_bytes(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder)
    _, plan = opened(finished)
    lost = {run.key for run in plan.runs if run.fold == 1 and run.seed == 0 and run.arm != "transformer"}
    for key in lost:
        shutil.rmtree(folder / "runs" / key)
    Study.open(folder).run()
    assert (folder / "results.json").read_bytes() == (finished.folder / "results.json").read_bytes()
    for key in lost:
        before, after = load_kept(finished.folder, key), load_kept(folder, key)
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_report_shows_arms_hits_and_misses(finished):
    page = finished.report.read_text()
    section = page[page.index('<section id="where">') : page.index('<section id="methods">')]
    assert '<a href="#where">' in page
    assert "Pointing game" in section
    assert "5 × 5" in section
    assert "Hits and misses: frozen" in section
    assert 1 <= section.count("data:image/jpeg") <= 6
    assert "transformer was not asked" in section
    with open(finished.folder / "results.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "pointing"]
    assert [row["record"] for row in rows].count("arm") == 2
    assert [row["record"] for row in rows].count("comparison") == 1


def test_signs_of_arms_are_the_same_as_in_the_other_tables(finished):
    found = {**finished.results["localisation"]}
    view = localisation_view(found, ["transformer", "frozen", "tuned"])
    assert [row["index"] for row in view["table"]["rows"]] == [2, 1]


def test_without_masks_nothing_is_asked(tmp_path, finished):
    table = write_blobs(tmp_path, subjects=8, masked=False)
    few = {"frozen": {"method": "linear_probe"}}
    other = Study.from_recipe(recipe_of(table, arms=few, budgets=["all"])).run(tmp_path / "study")
    assert "localisation" not in other.results
    assert 'id="where"' not in other.report.read_text()
    assert not list((tmp_path / "study" / "runs").rglob("test_kept.npz"))


def test_a_network_that_ends_in_one_place_is_noted(blobs, tmp_path):
    few = {"frozen": {"method": "linear_probe", "network": "cbr_tiny"}}
    changes = {"arms": few, "budgets": ["all"], "seeds": 1, "input": {"size": 16, "channels": 1}}
    found = Study.from_recipe(recipe_of(blobs, **changes)).run(tmp_path).results["localisation"]
    assert found["arms"] == found["comparisons"] == []
    assert "cbr_tiny ends in a single place for images of 16 pixels" in found["notes"][0]
    assert "single place" in (tmp_path / "report.html").read_text()


def test_masks_define_the_runs_that_are_asked_and_no_others(finished, blobs, tmp_path):
    shutil.copytree(blobs.parent, tmp_path / "changed")
    Image.open(blobs.parent / "03_mask.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        tmp_path / "changed" / "03_mask.png"
    )
    recipe = parse_recipe(recipe_of(tmp_path / "changed" / "table.csv"))
    workshop = open_workshop(recipe, tmp_path / "study")
    changed = make_plan(recipe, workshop.target, workshop.source, workshop)
    for mine, theirs in zip(opened(finished)[1].runs, changed.runs, strict=True):
        assert (mine.key == theirs.key) == (mine.budget != "all")


def test_a_mask_of_another_size_is_refused_before_anything_is_trained(blobs, tmp_path):
    shutil.copytree(blobs.parent, tmp_path / "wrong")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "wrong" / "05_mask.png")
    with pytest.raises(UserError, match=r"sample 05: 05_mask\.png: the mask has 8 × 8 pixels and its image 80 × 100"):
        Study.from_recipe(recipe_of(tmp_path / "wrong" / "table.csv")).run(tmp_path / "study")
    assert not (tmp_path / "study" / "runs").exists()


def test_a_source_model_is_asked_once_for_all_budgets_and_seeds(blobs, tmp_path):
    source = {"dataset": "table", "path": str(blobs), "method": {"name": "scratch", "epochs": 1}}
    zero_shot = {"as it is": {"weights": "source", "method": "zero_shot"}}
    shutil.copytree(blobs.parent, tmp_path / "target")
    mirrored = tmp_path / "target"
    for file in mirrored.glob("*.png"):
        Image.open(file).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(file)
    pd.read_csv(mirrored / "table.csv", dtype=str).assign(dataset="mirrored").to_csv(
        mirrored / "table.csv", index=False
    )
    study = Study.from_recipe(recipe_of(mirrored / "table.csv", arms=zero_shot, source=source)).run(tmp_path / "study")
    (entry,) = study.results["localisation"]["arms"]
    assert len(set(entry["metrics"]["heat_inside"]["per_seed"])) == 1
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 2  # folds
    assert "Hits and misses: as it is" in study.report.read_text()


def test_several_heads_on_one_network_are_explained_as_if_each_were_alone():
    network = build_network("test_resnet", seed=0)
    heads = [build_head(kind, network.features, 3, seed=seed) for seed, kind in enumerate(("linear", "mlp", "linear"))]
    images, classes = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1])
    together = grad_cams(network, heads, images, classes)
    for head, found in zip(heads, together, strict=True):
        torch.testing.assert_close(found, grad_cam(network, head, images, classes))
