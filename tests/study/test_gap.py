"""The share of the gap that adaptation closes: Fieller's interval on known truths, and what is said of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scipy import stats

from mrtransfer.study.report import gap
from mrtransfer.study.statistics import Outcome, table_measures
from mrtransfer.study.statistics.bootstrap import Bootstrap
from mrtransfer.study.statistics.gap import Gap, gaps_closed, share_closed
from mrtransfer.study.statistics.pool import pool

UNBOUNDED = table_measures(
    ["score"], {"score": True}, {"score": (-np.inf, np.inf)}, {"score": "score"}, {"score": "mm"}
)
DICE = table_measures(["dice"], {"dice": True}, {"dice": (0.0, 1.0)}, {"dice": "Dice"}, {"dice": "%"})
CELLS = ("DANN", "all"), ("source only", "all"), ("oracle", "all")


def outcomes(truth, *, units=40, seeds=4, between_units=0.1, between_seeds=0.02, noise=0.05, random=0):
    """Runs of arms with the true means ``truth``: units differ, seeds differ (not of source-only), and so do both."""
    generator = np.random.default_rng(random)
    hard = between_units * generator.standard_normal(units)
    found = []
    for arm, mean in truth.items():
        own = hard + noise * generator.standard_normal(units)
        for seed in range(seeds):
            values = mean + own
            if arm != "source only":
                values = values + between_seeds * generator.standard_normal() + noise * generator.standard_normal(units)
            found.append(Outcome(arm, "all", seed, 0, np.arange(units), values[:, None], 30 * (arm == "oracle")))
    return found, np.zeros(units, dtype=int), np.arange(units)


def closed(truth, *, measures=DICE, margin=0.01, resamples=500, adapted=("DANN",), **design):
    listed, labels, units = outcomes(truth, **design)
    return gaps_closed(
        [Gap("source only", "oracle", tuple(adapted))], listed, labels, units,
        measures=measures, main=measures.names[0], margin=margin, resamples=resamples,
    )  # fmt: skip


def interval(truth, resamples=500, **design):
    bootstrap = Bootstrap(pool(*outcomes(truth, **design)), UNBOUNDED, ["score"], resamples, 0)
    return share_closed(bootstrap, *CELLS, "score")


def test_with_one_seed_the_interval_is_fiellers_closed_form():
    design = {"units": 60, "seeds": 1, "random": 3}
    truth = {"source only": 0.5, "oracle": 0.7, "DANN": 0.6}
    values = {one.arm: one.values[:, 0] for one in outcomes(truth, **design)[0]}
    x, y = values["DANN"] - values["source only"], values["oracle"] - values["source only"]
    (xx, xy), (_, yy) = np.cov(x, y) / len(x)
    t = stats.t.ppf(0.975, len(x) - 1)
    # all ρ with (x̄ − ρ ȳ)² ≤ t² (s_xx − 2 ρ s_xy + ρ² s_yy)
    a, b, c = y.mean() ** 2 - t**2 * yy, -2 * (x.mean() * y.mean() - t**2 * xy), x.mean() ** 2 - t**2 * xx
    low, high = sorted(np.roots([a, b, c]).real)
    found = interval(truth, resamples=20_000, **design)
    assert found[0] == pytest.approx(x.mean() / y.mean(), rel=1e-9)
    assert found[1:] == pytest.approx((low, high), abs=0.05 * (high - low))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.4, -0.5])
def test_the_interval_holds_the_true_share_as_often_as_it_says(share):
    truth = {"source only": 0.5, "oracle": 0.65, "DANN": 0.5 + 0.15 * share}
    held = []
    for random in range(80):
        _, low, high = interval(truth, resamples=150, units=25, seeds=4, random=random)
        held.append(low <= share <= high)
    assert np.mean(held) >= 0.87  # 80 draws of 0.95 have a standard error of 0.024


def test_an_arm_that_changes_nothing_closes_nothing_and_one_like_the_oracle_all():
    listed, labels, units = outcomes({"source only": 0.5, "oracle": 0.7})
    for same, share in (("source only", 0.0), ("oracle", 1.0)):
        copies = [replace(one, arm="DANN") for one in listed if one.arm == same]
        bootstrap = Bootstrap(pool([*listed, *copies], labels, units), UNBOUNDED, ["score"], 200, 0)
        assert share_closed(bootstrap, *CELLS, "score") == pytest.approx((share,) * 3, abs=1e-5)


def test_the_share_depends_on_neither_scale_nor_direction_of_the_metric():
    listed, labels, units = outcomes({"source only": 0.5, "oracle": 0.7, "DANN": 0.6})
    found = []
    for factor, better in ((1, True), (-20, False)):
        measures = replace(UNBOUNDED, higher_is_better={"score": better})
        scaled = [replace(one, values=factor * one.values) for one in listed]
        result = gaps_closed([Gap("source only", "oracle", ("DANN",))], scaled, labels, units, measures=measures,
                             main="score", margin=0.01, resamples=200)  # fmt: skip
        entry = result["gaps"][0]["arms"][0]
        found.append([entry[key] for key in ("share", "share_low", "share_high")])
        assert entry["verdict"] == "helps"
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_a_helpful_arm_is_told_with_its_share_and_interval():
    found = closed({"source only": 0.5, "oracle": 0.8, "DANN": 0.65})
    told = found["gaps"][0]
    entry = told["arms"][0]
    assert told["clear"]
    assert 0.3 < entry["share_low"] < entry["share"] < entry["share_high"] < 0.7
    share, low, high = (f"{100 * entry[key]:.0f} %" for key in ("share", "share_low", "share_high"))
    assert entry["sentence"] == (
        f"DANN closes {share} (95 % interval {low} to {high}) of the gap between “source only” and oracle."
    )
    assert told["sentence"].startswith("The gap is ")
    assert "oracle, with all 30 labelled subjects, against “source only”" in told["sentence"]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("mean", "noise", "verdict", "said"),
    [
        (0.40, 0.05, "hurts", "DANN hurts: it is worse than “source only” (−"),
        (
            0.50,
            0.002,
            "no meaningful difference",
            "DANN does not help: it differs from “source only” by less than 1.0",
        ),
        (0.515, 0.05, "too little data to say", "Whether DANN helps is open ("),
    ],
)
def test_an_arm_that_does_not_help_is_reported_as_such(mean, noise, verdict, said):
    truth = {"source only": 0.5, "oracle": 0.8, "DANN": mean}
    found = closed(truth, noise=noise, between_seeds=0.02 if noise > 0.01 else 0.001)
    entry = found["gaps"][0]["arms"][0]
    assert entry["verdict"] == verdict
    assert entry["sentence"].startswith(said)
    assert "of the gap" in entry["sentence"]


def test_where_the_oracle_is_not_clearly_better_there_is_no_gap_to_close():
    found = closed({"source only": 0.5, "oracle": 0.5, "DANN": 0.7})
    told = found["gaps"][0]
    assert not told["clear"]
    assert told["sentence"].startswith("No gap to close: oracle, with all 30 labelled subjects, is not clearly better")
    entry = told["arms"][0]
    assert (entry["share"], entry["share_low"], entry["share_high"]) == (None, None, None)
    assert entry["verdict"] == "helps"
    assert entry["sentence"].startswith("DANN is better than “source only” (")


def test_an_oracle_that_is_clearly_worse_leaves_no_gap_either():
    assert not closed({"source only": 0.8, "oracle": 0.5, "DANN": 0.7})["gaps"][0]["clear"]


@pytest.mark.parametrize(("units", "seeds"), [(1, 3), (4, 3), (40, 1)])
def test_few_units_or_one_seed_never_decide_and_never_crash(units, seeds):
    found = closed({"source only": 0.3, "oracle": 0.8, "DANN": 0.6}, units=units, seeds=seeds)
    entry = found["gaps"][0]["arms"][0]
    assert entry["verdict"] == "too little data to say"
    assert "is open" in entry["sentence"]
    json.dumps(found, allow_nan=False)


def test_several_arms_are_corrected_for_their_number():
    truth = {"source only": 0.5, "oracle": 0.8, "DANN": 0.53, "DAN": 0.53}
    both = closed(truth, adapted=("DANN", "DAN"))["gaps"][0]["arms"]
    assert [entry["a"] for entry in both] == ["DANN", "DAN"]
    smaller, larger = sorted((entry["p"], entry["p_holm"]) for entry in both)
    assert smaller[1] == pytest.approx(min(1, 2 * smaller[0]), rel=1e-4)
    assert larger[1] >= larger[0]


def test_the_labels_are_the_oracles_alone():
    told = closed({"source only": 0.5, "oracle": 0.8, "DANN": 0.6})["gaps"][0]
    assert told["labelled"] == 30
    assert told["arms"][0]["labelled"] == 0


def shown(found, order=("source only", "DANN", "oracle")):
    """The partial template on its own, with the sign of an arm as its number."""
    environment = Environment(loader=FileSystemLoader(gap.__file__.rpartition("/")[0]), undefined=StrictUndefined)
    page = environment.get_template("gap.html.j2")
    return page.render(gap=gap.gap_view(found, DICE, order), swatch=lambda index: f"#{index}")


def test_the_report_shows_share_gain_and_sentences():
    found = closed({"source only": 0.5, "oracle": 0.8, "DANN": 0.65}) | {"notes": ["A note."]}
    entry = found["gaps"][0]["arms"][0]
    page = shown(found)
    assert entry["sentence"] in page
    assert found["gaps"][0]["sentence"] in page
    assert f"{100 * entry['share']:.0f}<small>" in page
    assert "#1" in page
    assert "<circle" in page
    assert "A note." in page


def test_without_a_gap_the_report_draws_no_share():
    page = shown(closed({"source only": 0.5, "oracle": 0.5, "DANN": 0.5}) | {"notes": []})
    assert "No gap to close" in page
    assert "<circle" not in page


def test_where_nobody_can_be_measured_the_report_says_why():
    page = shown({"gaps": [], "notes": ["What DANN closes of the gap is not told: no oracle."]})
    assert "What DANN closes of the gap is not told: no oracle." in page
    assert "<table" not in page
    assert gap.gap_view(None, DICE, ()) is None


def test_the_table_of_every_number_has_the_shares():
    found = closed({"source only": 0.5, "oracle": 0.8, "DANN": 0.65})
    (row,) = gap.gap_rows(found)
    entry = found["gaps"][0]["arms"][0]
    assert (row["arm"], row["against"], row["metric"]) == ("DANN", "oracle", "dice/share_of_gap_closed")
    assert (row["value"], row["low"], row["high"]) == (entry["share"], entry["share_low"], entry["share_high"])
