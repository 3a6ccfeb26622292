"""Transfer between segmentation domains: who is trained on whom, by which plan, and from which weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_segmentation import TINY, changed, laid_out, one_run

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.fingerprint import fingerprint
from mrtransfer.data.cases.plan import SegmentationPlan, make_plan
from mrtransfer.models.network import network_state
from mrtransfer.models.package import load_model
from mrtransfer.study.execute import job_of
from mrtransfer.study.outcome import load_record
from mrtransfer.study.recipe import parse_recipe
from mrtransfer.study.run import Study
from mrtransfer.study.tasks import open_workshop


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
