"""How far apart a study's domains are: the same numbers as the command's, and a section of the study's report."""

from types import SimpleNamespace

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mrtransfer.data.datasets import DATASETS
from mrtransfer.shift.analysis import compare_manifests
from mrtransfer.shift.settings import ShiftSettings
from mrtransfer.study import report
from mrtransfer.study.report.shift import shift_view
from mrtransfer.study.shift import FOLDER, shift_of

SETTINGS = ShiftSettings(
    features=["histogram"], distances=["mmd"], maps=["pca"], permutations=50, resamples=10, size=32
)  # fmt: skip


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A study as far as this needs one: a folder and two domains."""
    domains = [
        SimpleNamespace(manifest=DATASETS.get("phantom")(subjects=5, slices=1, size=32, scanner=name, first_subject=at))
        for name, at in (("a", 0), ("b", 20))
    ]
    return SimpleNamespace(folder=tmp_path_factory.mktemp("study"), source=domains[0], target=domains[1])


@pytest.fixture(scope="module")
def found(workshop):
    return shift_of(workshop, SimpleNamespace(shift=SETTINGS))


def test_the_entry_is_what_the_command_finds(workshop, found, tmp_path):
    assert found == compare_manifests(workshop.source.manifest, workshop.target.manifest, SETTINGS, tmp_path)
    figures = sorted(path.name for path in (workshop.folder / FOLDER / "figures").iterdir())
    assert figures == ["distances.pdf", "distances.png", "map-histogram.pdf", "map-histogram.png"]


def test_without_settings_or_source_there_is_none(workshop):
    assert shift_of(workshop, SimpleNamespace(shift=None)) is None
    alone = SimpleNamespace(folder=workshop.folder, source=None, target=workshop.target)
    assert shift_of(alone, SimpleNamespace(shift=SETTINGS)) is None
    assert shift_view(workshop.folder, None) is None


def test_the_section_says_the_verdict_and_draws_tables_and_maps(workshop, found):
    folder = report.__path__[0]
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    partial = environment.get_template("shift.html.j2")
    text = partial.render(shift=shift_view(workshop.folder, found))
    assert found["verdict"]["sentence"] in text.replace("&#39;", "'")
    assert "What the verdict rests on" in text
    assert '<svg data-map="histogram-pca"' in text
    assert text.count("<table") == text.count("</table>") == 2
    assert partial.render(shift=None).strip() == ""
