"""A user's own folders of volumes."""

import nibabel as nib
import numpy as np
import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.volumes import volumes
from mrtransfer.data.volume import read_case

IMAGE = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
MASK = np.uint8(IMAGE == 7)


@pytest.fixture
def put(tmp_path):
    def one(name, voxels=IMAGE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / name)

    return one


def test_what_the_first_star_matches_is_the_subject(put, tmp_path):
    for name in ("anna", "otto"):
        put(f"{name}/FLAIR_n4.nii.gz")
        put(f"{name}/T1_raw.nii.gz", 2 * IMAGE)
        put(f"{name}/gold_{name}.nii", MASK)
    manifest = volumes(
        tmp_path, channels={"flair": "*/FLAIR_*", "t1": "*/T1_*"}, mask="*/gold_*", classes={"lesion": 1}
    )
    assert manifest.table["subject"].tolist() == manifest.table["sample"].tolist() == ["anna", "otto"]
    assert manifest.channels == ("flair", "t1")
    assert manifest.mask_labels.names == ("background", "lesion")
    case = read_case(manifest, 1)
    np.testing.assert_array_equal(case.image, [IMAGE, 2 * IMAGE])
    np.testing.assert_array_equal(case.mask, MASK)


def test_names_mark_subject_and_session_as_in_bids(put, tmp_path):
    for subject, session in (("01", "a"), ("01", "b"), ("02", "a")):
        put(f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_flair.nii.gz")
    pattern = "sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_flair.nii.gz"
    manifest = volumes(tmp_path, channels={"flair": pattern})
    assert manifest.table["sample"].tolist() == ["01/a", "01/b", "02/a"]
    assert manifest.table["subject"].tolist() == ["01", "01", "02"]
    assert manifest.table["session"].tolist() == ["a", "b", "a"]
    assert manifest.mask_labels is None
    with pytest.raises(UserError, match=r"two files of 01, .*name what tells them apart"):
        volumes(tmp_path, channels={"flair": "sub-*/ses-*/anat/*_flair.nii.gz"})


def test_a_regular_expression_on_the_case_gives_the_subject(put, tmp_path):
    for name in ("p1_scan1", "p1_scan2", "p2_scan1"):
        put(f"{name}.nii.gz")
    manifest = volumes(tmp_path, channels={"t1": "*.nii.gz"}, subject=r"(p\d)_")
    assert manifest.table["subject"].tolist() == ["p1", "p1", "p2"]
    with pytest.raises(UserError, match="does not match the case 'p1_scan1'"):
        volumes(tmp_path, channels={"t1": "*.nii.gz"}, subject="q")
    with pytest.raises(UserError, match="not a regular expression"):
        volumes(tmp_path, channels={"t1": "*.nii.gz"}, subject="(")


def test_deep_patterns_choices_and_single_letters(put, tmp_path):
    for name in ("x/y/a1.nii", "x/b2.nii", "x/cc.nii"):
        put(name)
    manifest = volumes(tmp_path, channels={"t1": "**/{subject}[0-9].nii"})
    assert manifest.table["subject"].tolist() == ["a", "b"]
    assert volumes(tmp_path, channels={"t1": "x/*?.nii"}).table["subject"].tolist() == ["b", "c"]


def test_hidden_files_do_not_count(put, tmp_path):
    put("anna/t1.nii.gz")
    put("anna/._t1.nii.gz")
    put(".trash/t1.nii.gz")
    assert volumes(tmp_path, channels={"t1": "*/*t1.nii.gz"}).table["sample"].tolist() == ["anna"]


def test_a_folder_may_be_a_channel(tmp_path):
    for name in ("anna", "otto"):
        (tmp_path / name / "T1").mkdir(parents=True)
    manifest = volumes(tmp_path, channels={"t1": "*/T1"})
    assert manifest.locations(0) == ["anna/T1"]


def test_a_case_with_a_missing_channel_or_mask_is_refused_or_left_out_by_name(put, tmp_path):
    for name in ("anna/t1", "anna/t2", "anna/seg", "otto/t1", "otto/seg", "rosa/t1", "rosa/t2"):
        put(f"{name}.nii.gz", MASK if name.endswith("seg") else IMAGE)
    options = {"channels": {"t1": "*/t1.nii.gz", "t2": "*/t2.nii.gz"}, "mask": "*/seg.nii.gz"}
    with pytest.raises(UserError, match=r"otto has no t2 \(2 of 3 cases"):
        volumes(tmp_path, **options)
    manifest = volumes(tmp_path, **options, missing="exclude")
    assert manifest.table["sample"].tolist() == ["anna"]
    assert manifest.notes == (
        "left out: otto has no t2; rosa has no mask",
        "classes found in the masks: {foreground: 1}; the option classes gives them names",
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give patterns as in channels:"),
        ({"channels": "*/t1.nii.gz"}, "give patterns as in channels:"),
        ({"channels": {"t1": "*/t3.nii.gz"}}, r"nothing matches t1: '\*/t3.nii.gz' \(the folder holds anna\)"),
        ({"channels": {"t1": "anna/t1.nii.gz"}}, r"with a \* or"),
        ({"channels": {"t1": "/data/*/t1.nii.gz"}}, "relative to path"),
        ({"channels": {"t1": "{name}/t1.nii.gz"}}, "it must hold {subject}"),
        ({"channels": {"t1": "{subject}/{mask}.nii.gz"}}, "none of sample, image, mask"),
        ({"channels": {"t1": "{subject}/t1*", "t2": "{subject}/{session}.nii"}}, "name different parts"),
        ({"channels": {"t1": "*/t1.nii.gz"}, "missing": "ignore"}, "unknown value of missing"),
        ({"channels": {"t1": "*/t1.nii.gz"}, "classes": {"lesion": 0}}, "above 0"),
    ],
)
def test_wrong_options_are_named(options, said, put, tmp_path):
    put("anna/t1.nii.gz")
    with pytest.raises(UserError, match=said):
        volumes(tmp_path, **options)


@pytest.mark.real_data
def test_the_published_brats_2015_cases_under_their_own_names(real_data):
    manifest = volumes(
        real_data / "brats2015",
        channels={"flair": "*/Flair_*", "t1ce": "*/T1c_*"},
        mask="*/OTMulti*",
        classes={"necrosis": [1, 3], "oedema": 2, "enhancing": 4},
    )
    assert manifest.table["subject"].tolist() == [f"brats_2013_pat000{n}_1" for n in (1, 2, 5)]
    assert sorted(np.unique(read_case(manifest, 0).mask)) == [0, 1, 2, 3]


@pytest.mark.real_data
def test_a_published_dicom_series_is_a_channel(real_data):
    manifest = volumes(real_data, channels={"t1ce": "{subject}/*-T1post-*"})
    assert manifest.table["subject"].tolist() == ["dicom_glioma"]
    assert read_case(manifest, 0).image.shape == (1, 280, 320, 22)
