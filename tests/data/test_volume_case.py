"""Cases: all channels and the mask on one grid, or one sentence that names the files."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.volume import make_frame, nonzero_crop, read_case

AFFINE = np.array([[-1.0, 0, 0, 90], [0, -1.5, 0, 60], [0, 0, 2, -70], [0, 0, 0, 1]])
LABELS = MaskLabels.create({"necrosis": 1, "oedema": 2, "enhancing": 4})
VOXELS = np.random.default_rng(0).integers(0, 900, (9, 8, 7)).astype(np.int16)


def save(path, voxels=VOXELS, affine=AFFINE):
    nib.Nifti1Image(voxels, affine).to_filename(path)


def manifest(root, labels=LABELS, **columns):
    channels = {(f"image:{name}" if name in ("t1", "t2") else name): value for name, value in columns.items()}
    return Manifest.create(pd.DataFrame([{"sample": "a", **channels}]), root, "test", mask_labels=labels)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "t1.nii.gz")
    save(tmp_path / "t2.nii.gz", VOXELS.astype(np.float32) / 3)
    classes = np.zeros(VOXELS.shape, np.uint8)
    classes[2:5, 3:6, 1:4] = 2
    classes[3, 4, 2] = 4
    save(tmp_path / "mask.nii.gz", classes)
    return tmp_path


class TestVolumes:
    def test_channels_mask_and_place(self, folder):
        case = read_case(manifest(folder, t1="t1.nii.gz", t2="t2.nii.gz", mask="mask.nii.gz"), 0)
        assert case.channels == ("t1", "t2")
        assert case.image.dtype == np.float32
        assert case.image.flags.c_contiguous
        np.testing.assert_array_equal(case.image[0], VOXELS)
        np.testing.assert_array_equal(case.image[1], VOXELS.astype(np.float32) / 3)
        assert case.mask.dtype == np.uint8
        assert (case.mask == 2).sum() == 26
        assert (case.mask == 3).sum() == 1  # value 4 is class 3
        np.testing.assert_array_equal(case.affine, AFFINE)
        assert case.spacing == (1, 1.5, 2)

    def test_without_mask(self, folder):
        assert read_case(manifest(folder, t1="t1.nii.gz", t2="t2.nii.gz"), 0).mask is None
        assert read_case(manifest(folder, image="t1.nii.gz", mask="gone.nii.gz"), 0, with_mask=False).mask is None
        assert read_case(manifest(folder, image="t1.nii.gz"), 0).channels == ("image",)

    def test_a_mask_of_which_nothing_is_said_has_one_class(self, folder):
        case = read_case(manifest(folder, None, image="t1.nii.gz", mask="mask.nii.gz"), 0)
        assert (case.mask == 1).sum() == 27

    def test_rounded_headers_are_one_grid(self, folder):
        save(folder / "mask.nii.gz", np.zeros(VOXELS.shape, np.uint8), AFFINE + 1e-3)
        assert read_case(manifest(folder, image="t1.nii.gz", mask="mask.nii.gz"), 0).mask.sum() == 0


class TestRefused:
    def refused(self, table, message):
        with pytest.raises(UserError, match=message) as error:
            read_case(table, 0)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("which", ["t2", "mask"])
    def test_other_shapes(self, folder, which):
        save(folder / f"{which}.nii.gz", np.ones((9, 8, 6), np.uint8) * np.arange(6, dtype=np.uint8))
        self.refused(
            manifest(folder, t1="t1.nii.gz", t2="t2.nii.gz", mask="mask.nii.gz", labels=None),
            rf"t1.nii.gz and {which}.nii.gz: have different shapes \(9 × 8 × 7 and 9 × 8 × 6\)",
        )

    @pytest.mark.parametrize("which", ["t2", "mask"])
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (np.array([[1.0, 0, 0, 0], [0, 1, 0, 3], [0, 0, 1, 0], [0, 0, 0, 1]]), "up to 2 voxels apart"),
            (np.diag([-1.0, 1, 1, 1]), "their axes point to LPS and RPS"),
            (np.diag([1.0, 1, 1.02, 1]), r"up to 0.7 voxels apart"),
        ],
    )
    def test_other_grids(self, folder, which, change, message):
        image = nib.load(folder / f"{which}.nii.gz")
        save(folder / f"{which}.nii.gz", np.asarray(image.dataobj), change @ AFFINE)
        self.refused(
            manifest(folder, t1="t1.nii.gz", t2="t2.nii.gz", mask="mask.nii.gz"),
            rf"t1.nii.gz and {which}.nii.gz: lie on different grids \(.*{message}\); channels and mask of a sample",
        )

    def test_values_that_are_no_numbers(self, folder):
        for value in (np.nan, np.inf):
            voxels = VOXELS.astype(np.float32)
            voxels[2, 3, :4] = value
            save(folder / "t2.nii.gz", voxels)
            self.refused(
                manifest(folder, t1="t1.nii.gz", t2="t2.nii.gz"), r"t2.nii.gz: 4 of its 504 values are NaN or infinite"
            )

    def test_a_constant_volume(self, folder):
        save(folder / "t2.nii.gz", np.full(VOXELS.shape, 3, np.int16))
        self.refused(manifest(folder, t1="t1.nii.gz", t2="t2.nii.gz"), r"t2.nii.gz: is 3 everywhere")

    def test_a_mask_value_without_meaning(self, folder):
        save(folder / "mask.nii.gz", np.where(VOXELS > 800, 3, 0).astype(np.uint8))
        self.refused(
            manifest(folder, image="t1.nii.gz", mask="mask.nii.gz"), r"mask.nii.gz: the mask holds 3, .* known"
        )

    def test_missing_and_damaged_files(self, folder):
        self.refused(manifest(folder, t1="t1.nii.gz", t2="t3.nii.gz"), r"t3.nii.gz: no such file")
        self.refused(manifest(folder, image="t1.nii.gz", mask="m.nii.gz"), r"m.nii.gz: no such file")
        whole = (folder / "t2.nii.gz").read_bytes()
        (folder / "t2.nii.gz").write_bytes(whole[: len(whole) * 2 // 3])
        self.refused(manifest(folder, t1="t1.nii.gz", t2="t2.nii.gz"), r"t2.nii.gz: damaged, or not a NIfTI file")

    def test_several_volumes_in_one_file(self, folder):
        save(folder / "4d.nii.gz", np.stack([VOXELS, VOXELS + 1], -1))
        self.refused(manifest(folder, image="4d.nii.gz"), r"4d.nii.gz: holds 2 volumes")
        table = manifest(folder, t1="4d.nii.gz#volume=0", t2="4d.nii.gz#volume=1")
        np.testing.assert_array_equal(read_case(table, 0).image[1], VOXELS + 1)


class TestPictures:
    rows, columns = 12, 10
    picture = np.random.default_rng(1).integers(0, 255, (12, 10, 3)).astype(np.uint8)
    tumour = np.zeros((12, 10), np.uint8)
    tumour[3:6, 4:8] = 255

    def test_colours_are_channels_and_the_mask_is_what_is_not_0(self, tmp_path):
        Image.fromarray(self.picture).save(tmp_path / "i.png")
        Image.fromarray(self.tumour).save(tmp_path / "m.png")
        table = manifest(tmp_path, None, image="i.png", mask="m.png", spacing_x=0.5, spacing_y=0.75)
        case = read_case(table, 0)
        assert case.channels == ("red", "green", "blue")
        np.testing.assert_array_equal(case.image, np.moveaxis(self.picture, -1, 0)[..., None])
        np.testing.assert_array_equal(case.mask[..., 0], self.tumour > 0)
        assert case.spacing == (0.75, 0.5, 1)  # rows first
        frame = make_frame(case.image.shape[1:], case.affine, crop=nonzero_crop(case.image, case.affine))
        np.testing.assert_array_equal(frame.image_to_prepared(case.image), case.image)

    def test_grey_is_one_channel(self, tmp_path):
        Image.fromarray(self.picture[..., 0]).save(tmp_path / "i.png")
        case = read_case(manifest(tmp_path, image="i.png"), 0)
        assert (case.image.shape, case.channels, case.mask) == ((1, 12, 10, 1), ("image",), None)

    def test_channels_in_files_of_their_own_must_be_grey(self, tmp_path):
        Image.fromarray(self.picture).save(tmp_path / "i.png")
        Image.fromarray(np.repeat(self.picture[..., :1], 3, axis=2)).save(tmp_path / "g.png")
        np.testing.assert_array_equal(
            read_case(manifest(tmp_path, t1="g.png", t2="g.png"), 0).image[:, ..., 0],
            self.picture[None, ..., 0].repeat(2, 0),
        )
        with pytest.raises(UserError, match=r"i.png: is a colour image; each channel's file must be grey"):
            read_case(manifest(tmp_path, t1="g.png", t2="i.png"), 0)

    def test_masks_with_noise_of_compression_and_masks_in_colour(self, tmp_path):
        Image.fromarray(self.picture).save(tmp_path / "i.png")
        Image.fromarray(self.tumour).save(tmp_path / "m.jpg", quality=60)
        Image.fromarray(np.stack([self.tumour, 0 * self.tumour, 0 * self.tumour], -1)).save(tmp_path / "m.png")
        for name in ("m.jpg", "m.png"):
            mask = read_case(manifest(tmp_path, None, image="i.png", mask=name), 0).mask
            assert (mask[..., 0] != (self.tumour > 0)).sum() <= (4 if name == "m.jpg" else 0)
        with pytest.raises(UserError, match=r"m.png: is a colour image; a mask with values of its own"):
            read_case(manifest(tmp_path, image="i.png", mask="m.png"), 0)

    def test_a_mask_of_another_size(self, tmp_path):
        Image.fromarray(self.picture).save(tmp_path / "i.png")
        Image.fromarray(self.tumour[:, 1:]).save(tmp_path / "m.png")
        with pytest.raises(UserError, match=r"i.png and m.png: have different shapes \(12 × 10 × 1 and 12 × 9 × 1\)"):
            read_case(manifest(tmp_path, None, image="i.png", mask="m.png"), 0)

    def test_a_slice_without_anything_is_allowed(self, tmp_path):
        Image.fromarray(0 * self.tumour).save(tmp_path / "i.png")
        assert not read_case(manifest(tmp_path, image="i.png"), 0).image.any()

    def test_a_matlab_file_holds_image_and_mask(self, tmp_path):
        scipy.io.savemat(
            tmp_path / "1.mat", {"cjdata": {"image": self.picture[..., 0], "tumorMask": self.tumour // 255}}
        )
        case = read_case(manifest(tmp_path, None, image="1.mat", mask="1.mat#field=tumorMask"), 0)
        np.testing.assert_array_equal(case.image[0, ..., 0], self.picture[..., 0])
        np.testing.assert_array_equal(case.mask[..., 0], self.tumour > 0)

    def test_slices_of_a_volume(self, tmp_path):
        save(tmp_path / "v.nii.gz")
        save(tmp_path / "m.nii.gz", (VOXELS > 400).astype(np.uint8))
        case = read_case(manifest(tmp_path, None, image="v.nii.gz#axis=2&index=3", mask="m.nii.gz#axis=2&index=3"), 0)
        assert case.image.shape == (1, 8, 9, 1)
        np.testing.assert_array_equal(case.mask, case.image[0] > 400)

    def test_a_phantom_slice(self, tmp_path):
        location = "phantom:seed=0&subject=1&lesion=glioma&z=20&size=64"
        case = read_case(manifest(tmp_path, None, image=location, mask=location), 0)
        assert case.image.shape == (1, 64, 64, 1)
        assert 0 < case.mask.sum() < 2000

    def test_a_phantom_volume(self, tmp_path):
        base = "phantom:volume=1&subject=1&lesion=glioma&spacing=8x8x8&size=24x27x16"
        labels = MaskLabels.create({"necrosis": 1, "oedema": 2, "enhancing": 3})
        table = manifest(
            tmp_path, labels, t1=f"{base}&contrast=t1", t2=f"{base}&contrast=t2", mask=f"{base}&contrast=mask"
        )
        case = read_case(table, 0)
        assert case.image.shape == (2, 24, 27, 16)
        assert case.mask.max() >= 2


@pytest.mark.real_data
def test_real_cases(real_data):
    folder = real_data / "brats2015" / "brats_2013_pat0001_1"
    table = manifest(
        folder,
        MaskLabels.create({"necrosis": 1, "oedema": 2, "solid": 3, "enhancing": 4}),
        t1="T1c_subtrMeanDivStd.nii.gz",
        t2="Flair_subtrMeanDivStd.nii.gz",
        mask="OTMultiClass.nii.gz",
    )
    case = read_case(table, 0)
    assert case.image.shape == (2, 240, 240, 155)
    crop = nonzero_crop(case.image, case.affine)  # the background of these normalised images is not 0
    frame = make_frame(case.image.shape[1:], case.affine, crop=crop)
    prepared, mask = frame.image_to_prepared(case.image), frame.mask_to_prepared(case.mask)
    assert prepared.shape[1:] == mask.shape == (136, 176, 132)
    assert mask.sum() == case.mask.sum()
    back = frame.to_original(prepared, outside=case.image[:, 0, 0, 0])
    np.testing.assert_array_equal(back, case.image)
