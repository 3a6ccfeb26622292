"""Segmentation on the real command line: bad input is exit code 2 and one sentence, odd but honest input works."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import yaml
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SHAPE = (16, 18, 12)
CHANNELS = ("flair", "t1")
SUBJECTS = 6

TINY = {
    "question": "Does it run?",
    "task": "segmentation",
    "target": {
        "dataset": "volumes", "channels": {"flair": "*/flair.nii.gz", "t1": "*/t1.nii.gz"}, "mask": "*/mask.nii.gz",
        "classes": {"core": 1, "rim": 2}, "regions": {"whole": ["core", "rim"], "core": ["core"]},
        "split": {"test": 0.34, "validation": 0.3},
    },
    "plan": {"features": [4, 8], "strides": [[2, 2, 2]], "patch": [8, 8, 8], "batch": 2},
    "arms": {"scratch": {"network": "residual_unet", "method": {"name": "scratch", "epochs": 1}}},
    "resamples": 200,
    "precision": "float32",
}  # fmt: skip


def put(file: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), file)


def pictured(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a brighter block, and the mask of the block: its rim and its core."""
    random = np.random.default_rng(number)
    mask = np.zeros(SHAPE, np.uint8)
    x, y, z = random.integers(2, 6, 3)
    mask[x : x + 7, y : y + 7, z : z + 5] = 2
    mask[x + 2 : x + 5, y + 2 : y + 5, z + 1 : z + 4] = 1
    return (random.normal(100, 10, SHAPE) + 40 * mask).astype(np.float32), mask


@pytest.fixture
def scans(tmp_path) -> Path:
    """Subjects s0 to s5, two channels and a mask each."""
    for number in range(SUBJECTS):
        image, mask = pictured(number)
        for channel in CHANNELS:
            put(tmp_path / f"scans/s{number}/{channel}.nii.gz", image)
        put(tmp_path / f"scans/s{number}/mask.nii.gz", mask)
    return tmp_path / "scans"


@pytest.fixture
def recipe(scans, tmp_path) -> Path:
    return written(tmp_path, TINY | {"target": {**TINY["target"], "path": str(scans)}})


def written(folder: Path, recipe: dict) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return file


def moved_grid(file):
    affine = np.eye(4)
    affine[0, 3] = 4
    put(file, pictured(3)[file.name.startswith("mask")], affine)


def other_shape(file):
    put(file, pictured(3)[0][:-2])


def nan(file):
    image = pictured(3)[0]
    image[2, 3, 4] = np.nan
    put(file, image)


def constant(file):
    put(file, np.full(SHAPE, 7, np.float32))


def truncated(file):
    file.write_bytes(file.read_bytes()[:-900])


def cut_inside(file):
    """Whole as gzip, but the volume in it is cut short."""
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-900]))


def four_dimensions(file):
    put(file, np.stack([pictured(3)[0]] * 3, axis=3))


def singular(file):
    """Two axes of the sform are one."""
    data = bytearray(gzip.decompress(file.read_bytes()))
    data[280:296] = data[296:312]
    file.write_bytes(gzip.compress(data))


def unknown_label(file):
    mask = pictured(3)[1]
    mask[0, 0, 0] = 5
    put(file, mask)


def fractional_label(file):
    mask = pictured(3)[1].astype(np.float32)
    mask[0, 0, 0] = 0.5
    put(file, mask)


class TestBadScans:
    @pytest.mark.parametrize(
        ("spoil", "name", "said"),
        [
            (moved_grid, "t1", "lie on different grids (voxels of the same index are up to 4 voxels apart)"),
            (other_shape, "t1", "have different shapes (16 × 18 × 12 and 14 × 18 × 12)"),
            (nan, "t1", "1 of its 3,456 values are NaN or infinite"),
            (constant, "flair", "is 7 everywhere; a scan has more than one value"),
            (truncated, "flair", "damaged"),
            (cut_inside, "t1", "damaged"),
            (four_dimensions, "flair", "#volume="),
            (singular, "t1", "affine"),
            (unknown_label, "mask", "the mask holds 5, which is no known class; known are 0 (background), 1 (core)"),
            (fractional_label, "mask", "the mask holds 0.5; known are 0 (background), 1 (core), 2 (rim)"),
            (moved_grid, "mask", "lie on different grids"),
        ],
    )
    def test_a_scan_that_cannot_be_used_is_named(self, refused, recipe, scans, tmp_path, spoil, name, said):
        spoil(scans / f"s3/{name}.nii.gz")
        told = refused("study", recipe, "--out", tmp_path / "study")
        assert f"s3/{name}.nii.gz" in told
        assert said in told
        assert not (tmp_path / "study/runs").exists()
        assert not list((tmp_path / "study").rglob("*.partial*"))

    def test_all_bad_scans_are_told_in_one_sentence(self, refused, recipe, scans, tmp_path):
        for number in range(SUBJECTS):
            (nan, constant, truncated)[number % 3](scans / f"s{number}/t1.nii.gz")
        told = refused("study", recipe, "--out", tmp_path / "study", "--set", "target.split.test=0.5")
        assert "3 of 3 cases cannot be used" in told
        assert told.count("/t1.nii.gz") >= 3

    def test_a_subject_without_a_channel_is_refused_or_left_out_by_name(
        self, refused, mrtransfer, recipe, scans, tmp_path
    ):
        (scans / "s2/t1.nii.gz").unlink()
        told = refused("study", recipe, "--out", tmp_path / "study")
        assert (
            "s2 has no t1; add the files, choose other channels, or leave such cases out with missing: exclude" in told
        )
        (scans / "s4/mask.nii.gz").unlink()
        ended = mrtransfer("study", recipe, "--out", tmp_path / "study", "--set", "target.missing=exclude", "--json")
        assert (ended.code, ended.err) == (0, [])
        data = json.loads(ended.out)["data"]["target"]
        assert data["samples"] == 4
        assert "left out: s2 has no t1; s4 has no mask" in data["notes"]
        assert "left out: s2 has no t1; s4 has no mask" in (tmp_path / "study/report.html").read_text()


class TestRecipes:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("arms.scratch.loss=dyce", "arms.scratch.loss: unknown loss 'dyce': did you mean 'dice'?"),
            ("arms.scratch.network=residual_unt", "did you mean 'residual_unet'?"),
            ("arms.scratch.network={name: unet3d, widdth: 4}", "unknown key 'widdth': did you mean 'width'?"),
            ("arms.scratch.method=linear_probe", "linear_probe is for classification; segment with scratch"),
            ("arms.scratch.method={name: fine_tune, freeze: encoder7}", "unknown stage in freeze 'encoder7'"),
            ("input={size: 32}", "unknown key 'input'"),
            ("plan.patch=[8, 8, 9]", "patch: is 9 voxels along Z, and the strides divide by 2 there"),
            ("plan.features=[4, 8, 16]", "strides: has 1 entries for 3 levels of features"),
            ("plan.normalise=[zscore]", "normalise has 1 entries, and the images have 2 channels (flair, t1)"),
            ("target.labels={core: tumour}", "labels: rim not mapped; name all of core, rim, or add '*' for the rest"),
            ("target.dataset=folder", "has no masks, which segmentation needs"),
            ("budgets=[9]", "9 labelled subjects or clusters are asked for"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_one_sentence(self, refused, recipe, scans, tmp_path, change, said):
        if "folder" in change:
            for kind in ("a", "b"):
                put(scans / kind / "x.nii.gz", pictured(0)[0])
            change = f"target={{dataset: folder, path: {scans}}}"
        told = refused("study", recipe, "--out", tmp_path / "study", "--set", change)
        assert said in told
        assert not (tmp_path / "study/runs").exists()

    def test_a_network_of_three_dimensions_in_two(self, refused, recipe, tmp_path):
        given = ["arms.scratch.network={name: unet3d, dims: 2}", "plan.patch=[32, 32, 1]", "plan.strides=[[2, 2, 1]]"]
        told = refused(
            "study", recipe, "--out", tmp_path / "study", *(part for one in given for part in ("--set", one))
        )
        assert "unet3d: it has 3 dimensions; use dims: 3, or unet or residual_unet for 2" in told

    def test_a_wrong_edit_of_the_plan(self, refused, mrtransfer, recipe, tmp_path):
        out = tmp_path / "study"
        assert refused("study", recipe, "--out", out, "--set", "budgets=[9]")  # its plan is there by now
        (file,) = out.glob("plans/fold-0-*.json")
        plan = json.loads(file.read_text())
        file.write_text(json.dumps({**plan, "foreground": 2}))
        told = refused("study", recipe, "--out", out)
        assert told.startswith(f"{file}: foreground: ")
        file.write_text("{")
        assert f"{file} is not valid JSON" in refused("study", recipe, "--out", out)


class TestOddScans:
    def test_volumes_smaller_than_the_patch_work(self, mrtransfer, recipe, tmp_path):
        out = tmp_path / "study"
        ended = mrtransfer("study", recipe, "--out", out, "--set", "plan.patch=[24, 24, 16]", "--json")
        assert (ended.code, ended.err) == (0, [])
        results = json.loads(ended.out)
        assert [row["arm"] for row in results["runs"]] == ["scratch"]
        assert results["arms"][0]["metrics"]["whole/dice"]["mean"] is not None
        assert (out / "model/model.json").is_file()

    def test_networks_of_two_dimensions_and_overlapping_regions_work_on_volumes(self, mrtransfer, scans, tmp_path):
        method = {"name": "scratch", "epochs": 1}
        arms = {
            "slices": {"network": {"name": "residual_unet", "dims": 2}, "method": method},
            "regions": {"network": {"name": "residual_unet", "dims": 2}, "method": method, "loss": "region"},
        }
        target = {**TINY["target"], "path": str(scans)}
        shared, inference = {"augment": {"flip": [0.5, 0.5, 0.5]}}, {"mirror": True, "overlap": 0}
        recipe = {**TINY, "arms": arms, "target": target, "plan": {}, "shared": shared, "inference": inference}
        ended = mrtransfer("study", written(tmp_path, recipe), "--out", tmp_path / "study", "--json")
        assert (ended.code, ended.err) == (0, [])
        assert {entry["arm"] for entry in json.loads(ended.out)["arms"]} == set(arms)
        (file,) = (tmp_path / "study").glob("plans/fold-0-*.json")
        assert json.loads(file.read_text())["dims"] == 2

    def test_a_dicom_series_of_thick_slices_works_and_two_series_in_a_folder_do_not(
        self, mrtransfer, refused, tmp_path
    ):
        for number in range(4):
            image, mask = pictured(number)
            affine = series(tmp_path / f"scans/p{number}/mr", image, number)
            put(tmp_path / f"scans/p{number}/mask.nii.gz", mask, affine)
        target = {
            **TINY["target"], "path": str(tmp_path / "scans"), "channels": {"t1": "*/mr"}, "split": {"test": 0.5},
        }  # fmt: skip
        plan = {"features": [4, 8]}
        recipe = written(tmp_path, {**TINY, "target": target, "plan": plan})
        ended = mrtransfer("study", recipe, "--out", tmp_path / "study", "--json")
        assert (ended.code, ended.err) == (0, [])
        (file,) = (tmp_path / "study").glob("plans/fold-0-*.json")
        plan = json.loads(file.read_text())
        assert plan["spacing"] == [1.0, 1.0, 5.0]
        assert plan["strides"] == [[2, 2, 1]]  # thick slices are not merged

        series(tmp_path / "scans/p2/mr", pictured(9)[0], 9)
        told = refused("study", recipe, "--out", tmp_path / "study")
        assert "p2/mr" in told
        assert "#series=" in told


def series(folder: Path, image: np.ndarray, number: int) -> np.ndarray:
    """The volume as axial DICOM slices, 5 mm apart; returns its affine, from (column, row, slice) to RAS mm."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid(entropy_srcs=[str(number)])
    for place in range(image.shape[2]):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.Modality, dataset.PatientID, dataset.SeriesInstanceUID = "MR", f"P{number}", uid
        pixels = np.rint(image[:, :, place].T).astype(np.uint16)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.PixelData = pixels.tobytes()
        dataset.PixelSpacing, dataset.SliceThickness, dataset.InstanceNumber = [1, 1], 5, place + 1
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 5 * place], [1, 0, 0, 0, 1, 0]
        dataset.save_as(folder / f"{uid[-6:]}-{place:03}.dcm", enforce_file_format=True)
    return np.diag([-1.0, -1.0, 5.0, 1.0])
