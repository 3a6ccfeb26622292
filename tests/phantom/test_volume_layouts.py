"""Phantom volumes written as published sets are, and read back by their adapters."""

import json

import nibabel as nib
import numpy as np
import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets.phantom import phantom
from mrtransfer.data.phantom.layouts import write
from mrtransfer.data.volume import read_case

CONTRASTS = ["flair", "t1", "t1ce", "t2"]
CLASSES = {"necrosis": 1, "oedema": 2, "enhancing": 3}


@pytest.fixture(scope="module")
def heads():
    return phantom(subjects=2, task="segmentation", contrast=CONTRASTS, spacing=8)


@pytest.fixture(scope="module")
def knees():
    return phantom(subjects=2, task="segmentation", contrast="pd", anatomy="knee", spacing=8)


def canonical(case):
    """Image and classes along right, front and head, and where the first voxel is."""
    image = nib.Nifti1Image(np.moveaxis(case.image, 0, -1), case.affine)
    mask = nib.Nifti1Image(case.mask, case.affine)
    image, mask = nib.as_closest_canonical(image), nib.as_closest_canonical(mask)
    return np.moveaxis(image.get_fdata(), -1, 0), np.asarray(mask.dataobj), image.affine


@pytest.mark.parametrize(
    ("layout", "options", "reading"),
    [
        ("brats", {}, {"channels": CONTRASTS}),
        ("brats", {"year": 2023}, {"channels": CONTRASTS}),
        ("decathlon", {}, {}),
        ("decathlon", {"description": False}, {"classes": CLASSES}),
        ("volumes", {}, {"channels": {c: f"*/{c}.nii.gz" for c in CONTRASTS}, "mask": "*/mask.nii.gz"}),
    ],
)
def test_the_adapter_reads_what_was_rendered(layout, options, reading, heads, tmp_path):
    read = DATASETS.get(layout)(write(heads, layout, tmp_path / "set", **options), **reading)
    assert len(read) == len(heads)
    assert len(read.channels) == len(CONTRASTS)
    if "description" not in options:
        assert read.channels == heads.channels
    names = [f"BraTS-GLI-{n:05d}" for n in range(2)] if "year" in options else heads.table["subject"].tolist()
    assert read.table["subject"].tolist() == names
    if layout != "volumes":
        assert read.mask_labels.names == heads.mask_labels.names
    for row in range(len(heads)):
        for mine, theirs in zip(canonical(read_case(read, row)), canonical(read_case(heads, row)), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_brats_files_are_as_published(heads, tmp_path):
    root = write(heads, "brats", tmp_path / "set")
    assert len(list(root.glob("*/*.nii.gz"))) == 10
    seg = nib.load(root / "phantom-0001" / "phantom-0001_seg.nii.gz")
    assert nib.aff2axcodes(seg.affine) == ("L", "P", "S")
    assert seg.get_data_dtype() == np.uint8
    assert set(np.unique(np.concatenate([nib.load(f).dataobj[:].ravel() for f in root.glob("*/*_seg.nii.gz")]))) == {
        0,
        1,
        2,
        4,
    }


def test_one_contrast_is_a_3d_image_of_the_decathlon(knees, tmp_path):
    root = write(knees, "decathlon", tmp_path / "Task99_Knee")
    described = json.loads((root / "dataset.json").read_text())
    assert described["modality"] == {"0": "pd"}
    assert described["labels"]["3"] == "enhancing"
    assert described["training"][0]["label"] == "./labelsTr/phantom-knee-0000.nii.gz"
    read = DATASETS.get("decathlon")(root)
    assert read.name == "Task99_Knee"
    assert read.channels == ("image",)
    np.testing.assert_array_equal(read_case(read, 1).image, read_case(knees, 1).image)


def test_wrong_layouts_are_refused_with_what_would_be_right(knees, heads, tmp_path):
    with pytest.raises(UserError, match="has no pd; build the manifest with flair"):
        write(knees, "brats", tmp_path / "x")
    with pytest.raises(UserError, match="year is 2015"):
        write(heads, "brats", tmp_path / "x", year=2015)
    assert not (tmp_path / "x").exists()
