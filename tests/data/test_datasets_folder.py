"""Class folders: splits, subjects, and what is said where the folder is not one."""

import numpy as np
import pytest
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.folder import folder


def images(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 7, np.uint8)).save(root / name)


def test_folders_are_labels_and_other_files_are_counted(tmp_path):
    images(tmp_path, "b/2.png", "b/1.jpg", "a/deep/er/1.tif")
    (tmp_path / "a" / "Thumbs.db").touch()
    (tmp_path / "b" / ".DS_Store").touch()
    (tmp_path / "__MACOSX" / "b").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "b" / "._1.jpg").touch()
    manifest = folder(tmp_path)
    assert manifest.table["sample"].tolist() == ["a/deep/er/1.tif", "b/1.jpg", "b/2.png"]
    assert manifest.table["label"].tolist() == ["a", "b", "b"]
    assert manifest.classes == ("a", "b")
    assert manifest.notes == ("1 other file ignored (1 × .db)",)


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "test"), ("TRAIN", "Test")])
def test_a_published_split_becomes_the_split(tmp_path, names):
    images(tmp_path, f"{names[0]}/a/1.png", f"{names[0]}/b/1.png", f"{names[1]}/a/1.png", "val/b/2.png")
    manifest = folder(tmp_path)
    assert sorted(zip(manifest.table["sample"], manifest.table["split"], strict=True)) == sorted(
        [
            (f"{names[0]}/a/1.png", "train"),
            (f"{names[0]}/b/1.png", "train"),
            (f"{names[1]}/a/1.png", "test"),
            ("val/b/2.png", "validation"),
        ]
    )
    assert manifest.notes == ("published split found: 2 train, 1 validation, 1 test",)


def test_an_unpacked_archive_is_looked_into(tmp_path):
    images(tmp_path, "archive/scans/Training/a/1.png", "archive/scans/Training/b/1.png")
    assert folder(tmp_path).root == tmp_path / "archive" / "scans"


def test_subjects_from_file_names(tmp_path):
    images(tmp_path, "a/s1_01.png", "a/s1_02.png", "b/s2_01.png")
    assert folder(tmp_path, subject=r"(\w+)_\d+").table["subject"].tolist() == ["s1", "s1", "s2"]
    with pytest.raises(UserError, match=r"a/s1_01.png: its name does not match"):
        folder(tmp_path, subject="patient(.)")
    with pytest.raises(UserError, match="not a regular expression"):
        folder(tmp_path, subject="(")


def test_two_labels_for_one_subject_can_be_forbidden(tmp_path):
    images(tmp_path, "a/s1_01.png", "b/s1_02.png")
    assert len(folder(tmp_path, subject=r"(\w+)_")) == 2
    with pytest.raises(UserError, match="subject s1 is labelled a and b"):
        folder(tmp_path, subject=r"(\w+)_", one_label_per_subject=True)


def test_masks_beside_images_are_no_images(tmp_path):
    images(tmp_path, "a/1.png", "a/1_mask.png", "b/2.png", "b/lonely_mask.png")
    table = folder(tmp_path).table
    assert table["sample"].tolist() == ["a/1.png", "b/2.png", "b/lonely_mask.png"]
    assert table["mask"].fillna("").tolist() == ["a/1_mask.png", "", ""]


def test_nothing_and_one_class_and_images_without_folders_are_refused(tmp_path):
    for name, files, message in [
        ("nothing", [], "no images found .the folder is empty"),
        ("one", ["a/1.png"], "only one class"),
        ("flat", ["1.png"], "the images lie in the folder itself"),
        ("train-only", ["Training/a/1.png"], r"only one class \(a\) has images"),
    ]:
        (tmp_path / name).mkdir()
        images(tmp_path / name, *files)
        with pytest.raises(UserError, match=message) as error:
            folder(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    (tmp_path / "one" / "b").mkdir()
    (tmp_path / "one" / "b" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"only one class \(a\) has images"):
        folder(tmp_path / "one")


def test_datasets_or_sites_are_not_taken_for_classes(tmp_path):
    images(tmp_path, "siteA/a/1.png", "siteA/b/1.png", "siteB/a/1.png", "siteB/b/1.png")
    with pytest.raises(UserError, match=r"\(siteA, siteB\) all hold the same folders \(a, b\)"):
        folder(tmp_path)
    images(tmp_path, "kaggle/Training/a/1.png", "kaggle/Testing/a/1.png")
    with pytest.raises(UserError, match="its folder kaggle holds Testing and Training; give"):
        folder(tmp_path)


@pytest.mark.real_data
def test_the_real_four_class_set(real_data):
    manifest = folder(real_data / "brain_tumour_4class")
    assert len(manifest) == 1659
    assert manifest.classes == ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
    assert manifest.describe()["splits"] == {"train": 1431, "test": 228}


@pytest.mark.real_data
def test_dicom_headers_fill_subject_spacing_and_scanner(real_data):
    table = folder(real_data / "dicom_glioma").table
    assert table["subject"].unique().tolist() == ["PGBM-003"]
    assert table["spacing_x"].to_numpy() == pytest.approx(0.6875)
    assert "SIEMENS Espree" in set(table["scanner"])
