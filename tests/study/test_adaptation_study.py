"""Arms without target labels: who they learn from, that no label reaches them, and what is said of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_adaptation import TINY
from tiny_segmentation import TINY as TINY_SEGMENTATION
from tiny_segmentation import laid_out, one_run

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.store import CaseStore
from mrtransfer.deploy.predict import SEEN, predict_images
from mrtransfer.models.package import load_model
from mrtransfer.study.execute import execute, job_of
from mrtransfer.study.final import train_final
from mrtransfer.study.gap import gaps_of
from mrtransfer.study.outcome import is_done, load_record
from mrtransfer.study.recipe import parse_recipe
from mrtransfer.study.run import Study

SEGMENTATION = TINY_SEGMENTATION | {
    "target": {**TINY_SEGMENTATION["target"], "split": {"test": 0.5, "validation": 0.25}},
    "arms": {
        "source only": {"weights": "source", "method": "zero_shot"},
        "DANN": {"weights": "source", "method": {"name": "dann", "epochs": 1}},
    },
    "seeds": 1,
}
"""Its network, residual_unet, has no batch norm with running statistics."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return Study.from_recipe(TINY).run(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def planned(finished):
    return laid_out(parse_recipe(TINY), finished.folder)


@pytest.fixture(scope="module")
def segmenting(tmp_path_factory):
    """The plan and workshop of a segmentation study whose source is trained."""
    plan, workshop = laid_out(parse_recipe(SEGMENTATION), tmp_path_factory.mktemp("segmentation"))
    for source in plan.sources:
        workshop.train_source(source)
    return plan, workshop


def changed(**fields):
    return {**TINY, **fields}


def with_arm(recipe=TINY, **arm):
    return {**recipe, "arms": {"DANN": {"weights": "source", "method": "dann", **arm}}}


def state(trained):
    return {**trained.network.state_dict(), **trained.head.state_dict()}


def alike(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestWhoIsLearnedFrom:
    def test_the_sources_labelled_rows_and_all_development_rows_of_the_target(self, planned):
        plan, workshop = planned
        for run in plan.runs:
            job = job_of(run, workshop)
            if run.arm not in ("DANN", "AdaBN"):
                assert run.unlabelled is None
                assert job.domain is workshop.target
                continue
            assert job.domain is workshop.source
            assert job.train is run.source.train
            assert job.validation is run.source.validation
            assert job.unlabelled.tolist() == plan.folds[run.fold].development.tolist()
            assert not set(job.unlabelled) & set(run.test)
            seen = {*workshop.source.subjects[job.train], *workshop.target.subjects[job.unlabelled]}
            assert not seen & set(workshop.target.subjects[run.test])
            assert run.source.excluded > 0

    def test_budgets_make_no_difference_and_seeds_do(self, planned):
        keys = {(run.budget, run.seed, run.fold): run.key for run in planned[0].runs if run.arm == "DANN"}
        assert len(set(keys.values())) == 4
        assert all(keys[6, seed, fold] == keys["all", seed, fold] for seed in (0, 1) for fold in (0, 1))

    @pytest.mark.parametrize(
        "fields",
        [
            {"source": {**TINY["source"], "seed": 1}},
            {"source": {**TINY["source"], "subjects": 15}},
            {"target": {**TINY["target"], "split": {"folds": 2, "seed": 1}}},
            {"arms": {**TINY["arms"], "DANN": {"method": {"name": "dann", "epochs": 1, "batch": 8, "weight": 0.5}}}},
        ],
        ids=["source rows", "source data", "target rows", "settings"],
    )
    def test_the_key_knows_the_rows_of_both_domains(self, planned, tmp_path, fields):
        others, _ = laid_out(parse_recipe(changed(**fields)), tmp_path)
        before, after = ({run.key for run in plan.runs if run.arm == "DANN"} for plan in (planned[0], others))
        assert not before & after

    def test_arms_share_the_source_training(self, planned):
        assert len(planned[0].sources) == len(planned[0].folds)

    def test_no_label_of_the_target_reaches_a_classifier(self, planned, tmp_path):
        plan, workshop = planned
        job = replace(job_of(one_run(plan, "DANN"), workshop), checkpoints=tmp_path / "a")
        before = state(workshop.train(job))
        target = workshop.target
        workshop.target = replace(target, labels=np.full_like(target.labels, -1))
        try:
            after = state(workshop.train(replace(job, checkpoints=tmp_path / "b")))
        finally:
            workshop.target = target
        assert alike(before, after)

    def test_no_mask_of_the_target_reaches_a_segmenter(self, segmenting, tmp_path, monkeypatch):
        plan, workshop = segmenting
        run = one_run(plan, "DANN")
        folder = workshop.seen(job_of(run, workshop), workshop.target).folder
        asked = []

        def watched(original):
            def ask(store, *arguments):
                asked.append(store.folder)
                return original(store, *arguments)

            return ask

        for name in ("mask", "foreground"):
            monkeypatch.setattr(CaseStore, name, watched(getattr(CaseStore, name)))
        trained = workshop.train(replace(job_of(run, workshop), checkpoints=tmp_path))
        assert asked
        assert folder not in asked
        source = load_model(workshop.source_folder(run.source))
        assert not alike(state(trained), {**source.network.state_dict(), **source.head.state_dict()})
        assert trained.record["clean"] == source.spec["postprocess"]

    def test_the_target_has_its_share_in_what_is_learned(self, planned, tmp_path):
        plan, workshop = planned
        job = job_of(one_run(plan, "DANN"), workshop)
        fewer = replace(job, unlabelled=job.unlabelled[:4], checkpoints=tmp_path / "b")
        trained = [state(workshop.train(one)) for one in (replace(job, checkpoints=tmp_path / "a"), fewer)]
        assert not alike(*trained)


class TestResults:
    def test_no_labels_are_spent(self, finished):
        labelled = {(entry["arm"], entry["budget"]): entry["labelled"] for entry in finished.results["arms"]}
        assert labelled == {
            (arm, budget): 0 if arm != "oracle" else budget if budget == 6 else 8
            for arm in TINY["arms"]
            for budget in (6, "all")
        }

    def test_the_gap_is_in_the_results(self, finished):
        gap = json.loads((finished.folder / "results.json").read_text())["gap"]
        assert gap["notes"] == []
        (one,) = gap["gaps"]
        assert (one["source_only"], one["oracle"], one["budget"], one["labelled"]) == (
            "source only", "oracle", "all", 8,
        )  # fmt: skip
        assert [entry["a"] for entry in one["arms"]] == ["matched", "AdaBN", "DANN"]
        assert all(entry["sentence"] for entry in one["arms"])

    def test_its_differences_are_those_of_the_scores(self, finished):
        means = {e["arm"]: e["metrics"]["accuracy"]["mean"] for e in finished.results["arms"] if e["budget"] == "all"}
        for entry in finished.results["gap"]["gaps"][0]["arms"]:
            assert entry["difference"] == pytest.approx(means[entry["a"]] - means["source only"], abs=2e-6)

    def test_comparisons_tell_the_labels_of_the_arm_that_has_some(self, finished):
        primary = [entry for entry in finished.results["comparisons"] if entry["primary"]]
        told = {(entry["a"], entry["budget"]): entry["labelled"] for entry in primary}
        assert told == {("matched", "all"): 0, ("AdaBN", "all"): 0, ("DANN", "all"): 0, ("oracle", 6): 6,
                        ("oracle", "all"): 8}  # fmt: skip

    def test_every_run_is_found_again(self, planned):
        plan, workshop = planned
        assert all(is_done(workshop.folder, run.key) for run in plan.runs)

    def test_the_record_says_how_it_was_trained(self, planned):
        plan, workshop = planned
        record = load_record(workshop.folder, one_run(plan, "DANN").key)
        assert record["curves"][-1]["epoch"] == 1


class TestTheModelHandedOver:
    def test_it_is_the_targets_and_knows_all_it_has_seen(self, planned, tmp_path):
        plan, workshop = planned
        run = one_run(plan, "DANN")
        workshop.make_model(run, job_of(run, workshop), tmp_path / "model", {})
        spec = load_model(tmp_path / "model").spec
        source, target = workshop.source, workshop.target
        learned = np.concatenate([run.source.train, run.source.validation])
        assert set(spec["provenance"]["subjects"]) == {*source.subjects[learned], *target.subjects[run.unlabelled]}
        assert spec["classes"] == list(target.manifest.classes)
        digests = {*source.store.row_digests[learned], *target.store.row_digests[run.unlabelled]}
        assert set(spec["provenance"]["row_digests"]) == digests

        image = tmp_path / "scan.png"
        Image.fromarray(target.store.images[run.unlabelled[0], 0]).save(image)
        (found,) = predict_images(tmp_path / "model", [image])
        assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)

    def test_a_study_hands_over_an_arm_that_adapts(self, planned, finished, tmp_path, monkeypatch):
        plan, workshop = planned
        monkeypatch.setattr(workshop, "source_folder", lambda run: finished.folder / "sources" / run.key)
        monkeypatch.setattr(workshop, "folder", tmp_path)
        model = train_final("DANN", plan, workshop, finished.results)
        assert (model["arm"], model["labelled"]) == ("DANN", 0)
        spec = load_model(tmp_path / "model").spec
        assert set(spec["provenance"]["subjects"]) >= set(workshop.target.subjects)

    def test_an_image_that_it_was_adapted_to_is_known(self, planned, tmp_path):
        plan, workshop = planned
        run = one_run(plan, "AdaBN")
        workshop.make_model(run, job_of(run, workshop), tmp_path / "model", {})
        location = workshop.target.manifest.locations(int(run.unlabelled[0]))[0]
        assert location.startswith("phantom:")
        (found,) = predict_images(tmp_path / "model", [location])
        assert found["warning"] == SEEN


class TestAModelFolderAsWeights:
    def test_it_is_adapted_and_no_source_is_trained_for_it(self, planned, tmp_path):
        plan, workshop = planned
        model = workshop.source_folder(plan.sources[0])
        arms = {"DANN": {"weights": str(model), "method": {"name": "dann", "epochs": 1, "batch": 8}}}
        recipe = changed(arms=arms, seeds=1, target={**TINY["target"], "first_subject": 100})
        mine, others = laid_out(parse_recipe(recipe), tmp_path)
        assert mine.sources == []
        execute(mine, others, lambda _: None)
        assert not (tmp_path / "sources").exists()
        assert len(list((tmp_path / "runs").iterdir())) == 2

    def test_it_must_not_have_seen_who_is_tested(self, planned, tmp_path):
        plan, workshop = planned
        arms = {"DANN": {"weights": str(workshop.source_folder(plan.sources[0])), "method": "dann"}}
        with pytest.raises(
            UserError, match=r"arms.DANN.weights: these weights were trained on \d+ of the test subject"
        ):
            laid_out(parse_recipe(changed(arms=arms, target={**TINY["target"], "first_subject": 16})), tmp_path)

    def test_a_file_without_a_head_is_refused(self, planned, tmp_path):
        plan, workshop = planned
        weights = str(workshop.source_folder(plan.sources[0]) / "model.safetensors")
        arms = {"DANN": {"weights": weights, "method": "dann"}}
        recipe = changed(arms=arms, target={**TINY["target"], "first_subject": 100})
        with pytest.raises(UserError, match=r"file has head.0.bias, which the network does not"):
            laid_out(parse_recipe(recipe), tmp_path)


class TestRefused:
    def test_other_classes_before_anything_is_trained(self, tmp_path):
        source = {**TINY["source"], "labels": {"no_tumour": "none", "*": "tumour"}}
        with pytest.raises(
            UserError, match=r"arms.DANN.method: dann learns the source's classes \(.*tumour\), which "
        ) as e:
            Study.from_recipe(with_arm(changed(source=source))).run(tmp_path)
        assert "bring both to the same with labels" in str(e.value)
        assert not (tmp_path / "sources").exists()

    def test_other_masks_too(self, tmp_path):
        source = {**SEGMENTATION["source"], "labels": {"*": "tumour"}}
        with pytest.raises(
            UserError, match=r"arms.DANN.method: dann learns the source's classes \(tumour\), which are"
        ):
            laid_out(parse_recipe(with_arm(SEGMENTATION | {"source": source})), tmp_path)

    def test_networks_without_what_the_method_changes(self, tmp_path):
        recipe = with_arm(SEGMENTATION, method="adaptive_batch_norm")
        with pytest.raises(UserError, match=r"arms.DANN.method: adaptive_batch_norm: residual_unet has no batch norm"):
            laid_out(parse_recipe(recipe), tmp_path)

    @pytest.mark.parametrize(
        ("recipe", "said"),
        [
            (
                with_arm(weights="random"),
                "weights: dann adapts a whole model of the source, with its head; give source",
            ),
            (with_arm(weights="imagenet"), "weights: dann adapts a whole model of the source"),
            (
                with_arm(weights={"kind": "source", "until": "block1"}),
                "weights: dann adapts a whole model of the source",
            ),
            (
                with_arm({key: value for key, value in TINY.items() if key != "source"}),
                "arm 'DANN' starts from weights: source, but the recipe has no source",
            ),
            (
                with_arm({key: value for key, value in TINY.items() if key != "source"}, weights="a/model"),
                "arm 'DANN' learns from the source's labels, but the recipe has no source",
            ),
            (
                with_arm(SEGMENTATION, method="mcc", loss="region"),
                "loss: mcc needs classes that exclude each other, and region has one sigmoid per region; choose",
            ),
            (
                with_arm(changed(shift={}, source=None), weights="random", method="scratch"),
                "shift: compares the target with the source, but the recipe has no source",
            ),
            (
                changed(source={**TINY["source"], "method": "dann"}),
                "dann adapts to a target; a source is learned with scratch or fine_tune",
            ),
            (
                with_arm(changed(target={**TINY["target"], "split": {"test": 1}}, budgets=["all"])),
                "target.split.test: 1 leaves nothing that arm 'DANN' could learn from",
            ),
        ],
        ids=[
            "random",
            "imagenet",
            "a part",
            "no source",
            "no source for a file",
            "regions",
            "nothing to shift from",
            "a source that adapts",
            "all tested",
        ],
    )
    def test_recipes_that_cannot_adapt(self, recipe, said):
        with pytest.raises(UserError) as caught:
            parse_recipe(recipe)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_reconstructions(self):
        from tiny_reconstruction import TINY as TINY_RECONSTRUCTION

        arm = {"network": {"name": "unet"}, "weights": "source", "method": "dann"}
        with pytest.raises(
            UserError, match="dann is for classes and masks; reconstruct with scratch, fine_tune or zero"
        ):
            parse_recipe({**TINY_RECONSTRUCTION, "arms": {"DANN": arm}, "compare": []})


class TestWhoIsMeasuredAgainstWhom:
    def test_source_only_and_oracle_have_the_same_network_and_start(self):
        arms = {
            "scratch": {"weights": "random", "method": "scratch"},
            "probe": {"method": "linear_probe"},
            "tuned harmonised": {"method": "fine_tune", "harmonise": "z_score"},
            "tuned": {"method": "fine_tune"},
            "source only": {"method": "zero_shot"},
            "DANN": {"method": "dann"},
            "large DANN": {"method": "dann", "network": "cbr_small"},
            "large source": {"method": "zero_shot", "network": "cbr_small"},
            "large scratch": {"method": "scratch", "network": "cbr_small", "weights": "random"},
            "matched": {"method": "zero_shot", "harmonise": "histogram_matching"},
        }
        gaps, notes = gaps_of(parse_recipe(changed(arms=arms)))
        assert [(gap.source_only, gap.oracle, gap.adapted) for gap in gaps] == [
            ("source only", "tuned", ("DANN", "matched")),
            ("large source", "large scratch", ("large DANN",)),
        ]
        assert notes == []

    @pytest.mark.parametrize(
        ("others", "lacking"),
        [
            ({"oracle": {"method": "fine_tune"}}, "of the source model as it is (weights: source, method: zero_shot)"),
            (
                {"as is": {"method": "zero_shot"}},
                "that learns from the target's labels (an oracle, such as method: fine",
            ),
        ],
    )
    def test_where_somebody_is_missing_a_note_says_so(self, others, lacking):
        gaps, (note,) = gaps_of(parse_recipe(changed(arms={"DANN": {"method": "dann"}, **others})))
        assert gaps == []
        assert note.startswith("What DANN closes of the gap is not told: its network has no arm")
        assert lacking in note

    def test_without_arms_that_adapt_there_is_no_gap(self):
        arms = {"as is": {"method": "zero_shot"}, "tuned": {"method": "fine_tune"}}
        assert gaps_of(parse_recipe(changed(arms=arms))) == ([], [])
