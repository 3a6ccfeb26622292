"""A segmentation model on new scans: masks on the scan's own grid, right numbers, pictures, errors of one sentence."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from mrtransfer.cli.main import app
from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.data.cases.store import open_cases
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.volume import read_case, write_volume
from mrtransfer.data.volume.case import COLOURS
from mrtransfer.deploy import overlay, segment
from mrtransfer.deploy.segment import segment_scans
from mrtransfer.deploy.summary import NO_SIZE, SEEN, SEEN_SUBJECT
from mrtransfer.models.package import save_model
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.models.stages import Stage
from mrtransfer.models.ushape import Parts
from mrtransfer.training.precision import Precision

LABELS = MaskLabels.create({"core": 1, "rim": [4, 3]}, {"whole": ["core", "rim"], "core": ["core"]})
TURNED = np.array([[0, 0, -2.5, 40], [-1, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 0, 1.0]])
"""Voxel axes run to the back, to the head and to the left, in steps of 1, 1.5 and 2.5 mm."""
CENTRE = (9, 12, 7)


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The network is known while these tests run, and not to those that go through all networks."""
    SEGMENTERS.register("nothing")(nothing)
    yield
    del SEGMENTERS._loaded["nothing"]


def nothing(in_channels, dims, features=None, strides=None):
    """A network whose maps are its input, so that the head's weights alone decide."""
    body = (nn.Conv2d if dims == 2 else nn.Conv3d)(in_channels, in_channels, 1, bias=False)
    with torch.no_grad():
        body.weight.copy_(torch.eye(in_channels).reshape(body.weight.shape))
    return Parts(body, (), (Stage("all", ("weight",)),), ("weight",))


def save(folder, channels, weights, *, labels=LABELS, postprocess=None, provenance=None, **plan):
    """A model whose logits are 8 · ``weights`` (K, C + 1) · (channels, 1)."""
    dims = plan.get("dims", 3)
    network = build_segmentation_network("nothing", in_channels=len(channels), dims=dims)
    head = pixel_head(len(channels), len(weights))
    with torch.no_grad():
        weights = 8 * torch.tensor(weights, dtype=torch.float32)
        head[0].weight.copy_(weights[:, :-1].reshape(head[0].weight.shape))
        head[0].bias.copy_(weights[:, -1])
    settings = {
        "dims": 3, "spacing": None, "crop": "none", "normalise": ("zscore",) * len(channels), "patch": (12, 12, 12),
        "batch": 2, "features": (8,), "strides": (), "class_frequencies": {}, **plan,
    }  # fmt: skip
    spec = {
        "task": "segmentation",
        "plan": SegmentationPlan(**settings).to_json(),
        "mask_labels": labels.to_json(),
        "loss": "dice_ce",
        "channels": list(channels),
        "postprocess": postprocess,
        "provenance": provenance or {},
        "record": {},
    }
    return save_model(folder, network, head, spec)


FLAIR_OR_T1CE = [[0, 0, 0], [0, 1, -2], [1, 0, -2]]
"""Core where T1 post-contrast is bright, rim where FLAIR is."""


def head_scan(seed=0, shape=(20, 24, 15), bright=True):
    """(flair, t1ce) and the classes in them: a core of radius 3 in a rim of radius 5 voxels."""
    generator = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    distance = np.sqrt(((place - np.reshape(CENTRE, (3, 1, 1, 1))) ** 2).sum(axis=0))
    classes = (np.where(distance < 3, 1, np.where(distance < 5, 2, 0)) * bright).astype(np.uint8)
    flair = np.float32([100, 100, 300])[classes] + generator.normal(0, 5, shape)
    t1ce = np.float32([50, 400, 50])[classes] + generator.normal(0, 5, shape)
    return flair.astype(np.float32), t1ce.astype(np.float32), classes


def write(folder, name, channels, affine=TURNED):
    folder.mkdir(parents=True, exist_ok=True)
    for channel, data in channels.items():
        nib.save(nib.Nifti1Image(data, affine), folder / f"{name}_{channel}.nii.gz")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two scans, and a model that finds exactly what is in them."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        flair, t1ce, _ = head_scan(number)
        write(tmp_path / "scans", f"p{number}", {"flair": flair, "t1ce": t1ce})
    save(tmp_path / "study" / "model", ("flair", "t1ce"), FLAIR_OR_T1CE)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], env={"COLUMNS": "160"})


class TestMask:
    def test_it_lies_on_the_scans_own_grid_with_the_values_of_the_training_masks(self, here):
        segment_scans("study", ["scans"], "out")
        for number in (1, 2):
            mask = nib.load(here / f"out/p{number}_mask.nii.gz")
            np.testing.assert_allclose(mask.affine, TURNED, atol=1e-6)
            np.testing.assert_array_equal(np.asarray(mask.dataobj), np.array([0, 1, 4])[head_scan(number)[2]])
            assert mask.get_data_dtype() == np.uint8

    def test_it_does_not_depend_on_the_number_of_windows(self, here):
        save(here / "one", ("flair", "t1ce"), FLAIR_OR_T1CE, patch=(32, 32, 32))
        for model in ("study", "one"):
            segment_scans(model, ["scans"], model + "-out")
        masks = [np.asarray(nib.load(here / f"{m}-out/p1_mask.nii.gz").dataobj) for m in ("study", "one")]
        np.testing.assert_array_equal(*masks)

    def test_it_comes_back_from_another_spacing_and_a_crop(self, here):
        flair, t1ce, classes = head_scan(3)
        shown = np.zeros((30, 34, 25), np.float32), np.zeros((30, 34, 25), np.float32)
        for large, small in zip(shown, (flair, t1ce), strict=True):
            large[4:24, 6:30, 5:20] = small
        write(here / "in", "p", {"flair": shown[0], "t1ce": shown[1]})
        save(
            here / "coarse", ("flair", "t1ce"), FLAIR_OR_T1CE,
            spacing=(1.2, 1.2, 1.2), crop="nonzero", normalise=("zscore_nonzero",) * 2,
        )  # fmt: skip
        segment_scans("coarse", ["in"], "out")
        found = np.asarray(nib.load(here / "out/p_mask.nii.gz").dataobj) > 0
        true = np.zeros(found.shape, bool)
        true[4:24, 6:30, 5:20] = classes > 0
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9

    def test_it_is_cleaned_as_was_chosen_in_training(self, here):
        flair, t1ce, classes = head_scan(4)
        flair[1, 1, 1] = 300  # one voxel of 3.75 mm³
        write(here / "in", "p", {"flair": flair, "t1ce": t1ce})
        cleaning = {"rules": [["whole", {"least_ml": 0.01, "largest": False}]]}
        save(here / "clean", ("flair", "t1ce"), FLAIR_OR_T1CE, postprocess=cleaning)
        voxels = []
        for model in ("study", "clean"):
            segment_scans(model, ["in"], f"{model}-out")
            voxels.append((np.asarray(nib.load(here / f"{model}-out/p_mask.nii.gz").dataobj) > 0).sum())
        assert voxels == [(classes > 0).sum() + 1, (classes > 0).sum()]

    def test_regions_of_sigmoids_are_painted_one_over_the_other(self, here):
        spec = json.loads((here / "study/model/model.json").read_text())
        whole_and_core = [[1, 1, -2], [0, 1, -2]]
        save(here / "regions", ("flair", "t1ce"), whole_and_core)
        described = json.loads((here / "regions/model.json").read_text()) | {"loss": "region"}
        (here / "regions/model.json").write_text(json.dumps(described))
        segment_scans("regions", ["scans"], "out")
        mask = np.asarray(nib.load(here / "out/p1_mask.nii.gz").dataobj)
        np.testing.assert_array_equal(mask, np.array([0, 1, 4])[head_scan(1)[2]])
        assert spec["mask_labels"] == described["mask_labels"]


class TestSummary:
    def test_volumes_and_lesions_are_right(self, here):
        finished = segment_scans("study", ["scans/p1_flair.nii.gz", "scans/p1_t1ce.nii.gz"], "out")
        assert finished.problems == []
        (summary,) = finished.summaries
        assert summary == json.loads((here / "out/p1.json").read_text())
        counts = np.bincount(head_scan(1)[2].ravel())
        ml = 1.5 * 2.5 / 1000
        assert summary["classes_ml"] == pytest.approx({"core": counts[1] * ml, "rim": counts[2] * ml})
        assert summary["volumes_ml"] == pytest.approx({"whole": (counts[1] + counts[2]) * ml, "core": counts[1] * ml})
        whole, core = summary["lesions"]
        assert [whole["region"], core["region"]] == ["whole", "core"]
        expected = TURNED[:3, :3] @ CENTRE + TURNED[:3, 3]
        assert whole["centre_mm"] == pytest.approx(expected, abs=1e-4)
        assert core["centre_mm"] == pytest.approx(expected, abs=1e-4)
        assert core["volume_ml"] == pytest.approx(counts[1] * ml)
        assert 0.99 < whole["confidence"] <= 1
        assert core["first"] == [c - 2 for c in CENTRE]
        assert summary["model"] == json.loads((here / "study/model/model.json").read_text())["digest"]
        assert summary["files"] == {"flair": "scans/p1_flair.nii.gz", "t1ce": "scans/p1_t1ce.nii.gz"}
        assert summary["grid"] == {"shape": [20, 24, 15], "spacing_mm": [1, 1.5, 2.5], "axes": "PSL"}
        assert summary["precision"] == "float32"
        assert summary["warnings"] == []

    def test_a_scan_without_anything_in_it_has_no_lesions(self, here):
        flair, t1ce, _ = head_scan(5, bright=False)
        write(here / "in", "p", {"flair": flair, "t1ce": t1ce})
        save(here / "strict", ("flair", "t1ce"), [[0, 0, 0], [0, 1, -9], [1, 0, -9]])
        (summary,) = segment_scans("strict", ["in"], "out").summaries
        assert summary["volumes_ml"] == {"whole": 0, "core": 0}
        assert summary["lesions"] == []

    def test_a_scan_of_the_training_data_is_pointed_out_whatever_it_is_called(self, here):
        table = pd.DataFrame(
            {"sample": ["a"], "image:flair": ["scans/p1_flair.nii.gz"], "image:t1ce": ["scans/p1_t1ce.nii.gz"]}
        )
        manifest = Manifest.create(table, here, "x", mask_labels=LABELS)
        plan = SegmentationPlan.from_json(json.loads((here / "study/model/model.json").read_text())["plan"])
        digests = open_cases(manifest, plan, here / "store").row_digests.tolist()
        save(here / "seen", ("flair", "t1ce"), FLAIR_OR_T1CE, provenance={"row_digests": digests, "subjects": ["p2"]})
        for channel in ("flair", "t1ce"):
            (here / f"scans/p1_{channel}.nii.gz").rename(here / f"scans/other_{channel}.nii.gz")
        warned = {one["case"]: one["warnings"] for one in segment_scans("seen", ["scans"], "out").summaries}
        assert warned == {"other": [SEEN], "p2": [SEEN_SUBJECT.format("p2")]}

    def test_a_subject_is_known_by_its_folder_too(self, here):
        save(here / "seen", ("flair", "t1ce"), FLAIR_OR_T1CE, provenance={"subjects": ["patient7"]})
        flair, t1ce, _ = head_scan(1)
        write(here / "in/patient7/visit2", "scan", {"flair": flair, "t1ce": t1ce})
        (summary,) = segment_scans("seen", ["in"], "out").summaries
        assert summary["warnings"] == [SEEN_SUBJECT.format("patient7")]

    def test_settings_are_measured_where_there_is_enough_to_do(self, here, monkeypatch):
        def names(**options):
            return {one["precision"] for one in segment_scans("study", ["scans"], "out", **options).summaries}

        measured = []
        monkeypatch.setattr(
            segment, "precision_for_prediction", lambda *_, **__: measured.append(1) or Precision("bfloat16", True)
        )
        assert names() == {"float32"}
        monkeypatch.setattr(segment, "_WORTH_MEASURING", 1)
        assert names() == {"bfloat16 channels_last"}
        assert len(measured) == 1  # on the first scan, for all

    def test_settings_asked_for_are_taken(self, here):
        summaries = segment_scans("study", ["scans"], "out", precision="bfloat16").summaries
        assert {one["precision"] for one in summaries} == {"bfloat16 channels_last"}


class TestPicture:
    def test_it_shows_every_channel_with_the_outline_of_every_class(self, here):
        segment_scans("study", ["scans"], "out")
        picture = np.asarray(Image.open(here / "out/p1.png"))
        assert picture.ndim == 3
        for colour in overlay.COLOURS[:2]:
            shown = (picture == colour).all(axis=-1).any(axis=1)
            assert shown[: len(shown) // 3].any()  # in the first channel
            assert shown[len(shown) // 2 : -40].any()  # and in the second

    def test_where_nothing_was_found_it_says_so(self, here):
        save(here / "strict", ("flair", "t1ce"), [[0, 0, 0], [0, 1, -99], [1, 0, -99]])
        segment_scans("strict", ["scans"], "out")
        picture = np.asarray(Image.open(here / "out/p1.png"))
        assert not (picture == overlay.COLOURS[0]).all(axis=-1).any()


class TestTwoDimensions:
    @pytest.fixture
    def pictures(self, here):
        """A grey and a colour picture, and a model of one class for each."""
        (here / "in").mkdir()
        disc = (np.hypot(*np.mgrid[-20:20, -25:25]) < 8).astype(np.uint8)
        Image.fromarray(disc * 200 + 20).save(here / "in/slice1.png")
        Image.fromarray(np.stack([disc * 200 + 20] * 3, axis=-1)).save(here / "in/colour.png")
        flat = {"dims": 2, "patch": (16, 16, 1), "labels": MaskLabels.binary()}
        save(here / "grey", ("image",), [[0, 0], [1, 0]], **flat, normalise=("uint8",))
        save(here / "colours", COLOURS, [[0, 0, 0, 0], [1, 1, 1, 0]], **flat, normalise=("uint8",) * 3)
        return disc > 0

    @pytest.mark.parametrize(("model", "name"), [("grey", "slice1"), ("colours", "colour")])
    def test_a_picture_gets_a_mask_that_is_a_picture(self, here, pictures, model, name):
        (summary,) = segment_scans(model, [f"in/{name}.png"], "out").summaries
        np.testing.assert_array_equal(np.asarray(Image.open(here / f"out/{name}_mask.png")), pictures * 255)
        assert summary["warnings"] == [NO_SIZE]
        assert Image.open(here / f"out/{name}.png").size[1] > 100

    def test_a_model_of_slices_segments_volumes_slice_by_slice(self, here):
        save(here / "slices", ("flair", "t1ce"), FLAIR_OR_T1CE, dims=2, patch=(12, 12, 1))
        segment_scans("slices", ["scans"], "out")
        mask = np.asarray(nib.load(here / "out/p2_mask.nii.gz").dataobj)
        np.testing.assert_array_equal(mask, np.array([0, 1, 4])[head_scan(2)[2]])

    @pytest.mark.parametrize(
        ("model", "scan", "said"),
        [
            ("grey", "in/colour.png", "is a colour image, but the model was trained on 1 channel"),
            ("colours", "in/slice1.png", "has 1 channel, but the model was trained on colour images"),
            ("grey", "deep.nii.gz", "values reach from 0 to 900, but the model was trained on images of 8 bits"),
        ],
    )
    def test_what_the_model_never_saw_is_refused(self, here, pictures, model, scan, said):
        nib.save(
            nib.Nifti1Image(np.linspace(0, 900, 20 * 20, dtype=np.float32).reshape(20, 20, 1), np.eye(4)), "deep.nii.gz"
        )
        (problem,) = segment_scans(model, [scan], "out").problems
        assert re.search(said, problem)


class TestBadInput:
    def test_a_bad_scan_costs_only_itself(self, here):
        good = here / "scans/p1_flair.nii.gz"
        for channel in ("flair", "t1ce"):
            (here / f"scans/p0_{channel}.nii.gz").write_bytes(good.read_bytes()[:2000])
        result = run("study", "scans", "-o", "out")
        assert result.exit_code == 2
        assert result.stderr.startswith("1 of the scans could not be segmented: ")
        assert "scans/p0_flair.nii.gz: damaged" in result.stderr
        assert result.stderr.count("\n") == 1
        assert {path.name for path in (here / "out").iterdir()} == {
            f"p{n}{end}" for n in (1, 2) for end in (".json", ".png", "_mask.nii.gz")
        }
        assert "p1" in result.stdout

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("shape", "scans/p1_flair.nii.gz and scans/p1_t1ce.nii.gz: have different shapes"),
            ("place", "scans/p1_flair.nii.gz and scans/p1_t1ce.nii.gz: lie on different grids"),
            ("nan", "scans/p1_t1ce.nii.gz: 7,200 of its 7,200 values are NaN"),
            ("missing", "p1: has no file for t1ce; the model needs flair, t1ce"),
            ("four", "scans/p1_t1ce.nii.gz: holds 2 volumes"),
        ],
    )
    def test_one_sentence_names_what_is_wrong(self, here, change, said):
        _, t1ce, _ = head_scan(1)
        file = here / "scans/p1_t1ce.nii.gz"
        moved = TURNED + np.array([[0, 0, 0, 3.0]] + [[0] * 4] * 3)
        written = {
            "shape": (t1ce[:-1], TURNED),
            "place": (t1ce, moved),
            "nan": (np.full_like(t1ce, np.nan), TURNED),
            "four": (np.stack([t1ce, t1ce], axis=-1), TURNED),
        }
        if change == "missing":
            file.unlink()
        else:
            nib.save(nib.Nifti1Image(*written[change]), file)
        result = run("study", "scans", "-o", "out")
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stderr.count("\n") == 1

    def test_a_single_slice_is_no_volume(self, here):
        flair, t1ce, _ = head_scan(1, shape=(20, 24, 1))
        write(here / "in", "p", {"flair": flair, "t1ce": t1ce})
        (problem,) = segment_scans("study", ["in"], "out").problems
        assert problem == (
            "in/p_flair.nii.gz: is a single slice, but the model was trained on volumes; give the whole series"
        )

    def test_masks_are_not_written_among_the_scans(self, here):
        with pytest.raises(UserError, match="the scans lie in this folder; choose another"):
            segment_scans("study", ["scans"], "scans")
        assert len(list((here / "scans").iterdir())) == 4

    def test_a_file_is_no_folder_for_masks(self, here):
        (here / "out.txt").write_text("mine")
        result = run("study", "scans", "-o", "out.txt")
        assert result.exit_code == 2
        assert "--out out.txt: is a file; name a folder for the masks" in result.stderr
        assert (here / "out.txt").read_text() == "mine"

    def test_no_permission_to_write_is_said_before_anything_is_computed(self, here, monkeypatch):
        def refuse(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
        result = run("study", "scans", "-o", "locked")
        assert result.exit_code == 2
        assert "cannot write locked: no permission to write there; choose a folder you may write to" in result.stderr

    def test_without_a_folder_for_the_masks_nothing_is_done(self, here):
        result = run("study", "scans")
        assert result.exit_code == 2
        assert "--out is missing: this model segments; name the folder for its masks, such as -o masks" in result.stderr


class TestCommand:
    def test_it_prints_a_table_with_warnings_below(self, here):
        save(here / "seen", ("flair", "t1ce"), FLAIR_OR_T1CE, provenance={"subjects": ["p2"]})
        result = run("seen", "scans", "-o", "out")
        assert result.exit_code == 0, result.output
        assert "whole (ml)" in result.stdout
        x, y, z = TURNED[:3, :3] @ CENTRE + TURNED[:3, 3]
        assert f"{x:.0f}, {y:.0f}, {z:.0f}" in result.stdout
        assert f"p2: {SEEN_SUBJECT.format('p2')}" in result.stdout
        assert "2 masks with summary and picture in out" in result.stdout

    def test_json_is_what_the_files_hold(self, here):
        result = run("study", "scans", "-o", "out", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == [json.loads((here / f"out/p{n}.json").read_text()) for n in (1, 2)]

    def test_the_same_command_gives_the_same_bytes(self, here):
        for _ in range(2):
            before = {path: path.read_bytes() for path in here.glob("out/*")}
            run("study", "scans", "-o", "out")
        assert before == {path: path.read_bytes() for path in here.glob("out/*")}


@pytest.mark.slow
def test_a_phantom_volume_from_its_file_to_its_mask(tmp_path):
    manifest = DATASETS.get("phantom")(subjects=1, contrast=["flair", "t1ce"], task="segmentation", spacing=4)
    case = read_case(manifest, 0)
    for channel, data in zip(case.channels, case.image, strict=True):
        write_volume(tmp_path / "in" / f"p1_{channel}.nii.gz", data, case.affine)
    save(
        tmp_path / "model", ("flair", "t1ce"), [[0, 0, 0], [0, 0, -9], [0.3, 0, -0.45], [0, 0, -9]],
        labels=manifest.mask_labels, crop="nonzero", normalise=("zscore_nonzero",) * 2, patch=(24, 24, 24),
    )  # fmt: skip
    (summary,) = segment_scans(tmp_path / "model", [tmp_path / "in"], tmp_path / "out").summaries
    found, true = np.asarray(nib.load(summary["mask"]).dataobj) > 0, case.mask > 0
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.5
    largest = summary["lesions"][0]
    centre = case.affine[:3, :3] @ np.argwhere(true).mean(axis=0) + case.affine[:3, 3]
    assert np.linalg.norm(np.subtract(largest["centre_mm"], centre)) < 10


@pytest.mark.real_data
def test_a_real_dicom_series_is_segmented_on_its_own_grid(real_data, tmp_path):
    series = sorted(path for path in (real_data / "dicom_glioma").iterdir() if path.is_dir())[0]
    save(tmp_path / "model", ("image",), [[0, 0], [1, -1.5]], labels=MaskLabels.binary(), patch=(64, 64, 8))
    (summary,) = segment_scans(tmp_path / "model", [series], tmp_path / "out").summaries
    assert sorted(summary["grid"]["shape"]) == sorted([320, 280, 22])
    mask = nib.load(summary["mask"])
    assert list(mask.shape) == summary["grid"]["shape"]
    assert summary["volumes_ml"]["tumour"] == pytest.approx(
        float((np.asarray(mask.dataobj) > 0).sum() * np.prod(mask.header.get_zooms()) / 1000), rel=1e-4
    )
