"""The report: verdict first, one file that needs nothing else, and whole whatever is missing."""

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from pages import assert_loads_nothing

from mrtransfer.data.audit.report import Pair
from mrtransfer.study.report import AuditPair, ReportContext, build_context, draw_report
from mrtransfer.study.report.canvas import new_figure, styled, to_svg
from mrtransfer.study.report.draw import duration
from mrtransfer.study.report.forest import Scale, strip
from mrtransfer.study.statistics import Outcome, analyse

CLASSES = ("no <tumour>", "glioma & more", "pituitary")


def predictions(arms, *, budgets=(20, 60, "all"), seeds=3, n=90, classes=3):
    generator = np.random.default_rng(0)
    labels = np.arange(n) % classes
    outcomes = []
    for place, arm in enumerate(arms):
        for step, budget in enumerate(budgets):
            for seed in range(seeds):
                logits = generator.normal(size=(n, classes)) + (1.5 - place + 0.5 * step) * np.eye(classes)[labels]
                probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                outcomes.append(
                    Outcome(arm, budget, seed, 0, np.arange(n), probabilities, 75 if budget == "all" else budget)
                )
    return outcomes, labels


def study(arms=("fine-tuned", "scratch"), compare=(("fine-tuned", "scratch"),), **options):
    outcomes, labels = predictions(arms, **options)
    results = analyse(
        outcomes, labels, np.arange(len(labels)), margin=0.01, compare=compare, resamples=100, classes=CLASSES
    )
    return outcomes, labels, results


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A page with everything on it, and the results it shows."""
    outcomes, labels, results = study()
    images = np.random.default_rng(0).integers(0, 255, (len(labels), 1, 24, 24), dtype=np.uint8)
    epochs = [{"epoch": e, "train_loss": 1 / (e + 1), "validation_loss": 1.2 / (e + 1)} for e in range(4)]
    pair = Pair("near_identical", (0, 3), ("x/0.png", "x/3.png"), ("a", "a"), ("train", "test"), ("", ""), 0.99)
    context = build_context(
        outcomes,
        labels,
        classes=CLASSES,
        samples=[f"x/{i}.png" for i in range(len(labels))],
        images=images,
        curves={"fine-tuned": [epochs, epochs]},
        audit_pairs=[pair, AuditPair(images[0, 0], "as given")],
        timings={"altogether": 125.0},
        environment={"machine": "2 cores"},
    )
    asked = {
        "question": "Does <it> help?",
        "task": "classification",
        "recipe": {"arms": {"fine-tuned": {"network": "resnet18"}}, "budgets": [20, "all"]},
        "data": {
            "target": {
                "name": "scans",
                "samples": 90,
                "subjects": 0,
                "classes": {
                    name: {"samples": 30, "subjects": 0, "splits": {"train": 20, "test": 10}} for name in CLASSES
                },
                "splits": {"train": 60, "test": 30},
                "notes": ["published split found"],
            },
            "source": {"name": "others", "classes": ["a", "b"], "counts": {"a": 3, "b": 4}},
        },
        "audit": {
            "files": 90,
            "byte_identical": {"clusters": 2, "files": 5, "test_in_train": 3},
            "near_identical": {"clusters": 4, "files": 9, "test_in_train": 7},
            "label_conflicts": 1,
            "nearest_neighbour": {"published": 0.744, "leaked": 0.992, "clean": 0.631},
            "findings": ["7 test images have their like in training."],
        },
        "runs": [{}] * 18,
    }
    folder = tmp_path_factory.mktemp("report")
    return draw_report(folder, results | asked, context).read_text(encoding="utf-8"), results, folder


class Outline(HTMLParser):
    """Checks that tags nest, and collects ids and links."""

    VOID = frozenset({"meta", "img", "br", "line", "rect", "circle", "path", "use"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.first_heading = [], [], [], None

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[key] for key in ("src", "href", "xlink:href", "srcset", "data") if key in values]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h1" and self.first_heading is None:
            self.first_heading = data


def outline(page):
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_verdict_is_the_heading(full):
    page, results, _ = full
    assert outline(page).first_heading == results["verdict"]["headline"]
    assert page.index(results["verdict"]["headline"]) < page.index("<section")


def test_the_page_loads_nothing_from_elsewhere_and_has_no_script(full):
    page = full[0]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in outline(page).links)
    assert_loads_nothing(page)


def test_ids_are_unique_and_every_internal_link_leads_somewhere(full):
    found = outline(full[0])
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)


def test_names_from_the_data_cannot_become_markup(full):
    page = full[0]
    assert "no <tumour>" not in page
    assert "no &lt;tumour&gt;" in page
    assert "Does &lt;it&gt; help?" in page


def test_what_the_issue_of_a_study_needs_is_all_there(full):
    page = full[0]
    for heading in ("Paired differences", "How many labels", "All arms", "The data", "Training and validation"):
        assert heading in page
    for heading in ("Confusion", "ROC", "Calibration", "Most surely wrong", "Methods", "What it ran on", "Recipe"):
        assert heading in page
    for metric in (
        "balanced accuracy",
        "AUROC",
        "AUPRC",
        "specificity",
        "log loss",
        "Brier score",
        "calibration error",
    ):
        assert metric in page
    assert "network: resnet18" in page
    assert "2 min 5 s" in page


def test_the_leak_is_warned_of_with_both_numbers(full):
    page = full[0]
    assert 'class="audit warning"' in page
    assert "74.4 %" in page
    assert "63.1 %" in page
    assert "near-identical: x/0.png (a, train) and x/3.png (a, test)" in page


def test_figures_take_their_colours_from_the_page(full):
    page = full[0]
    assert "var(--s1)" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"#0103?0\d", page)


def test_the_table_is_tidy_and_complete(full):
    _, results, folder = full
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    arms = [row for row in rows if row["record"] == "arm"]
    assert len(arms) == 2 * 3 * 10
    assert sum(row["record"] == "seed" for row in rows) == 3 * len(arms)
    assert sum(row["record"] == "comparison" for row in rows) == len(results["comparisons"])
    one = results["arms"][0]
    match = [r for r in arms if (r["arm"], r["budget"], r["metric"]) == (one["arm"], str(one["budget"]), "loss")]
    assert float(match[0]["value"]) == one["metrics"]["loss"]["mean"]


@pytest.mark.parametrize(
    ("budget", "said"), [("all", "with the only labelled subject"), (1, "with 1 labelled subject")]
)
def test_one_label_is_not_all_1(tmp_path, budget, said):
    outcomes, labels = predictions(("a", "b"), budgets=(budget,))
    outcomes = [replace(one, labelled=1) for one in outcomes]
    results = analyse(outcomes, labels, np.arange(90), margin=0.01, compare=[("a", "b")], resamples=100)
    page = outline_text(draw_report(tmp_path, results).read_text(encoding="utf-8"))
    assert f": {said}, " in page  # the verdict
    assert f"points of accuracy {said}" in page  # the tile
    assert said.replace("with", "With") in page  # the heading of the table
    assert "all 1" not in page


def test_the_same_study_draws_the_same_bytes(tmp_path):
    outcomes, labels, results = study(budgets=(20, 60))
    context = build_context(
        outcomes, labels, classes=CLASSES, samples=[str(i) for i in range(90)], images=np.zeros((90, 3, 8, 8), np.uint8)
    )
    pages = [draw_report(tmp_path / name, results, context).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seeds": 1},
        {"n": 3},
        {"budgets": ("all",)},
        {"compare": ()},
        {"arms": tuple(f"network=resnet18, normalise={i}" for i in range(11)), "compare": (), "budgets": (20, 60)},
    ],
)
def test_a_bare_study_of_any_shape_is_drawn(tmp_path, options):
    _, _, results = study(**options)
    page = draw_report(tmp_path, results).read_text(encoding="utf-8")
    assert results["verdict"]["kind"] in page
    assert "None" not in outline_text(page)
    assert "nan" not in outline_text(page).lower().replace("finance", "")


def outline_text(page):
    return re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)


def test_a_study_of_two_classes_shows_the_roc_of_the_second(tmp_path):
    outcomes, labels = predictions(("a",), classes=2, budgets=(20,))
    context = build_context(
        outcomes,
        labels,
        classes=("healthy", "tumour"),
        samples=[str(i) for i in range(90)],
        images=np.zeros((90, 1, 8, 8), np.uint8),
    )
    assert list(context.roc["a"]) == ["tumour"]
    assert context.confusion["a"].sum() == pytest.approx(90)


def test_wrong_cases_come_most_sure_first_and_are_wrong():
    outcomes, labels = predictions(("a",), budgets=(20,))
    images = np.zeros((90, 1, 8, 8), np.uint8)
    context = build_context(outcomes, labels, classes=CLASSES, samples=[str(i) for i in range(90)], images=images)
    mean = np.mean([outcome.values for outcome in outcomes], axis=0)
    assert [case.probability for case in context.wrong_cases] == sorted(
        (case.probability for case in context.wrong_cases), reverse=True
    )
    for case in context.wrong_cases:
        row = int(case.sample)
        assert case.true == CLASSES[labels[row]] != case.predicted == CLASSES[mean[row].argmax()]


def test_a_difference_without_an_interval_is_a_dot_and_an_unknown_one_is_nothing():
    entries = [{"difference": 0.1, "low": low, "high": high} for low, high in ((0.0, 0.2), (None, None))]
    scale = Scale.over(entries, 0.01)
    whole, dot = (strip(entry, scale, "none") for entry in entries)
    assert (whole.count("<circle"), whole.count("<line")) == (1, 3)
    assert (dot.count("<circle"), dot.count("<line")) == (1, 0)
    assert strip({"difference": None, "low": None, "high": None}, scale, "none") == ""


def test_an_empty_context_is_a_context():
    assert ReportContext().confusion == {}


def test_drawings_carry_their_description_and_no_fixed_size():
    with styled():
        figure, (axes,) = new_figure(2, 1)
        axes.plot([0, 1], [0, 1])
        svg = to_svg(figure, 'a "line"')
    assert 'aria-label="a &#34;line&#34;"' in svg
    assert "pt" not in re.match(r"<svg [^>]*>", svg, flags=re.DOTALL)[0].replace("xlink", "")
    assert "DejaVu" not in svg


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text
