"""The Medical Segmentation Decathlon's layout."""

import json

import nibabel as nib
import numpy as np
import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.decathlon import decathlon
from mrtransfer.data.volume import read_case

IMAGE = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
FOUR = np.stack([IMAGE, IMAGE + 1, IMAGE * 2, IMAGE * 3], -1)
MASK = np.uint8(IMAGE % 3)


def put(path, voxels):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def task(folder, images, description=None):
    for name, voxels in images.items():
        put(folder / "imagesTr" / f"{name}.nii.gz", voxels)
        put(folder / "labelsTr" / f"{name}.nii.gz", MASK)
    if description is not None:
        (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_without_a_description_classes_are_found_in_the_masks(tmp_path):
    manifest = decathlon(task(tmp_path / "Task04_Hippocampus", {"hippocampus_003": IMAGE, "hippocampus_001": IMAGE}))
    assert manifest.name == "Task04_Hippocampus"
    assert manifest.table["subject"].tolist() == ["hippocampus_001", "hippocampus_003"]
    assert manifest.channels == ("image",)
    assert manifest.mask_labels.names == ("background", "label_1", "label_2")
    assert manifest.notes == (
        "classes found in the masks: {label_1: 1, label_2: 2}; the option classes gives them names",
    )
    np.testing.assert_array_equal(read_case(manifest, 0).mask, MASK)


@pytest.mark.parametrize(
    "labels",
    [{"0": "background", "1": "Anterior", "2": "Posterior"}, {"background": 0, "Anterior": 1, "Posterior": 2}],
)
def test_a_description_names_the_classes(tmp_path, labels):
    manifest = decathlon(task(tmp_path, {"a": IMAGE}, {"labels": labels, "modality": {"0": "MRI"}}))
    assert manifest.mask_labels.names == ("background", "Anterior", "Posterior")
    assert manifest.channels == ("image",)
    renamed = decathlon(tmp_path, classes={"all": [1, 2]}, regions={"whole": ["all"]})
    assert renamed.mask_labels.regions == (("whole", ("all",)),)


def test_channels_of_4d_images_are_volumes_of_one_file(tmp_path):
    description = {"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, "labels": {"1": "a", "2": "b"}}
    task(tmp_path, {"BRATS_001": FOUR}, description)
    manifest = decathlon(tmp_path)
    assert manifest.channels == ("flair", "t1w", "t1gd", "t2w")
    np.testing.assert_array_equal(read_case(manifest, 0).image, np.moveaxis(FOUR, -1, 0))
    picked = decathlon(tmp_path, channels=["T2w", "flair"])
    assert picked.channels == ("t2w", "flair")
    assert picked.locations(0)[0] == "imagesTr/BRATS_001.nii.gz#volume=3"
    (tmp_path / "dataset.json").unlink()
    assert decathlon(tmp_path).channels == ("channel_0", "channel_1", "channel_2", "channel_3")


def test_what_operating_systems_and_test_sets_add_is_ignored(tmp_path):
    task(tmp_path / "in" / "Task04", {"a": IMAGE})
    (tmp_path / "in" / "Task04" / "imagesTr" / "._a.nii.gz").write_bytes(b"x")
    put(tmp_path / "in" / "Task04" / "imagesTs" / "b.nii.gz", IMAGE)
    put(tmp_path / "in" / "Task04" / "labelsTr" / "c.nii.gz", MASK)
    manifest = decathlon(tmp_path / "in")  # the folder above the task's is as good
    assert manifest.table["sample"].tolist() == ["a"]
    assert manifest.notes[:2] == (
        "1 masks without image ignored (c.nii.gz)",
        "1 images of imagesTs ignored, which have no masks",
    )


def test_an_image_without_mask_is_refused_or_left_out_by_name(tmp_path):
    task(tmp_path, {"a": IMAGE, "b": IMAGE})
    (tmp_path / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(UserError, match=r"b has no mask.*missing: exclude"):
        decathlon(tmp_path)
    assert decathlon(tmp_path, missing="exclude").notes[0] == "left out: b has no mask"


@pytest.mark.parametrize(
    ("description", "options", "said"),
    [
        ({"modality": {"0": "FLAIR"}}, {}, "names flair, but the images have 4 channels"),
        ({"modality": ["FLAIR"]}, {}, "modality must be as"),
        ({"labels": ["tumour"]}, {"channels": "channel_0"}, "labels must be as"),
        ({"labels": {"1": "a", "2": "a"}}, {}, "holds 1"),
        ([], {}, "must hold an object"),
        (None, {"channels": "channel_9"}, "'channel_"),
    ],
)
def test_descriptions_that_do_not_fit_are_named(tmp_path, description, options, said):
    task(tmp_path, {"a": FOUR}, description)
    with pytest.raises(UserError, match=said) as error:
        read_case(decathlon(tmp_path, **options), 0)
    assert str(tmp_path) in str(error.value) or "labelsTr" in str(error.value)


def test_images_of_different_kinds_are_refused(tmp_path):
    task(tmp_path, {"a": FOUR, "b": IMAGE})
    with pytest.raises(UserError, match=r"b\.nii\.gz: has three axes, but a\.nii\.gz has 4 channels"):
        decathlon(tmp_path)
    put(tmp_path / "imagesTr" / "a.nii.gz", IMAGE)
    with pytest.raises(UserError, match="leave it out"):
        decathlon(tmp_path, channels="flair")
    (tmp_path / "imagesTr" / "a.nii.gz").write_bytes(b"no volume")
    with pytest.raises(UserError, match=r"a\.nii\.gz: damaged"):
        decathlon(tmp_path)


def test_masks_that_hold_no_classes_are_named(tmp_path):
    task(tmp_path, {"a": IMAGE})
    put(tmp_path / "labelsTr" / "a.nii.gz", np.float32(IMAGE) / 2)
    with pytest.raises(UserError, match=r"labelsTr/a\.nii\.gz: holds 0\.5"):
        decathlon(tmp_path)
    put(tmp_path / "labelsTr" / "a.nii.gz", IMAGE)
    with pytest.raises(UserError, match="120 different values"):
        decathlon(tmp_path)
    put(tmp_path / "labelsTr" / "a.nii.gz", 0 * MASK)
    with pytest.raises(UserError, match="all 1 masks are empty"):
        decathlon(tmp_path)


def test_a_folder_that_is_no_task_is_described(tmp_path):
    for name in ("Task01", "Task04"):
        task(tmp_path / name, {"a": IMAGE})
    with pytest.raises(UserError, match="holds 2 tasks; give one of them, for example"):
        decathlon(tmp_path)
    (tmp_path / "none" / "imagesTr").mkdir(parents=True)
    (tmp_path / "none" / "labelsTr").mkdir()
    with pytest.raises(UserError, match="imagesTr holds no NIfTI"):
        decathlon(tmp_path / "none")


@pytest.mark.real_data
def test_the_published_hippocampi(real_data):
    manifest = decathlon(real_data / "decathlon_hippocampus", classes={"anterior": 1, "posterior": 2})
    assert len(manifest) == manifest.table["subject"].nunique() == 134
    assert read_case(manifest, 0).mask.max() == 2
