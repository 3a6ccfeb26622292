"""Two domains compared: known shifts come out as they were made, and what cannot be compared is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.manifest import Manifest
from mrtransfer.shift import placed
from mrtransfer.shift.analysis import compare_domains, compare_manifests, pick_channels
from mrtransfer.shift.measured import EXACTLY_THE_SAME
from mrtransfer.shift.settings import ShiftSettings
from mrtransfer.shift.slices import Slices, open_slices

QUICK = {"distances": ("mmd",), "permutations": 200, "resamples": 50, "maps": ()}
FAMILIES = {"histogram": "intensity", "pixels": "content", "spectrum": "scanner"}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory) -> tuple[Slices, Slices]:
    """Twice ten people from one scanner."""
    return tuple(
        open_slices(
            DATASETS.get("phantom")(subjects=10, slices=2, size=48, first_subject=first),
            size=48,
            directory=tmp_path_factory.mktemp("slices"),
        )
        for first in (0, 100)
    )


def changed(slices: Slices, images: np.ndarray) -> Slices:
    """The same slices with other pixels."""
    images = np.asarray(images, np.float32)
    digests = np.array([str(hash(image.tobytes())) for image in images])
    return replace(slices, images=images, row_digests=digests, content=str(hash(images.tobytes())))


def noisier(slices: Slices, deviation: float) -> Slices:
    noise = np.random.default_rng(1).normal(0, deviation, slices.images.shape) * slices.images.max()
    return changed(slices, np.abs(slices.images + noise))


def by_feature(results: dict) -> dict[str, dict]:
    return {row["feature"]: row for row in results["distances"] if row["primary"]}


def compared(source: Slices, target: Slices, folder: Path, **settings) -> dict:
    return compare_domains(source, target, ShiftSettings(**{**QUICK, **settings}), folder)


def test_two_halves_of_one_domain_are_the_same_domain(cohorts, tmp_path):
    results = compared(*cohorts, tmp_path, features=tuple(FAMILIES))
    assert results["verdict"]["kind"] == "same domain"
    assert results["design"]["subjects"] == {"both": 0, "source_only": 10, "target_only": 10}


def test_growing_shifts_come_out_in_the_order_in_which_they_were_made(cohorts, tmp_path):
    source, target = cohorts
    gammas = [
        by_feature(compared(source, changed(target, target.images**gamma), tmp_path, features=("histogram",)))
        for gamma in (1.0, 0.9, 0.75, 0.5)
    ]
    noises = [
        by_feature(compared(source, noisier(target, deviation), tmp_path, features=("spectrum",)))
        for deviation in (0.0, 0.04, 0.08, 0.16)
    ]
    for steps in ([one["histogram"] for one in gammas], [one["spectrum"] for one in noises]):
        values = [step["value"] for step in steps]
        assert values == sorted(values)
        assert steps[0]["p"] > 0.05 > steps[-1]["p"]
        assert steps[-1]["normalised"] > 3 > steps[0]["normalised"]


def test_each_kind_of_shift_is_called_by_its_name(cohorts, tmp_path):
    source, target = cohorts
    features = tuple(FAMILIES)
    brighter = compared(source, changed(target, 2 * target.images), tmp_path, features=features)
    noisy = compared(source, noisier(target, 0.1), tmp_path, features=features)
    turned = compared(source, changed(target, target.images[:, :, ::-1]), tmp_path, features=features)
    assert brighter["verdict"]["shifted"] == ["intensity"]
    assert "scanner" in noisy["verdict"]["shifted"]
    assert "content" not in noisy["verdict"]["shifted"]
    assert turned["verdict"]["shifted"] == ["content"]


def test_harmonisation_removes_a_shift_in_intensity_and_not_one_in_content(cohorts, tmp_path):
    source, target = cohorts
    shifted = changed(target, 2 * target.images[:, :, ::-1])
    results = compared(source, shifted, tmp_path, features=("pixels", "histogram"), harmonise=("z_score",))
    found = {row["feature"]: row for row in results["harmonised"]}
    before = by_feature(results)
    assert found["histogram"]["before"]["value"] == before["histogram"]["value"]
    assert found["histogram"]["before"]["p_holm"] < 0.05 < found["histogram"]["after"]["p_holm"]
    assert found["pixels"]["after"]["p_holm"] < 0.05
    assert found["pixels"]["harmoniser"] == "z_score"


def test_a_feature_that_does_not_see_the_change_is_at_distance_zero(cohorts, tmp_path):
    source, _ = cohorts
    results = compared(source, changed(source, 2 * source.images), tmp_path, features=("pixels", "histogram"))
    rows = by_feature(results)
    assert rows["pixels"]["value"] == 0
    assert rows["pixels"]["p"] == 1
    assert rows["histogram"]["p"] < 0.05
    assert results["verdict"]["shifted"] == ["intensity"]
    assert any(EXACTLY_THE_SAME in note for note in results["notes"])


def test_the_same_input_gives_the_same_bytes_with_and_without_what_was_kept(cohorts, tmp_path):
    settings = ShiftSettings(permutations=50, resamples=20, maps=("pca", "tsne"), harmonise=("z_score",))
    written = []
    for folder in ("a", "a", "b"):
        results = compare_domains(*cohorts, settings, tmp_path / folder)
        files = [(tmp_path / folder / name).read_bytes() for name in (placed.COORDINATES, placed.THUMBNAILS)]
        written.append([json.dumps(results, sort_keys=True, allow_nan=False), *files])
    assert written[0] == written[1] == written[2]


def test_every_row_is_there_and_only_the_first_feature_of_a_family_decides(cohorts, tmp_path):
    results = compared(*cohorts, tmp_path, distances=("coral", "mmd"), features=(*FAMILIES, "radiomics"))
    rows = results["distances"]
    assert [(row["feature"], row["distance"]["name"]) for row in rows] == [
        (feature, distance) for feature in (*FAMILIES, "radiomics") for distance in ("coral", "mmd")
    ]
    deciding = [(row["feature"], row["distance"]["name"]) for row in rows if row["decides"]]
    assert deciding == [(feature, "mmd") for feature in FAMILIES]
    assert {one["feature"]: one["family"] for one in results["verdict"]["families"]} == FAMILIES
    assert all(row["p_holm"] >= row["p"] for row in rows)


def test_one_distance_with_other_settings_is_another_row(cohorts, tmp_path):
    both = ({"name": "mmd", "kernel": "linear"}, "mmd")
    results = compared(*cohorts, tmp_path, distances=both, features=("histogram", {"name": "histogram", "bins": 8}))
    assert [(row["feature"], row["label"], row["decides"]) for row in results["distances"]] == [
        ("histogram-1", "mmd (kernel linear)", True),
        ("histogram-1", "mmd", False),
        ("histogram-2", "mmd (kernel linear)", False),
        ("histogram-2", "mmd", False),
    ]
    assert results["distances"][0]["words"] == "maximum mean discrepancy (kernel linear)"
    assert results["distances"][2]["feature_words"] == "intensity histogram (bins 8)"


def test_maps_place_every_slice_and_keep_small_pictures(cohorts, tmp_path, monkeypatch):
    monkeypatch.setattr(placed, "PICTURES", 15)
    results = compared(*cohorts, tmp_path, features=("histogram",), maps=("pca", "tsne"))
    table = pd.read_csv(tmp_path / placed.COORDINATES)
    assert len(table) == results["maps"]["points"] == 40
    assert table["domain"].tolist() == ["source"] * 20 + ["target"] * 20
    assert table[["histogram_pca_1", "histogram_pca_2", "histogram_tsne_1"]].notna().all(axis=None)
    assert sorted(table["thumbnail"].dropna()) == list(range(15))
    assert Image.open(tmp_path / placed.THUMBNAILS).size == (15 * placed.SIDE, placed.SIDE)


def test_of_large_domains_slices_are_chosen_evenly(cohorts, tmp_path, monkeypatch):
    monkeypatch.setattr(placed, "POINTS", 12)
    source, target = cohorts
    compared(source, target.take(range(10)), tmp_path, features=("histogram",), maps=("pca",))
    assert pd.read_csv(tmp_path / placed.COORDINATES)["domain"].value_counts().to_dict() == {"source": 8, "target": 4}


def test_umap_that_is_not_installed_is_left_out_and_said_so(cohorts, tmp_path, monkeypatch):
    monkeypatch.setattr(placed, "has_umap", lambda: False)
    results = compared(*cohorts, tmp_path, features=("histogram",), maps=("pca", "umap"))
    assert [one["method"] for one in results["maps"]["drawn"]] == ["pca"]
    assert any("umap-learn is not installed" in note for note in results["notes"])


def test_identical_domains_are_refused(cohorts, tmp_path):
    with pytest.raises(UserError, match="source and target hold the same slices"):
        compared(cohorts[0], cohorts[0], tmp_path)


def test_one_subject_is_refused(cohorts, tmp_path):
    with pytest.raises(UserError, match=r"the source \(phantom\) has 1 subject"):
        compared(cohorts[0].take([0, 1]), cohorts[1], tmp_path)


def test_constant_features_are_refused_by_name(cohorts, tmp_path):
    source, target = cohorts
    alike = np.broadcast_to(source.images[:1], source.images.shape)
    with pytest.raises(UserError, match=r"feature histogram .*every feature is constant"):
        compared(changed(source, alike), changed(target, alike).take(range(12)), tmp_path, features=("histogram",))


def test_nan_is_refused_by_the_name_of_the_sample(cohorts, tmp_path):
    images = cohorts[1].images.copy()
    images[3, :, 20:24, 20:24] = np.nan
    with pytest.raises(UserError, match=cohorts[1].samples[3]):
        compared(cohorts[0], changed(cohorts[1], images), tmp_path, features=("spectrum",))


def test_other_channels_are_refused_unless_they_are_picked(tmp_path):
    phantom = DATASETS.get("phantom")
    two = phantom(subjects=3, slices=1, size=32, contrast=["flair", "t1"])
    three = phantom(subjects=3, slices=1, size=32, contrast=["t2", "t1ce", "pd"], first_subject=50)
    settings = ShiftSettings(**QUICK, features=("histogram",), size=32)
    with pytest.raises(UserError, match=r"the source has 2 channels \(flair, t1\) and the target 3 channels"):
        compare_manifests(two, three, settings, tmp_path)
    results = compare_manifests(two, three, settings, tmp_path, (["t1", "flair"], ["t1ce", "t2"]))
    assert [results[role]["channels"] for role in ("source", "target")] == [["t1", "flair"], ["t1ce", "t2"]]
    assert "Channels are compared in their order: t1 with t1ce, flair with t2." in results["notes"]
    with pytest.raises(UserError, match="unknown channel 'flare': did you mean 'flair'"):
        pick_channels(two, ["flare"])
    with pytest.raises(UserError, match="each may be there once"):
        pick_channels(two, ["flair", "flair"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"features": ["histgram"]}, "did you mean 'histogram'"),
        ({"features": [{"name": "histogram", "bin": 3}]}, "unknown key 'bin': did you mean 'bins'"),
        ({"distances": ["mmd", "mmd"]}, "mmd is there twice"),
        ({"harmonise": ["zscore"]}, "did you mean 'z_score'"),
        ({"permutation": 3}, "unknown key 'permutation': did you mean 'permutations'"),
        ({"features": []}, "at least 1 item"),
    ],
)
def test_wrong_settings_are_refused_with_the_nearest(given, told):
    with pytest.raises(ValueError, match=told):
        ShiftSettings.model_validate(given)


def test_settings_survive_being_written_and_read():
    settings = ShiftSettings(features=["pixels", {"name": "histogram", "bins": 8}], distances="mmd", maps="pca")
    assert ShiftSettings.model_validate(json.loads(json.dumps(settings.model_dump(mode="json")))) == settings
    twice = ShiftSettings(features=[{"name": "histogram", "bins": 8}, "histogram"])
    assert twice.deciding["intensity"].bins == 8


def real_subjects(real_data: Path) -> tuple[list[dict], list[dict]]:
    """Those of four contrasts, and those of FLAIR and T1 post-contrast only."""
    case = real_data / "brats2021" / "BraTS2021_00006"
    names = {"flair": "FLAIR", "t1ce": "T1POST", "t1": "T1", "t2": "T2"}
    four = [{"sample": case.name, **{f"image:{c}": str(case / f"{case.name}_{c}.nii.gz") for c in names}}]
    for patient in sorted((real_data / "open_ms").glob("patient*")):
        files = {f"image:{c}": str(next(patient.glob(f"{stem}_*.nii.gz"))) for c, stem in names.items()}
        four.append({"sample": patient.name, **files})
    two = [
        {
            "sample": folder.name,
            "image:flair": str(folder / "Flair_subtrMeanDivStd.nii.gz"),
            "image:t1ce": str(folder / "T1c_subtrMeanDivStd.nii.gz"),
        }
        for folder in sorted((real_data / "brats2015").glob("brats_2013*"))
    ]
    return four, two


@pytest.mark.slow
@pytest.mark.real_data
def test_real_flair_and_t1c_are_as_far_from_t1_and_t2_as_so_few_subjects_can_show(real_data, tmp_path):
    """Three people in both domains: p cannot be below 2/8; three against three others: not below 2/20."""
    four, two = real_subjects(real_data)
    settings = ShiftSettings(**QUICK, features=tuple(FAMILIES), slices=4, size=64)

    def table(rows: list[dict]) -> Manifest:
        return Manifest.create(pd.DataFrame(rows).assign(subject=[row["sample"] for row in rows]), real_data, "real")

    flair, t1 = ["flair", "t1ce"], ["t1", "t2"]
    same = compare_manifests(table(four), table(four), settings, tmp_path, (flair, t1))
    other = compare_manifests(table(two), table(four), settings, tmp_path, (flair, t1))
    for results, smallest, told in ((same, 0.25, "3 subjects in both domains"), (other, 0.1, "3 subjects against 3")):
        intensity = by_feature(results)["histogram"]
        assert intensity["p"] == results["design"]["smallest_p"] == smallest
        assert intensity["normalised"] > 0.85 * results["design"]["largest_normalised"]
        assert results["verdict"]["kind"] == "too little data to say"
        assert f"with {told}" in results["verdict"]["sentence"]
        assert f"no p below {smallest:.2f} is possible" in results["verdict"]["sentence"]
