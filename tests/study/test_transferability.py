"""Scores stand beside gains: found on rows that may be learned from, ranked honestly, and silent where arms are few."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from jinja2 import DictLoader, Environment, StrictUndefined
from safetensors.torch import save_file

import mrtransfer.study.report.draw as draw
from mrtransfer.common.errors import UserError
from mrtransfer.models.network import build_network
from mrtransfer.models.package import load_model
from mrtransfer.models.segmentation import build_segmentation_network
from mrtransfer.models.weights import apply_weights
from mrtransfer.shift.score import Evidence, parse_score
from mrtransfer.shift.scores.logme import log_me
from mrtransfer.study import evidence as evidence_module
from mrtransfer.study.evidence import MOST_SAMPLES, _last_transferred, _voxels, evidence_of, spread
from mrtransfer.study.gains import counterparts, gains_of
from mrtransfer.study.plan import make_plan
from mrtransfer.study.recipe import parse_recipe
from mrtransfer.study.report.tables import _CSV
from mrtransfer.study.report.transferability import transferability_rows, transferability_view
from mrtransfer.study.statistics.measures import CLASSIFICATION
from mrtransfer.study.tasks import open_workshop
from mrtransfer.study.transferability import scored, transferability
from mrtransfer.study.transferability_words import sentence_of

NETWORKS = ("cbr_tiny", "cbr_small", "cbr_large_w", "cbr_large_t", "resnet10t")
RECIPE = {
    "name": "ranked",
    "question": "Would a score have told which network transfers?",
    "task": "classification",
    "source": {
        "dataset": "phantom", "contrast": "t1ce", "subjects": 16, "slices": 1, "first_subject": 500, "size": 32,
        "method": {"name": "scratch", "epochs": 1},
    },
    "target": {"dataset": "phantom", "contrast": "t2", "subjects": 24, "slices": 2, "size": 32, "split": {"folds": 2}},
    "input": {"size": 32, "channels": 1},
    "shared": {"normalise": "unit"},
    "arms": {
        f"{network} {name}": {"network": network, **arm}
        for network in NETWORKS
        for name, arm in (
            ("scratch", {"method": {"name": "scratch", "epochs": 1}}),
            ("frozen", {"weights": "source", "method": "linear_probe"}),
        )
    },
    "compare": [[f"{network} frozen", f"{network} scratch"] for network in NETWORKS],
    "resamples": 200,
    "precision": "float32",
}  # fmt: skip


def results_of(differences, budget="all", metric="accuracy"):
    """As a finished study has them: differences by (a, b)."""
    comparisons = [
        {"a": a, "b": b, "budget": budget, "labelled": 12, "metric": metric, "primary": True, "difference": value,
         "low": value - 0.1, "high": value + 0.2}
        for (a, b), value in differences.items()
    ]  # fmt: skip
    return {"design": {"main": metric, "margin": 0.01, "resamples": 200}, "comparisons": comparisons}


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """The plan and workshop of a study whose sources are trained, and nothing else."""
    recipe = parse_recipe(RECIPE)
    workshop = open_workshop(recipe, tmp_path_factory.mktemp("ranked"))
    plan = make_plan(recipe, workshop.target, workshop.source, workshop)
    for source in plan.sources:
        if source.fold == plan.folds[0].index:
            workshop.train_source(source)
    return plan, workshop


@pytest.fixture(scope="module")
def gained():
    return {tuple(pair): 0.02 * number for number, pair in enumerate(RECIPE["compare"])}


@pytest.fixture(scope="module")
def found(laid_out, gained):
    plan, workshop = laid_out
    return transferability(workshop, plan, results_of(gained))


def first_run(plan, arm):
    return next(run for run in plan.runs if run.arm == arm)


# What is found


def test_every_arm_that_starts_from_weights_has_its_gain_and_its_scores(found, gained):
    assert [arm["arm"] for arm in found["arms"]] == [a for a, _ in gained]
    assert [arm["against"] for arm in found["arms"]] == [b for _, b in gained]
    for arm, gain in zip(found["arms"], gained.values(), strict=True):
        assert [entry["gain"] for entry in arm["gains"]] == [pytest.approx(gain)]
        assert {"knn", "logme", "leep", "nleep", "h_score", "gbc", "transrate", "network_size"} <= set(arm["scores"])
        assert "needs features of voxels" in arm["missing"]["cc_fv"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_scores_are_those_of_the_initial_network_on_development_rows_alone(laid_out, found):
    plan, workshop = laid_out
    rows, arm = plan.folds[0].development, "resnet10t frozen"
    run = first_run(plan, arm)
    network, _ = workshop.initial(run.spec, run.weights, run.source, workshop.target, run.fold, run.seed)
    features = workshop.features(run.spec, network)[0][rows]
    score = next(entry["scores"]["logme"] for entry in found["arms"] if entry["arm"] == arm)
    assert score == pytest.approx(log_me(features, workshop.target.labels[rows]), abs=1e-6)
    assert set(rows.tolist()).isdisjoint(plan.folds[0].test.tolist())


def test_nothing_of_a_test_row_reaches_a_score(laid_out, found, gained, monkeypatch):
    plan, workshop = laid_out
    real = type(workshop).features

    def spoilt(self, *args, **options):
        features = np.array(real(self, *args, **options))
        features[:, plan.folds[0].test] = np.nan
        return features

    monkeypatch.setattr(type(workshop), "features", spoilt)
    monkeypatch.setitem(workshop.target.__dict__, "labels", np.where(
        np.isin(np.arange(len(workshop.target.labels)), plan.folds[0].test), -1, workshop.target.labels
    ))  # fmt: skip
    again = transferability(workshop, plan, results_of(gained))
    assert again["arms"] == found["arms"]


def test_a_network_whose_features_cannot_be_had_has_no_scores_and_stops_nothing(laid_out, gained, monkeypatch):
    plan, workshop = laid_out

    def fails(*args, **options):
        raise UserError("the features are not finite")

    monkeypatch.setattr(type(workshop), "features", fails)
    told = transferability(workshop, plan, results_of(gained))
    assert all(arm["missing"]["knn"] == "the features are not finite" for arm in told["arms"])
    assert all(arm["scores"] == {} for arm in told["arms"])
    assert told["scores"] == told["correlations"] == []
    assert told["sentence"] == "Of 5 arms with transferred weights, no score could be computed."
    assert drawn(transferability_view(told, CLASSIFICATION, list(RECIPE["arms"]), "subject"))


def test_leep_asks_the_source_model_s_own_head(laid_out):
    plan, workshop = laid_out
    run = first_run(plan, "cbr_tiny frozen")
    rows = plan.folds[0].development
    network, report = workshop.initial(run.spec, run.weights, run.source, workshop.target, run.fold, run.seed)
    known = evidence_of(workshop, run, rows, network, report)
    model = load_model(workshop.source_folder(run.source))
    with torch.inference_mode():
        logits = model.head(torch.from_numpy(np.asarray(known.features)))
    assert known.source_probabilities == pytest.approx(logits.softmax(1).numpy(), abs=1e-6)
    assert known.parameters == sum(value.numel() for value in network.parameters())


@pytest.fixture(scope="module")
def sized(laid_out, found):
    """As if large networks had gained most, in a study that has measured its shift."""
    plan, workshop = laid_out
    size = {arm["arm"]: arm["scores"]["network_size"] for arm in found["arms"]}
    results = results_of({(arm, arm.replace("frozen", "scratch")): value for arm, value in size.items()})
    row = {"feature": "pixels", "feature_words": "pixels", "distance": "mmd", "words": "MMD", "value": 0.25}
    return transferability(workshop, plan, {**results, "shift": {"distances": [row]}})


def of_score(found, name):
    return next(entry for entry in found["correlations"] if entry["score"] == name)


def test_a_score_that_ranks_arms_as_they_gained_has_tau_one(sized):
    one = of_score(sized, "network_size")
    assert (one["kendall"], one["spearman"], one["units"]) == (1.0, 1.0, 5)
    assert one["p"] == pytest.approx(2 / 120, abs=1e-6)
    assert one["p_holm"] > one["p"]
    assert 0 < one["kendall_low"] < 0.5


def test_a_constant_ranks_nothing(found):
    one = of_score(found, "constant")
    assert (one["kendall"], one["p"], one["p_holm"]) == (None, None, None)


def test_distances_of_the_study_are_told_of_arms_from_the_source(sized):
    assert {arm["scores"]["mmd of pixels"] for arm in sized["arms"]} == {0.25}
    assert {"name": "mmd of pixels", "words": "MMD, pixels", "kind": "distance"} in sized["scores"]
    assert of_score(sized, "mmd of pixels")["kendall"] is None  # one source, one distance


# Counterparts and gains


def recipe_of(arms, compare=()):
    kept = {key: value for key, value in RECIPE.items() if key not in ("arms", "compare")}
    return parse_recipe({**kept, "arms": arms, "compare": compare})


def test_an_arm_is_compared_with_its_own_network_from_random_weights():
    recipe = recipe_of(
        {
            "small": {"network": "cbr_small", "method": "scratch"},
            "random, frozen": {"network": "resnet10t", "method": "linear_probe"},
            "scratch": {"network": "resnet10t", "method": "scratch"},
            "frozen": {"network": "resnet10t", "weights": "source", "method": "linear_probe"},
            "tuned": {"network": "resnet10t", "weights": "source", "method": "fine_tune"},
            "statistics": {"network": "resnet10t", "weights": {"kind": "mean_var"}, "method": "fine_tune"},
            "alone": {"network": "cbr_tiny", "weights": "source", "method": "fine_tune"},
        },
        [["frozen", "random, frozen"], ["tuned", "small"]],
    )
    assert counterparts(recipe) == {"frozen": "random, frozen", "tuned": "scratch"}


def test_of_several_counterparts_the_most_similar_is_taken():
    arms = {
        "plain": {"network": "cbr_tiny", "method": "scratch", "normalise": "imagenet"},
        "unit": {"network": "cbr_tiny", "method": "scratch"},
        "tuned": {"network": "cbr_tiny", "weights": "source", "method": "fine_tune"},
    }
    assert counterparts(recipe_of(arms, [["tuned", "unit"], ["tuned", "plain"]])) == {"tuned": "unit"}


def test_without_transferred_weights_or_without_a_counterpart_there_is_nothing_to_tell(laid_out):
    plan, workshop = laid_out
    for arms in (
        {"scratch": {"network": "cbr_tiny", "method": "scratch"}},
        {"frozen": {"network": "cbr_tiny", "weights": "source", "method": "linear_probe"}},
    ):
        other = SimpleNamespace(recipe=recipe_of(arms))
        assert transferability(other, plan, results_of({})) is None
    nobody = SimpleNamespace(folds=[SimpleNamespace(development=np.zeros(0, int), index=0)])
    assert transferability(workshop, nobody, results_of({})) is None


def test_a_gain_is_positive_where_transfer_is_better_whatever_the_metric_and_the_order():
    workshop = SimpleNamespace(measures=CLASSIFICATION)
    pairs = {"tuned": "scratch"}
    up = gains_of(workshop, None, results_of({("tuned", "scratch"): 0.3}), pairs)["tuned"][0]
    assert (up["gain"], up["low"], up["high"]) == pytest.approx((0.3, 0.2, 0.5))
    turned = gains_of(workshop, None, results_of({("scratch", "tuned"): 0.3}), pairs)["tuned"][0]
    assert (turned["gain"], turned["low"], turned["high"]) == pytest.approx((-0.3, -0.5, -0.2))
    lower = next(name for name, higher in CLASSIFICATION.higher_is_better.items() if not higher)
    loss = gains_of(workshop, None, results_of({("tuned", "scratch"): 0.3}, metric=lower), pairs)["tuned"][0]
    assert (loss["gain"], loss["low"], loss["high"]) == pytest.approx((-0.3, -0.5, -0.2))


def test_a_pair_that_the_recipe_does_not_compare_is_compared_in_the_same_way(segmented, planned):
    plan, workshop = planned
    results = segmented.results
    asked = gains_of(workshop, plan, results, {"frozen": "scratch"})["frozen"]
    primary = [e for e in results["comparisons"] if not (e["primary"] and (e["a"], e["b"]) == ("frozen", "scratch"))]
    worked_out = gains_of(workshop, plan, {**results, "comparisons": primary}, {"frozen": "scratch"})["frozen"]
    assert asked[0]["gain"] == pytest.approx(worked_out[0]["gain"], abs=1e-6)
    assert asked[0]["low"] == pytest.approx(worked_out[0]["low"], abs=1e-6)


# Segmentation


def test_of_segmentation_voxels_are_scored(segmented, planned):
    plan, workshop = planned
    found = transferability(workshop, plan, segmented.results)
    assert [arm["arm"] for arm in found["arms"]] == ["as is", "frozen"]
    first, second = found["arms"]
    assert np.isfinite(first["scores"]["cc_fv"])
    assert first["start"] == second["start"]  # the same source model
    assert first["scores"] == second["scores"]
    assert "all from the same network" in found["sentence"]


def test_voxels_keep_their_class_and_subject_on_a_coarser_map():
    masks = np.zeros((1, 8, 8, 8), np.uint8)
    masks[0, 4:, :4, :] = 2
    maps = np.arange(4 * 4 * 4).reshape(1, 1, 4, 4, 4).astype(np.float32)  # half the resolution
    case = _voxels("s", maps, masks, seed=0)
    inside = {float(maps[0, 0, x, y, z]) for x in (2, 3) for y in (0, 1) for z in range(4)}
    assert case.subject == "s"
    assert list(case.classes) == [2]
    assert set(case.classes[2].ravel().tolist()) <= inside
    assert case.whole.shape == (128, 1)


def test_only_the_transferred_part_of_a_network_is_looked_at(tmp_path):
    encoder = timm.create_model("resnet10t", num_classes=0, in_chans=1)
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    network = build_segmentation_network("unet", in_channels=1, dims=2, options={"encoder": "resnet10t"}, seed=0)
    assert _last_transferred(network) == [network.body]  # nobody has said yet that anything is fresh
    apply_weights(network, str(tmp_path / "encoder.safetensors"))
    assert network.fresh
    modules = _last_transferred(network)
    assert network.body not in modules
    own = dict(network.body.named_modules())
    assert modules[-1] is own[[name for name in own if name.startswith("encoder.model.layer4")][-1]]


# Published classifiers


def test_the_classifier_of_published_weights_is_the_source_of_leep(laid_out, tmp_path):
    _, workshop = laid_out
    whole = timm.create_model("resnet10t", num_classes=7, in_chans=1)
    save_file(whole.state_dict(), tmp_path / "published.safetensors", {"architecture": "resnet10t.c3_in1k"})
    arm = {"network": "resnet10t", "weights": str(tmp_path / "published.safetensors"), "method": "linear_probe"}
    recipe = recipe_of({"scratch": {"network": "resnet10t", "method": "scratch"}, "frozen": arm})
    other = open_workshop(recipe, workshop.folder)
    own = make_plan(recipe, other.target, other.source, other)
    run, rows = first_run(own, "frozen"), own.folds[0].development
    network, report = other.initial(run.spec, run.weights, run.source, other.target, run.fold, run.seed)
    known = evidence_of(other, run, rows, network, report)
    assert known.imagenet == "resnet10t.c3_in1k"
    pixels = torch.from_numpy(np.array(other.target.store.images[rows])).float() / 255
    with torch.inference_mode():
        expected = whole.eval()(pixels).softmax(1).numpy()
    assert known.source_probabilities == pytest.approx(expected, abs=1e-5)


def test_weights_that_reach_only_part_of_the_network_have_no_classifier(laid_out):
    plan, workshop = laid_out
    run = first_run(plan, "resnet10t frozen")
    network = build_network("resnet10t", in_channels=1, until="layer2")
    assert evidence_module._source_probabilities(workshop, run, network, np.zeros((3, 2), np.float32)) is None


# Scores that cannot be


def test_what_cannot_be_scored_says_why_and_the_rest_goes_on():
    values, missing = scored(
        [parse_score(name) for name in ("logme", "leep", "constant")],
        Evidence(features=np.ones((6, 2)), labels=np.arange(6) % 2),
    )
    assert values == {"constant": 0.0}
    assert "constant, the same for all 6 samples" in missing["logme"]
    assert missing["leep"] == "needs the source model's own classifier"


def test_many_rows_are_thinned_evenly():
    rows = np.arange(7, 3 * MOST_SAMPLES)
    assert len(spread(rows, MOST_SAMPLES)) == MOST_SAMPLES
    assert (spread(rows, MOST_SAMPLES)[[0, -1]] == rows[[0, -1]]).all()
    assert spread(rows[:9], 10) is not None
    assert len(spread(rows[:9], 10)) == 9


# The sentence


def arms_of(starts, methods=None, gained=True):
    methods = methods or ["fine_tune"] * len(starts)
    gains = [{"budget": "all", "gain": 0.1, "labelled": 9, "low": 0, "high": 1}] if gained else []
    return [
        {"arm": f"arm {n}", "start": start, "method": method, "gains": gains}
        for n, (start, method) in enumerate(zip(starts, methods, strict=True))
    ]


def entry(score, units, kendall, p_holm, low=-0.2, high=0.9):
    return {"score": score, "budget": "all", "units": units, "kendall": kendall, "kendall_low": low,
            "kendall_high": high, "p": p_holm, "p_holm": p_holm}  # fmt: skip


SCORES = [
    {"name": "logme", "words": "LogME", "kind": "score"},
    {"name": "network_size", "words": "Network size", "kind": "baseline"},
]


def test_few_arms_are_told_to_be_too_few():
    told = sentence_of(arms_of([0, 1]), [entry("logme", 2, 1.0, 1.0)], SCORES)
    assert told == (
        "Only 2 arms with transferred weights: no rank correlation can be told from chance; "
        "the smallest p with 2 arms is 2/2! = 1."
    )
    assert "2/4! = 0.083" in sentence_of(arms_of(range(4)), [entry("logme", 4, 1.0, 1.0)], SCORES)
    one = sentence_of(arms_of([0]), [entry("logme", 0, np.nan, np.nan)], SCORES)
    assert one.startswith("Only 1 arm with transferred weights: no rank correlation can be told")
    shared = sentence_of(arms_of([0, 0, 1, 1]), [entry("logme", 2, 1.0, 1.0)], SCORES)
    assert "4 arms with transferred weights, which start from 2 different networks" in shared
    assert "with 2 networks" in shared
    unlike = sentence_of(arms_of([0, 1], ["fine_tune", "dann"]), [entry("logme", 0, np.nan, np.nan)], SCORES)
    assert "no two of the same method" in unlike
    assert sentence_of(arms_of([0], gained=False), [], SCORES).startswith("Only 0 arms")


def test_an_order_that_chance_could_give_is_called_that():
    told = sentence_of(arms_of(range(6)), [entry("logme", 6, 0.6, 0.4), entry("network_size", 6, 0.2, 1.0)], SCORES)
    assert (
        "no score's order can be told from chance; the nearest was LogME (Kendall's τ 0.60, 95 % interval −0.20" in told
    )
    assert "2/6! = 0.0028, before correction for 2 correlations" in told


def test_an_order_beyond_chance_is_told_beside_the_best_baseline():
    both = [entry("logme", 8, 0.9, 0.01, 0.5, 1.0), entry("network_size", 8, 0.3, 1.0)]
    told = sentence_of(arms_of(range(8)), both, SCORES)
    assert "LogME (Kendall's τ 0.90, 95 % interval 0.50 to 1.00) told the order of the gains beyond chance" in told
    assert told.endswith("Network size, which looks at no sample, has τ 0.30, 95 % interval −0.20 to 0.90.")
    larger = sentence_of(arms_of(range(8)), [both[0], entry("network_size", 8, 0.95, 0.001)], SCORES)
    assert larger.endswith("so it was not needed.")
    assert "in reverse" in sentence_of(arms_of(range(8)), [entry("logme", 8, -0.9, 0.01)], SCORES)


def test_scores_that_are_all_the_same_tell_nothing():
    told = sentence_of(arms_of(range(5)), [entry("logme", 5, np.nan, np.nan)], SCORES)
    assert told == "Of 5 arms with transferred weights, no score or distance tells one from another."


# The report


def drawn(view):
    page = "{% macro swatch(index) -%}<i>{{ index }}</i>{%- endmacro %}{% include 'transferability.html.j2' %}"
    environment = Environment(loader=DictLoader({
        "page": page,
        "transferability.html.j2": (draw._HERE / "transferability.html.j2").read_text(encoding="utf-8"),
    }), autoescape=True, undefined=StrictUndefined)  # fmt: skip
    return environment.get_template("page").render(transferability=view)


def test_the_report_shows_scores_beside_gains_and_their_correlations(found):
    order = list(RECIPE["arms"])
    view = transferability_view(found, CLASSIFICATION, order, "subject")
    page = drawn(view)
    assert "k-NN accuracy" in page
    assert "Kendall" in page
    assert "+8.0" in page  # the last arm gained 0.08
    assert page.count("baseline") >= 3
    assert "all 12 labelled subjects" in page
    assert transferability_view(None, CLASSIFICATION, order, "subject") is None


def test_every_number_is_a_row_of_the_table(found):
    rows = list(transferability_rows(found))
    assert {row["record"] for row in rows} == {"gain", "transferability_score", "rank_correlation"}
    assert all(set(row) <= set(_CSV) for row in rows)
    assert sum(row["record"] == "gain" for row in rows) == 5
