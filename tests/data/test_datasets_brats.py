"""BraTS as published in all its years."""

import nibabel as nib
import numpy as np
import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.brats import brats
from mrtransfer.data.volume import read_case

IMAGE = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
OLD, NEW = ("flair", "t1", "t1ce", "t2", "seg"), ("t2f", "t1n", "t1c", "t2w", "seg")


def put(path, voxels=IMAGE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


def seg(highest):
    mask = np.zeros(IMAGE.shape, np.uint8)
    mask[1:3, 1:4, 1:5], mask[1, 2, 2], mask[2, 2, 3] = 2, 1, highest
    return mask


def old_case(folder, case, parts=OLD, suffix=".nii.gz"):
    for part in parts:
        put(folder / case / f"{case}_{part}{suffix}", seg(4) if part == "seg" else IMAGE)


def new_case(folder, case, parts=NEW):
    for part in parts:
        put(folder / case / f"{case}-{part}.nii.gz", seg(3) if part == "seg" else IMAGE)


def test_names_up_to_2021(tmp_path):
    old_case(tmp_path, "BraTS20_Training_001", suffix=".nii")
    old_case(tmp_path, "BraTS2021_00006")
    manifest = brats(tmp_path)
    assert manifest.table["subject"].tolist() == ["BraTS2021_00006", "BraTS20_Training_001"]
    assert manifest.channels == ("flair", "t1", "t1ce", "t2")
    assert manifest.table["image:t1"].iloc[1] == "BraTS20_Training_001/BraTS20_Training_001_t1.nii"
    case = read_case(manifest, 0)
    assert sorted(np.unique(case.mask)) == [0, 1, 2, 3]
    assert manifest.mask_labels.region_names == ("whole tumour", "tumour core", "enhancing tumour")


def test_names_since_2023_and_their_time_points(tmp_path):
    for case in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-SSA-00007-000"):
        new_case(tmp_path / "train", case)
    manifest = brats(tmp_path, channels=["t1ce", "flair"])
    assert manifest.table["sample"].tolist() == ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-SSA-00007-000"]
    assert manifest.table["subject"].tolist() == ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-SSA-00007"]
    assert manifest.channels == ("t1ce", "flair")
    assert manifest.locations(0)[0].endswith("BraTS-GLI-00005-000-t1c.nii.gz")
    assert manifest.mask_labels.values == ((0,), (1,), (2,), (3,))
    assert read_case(manifest, 2).mask.max() == 3


def test_years_may_be_mixed_and_files_relabelled(tmp_path):
    old_case(tmp_path, "BraTS2021_00006")
    new_case(tmp_path, "BraTS-GLI-00005-000")
    manifest = brats(tmp_path)
    assert [sorted(np.unique(read_case(manifest, row).mask)) for row in (0, 1)] == [[0, 1, 2, 3]] * 2
    put(tmp_path / "BraTS2021_00006" / "BraTS2021_00006_seg.nii.gz", seg(3))
    assert brats(tmp_path, enhancing=3).mask_labels.values[3] == (3,)


def test_an_unknown_mask_value_is_named_with_its_file(tmp_path):
    old_case(tmp_path, "BraTS2021_00006")
    put(tmp_path / "BraTS2021_00006" / "BraTS2021_00006_seg.nii.gz", seg(3))
    with pytest.raises(UserError, match=r"00006_seg\.nii\.gz: the mask holds 3, .* 4 \(enhancing\)"):
        read_case(brats(tmp_path), 0)


def test_grades_and_the_strangely_named_mask_of_case_355(tmp_path):
    old_case(tmp_path / "HGG", "Brats18_CBICA_AAB_1")
    old_case(tmp_path / "LGG", "BraTS20_Training_355", OLD[:4])
    put(tmp_path / "LGG" / "BraTS20_Training_355" / "W39_1998.09.19_Segm.nii", seg(4))
    manifest = brats(tmp_path)
    assert dict(zip(manifest.table["sample"], manifest.table["grade"], strict=True)) == {
        "Brats18_CBICA_AAB_1": "HGG",
        "BraTS20_Training_355": "LGG",
    }
    assert manifest.table["mask"].str.contains("W39").sum() == 1


def test_the_same_patient_has_the_same_name_in_two_domains(tmp_path):
    for case in ("BraTS20_Training_001", "BraTS20_Training_002"):
        old_case(tmp_path, case)
    source, target = brats(tmp_path, channels=["flair", "t1ce"]), brats(tmp_path, channels=["t1", "t2"])
    assert source.name == target.name
    assert source.table["subject"].tolist() == target.table["subject"].tolist()


def test_a_case_with_a_missing_channel_is_refused_or_left_out_by_name(tmp_path):
    old_case(tmp_path, "BraTS20_Training_001")
    old_case(tmp_path, "BraTS20_Training_002", ("flair", "t1", "t2", "seg"))
    old_case(tmp_path, "BraTS20_Training_003", OLD[:4])
    with pytest.raises(UserError, match=r"BraTS20_Training_002 has no t1ce \(2 of 3 cases.*missing: exclude"):
        brats(tmp_path)
    manifest = brats(tmp_path, missing="exclude")
    assert manifest.table["sample"].tolist() == ["BraTS20_Training_001"]
    assert manifest.notes == ("left out: BraTS20_Training_002 has no t1ce; BraTS20_Training_003 has no seg",)
    assert len(brats(tmp_path, channels="t2", missing="exclude")) == 2
    with pytest.raises(UserError, match="'exclude'"):
        brats(tmp_path, missing="exclud")


def test_validation_cases_have_no_masks(tmp_path):
    old_case(tmp_path / "train", "BraTS20_Training_001")
    old_case(tmp_path / "valid", "BraTS20_Validation_001", OLD[:4])
    manifest = brats(tmp_path)
    assert manifest.table["sample"].tolist() == ["BraTS20_Training_001"]
    assert "1 published validation cases without masks ignored" in manifest.notes
    alone = brats(tmp_path / "valid")
    assert alone.table["mask"].isna().all()
    assert alone.notes == ("no case has a mask",)


def test_files_that_contradict_each_other_or_belong_to_no_case(tmp_path):
    old_case(tmp_path, "BraTS20_Training_001")
    put(tmp_path / "BraTS20_Training_001" / "atlas.nii")
    put(tmp_path / "BraTS20_Training_001" / "._BraTS20_Training_001_t1.nii.gz")
    (tmp_path / "name_mapping.csv").write_text("x")
    assert brats(tmp_path).notes == ("2 other files ignored (1 × .csv, 1 × .nii)",)
    put(tmp_path / "again" / "BraTS20_Training_001_t1.nii.gz")
    with pytest.raises(UserError, match="two files for t1"):
        brats(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"channels": ["t1c"]}, "'t1ce'"), ({"channels": []}, "one or more"), ({"channels": ["t1", "t1"]}, "each once")],
)
def test_wrong_channels_are_named(options, said, tmp_path):
    with pytest.raises(UserError, match=said):
        brats(tmp_path, **options)


def test_a_folder_of_other_names_is_described(tmp_path):
    put(tmp_path / "case" / "Flair_subtrMeanDivStd.nii.gz")
    with pytest.raises(UserError, match=r"it holds Flair_subtrMeanDivStd\.nii\.gz.*dataset volumes"):
        brats(tmp_path)


@pytest.mark.real_data
def test_a_published_case(real_data):
    manifest = brats(real_data / "brats2021", channels=["flair", "t1ce"])
    assert manifest.table["subject"].tolist() == ["BraTS2021_00006"]
    case = read_case(manifest, 0)
    assert case.image.shape == (2, 240, 240, 155)
    assert sorted(np.unique(case.mask)) == [0, 1, 2, 3]
