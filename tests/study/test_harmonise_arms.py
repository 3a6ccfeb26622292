"""Arms that are shown harmonised scans: whose they are brought to, and that the model carries it to new scans."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_adaptation import TINY
from tiny_segmentation import TINY as TINY_SEGMENTATION
from tiny_segmentation import laid_out, one_run

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.prepare import prepare_case
from mrtransfer.data.harmonised import fit_on_cases, fit_on_images
from mrtransfer.data.harmoniser import FittedHarmoniser, parse_harmoniser
from mrtransfer.data.volume import read_case
from mrtransfer.deploy.predict import predict_images
from mrtransfer.deploy.scans import Scan
from mrtransfer.deploy.segment import segment_scan
from mrtransfer.deploy.segmenter import Segmenter
from mrtransfer.models.package import load_model
from mrtransfer.study.execute import execute, job_of
from mrtransfer.study.outcome import load_scores
from mrtransfer.study.plan import ALL
from mrtransfer.study.probes import fit_heads
from mrtransfer.study.recipe import parse_recipe
from mrtransfer.study.tasks.whole_cases import predictions
from mrtransfer.training.fit import predict

MATCHING = parse_harmoniser("histogram_matching")
ARMS = {
    "as it is": {"method": "zero_shot"},
    "matched": {"method": "zero_shot", "harmonise": "histogram_matching"},
    "matched DANN": {"method": {"name": "dann", "epochs": 1, "batch": 8}, "harmonise": "histogram_matching"},
    "probe": {"method": "linear_probe", "harmonise": "z_score"},
    "scratch": {"weights": "random", "method": {"name": "scratch", "epochs": 1}, "harmonise": "histogram_matching"},
    "scratch probe": {"weights": "random", "method": "linear_probe", "harmonise": "histogram_matching"},
}
RECIPE = {**TINY, "arms": ARMS, "budgets": ["all"], "seeds": 1}
SEGMENTATION = TINY_SEGMENTATION | {
    "target": {**TINY_SEGMENTATION["target"], "split": {"test": 0.5, "validation": 0.25}},
    "arms": {
        "as it is": {"weights": "source", "method": "zero_shot"},
        "matched": {"weights": "source", "method": "zero_shot", "harmonise": "histogram_matching"},
    },
    "seeds": 1,
}


@pytest.fixture(scope="module")
def classifying(tmp_path_factory):
    """The plan and workshop of a classification study whose sources are trained and whose probes are done."""
    plan, workshop = laid_out(parse_recipe(RECIPE), tmp_path_factory.mktemp("classification"))
    execute(replace(plan, runs=[run for run in plan.runs if run.spec.method.cached]), workshop, lambda _: None)
    return plan, workshop


@pytest.fixture(scope="module")
def segmenting(tmp_path_factory):
    """The plan and workshop of a segmentation study whose source is trained."""
    plan, workshop = laid_out(parse_recipe(SEGMENTATION), tmp_path_factory.mktemp("segmentation"))
    for source in plan.sources:
        workshop.train_source(source)
    return plan, workshop


def changed(arms=None, **fields):
    return {**RECIPE, **fields, **({} if arms is None else {"arms": arms})}


def key_of(recipe, arm, folder):
    return one_run(laid_out(parse_recipe(recipe), folder)[0], arm).key


class TestTheReference:
    @pytest.mark.parametrize("fold", [0, 1])
    @pytest.mark.parametrize("arm", ["matched", "matched DANN"])
    def test_an_arm_of_the_source_has_its_training_rows(self, classifying, arm, fold):
        plan, workshop = classifying
        job = job_of(one_run(plan, arm, fold), workshop)
        expected = fit_on_images(MATCHING, workshop.source.store, job.source.train)
        assert workshop.harmoniser(job, workshop.target).key == expected.key
        tested = set(workshop.target.subjects[plan.folds[fold].test])
        assert not tested & set(workshop.source.subjects[job.source.train])

    @pytest.mark.parametrize("fold", [0, 1])
    def test_any_other_arm_has_the_development_rows_of_the_target(self, classifying, fold):
        plan, workshop = classifying
        job = job_of(one_run(plan, "scratch", fold), workshop)
        expected = fit_on_images(MATCHING, workshop.target.store, plan.folds[fold].development)
        assert workshop.harmoniser(job, workshop.target).key == expected.key

    def test_the_model_handed_over_has_all_rows_after_several_folds(self, classifying):
        plan, workshop = classifying
        job = replace(job_of(one_run(plan, "scratch"), workshop), fold=ALL)
        rows = np.arange(len(workshop.target.labels))
        assert workshop.harmoniser(job, workshop.target).key == fit_on_images(
            MATCHING, workshop.target.store, rows
        ).key  # fmt: skip

    def test_of_segmentation_it_is_raw_scans(self, segmenting):
        plan, workshop = segmenting
        job = job_of(one_run(plan, "matched"), workshop)
        expected = fit_on_cases(MATCHING, workshop.source.manifest, job.source.train)
        assert workshop.harmoniser(job, workshop.target).key == expected.key


class TestWhatIsHarmonised:
    def test_the_target_and_not_the_source(self, classifying):
        plan, workshop = classifying
        job = job_of(one_run(plan, "matched DANN"), workshop)
        assert workshop.seen(job, workshop.source) is workshop.source.store
        assert workshop.seen(job, workshop.target).content != workshop.target.store.content

    def test_arms_with_and_without_share_the_source_training(self, classifying):
        plan, _ = classifying
        assert len(plan.sources) == len(plan.folds)

    def test_the_source_where_it_says_so(self, tmp_path):
        source = {**TINY["source"], "harmonise": "histogram_matching"}
        arms = {name: ARMS[name] for name in ("as it is", "matched DANN")}
        plan, workshop = laid_out(parse_recipe(changed(source=source, arms=arms)), tmp_path)
        before, _ = laid_out(parse_recipe(RECIPE), tmp_path)
        assert {run.key for run in plan.sources}.isdisjoint(run.key for run in before.sources)
        for arm, target_too in (("matched DANN", True), ("as it is", False)):
            job = job_of(one_run(plan, arm), workshop)
            assert workshop.seen(job, workshop.source).content != workshop.source.store.content
            assert (workshop.seen(job, workshop.target).content != workshop.target.store.content) == target_too

    def test_scores_are_of_harmonised_images(self, classifying):
        plan, workshop = classifying
        run = one_run(plan, "matched")
        job, model = job_of(run, workshop), load_model(workshop.source_folder(run.source))
        store = workshop.seen(job, workshop.target)
        expected = predict(model.network, model.head, store, run.test, input=workshop.input_of(run.spec))
        found = workshop.scores(workshop.train(job), workshop.target, run.test).values
        assert np.array_equal(found, expected)
        raw = predict(model.network, model.head, workshop.target.store, run.test, input=workshop.input_of(run.spec))
        assert not np.array_equal(found, raw)

    def test_probes_see_the_images_of_their_fold(self, classifying):
        plan, workshop = classifying
        stores = {
            arm: {workshop.seen(job_of(one_run(plan, arm, fold), workshop), workshop.target).content for fold in (0, 1)}
            for arm in ("scratch probe", "probe")
        }
        assert len(stores["scratch probe"]) == len(stores["probe"]) == 2
        for run in plan.runs:
            if run.arm == "scratch probe":
                network, _ = workshop.initial(run.spec, run.weights, None, workshop.target, run.fold, run.seed)
                store = workshop.seen(job_of(run, workshop), workshop.target)
                (head,) = fit_heads([run], workshop.features(run.spec, network, store=store), workshop)
                features = workshop.features(run.spec, network, store=store)[0][run.test]
                kept = load_scores(workshop.folder, run.key, "test").values
                assert kept == pytest.approx(head.probabilities(features), abs=1e-4)


class TestKeys:
    def test_harmonising_makes_another_run_and_other_settings_too(self, tmp_path):
        keys = {
            key_of(changed(arms={"arm": {"method": "zero_shot", "harmonise": how}}), "arm", tmp_path)
            for how in (None, "histogram_matching", "z_score", {"name": "histogram_matching", "points": 11})
        }
        assert len(keys) == 4

    def test_without_it_a_run_is_the_one_it_was_before(self, tmp_path):
        plan, _ = laid_out(parse_recipe(changed(arms={"arm": {"method": "zero_shot"}})), tmp_path)
        assert one_run(plan, "arm").spec.harmonise is None
        with_none = changed(arms={"arm": {"method": "zero_shot", "harmonise": None}})
        assert key_of(with_none, "arm", tmp_path) == one_run(plan, "arm").key

    def test_an_arm_without_source_depends_on_who_may_be_looked_at(self, tmp_path):
        arm = {"weights": "random", "method": {"name": "scratch", "epochs": 1}}
        split = {**TINY["target"], "split": {"folds": 3}}
        for harmonise in (None, "z_score"):
            recipe = changed(arms={"arm": {**arm, "harmonise": harmonise}}, target=split)
            plan, workshop = laid_out(parse_recipe(recipe), tmp_path)
            fold = plan.folds[0]
            fewer = replace(fold, development=fold.development[1:])
            spec = recipe_arm(plan)
            same = workshop.defines(workshop.target, fold, spec) == workshop.defines(workshop.target, fewer, spec)
            assert same == (harmonise is None)


def recipe_arm(plan):
    return plan.runs[0].spec


class TestTheModel:
    @pytest.mark.parametrize("arm", ["matched", "matched DANN", "probe", "scratch"])
    def test_it_harmonises_new_images_as_it_was_trained(self, classifying, tmp_path, arm):
        plan, workshop = classifying
        run = one_run(plan, arm)
        job = job_of(run, workshop)
        workshop.make_model(run, job, tmp_path / "model", {})
        model = load_model(tmp_path / "model")
        fitted = FittedHarmoniser.from_json(model.spec["harmonise"])
        assert fitted.key == workshop.harmoniser(job, workshop.target).key

        row = int(run.test[0])
        location = workshop.target.manifest.locations(row)[0]
        (found,) = predict_images(tmp_path / "model", [location])
        store = workshop.seen(job, workshop.target)
        (expected,) = predict(model.network, model.head, store, np.array([row]), input=model.spec["input"])
        assert list(found["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)

    def test_one_that_harmonises_nothing_does_not_speak_of_it(self, classifying, tmp_path):
        plan, workshop = classifying
        run = one_run(plan, "as it is")
        workshop.make_model(run, job_of(run, workshop), tmp_path / "model", {})
        assert "harmonise" not in load_model(tmp_path / "model").spec

    def test_it_harmonises_new_scans(self, segmenting, tmp_path):
        plan, workshop = segmenting
        run = one_run(plan, "matched")
        job = job_of(run, workshop)
        workshop.make_model(run, job, tmp_path / "model", {})
        segmenter = Segmenter.load(tmp_path / "model")
        assert segmenter.harmonise.key == workshop.harmoniser(job, workshop.target).key
        row = int(run.test[0])
        scan = Scan("scan", tuple(workshop.target.manifest.locations(row)))
        found = segment_scan(segmenter, scan, precision="float32")
        (expected,) = predictions(workshop, workshop.train(job), workshop.target, np.array([row]))
        assert np.array_equal(found.classes, expected.classes)
        # and is known by what it is without being harmonised
        assert found.digest == workshop.row_digests(workshop.target)[row]
        case = read_case(workshop.target.manifest, row)
        plain = prepare_case(case, segmenter.plan).image
        assert not np.array_equal(plain, prepare_case(case, segmenter.plan, segmenter.harmonise).image)

    def test_a_damaged_harmoniser_is_named_with_its_file(self, segmenting, tmp_path):
        plan, workshop = segmenting
        run = one_run(plan, "matched")
        workshop.make_model(run, job_of(run, workshop), tmp_path / "model", {})
        file = tmp_path / "model" / "model.json"
        spec = json.loads(file.read_text())
        spec["harmonise"]["harmoniser"]["name"] = "histogram_machting"
        file.write_text(json.dumps(spec))
        with pytest.raises(UserError, match="histogram_matching"):
            Segmenter.load(tmp_path / "model")


class TestRefused:
    @pytest.mark.parametrize(
        ("recipe", "said"),
        [
            (changed(arms={"arm": {"method": "zero_shot", "harmonise": "z_scor"}}), "did you mean 'z_score'"),
            (changed(arms={"arm": {"method": "zero_shot", "harmonise": {"name": "nyul", "scal": 1}}}), "scal"),
            (
                changed(source={**TINY["source"], "harmonise": "z_score"}),
                "arm 'matched': harmonise is histogram_matching, and that of the source, whose model it starts from, "
                "is z_score; give both the same, or leave one of them out",
            ),
        ],
        ids=["name", "setting", "two harmonisers"],
    )
    def test_recipes_that_cannot_be_meant(self, recipe, said):
        with pytest.raises(UserError) as caught:
            parse_recipe(recipe)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_domains_of_other_channels(self, tmp_path):
        source = {**SEGMENTATION["source"], "contrast": ["flair", "t1ce", "t1"]}
        arms = {"arm": {"weights": {"kind": "source", "channels": "mean"}, "method": {"name": "fine_tune", "epochs": 1},
                        "harmonise": "histogram_matching"}}  # fmt: skip
        with pytest.raises(UserError, match=r"arms.arm.harmonise: the source has 3 channels and the target 2; both"):
            laid_out(parse_recipe(SEGMENTATION | {"source": source, "arms": arms}), tmp_path)
