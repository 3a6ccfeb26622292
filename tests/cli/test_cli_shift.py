"""The command shift as a user runs it: one sentence, a table, files that stand alone, and mistakes that are named."""

import json
import re

import pytest
from PIL import Image

from mrtransfer.cli.settings import read_domain, read_named, read_settings
from mrtransfer.common.errors import UserError

HERE = "phantom:?subjects=6&slices=1&size=32&scanner=a"
THERE = "phantom:?subjects=6&slices=1&size=32&scanner=b&contrast=t2&first_subject=50"
QUICK = ("--size", "32", "--permutations", "100", "--resamples", "20")


@pytest.fixture
def compared(mrtransfer, tmp_path):
    """The command on two small phantom domains, and its folder."""

    def run(*arguments, source=HERE, target=THERE):
        return mrtransfer("shift", source, target, *QUICK, "--out", tmp_path / "out", *arguments), tmp_path / "out"

    return run


def test_one_sentence_first_then_the_table_the_limit_and_the_places(compared):
    ended, folder = compared("--maps", "pca,tsne", "--harmonise", "z_score", "--distances", "mmd,coral")
    assert ended.code == 0, ended
    lines = [line for line in ended.out.splitlines() if line.strip()]
    assert lines[0].startswith("The target is shifted against the source ")
    assert lines[0].count(". ") == 0
    assert lines[0].endswith("the scanners differ by name, a against b.")
    for words in ("feature", "pixels", "mmd ●", "coral", "95 % interval", "Holm", "harmonised", "z-score"):
        assert words in ended.out, words
    assert "no p below 1/101 = 0.0099 is possible" in ended.out
    for name in ("report.html", "figures", "results.json"):
        assert str(folder / name) in ended.out
        assert (folder / name).exists()


def test_json_is_everything_and_the_same_each_time(compared):
    arguments = ("--maps", "none", "--features", "histogram", "--json")
    (first, folder), (again, _) = compared(*arguments), compared(*arguments)
    results = json.loads(first.out)
    assert first.out == again.out
    assert {"verdict", "design", "source", "target", "distances", "harmonised", "maps", "notes"} <= set(results)
    assert {row["distance"]["name"] for row in results["distances"]} == {
        "mmd", "frechet", "proxy_a", "coral", "sliced_wasserstein",
    }  # fmt: skip
    kept = json.loads((folder / "results.json").read_text())
    assert {key: results[key] for key in kept} == kept
    assert (folder / "results.csv").read_text().startswith("feature,family,distance,value,low,high")


def test_the_page_loads_nothing_and_shows_slices_under_the_pointer(compared):
    _, folder = compared("--maps", "pca,tsne", "--features", "histogram,spectrum", "--distances", "mmd")
    page = (folder / "report.html").read_text()
    assert set(re.findall(r"https?://[^\s\"']+", page)) <= {"http://www.w3.org/2000/svg"}
    assert all(link.startswith(("#", "data:image/")) for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert all(link.startswith("data:image/jpeg;base64,") for link in re.findall(r"url\(([^)]*)\)", page))
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert set(data["places"]) == {f"{f}-{m}" for f in ("histogram", "spectrum") for m in ("pca", "tsne")}
    assert all(len(places) == len(data["slices"]) == len(data["pictures"]) == 12 for places in data["places"].values())
    assert page.count("<svg data-map=") == 2 * 2 * 3  # features × maps × (domain, class, scanner)


def test_figures_for_papers_are_the_same_each_time(compared):
    arguments = ("--maps", "pca", "--features", "histogram", "--distances", "mmd")
    _, folder = compared(*arguments)
    names = ["distances.pdf", "distances.png", "map-histogram.pdf", "map-histogram.png"]
    first = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    compared(*arguments)
    assert sorted(first) == names
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == first
    assert Image.open(folder / "figures" / "distances.png").size[0] > 1000


def test_without_out_the_folder_is_named_by_the_domains(mrtransfer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in (HERE, HERE.replace("subjects=6", "subjects=5")):
        assert mrtransfer("shift", source, THERE, *QUICK, "--maps", "none", "--features", "histogram").code == 0
    assert len(list((tmp_path / "shift").glob("phantom-*/results.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("phantom:?subjets=6", THERE), "SOURCE: unknown key 'subjets': did you mean 'subjects'"),
        ((HERE, "phantm:?subjects=6"), "TARGET: unknown dataset 'phantm': did you mean 'phantom'"),
        ((HERE, "phantom"), "TARGET: there is no file or folder phantom; a dataset's name takes a colon, phantom:"),
        ((HERE, "nowhere/at-all"), "TARGET: nowhere/at-all: no such folder"),
        ((HERE, "phantom:?subjects"), "TARGET: 'subjects' is no option=value"),
        ((HERE, "phantom:?path=x"), "TARGET: path is said before the question mark"),
        ((HERE, "phantom:?contrast=t3"), "TARGET: phantom: unknown contrast 't3'"),
        ((HERE, "phantom:?subjects=many"), "TARGET"),
        ((HERE, HERE), "source and target hold the same slices"),
        ((HERE, "phantom:?subjects=1&slices=2&first_subject=50"), "the target (phantom) has 1 subject"),
        ((HERE, THERE.replace("contrast=t2", "contrast=t2,t1")), "the source has 1 channel (image) and the target 2"),
        ((HERE, THERE, "--features", "pixel"), "did you mean 'pixels'"),
        ((HERE, THERE, "--features", "histogram?bin=4"), "unknown key 'bin': did you mean 'bins'"),
        ((HERE, THERE, "--distances", "mdd"), "did you mean 'mmd'"),
        ((HERE, THERE, "--distances", "mmd?kernel=cubic"), "shift: distances: mmd: kernel: Input should be 'rbf'"),
        ((HERE, THERE, "--harmonise", "nyull"), "did you mean 'nyul'"),
        ((HERE, THERE, "--maps", "tsn"), "--maps: unknown map 'tsn': did you mean 'tsne'"),
        ((HERE, THERE, "--channels", "flair:t1:t2"), "--channels flair:t1:t2: write flair,t1ce, or flair,t1ce:t1,t2"),
        ((HERE, THERE, "--permutations", "0"), "shift: permutations"),
    ],
)
def test_mistakes_are_named_in_one_sentence(refused, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert told in refused("shift", *arguments, "--out", tmp_path / "out")


def test_a_reference_is_read_as_it_is_written(tmp_path):
    manifest = read_domain("phantom:?subjects=3&slices=1&contrast=flair,t1&scanner=b", "SOURCE")
    assert manifest.channels == ("flair", "t1")
    assert manifest.table["scanner"].unique().tolist() == ["b"]
    file = manifest.save(tmp_path / "table.csv")
    assert len(read_domain(str(file), "SOURCE")) == len(read_domain(f"table:{file}", "SOURCE")) == 3
    merged = read_domain("phantom:?subjects=4&slices=1&labels.no_tumour=no&labels.*=tumour", "SOURCE")
    assert merged.classes == ("no", "tumour")


def test_settings_are_numbers_words_lists_and_mappings():
    assert read_settings("a=1&b=-2.5&c=x,y,3&d=true&e=null&f.g=*/T1.nii.gz&f.h=1e-3", "--x") == {
        "a": 1, "b": -2.5, "c": ["x", "y", 3], "d": True, "e": None, "f": {"g": "*/T1.nii.gz", "h": 0.001},
    }  # fmt: skip
    assert read_named(["pixels,histogram", "mmd?kernel=linear&gamma=1,2"], "--x") == [
        {"name": "pixels"}, {"name": "histogram"}, {"name": "mmd", "kernel": "linear", "gamma": [1, 2]},
    ]  # fmt: skip
    for text, told in (("a=1&a=2", "a is given twice"), ("a=1&a.b=2", "both as a value and as a mapping")):
        with pytest.raises(UserError, match=told):
            read_settings(text, "--x")
