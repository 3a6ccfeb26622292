"""What a user types leads to the scans that are meant, with a file for every channel."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.volume.case import COLOURS
from mrtransfer.deploy.scans import Scan, find_scans

TWO = ("flair", "t1ce")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.fromarray(np.zeros((3, 3), np.uint8)).save(path)
        elif path.suffix == ".dcm":
            path.write_bytes(bytes(128) + b"DICM")
        else:
            nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)), path)


class TestOneChannel:
    def test_a_file_is_a_scan(self, here):
        files(here, "a.nii.gz", "b/c.png")
        assert find_scans(["a.nii.gz", "b/c.png"], ["image"]) == [
            Scan("a", ("a.nii.gz",)),
            Scan("c", ("b/c.png",)),
        ]

    def test_a_folder_stands_for_the_files_below_it_but_not_for_masks(self, here):
        files(here, "in/a.nii.gz", "in/a_mask.nii.gz", "in/deep/b.nii.gz", "in/deep/b_seg.nii.gz", "in/.hidden.nii.gz")
        assert [scan.name for scan in find_scans(["in"], ["image"])] == ["a", "b"]

    def test_of_several_contrasts_in_a_folder_the_models_own_is_taken(self, here):
        files(here, "in/p1_flair.nii.gz", "in/p1_t1.nii.gz", "in/p2-t2f.nii.gz", "in/p2-t1c.nii.gz")
        assert [scan.locations for scan in find_scans(["in"], ["flair"])] == [
            ("in/p1_flair.nii.gz",),
            ("in/p2-t2f.nii.gz",),
        ]

    def test_a_folder_with_dicom_files_is_one_scan(self, here):
        files(here, "study/series1/1.dcm", "study/series1/2.dcm", "study/series2/1.dcm")
        assert find_scans(["study"], ["image"]) == [
            Scan("series1", ("study/series1",)),
            Scan("series2", ("study/series2",)),
        ]
        assert find_scans(["study/series1"], ["image"]) == [Scan("series1", ("study/series1",))]

    def test_a_pattern_stands_for_what_it_matches(self, here):
        files(here, "in/a1.nii.gz", "in/a2.nii.gz", "in/b1.nii.gz")
        assert [scan.name for scan in find_scans(["in/a*.nii.gz"], ["image"])] == ["a1", "a2"]

    def test_a_location_with_options_is_itself(self, here):
        files(here, "four.nii.gz")
        assert find_scans(["four.nii.gz#volume=1"], ["image"]) == [Scan("four", ("four.nii.gz#volume=1",))]

    def test_scans_of_one_name_get_their_folders_in_front(self, here):
        files(here, "p1/scan.nii.gz", "p2/scan.nii.gz")
        assert [scan.name for scan in find_scans(["p1", "p2"], ["image"])] == ["p1_scan", "p2_scan"]

    def test_a_scan_named_twice_is_there_once(self, here):
        files(here, "in/a.nii.gz")
        assert len(find_scans(["in", "in/a.nii.gz", "in"], ["image"])) == 1

    def test_a_colour_picture_is_all_channels_of_a_model_of_colours(self, here):
        files(here, "in/a.png", "in/a_mask.png")
        assert find_scans(["in"], COLOURS) == [Scan("a", ("in/a.png",))]


class TestSeveralChannels:
    def test_channels_by_name_in_any_order(self, here):
        files(here, "x/p7_flair.nii.gz", "y/p7_post.nii.gz")
        assert find_scans(["t1ce=y/p7_post.nii.gz,flair=x/p7_flair.nii.gz"], TWO) == [
            Scan("p7", ("x/p7_flair.nii.gz", "y/p7_post.nii.gz"))
        ]

    def test_channels_of_one_file_of_four_dimensions(self, here):
        files(here, "four.nii.gz")
        found = find_scans(["flair=four.nii.gz#volume=0,t1ce=four.nii.gz#volume=1"], TWO)
        assert found == [Scan("four", ("four.nii.gz#volume=0", "four.nii.gz#volume=1"))]

    def test_a_case_folder_and_a_folder_of_case_folders(self, here):
        for case in ("BraTS_1", "BraTS_2"):
            files(here / "set" / case, *(f"{case}_{part}.nii.gz" for part in ("flair", "t1", "t1ce", "t2", "seg")))
        one = Scan("BraTS_1", ("set/BraTS_1/BraTS_1_flair.nii.gz", "set/BraTS_1/BraTS_1_t1ce.nii.gz"))
        assert find_scans(["set/BraTS_1"], TWO) == [one]
        assert [scan.name for scan in find_scans(["set"], TWO)] == ["BraTS_1", "BraTS_2"]
        assert find_scans(["set"], TWO)[0] == one

    def test_the_newer_names_of_brats_are_known(self, here):
        files(here / "c", *(f"BraTS-GLI-00000-000-{part}.nii.gz" for part in ("t1c", "t1n", "t2f", "t2w", "seg")))
        assert find_scans(["c"], TWO) == [
            Scan("BraTS-GLI-00000-000", ("c/BraTS-GLI-00000-000-t2f.nii.gz", "c/BraTS-GLI-00000-000-t1c.nii.gz"))
        ]

    def test_files_that_a_shell_has_listed(self, here):
        files(here, *(f"in/{case}_{part}.nii.gz" for case in "ab" for part in ("FLAIR", "T1CE")))
        found = find_scans(sorted(str(p.relative_to(here)) for p in here.glob("in/*")), TWO)
        assert [(scan.name, len(scan.locations)) for scan in found] == [("a", 2), ("b", 2)]
        assert find_scans(["in/*.nii.gz"], TWO) == found

    def test_files_called_as_their_channel_are_named_by_their_folder(self, here):
        files(here, "patient 4/flair.nii.gz", "patient 4/t1ce.nii.gz")
        assert find_scans(["patient 4"], TWO)[0].name == "patient 4"

    def test_a_channel_may_be_a_dicom_series(self, here):
        files(here, "p1/flair/1.dcm", "p1/t1ce/1.dcm")
        assert find_scans(["p1"], TWO) == [Scan("p1", ("p1/flair", "p1/t1ce"))]


@pytest.mark.parametrize(
    ("names", "channels", "said"),
    [
        (["none.nii.gz"], ["image"], r"none.nii.gz: no such file or folder"),
        (["*.xyz"], ["image"], "no file matches"),
        (["empty"], ["image"], "empty: holds no scan; the model needs one image per scan"),
        (["empty"], TWO, "empty: holds no scan, and no file below it whose name ends in flair or t1ce"),
        ([], ["image"], "no scans given"),
        (["half"], TWO, r"half/p1: has no file for t1ce; the model needs flair, t1ce"),
        (["flair=half/p1_flair.nii.gz"], TWO, "t1ce is missing; the model needs flair, t1ce"),
        (["flare=half/p1_flair.nii.gz,t1ce=x"], TWO, "did you mean 'flair'"),
        (["flair=none.nii.gz,t1ce=half/p1_flair.nii.gz"], TWO, "none.nii.gz: no such file"),
        (["flair=half/p1_flair.nii.gz,flair=half/p1_flair.nii.gz"], TWO, "give each channel once"),
        (["half/other.nii.gz"], TWO, r"this name ends in none of them; say which file is which: flair=FILE,t1ce=FILE"),
        (["half/other.nii.gz#volume=0"], TWO, "name its file for each of them"),
        (["twice"], TWO, "is flair, and so is"),
    ],
)
def test_what_leads_to_no_scan_is_refused(here, names, channels, said):
    (here / "empty").mkdir()
    files(here, "half/p1_flair.nii.gz", "half/other.nii.gz", "twice/a_flair.nii.gz", "twice/a-flair.nii.gz")
    with pytest.raises(UserError, match=said):
        find_scans(names, channels)
