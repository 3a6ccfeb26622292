"""What a user types leads to the images that are meant."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.deploy.locate import find_images


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Two pictures, one deeper down, a text file, a hidden file, and a volume of five slices."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans" / "deeper").mkdir(parents=True)
    for name in ("b.png", "deeper/a.jpg", ".hidden.png"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "scans" / name)
    (tmp_path / "scans" / "notes.txt").write_text("not an image")
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4)), tmp_path / "volume.nii.gz")
    return tmp_path


def test_a_folder_stands_for_all_images_below_it(scans):
    assert find_images(["scans"]) == ["scans/b.png", "scans/deeper/a.jpg"]


def test_a_pattern_stands_for_what_it_matches(scans):
    assert find_images(["scans/*.png"]) == ["scans/b.png"]
    assert find_images(["scans/**/*.jpg"]) == ["scans/deeper/a.jpg"]


def test_a_volume_stands_for_its_slices_along_axis_2(scans):
    assert find_images(["volume.nii.gz"]) == [f"volume.nii.gz#axis=2&index={k}" for k in range(5)]


def test_a_slice_is_itself(scans):
    assert find_images(["volume.nii.gz#axis=0&index=1"]) == ["volume.nii.gz#axis=0&index=1"]


def test_an_image_named_twice_is_there_once(scans):
    assert find_images(["scans/b.png", "scans", "scans/b.png"]) == ["scans/b.png", "scans/deeper/a.jpg"]


def test_a_name_with_brackets_is_a_file_where_there_is_one(scans):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(scans / "scan [1].png")
    assert find_images(["scan [1].png"]) == ["scan [1].png"]


def test_dicom_files_without_a_suffix_are_found_in_a_folder(scans):
    pydicom = pytest.importorskip("pydicom")
    source = pydicom.examples.get_path("mr")
    (scans / "series").mkdir()
    (scans / "series" / "IM0001").write_bytes(source.read_bytes())
    (scans / "series" / "README").write_text("no image")
    assert find_images(["series"]) == ["series/IM0001"]


@pytest.mark.parametrize(
    ("name", "said"), [("scans/*.gif", "no file matches"), ("none.nii.gz", "no such file"), ("empty", "no image")]
)
def test_what_leads_to_no_image_is_refused(scans, name, said):
    (scans / "empty").mkdir()
    with pytest.raises(UserError, match=said):
        find_images([name])
