"""The statistics serve any task: scores per subject are averaged as they should be, and told in their own units."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.study.statistics import CLASSIFICATION, Outcome, analyse, table_measures
from mrtransfer.tasks.classification.metrics import evaluate_resampled

SCORES = table_measures(
    ("dice", "hd95", "psnr", "ssim"),
    {"dice": True, "hd95": False, "psnr": True, "ssim": True},
    {"dice": (0, 1), "hd95": (0, np.inf), "psnr": (0, np.inf), "ssim": (-1, 1)},
    {"dice": "Dice", "hd95": "HD95", "psnr": "PSNR", "ssim": "SSIM"},
    {"dice": "%", "hd95": "mm", "psnr": "dB"},
)


def table(n=60, *, dice=0.7, hd95=8.0, seed=0):
    generator = np.random.default_rng(seed)
    subject = np.random.default_rng(1).normal(size=n)
    noise = generator.normal(size=(n, 4))
    return np.stack(
        [
            np.clip(dice + 0.1 * subject + 0.02 * noise[:, 0], 0, 1),
            np.abs(hd95 - 2 * subject + 0.3 * noise[:, 1]),
            30 + noise[:, 2],
            0.9 + 0.01 * noise[:, 3],
        ],
        axis=1,
    )


def study(tables, budget=40):
    return [
        Outcome(arm, budget, seed, 0, np.arange(len(values)), values, budget)
        for arm, runs in tables.items()
        for seed, values in enumerate(runs)
    ]


def analysed(outcomes, compare=(("a", "b"),), **options):
    n = len(outcomes[0].rows)
    options = {"margin": 0.01, "resamples": 300} | options
    return analyse(outcomes, np.zeros(n, int), np.arange(n), measures=SCORES, compare=compare, **options)


def test_a_gain_in_dice_is_told_in_points_and_one_in_distance_in_millimetres():
    outcomes = study(
        {"a": [table(dice=0.8, hd95=6, seed=s) for s in range(3)], "b": [table(seed=9 + s) for s in range(3)]}
    )
    dice, hd95 = analysed(outcomes), analysed(outcomes, main="hd95", margin=0.5)
    assert dice["design"]["main"] == "dice"
    assert dice["verdict"]["kind"] == hd95["verdict"]["kind"] == "helps"
    gain = dice["comparisons"][0]["difference"]
    assert f"a beats b by {100 * gain:.1f} points of Dice (95 % interval " in dice["verdict"]["sentence"]
    gain = -hd95["comparisons"][0]["difference"]
    assert gain > 0
    assert f"a beats b by {gain:.1f} mm of HD95 (95 % interval " in hd95["verdict"]["sentence"]


def test_labels_saved_name_the_score_with_its_unit():
    outcomes = [
        Outcome(arm, budget, seed, 0, np.arange(60), table(hd95=hd95, seed=seed), budget)
        for arm, curve in {"a": {10: 9, 40: 5, 160: 4}, "b": {10: 12, 40: 8, 160: 6}}.items()
        for budget, hd95 in curve.items()
        for seed in range(3)
    ]
    saving = analysed(outcomes, main="hd95", margin=0.1)["label_saving"][0]
    assert 10 < saving["a_labels"] < 40
    assert f"what b reaches with 160 ({saving['b_score']:.1f} mm HD95; " in saving["sentence"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_a_mean_under_weights_is_that_of_a_slow_loop_over_defined_rows(seed, grouped):
    generator = np.random.default_rng(seed)
    n, columns = 12, 5 if grouped else 12
    values = np.where(generator.random((n, 4)) < 0.3, np.nan, generator.normal(size=(n, 4)))
    values[0, 1] = np.inf
    units = generator.integers(0, columns, n) if grouped else None
    weights = generator.integers(0, 3, (7, columns)).astype(float)
    found = SCORES.resampled(np.zeros(n), values, weights, units=units)
    for number, name in enumerate(SCORES.names):
        for row in range(7):
            own = weights[row] if units is None else weights[row][units]
            pairs = [(w, v) for w, v in zip(own, values[:, number], strict=True) if np.isfinite(v) and w > 0]
            expected = sum(w * v for w, v in pairs) / sum(w for w, _ in pairs) if pairs else np.nan
            assert found[name][row] == pytest.approx(expected, nan_ok=True)


def test_the_interval_of_a_mean_score_is_that_of_students_t():
    values = table(200)
    found = analysed(study({"a": [values]}), compare=(), resamples=4000)["arms"][0]["metrics"]["psnr"]
    half = 1.972 * values[:, 2].std(ddof=1) / np.sqrt(200)
    assert found["mean"] == pytest.approx(values[:, 2].mean(), abs=1e-6)
    assert (found["high"] - found["low"]) / 2 == pytest.approx(half, rel=0.06)


def test_undefined_scores_are_left_out_and_said():
    values = table(20)
    values[:3, 1], values[:, 2] = np.nan, np.nan
    found = analysed(study({"a": [values, values], "b": [table(20), table(20)]}))
    metrics = found["arms"][0]["metrics"]
    assert metrics["hd95"]["mean"] == pytest.approx(values[3:, 1].mean(), abs=1e-6)
    assert metrics["psnr"]["mean"] is None
    assert any(note.startswith("HD95 is undefined for 3 of 20 test rows") for note in found["notes"])
    assert any(note.startswith("PSNR is undefined for 20 of 20 test rows") for note in found["notes"])
    assert not any("Dice" in note for note in found["notes"])


def test_a_range_below_zero_is_kept_to_and_one_without_end_has_none():
    low = np.full((30, 4), -0.98)
    low[0, 3], low[:, 1] = -0.2, 3.0
    found = analysed(study({"a": [low, low]}), compare=())["arms"][0]["metrics"]
    assert -1 <= found["ssim"]["low"] < found["ssim"]["mean"] < found["ssim"]["high"] < 0
    assert found["hd95"]["low"] == found["hd95"]["high"] == 3  # all alike, and nothing bounds what another would be


@pytest.mark.parametrize(
    ("name", "value", "score", "amount"),
    [
        ("dice", 0.1234, "12.3 %", "12.3 points of Dice"),
        ("dice", 0.01, "1.0 %", "1.0 point of Dice"),
        ("dice", -0.0103, "−1.0 %", "−1.0 point of Dice"),
        ("dice", -0.0001, "0.0 %", "0.0 points of Dice"),
        ("hd95", 1.42, "1.4 mm", "1.4 mm of HD95"),
        ("psnr", -0.314, "−0.31 dB", "−0.31 dB of PSNR"),
        ("ssim", 0.9123, "0.912", "0.912 of SSIM"),
    ],
)
def test_numbers_are_told_in_their_units(name, value, score, amount):
    assert SCORES.score(value, name) == score
    assert SCORES.amount(value, name) == amount


def test_classification_is_measured_by_its_own_metrics():
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(0, 3, 40), generator.dirichlet(np.ones(3), 40)
    weights = generator.integers(0, 3, (5, 40)).astype(float)
    ours = CLASSIFICATION.resampled(labels, probabilities, weights, metrics=["auroc", "loss"])
    theirs = evaluate_resampled(labels, probabilities, weights, metrics=["auroc", "loss"])
    assert list(ours) == ["auroc", "loss"]
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert CLASSIFICATION.amount(0.12, "loss") == "0.120 of log loss"
    for name in CLASSIFICATION.names:
        assert name in CLASSIFICATION.ranges
        assert name in CLASSIFICATION.words


def test_a_table_of_another_width_and_an_unknown_metric_are_named():
    with pytest.raises(UserError, match="one column for each of the 4 metrics dice, hd95"):
        analysed(study({"a": [np.zeros((8, 3))]}), compare=())
    with pytest.raises(UserError, match="did you mean 'dice'"):
        analysed(study({"a": [table(8)]}), compare=(), main="dise")
