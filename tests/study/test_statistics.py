"""A study's statistics: right on known truths, honest about small designs, ready for JSON."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mrtransfer.common.errors import UserError
from mrtransfer.common.multiplicity import holm
from mrtransfer.study.statistics import Outcome, analyse
from mrtransfer.study.statistics.compare import judge
from mrtransfer.study.statistics.saving import first_crossing

KINDS = {"helps", "hurts", "no meaningful difference", "too little data to say"}


def outcome(arm, right, labels, *, budget=40, seed=0, fold=0, rows=None, labelled=None, sure=0.8):
    """A two-class run that is ``right`` (n,) or wrong on each row, always equally sure."""
    rows = np.arange(len(labels)) if rows is None else rows
    chosen = np.where(right, labels[rows], 1 - labels[rows])
    probabilities = np.where(chosen[:, None] == np.arange(2), sure, 1 - sure)
    return Outcome(arm, budget, seed, fold, rows, probabilities, labelled or (budget if budget != "all" else 400))


def study(curves, *, n=300, seeds=5, seed_spread=0.0, sure=0.8, random=0):
    """Outcomes of arms with the true accuracies ``curves`` = {arm: {budget: accuracy}}."""
    generator = np.random.default_rng(random)
    labels = generator.integers(0, 2, n)
    difficulty = generator.random(n)
    found = []
    for arm, curve in curves.items():
        for budget, accuracy in curve.items():
            for seed in range(seeds):
                jitter = 0.15 * generator.standard_normal(n) + seed_spread * generator.standard_normal()
                found.append(outcome(arm, difficulty + jitter < accuracy, labels, budget=budget, seed=seed, sure=sure))
    return found, labels, np.arange(n)


def analysed(curves, *, compare=(("a", "b"),), margin=0.01, resamples=400, metrics=("accuracy",), **options):
    outcomes, labels, units = study(curves, **options)
    return analyse(outcomes, labels, units, metrics=metrics, margin=margin, compare=compare, resamples=resamples)


def test_a_clear_gain_helps_and_the_first_sentence_says_by_how_much():
    found = analysed({"fine-tuned": {40: 0.9}, "scratch": {40: 0.6}}, compare=[("fine-tuned", "scratch")])
    entry = found["comparisons"][0]
    assert entry["verdict"] == found["verdict"]["kind"] == "helps"
    assert 0.2 < entry["low"] < entry["difference"] < entry["high"] < 0.4
    sentence = found["verdict"]["sentence"]
    assert sentence.startswith("Transfer helps: with 40 labelled subjects, fine-tuned beats scratch by ")
    assert f"{100 * entry['difference']:.1f} points of accuracy (95 % interval {100 * entry['low']:.1f} to" in sentence


@pytest.mark.parametrize(("metric", "seeds"), [("accuracy", 1), ("loss", 3)])
def test_a_single_unit_has_scores_but_no_intervals(metric, seeds):
    outcomes, labels, _ = study({"a": {40: 0.9}, "b": {40: 0.6}}, n=50, seeds=seeds)
    one = np.zeros(50, dtype=int)
    found = analyse(outcomes, labels, one, main=metric, metrics=[metric], margin=0.01, compare=[("a", "b")])
    for estimate in (found["arms"][0]["metrics"][metric] | {"p": None}, found["comparisons"][0]):
        assert (estimate["low"], estimate["high"], estimate["p"]) == (None, None, None)
    assert found["comparisons"][0]["difference"] is not None
    assert "only 1 independent test unit;" in found["verdict"]["sentence"]


@pytest.mark.parametrize(("topic", "within"), [("Transfer", "transfer"), ("MR-specific care", "MR-specific care")])
def test_within_a_sentence_only_words_lose_their_capital(topic, within):
    outcomes, labels, units = study({"a": {40: 0.7}, "b": {40: 0.7}}, n=30)
    found = analyse(outcomes, labels, units, metrics=("accuracy",), margin=0.001, compare=[("a", "b")], topic=topic)
    assert found["verdict"]["sentence"].startswith(f"Too little data to say whether {within} helps")


def test_exchanging_the_arms_mirrors_everything():
    curves = {"a": {40: 0.9}, "b": {40: 0.6}}
    one = analysed(curves)["comparisons"][0]
    two = analysed(curves, compare=[("b", "a")])["comparisons"][0]
    assert (one["difference"], one["verdict"], two["verdict"]) == (-two["difference"], "helps", "hurts")
    assert one["p"] == two["p"]
    assert one["low"] == pytest.approx(-two["high"], abs=2e-6)


def test_lower_is_better_turns_the_verdict_for_the_loss():
    outcomes, labels, units = study({"a": {40: 0.9}, "b": {40: 0.6}})
    found = analyse(outcomes, labels, units, main="loss", metrics=["loss"], margin=0.05, compare=[("a", "b")])
    assert found["comparisons"][0]["difference"] < 0
    assert found["verdict"]["kind"] == "helps"
    assert "of log loss" in found["verdict"]["sentence"]


def test_nearly_equal_arms_with_much_data_show_no_meaningful_difference():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 4000)
    base = generator.random(4000) < 0.8
    outcomes = []
    for arm in "ab":
        for seed in range(4):
            flips = generator.random(4000) < 0.02
            outcomes.append(outcome(arm, base ^ flips, labels, seed=seed))
    found = analyse(
        outcomes, labels, np.arange(4000), metrics=["accuracy"], margin=0.02, compare=[("a", "b")], resamples=300
    )
    assert found["verdict"]["kind"] == "no meaningful difference"
    assert "differ by less than 2.0 points of accuracy" in found["verdict"]["sentence"]


def test_a_small_gap_with_little_data_is_left_open():
    found = analysed({"a": {40: 0.72}, "b": {40: 0.7}}, n=60, seeds=3)
    assert found["verdict"]["kind"] == "too little data to say"
    assert found["verdict"]["sentence"].startswith("Too little data to say whether transfer helps")


@pytest.mark.parametrize(
    ("low", "high", "p", "difference", "verdict"),
    [
        (0.02, 0.06, 0.01, 0.04, "helps"),
        (-0.06, -0.02, 0.01, -0.04, "hurts"),
        (0.002, 0.008, 0.001, 0.005, "no meaningful difference"),
        (-0.004, 0.008, 0.5, 0.002, "no meaningful difference"),
        (0.002, 0.03, 0.001, 0.008, "too little data to say"),
        (0.02, 0.06, 0.06, 0.04, "too little data to say"),
        (-0.02, 0.06, 0.3, 0.02, "too little data to say"),
    ],
)
def test_the_rules_of_the_verdict(low, high, p, difference, verdict):
    entry = {"low": low, "high": high, "p_holm": p, "difference": difference, "seeds": 5, "metric": "accuracy"}
    assert judge(entry, 0.01, units=100, sign=1)[0] == verdict


@pytest.mark.parametrize(("seeds", "n"), [(1, 300), (5, 1), (1, 1), (5, 4)])
def test_one_seed_or_a_handful_of_units_never_decide_and_never_crash(seeds, n):
    found = analysed({"a": {40: 1.5}, "b": {40: -0.5}}, seeds=seeds, n=n)
    assert found["verdict"]["kind"] == "too little data to say"
    assert found["comparisons"][0]["p"] is None
    assert found["notes"]
    json.dumps(found, allow_nan=False)


def test_everything_right_is_not_certainty():
    found = analysed({"a": {40: 9.0}, "b": {40: 9.0}}, n=20)
    metric = found["arms"][0]["metrics"]["accuracy"]
    assert (metric["mean"], metric["low"], metric["high"]) == (1, pytest.approx(1 - 3 / 20), 1)
    assert found["verdict"]["kind"] == "too little data to say"


def test_the_interval_of_one_run_agrees_with_the_binomial_theory():
    found = analysed({"a": {40: 0.8}}, compare=(), seeds=1, n=400, resamples=4000)
    metric = found["arms"][0]["metrics"]["accuracy"]
    width = 1.96 * np.sqrt(metric["mean"] * (1 - metric["mean"]) / 400)
    assert metric["low"] == pytest.approx(metric["mean"] - width, abs=0.006)
    assert metric["high"] == pytest.approx(metric["mean"] + width, abs=0.006)


def test_rows_of_one_unit_count_once():
    outcomes, labels, _ = study({"a": {40: 0.8}}, n=100, seeds=1)
    tenfold = [
        Outcome("a", 40, 0, 0, np.arange(1000), np.repeat(outcomes[0].values, 10, axis=0), 40),
    ]
    options = {"metrics": ["accuracy"], "margin": 0.01, "compare": [], "resamples": 500}
    once = analyse(outcomes, labels, np.arange(100), **options)
    copied = analyse(tenfold, np.repeat(labels, 10), np.repeat(np.arange(100), 10), **options)
    assert once["arms"][0]["metrics"] == copied["arms"][0]["metrics"]


def test_seeds_that_disagree_widen_the_interval_more_than_resampling_units_alone():
    steady = analysed({"a": {40: 0.8}, "b": {40: 0.6}}, seeds=3, n=2000)["comparisons"][0]
    shaky = analysed({"a": {40: 0.8}, "b": {40: 0.6}}, seeds=3, n=2000, seed_spread=0.1)["comparisons"][0]
    assert shaky["high"] - shaky["low"] > 2 * (steady["high"] - steady["low"])


def test_two_seeds_are_judged_by_students_t_with_one_degree_of_freedom():
    labels = np.zeros(20_000, int)
    outcomes = [outcome("b", np.arange(20_000) < 10_000, labels, seed=seed) for seed in range(2)]
    outcomes += [outcome("a", np.arange(20_000) < 10_000 + 2000 * (seed + 1), labels, seed=seed) for seed in range(2)]
    found = analyse(
        outcomes, labels, np.arange(20_000), metrics=["accuracy"], margin=0.01, compare=[("a", "b")], resamples=200
    )
    entry = found["comparisons"][0]
    expected = stats.ttest_1samp([0.1, 0.2], 0).pvalue
    assert entry["p"] == pytest.approx(expected, rel=0.05)
    assert entry["verdict"] == "too little data to say"


@pytest.mark.slow
def test_false_alarms_and_coverage_are_as_promised():
    alarms = covered = 0
    for repeat in range(150):
        entry = analysed({"a": {40: 0.7}, "b": {40: 0.7}}, n=80, seeds=4, seed_spread=0.05, random=repeat)
        entry = entry["comparisons"][0]
        alarms += entry["p"] < 0.05
        covered += entry["low"] <= 0 <= entry["high"]
    assert alarms <= 15
    assert covered >= 135


def test_folds_are_pooled_and_unequal_test_rows_are_refused():
    labels = np.zeros(10, int)
    whole = outcome("a", np.arange(10) < 7, labels)
    halves = [
        outcome("a", np.arange(5, 10) < 7, labels, rows=np.arange(5, 10), fold=1),
        outcome("a", np.arange(5) < 7, labels, rows=np.arange(5)),
    ]
    options = {"metrics": ["accuracy"], "margin": 0.01, "compare": [], "resamples": 50}
    assert analyse([whole], labels, np.arange(10), **options) == analyse(halves, labels, np.arange(10), **options)
    with pytest.raises(UserError, match="every run must test each of the same rows once"):
        analyse([whole, outcome("b", np.ones(5, bool), labels, rows=np.arange(5))], labels, np.arange(10), **options)


def test_holm_agrees_with_a_slow_loop():
    values = [0.01, 0.04, 0.03, 0.005, float("nan"), 0.5]
    known = sorted(value for value in values if value == value)
    expected, running = {}, 0.0
    for place, value in enumerate(known):
        running = max(running, min(1.0, value * (len(known) - place)))
        expected[value] = running
    for value, corrected in zip(values, holm(values), strict=True):
        assert np.isnan(corrected) if np.isnan(value) else corrected == pytest.approx(expected[value])


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_and_keeps_their_order(values):
    corrected = np.array(holm(values))
    assert (corrected >= np.array(values) - 1e-12).all()
    assert (corrected <= 1).all()
    assert (np.diff(corrected[np.argsort(values, kind="stable")]) >= -1e-12).all()


def test_many_comparisons_get_resamples_enough_to_be_decided():
    curves = {arm: dict.fromkeys(range(10, 20), 0.9 if arm == "a" else 0.4) for arm in "abcd"}
    found = analysed(curves, compare=[("a", "b"), ("a", "c"), ("a", "d")], n=100, seeds=3, resamples=100)
    assert found["design"]["comparisons"] == 30
    assert all(entry["p_holm"] < 0.05 for entry in found["comparisons"])


def test_labels_saved_are_read_off_the_curve():
    found = analysed(
        {"a": {40: 0.6, 160: 0.8, 640: 0.9}, "b": {40: 0.4, 160: 0.6, 640: 0.8}}, n=2000, margin=0.01, seeds=4
    )
    saving = found["label_saving"][0]
    assert saving["b_labels"] == 640
    assert saving["a_labels"] == pytest.approx(160, rel=0.15)
    assert saving["low"] < saving["a_labels"] < saving["high"]
    assert "A reaches with" in saving["sentence"]
    assert "what b reaches with 640" in found["verdict"]["sentence"]


def test_an_arm_that_never_gets_there_saves_nothing():
    saving = analysed({"a": {40: 0.4, 160: 0.5}, "b": {40: 0.6, 160: 0.9}}, n=400)["label_saving"][0]
    assert (saving["reached"], saving["a_labels"], saving["open"]) == (False, None, True)
    assert "does not reach" in saving["sentence"]


def test_arms_that_learn_from_no_budget_are_compared_once_and_save_nothing():
    """Two models that are applied as they are: the same difference again would only cost Holm's correction."""
    outcomes, labels, units = study({"a": {40: 0.9}, "b": {40: 0.7}, "learns": {40: 0.6, "all": 0.8}})
    fixed = [replace(one, budget="all", labelled=400) for one in outcomes if one.arm in ("a", "b")]
    found = analyse(
        outcomes + fixed, labels, units, metrics=("accuracy",), margin=0.01, resamples=400,
        compare=[("a", "b"), ("a", "learns"), ("learns", "b")],
    )  # fmt: skip
    compared = [(entry["a"], entry["b"], entry["budget"], entry["labelled"]) for entry in found["comparisons"]]
    assert compared[:3] == [("a", "b", "all", 0), ("a", "learns", 40, 40), ("a", "learns", "all", 400)]
    assert found["design"]["comparisons"] == 5
    assert "with no labelled subjects, a" in found["verdict"]["sentence"]
    assert [(one["a"], one["b"]) for one in found["label_saving"]] == [("a", "learns")]


def test_an_arm_that_is_there_at_once_needs_at_most_its_smallest_budget():
    saving = analysed({"a": {40: 0.9, 160: 0.9}, "b": {40: 0.3, 160: 0.5}}, n=400)["label_saving"][0]
    assert (saving["a_labels"], saving["at_most"]) == (40, True)
    assert "with 40 labelled subjects or fewer" in saving["sentence"]
    saving = analysed({"a": {1: 0.9, 160: 0.9}, "b": {1: 0.3, 160: 0.5}}, n=400)["label_saving"][0]
    assert (saving["a_labels"], saving["at_most"], saving["low_at_most"]) == (1, False, False)
    assert "A reaches with 1 labelled subject what b reaches" in saving["sentence"]


@settings(deadline=None)
@given(scores=st.lists(st.integers(0, 50), min_size=2, max_size=6), goal=st.integers(0, 50))
def test_the_first_crossing_is_where_a_fine_grid_first_reaches_the_goal(scores, goal):
    labels = 10.0 * 3.0 ** np.arange(len(scores))
    found = first_crossing(labels, np.array([scores]), np.array([goal]))[0]
    grid = np.sort(np.append(np.geomspace(labels[0], labels[-1], 4000), labels))
    reached = np.interp(np.log(grid), np.log(labels), scores) >= goal - 1e-9
    if max(scores) < goal:
        assert np.isinf(found)
    else:
        assert found == pytest.approx(grid[reached.argmax()], rel=0.01)


def test_the_budget_all_comes_last_with_its_number():
    found = analysed({"a": {"all": 0.9, 40: 0.7}, "b": {"all": 0.7, 40: 0.5}})
    assert [(entry["budget"], entry["labelled"]) for entry in found["comparisons"]] == [(40, 40), ("all", 400)]
    assert "with all 400 labelled subjects" in found["verdict"]["sentence"]


def test_a_single_labelled_subject_is_the_only_one():
    outcomes, labels, units = study({"a": {"all": 0.9}, "b": {"all": 0.6}})
    outcomes = [replace(one, labelled=1) for one in outcomes]
    found = analyse(outcomes, labels, units, metrics=["accuracy"], margin=0.01, compare=[("a", "b")], resamples=400)
    assert found["verdict"]["sentence"].startswith("Transfer helps: with the only labelled subject, a beats b by ")


def test_budgets_that_disagree_are_both_told():
    found = analysed({"a": {40: 0.9, 160: 0.5}, "b": {40: 0.5, 160: 0.9}})
    assert found["verdict"]["kind"] == "helps"
    assert found["verdict"]["sentence"].startswith("Transfer helps with few labels and hurts with more:")
    assert "falls behind" in found["verdict"]["sentence"]


def test_same_input_same_bytes_and_no_nan():
    outcomes, labels, units = study({"a": {40: 0.8}, "b": {40: 0.6}}, n=60)
    found = [
        json.dumps(
            analyse(outcomes, labels, units, margin=0.01, compare=[("a", "b")], resamples=100),
            sort_keys=True,
            allow_nan=False,
        )
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert {entry["verdict"] for entry in json.loads(found[0])["comparisons"]} <= KINDS | {None}


def test_a_class_missing_from_the_test_samples_is_said_by_name():
    labels = np.zeros(30, int)
    found = analyse(
        [outcome("a", np.arange(30) < 20, labels)],
        labels,
        np.arange(30),
        margin=0.01,
        compare=[],
        resamples=50,
        classes=["none", "tumour"],
    )
    assert any("tumour" in note for note in found["notes"])
    assert found["arms"][0]["metrics"]["auroc"]["mean"] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"compare": [("a", "c")]}, "unknown arm 'c'"),
        ({"compare": [("a", "a")]}, "compared with itself"),
        ({"margin": -1}, "negative"),
        ({"main": "acuracy"}, "did you mean 'accuracy'"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_clear_sentence(change, says):
    outcomes, labels, units = study({"a": {40: 0.8}}, n=20)
    options = {"margin": 0.01, "compare": [], "resamples": 20} | change
    with pytest.raises(UserError, match=says):
        analyse(outcomes, labels, units, **options)


def test_no_outcomes_at_all_is_said():
    with pytest.raises(UserError, match="no run has finished"):
        analyse([], np.zeros(3), np.zeros(3), margin=0.01, compare=[])


@pytest.mark.slow
def test_ten_metrics_of_a_full_study_stay_within_two_minutes_of_processor_time():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 1700)
    outcomes = [
        Outcome("a", 40, seed, 0, np.arange(1700), generator.dirichlet(np.ones(4), 1700), 40) for seed in range(8)
    ]
    started = time.process_time()
    analyse(outcomes, labels, np.arange(1700), margin=0.01, compare=[], resamples=2000)
    runs_of_a_full_study = 6 * 5 * 10
    assert (time.process_time() - started) / 8 * runs_of_a_full_study < 120


def test_what_is_detectable_is_nearly_three_standard_errors_and_more_with_few_seeds():
    many = analysed({"a": {40: 0.8}, "b": {40: 0.6}}, seeds=12, n=1000, seed_spread=0.05)["comparisons"][0]
    width = (many["high"] - many["low"]) / 2
    assert many["detectable"] == pytest.approx(width * 2.8 / 1.96, rel=0.08)
    few = analysed({"a": {40: 0.8}, "b": {40: 0.6}}, seeds=2, n=1000, seed_spread=0.05)["comparisons"][0]
    assert few["detectable"] > (few["high"] - few["low"]) / 2
