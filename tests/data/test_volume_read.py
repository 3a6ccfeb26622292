"""Volumes read from NIfTI, pictures and the phantom, and written back; what is no volume is named in one sentence."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import scipy.io
from nibabel.affines import voxel_sizes
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.phantom.render import render
from mrtransfer.data.volume import read_volume, write_volume

VOXELS = np.random.default_rng(0).integers(-50, 1000, (6, 7, 8)).astype(np.int16)
AFFINE = np.array([[-0.8, 0.1, 0.0, 90.0], [0.05, 1.1, -0.2, -126.0], [0.0, 0.2, 2.4, -72.0], [0, 0, 0, 1]])


def save(path, voxels=VOXELS, affine=AFFINE, **header):
    image = nib.Nifti1Image(voxels, affine)
    for name, value in header.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def save_with_sform(path, rows):
    """A file whose sform holds ``rows`` (3, 4) as they are, which nibabel would not write."""
    content = bytearray(nib.Nifti1Image(VOXELS, AFFINE).to_bytes())
    content[280:328] = np.asarray(rows, "<f4").tobytes()
    path.write_bytes(gzip.compress(content))


class TestNifti:
    @pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "V.NII.GZ"])
    @pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
    def test_voxels_and_affine_are_nibabels(self, tmp_path, name, kind):
        save(tmp_path / name, VOXELS.astype(kind))
        volume = read_volume(name, tmp_path)
        assert volume.data.dtype == kind
        np.testing.assert_array_equal(volume.data, VOXELS.astype(kind))
        np.testing.assert_array_equal(volume.affine, nib.load(tmp_path / name).affine)
        assert volume.shape == (6, 7, 8)
        assert volume.spacing == pytest.approx(tuple(voxel_sizes(AFFINE)), abs=1e-5)

    def test_double_precision_is_halved(self, tmp_path):
        save(tmp_path / "v.nii.gz", VOXELS / 7)
        volume = read_volume("v.nii.gz", tmp_path)
        assert volume.data.dtype == np.float32
        np.testing.assert_allclose(volume.data, VOXELS / 7, rtol=1e-6)

    def test_scaled_values_are_what_the_header_makes_of_them(self, tmp_path):
        image = nib.Nifti1Image(VOXELS, AFFINE)
        image.header.set_slope_inter(0.5, -3)
        stored = image.to_bytes()
        (tmp_path / "v.nii.gz").write_bytes(gzip.compress(stored))
        read = read_volume("v.nii.gz", tmp_path).data
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, nib.Nifti1Image.from_bytes(stored).get_fdata(), rtol=1e-6)

    def test_big_endian(self, tmp_path):
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(np.int16)
        image = nib.Nifti1Image(VOXELS, AFFINE, header)
        assert image.header.endianness == ">"
        image.to_filename(tmp_path / "v.nii.gz")
        read = read_volume("v.nii.gz", tmp_path).data
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, VOXELS)

    def test_version_2(self, tmp_path):
        nib.Nifti2Image(VOXELS, AFFINE).to_filename(tmp_path / "v.nii.gz")
        np.testing.assert_array_equal(read_volume("v.nii.gz", tmp_path).data, VOXELS)

    @pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1e3), (2, 1), (3, 1e-3)])
    def test_metres_and_microns_become_millimetres(self, tmp_path, unit, factor):
        affine = np.diag([0.001, 0.001, 0.002, 1]) if unit == 1 else np.diag([900.0, 900, 1200, 1])
        save(tmp_path / "v.nii.gz", affine=affine, xyzt_units=unit)
        np.testing.assert_allclose(read_volume("v.nii.gz", tmp_path).affine[:3], affine[:3] * factor, rtol=1e-6)

    def test_metres_that_are_meant_to_be_millimetres_are_refused(self, tmp_path):
        save(tmp_path / "v.nii.gz", xyzt_units=1)
        with pytest.raises(UserError, match=r"v.nii.gz: its header counts in metres, .* 2408.32 mm wide; correct"):
            read_volume("v.nii.gz", tmp_path)

    def test_the_qform_counts_where_there_is_no_sform(self, tmp_path):
        image = nib.Nifti1Image(VOXELS, None)
        turned = np.array([[0, -2.0, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
        image.set_qform(turned, code=1)
        image.to_filename(tmp_path / "v.nii.gz")
        np.testing.assert_allclose(read_volume("v.nii.gz", tmp_path).affine, turned, atol=1e-6)

    def test_one_volume_of_several_must_be_chosen(self, tmp_path):
        save(tmp_path / "v.nii.gz", np.stack([VOXELS, VOXELS + 1, VOXELS + 2], -1))
        with pytest.raises(UserError, match=r"holds 3 volumes \(6 × 7 × 8 × 3\) where one is needed.*#volume=k"):
            read_volume("v.nii.gz", tmp_path)
        for k in range(3):
            np.testing.assert_array_equal(read_volume(f"v.nii.gz#volume={k}", tmp_path).data, VOXELS + k)
        with pytest.raises(UserError, match="volume must be between 0 and 2"):
            read_volume("v.nii.gz#volume=3", tmp_path)
        with pytest.raises(UserError, match="unknown option 'time'"):
            read_volume("v.nii.gz#time=1", tmp_path)

    @pytest.mark.parametrize("shape", [(6, 7, 8, 1), (6, 7, 8, 1, 1), (6, 56), (6, 7, 8)])
    def test_axes_of_one_are_no_axes(self, tmp_path, shape):
        save(tmp_path / "v.nii.gz", VOXELS.reshape(shape))
        expected = VOXELS.reshape(6, 56, 1) if len(shape) == 2 else VOXELS
        np.testing.assert_array_equal(read_volume("v.nii.gz", tmp_path).data, expected)

    @pytest.mark.parametrize("shape", [(3, 2, 2, 2, 14), (336,)])
    def test_other_shapes_are_no_volumes(self, tmp_path, shape):
        save(tmp_path / "v.nii.gz", VOXELS.reshape(shape))
        with pytest.raises(UserError, match=r"v.nii.gz.*: has shape .*; a volume with three axes"):
            read_volume("v.nii.gz#volume=0", tmp_path)

    def test_colours_and_complex_numbers_are_refused(self, tmp_path):
        save(tmp_path / "c.nii.gz", VOXELS.astype(np.complex64))
        save(tmp_path / "r.nii.gz", np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])))
        for name in ("c.nii.gz", "r.nii.gz"):
            with pytest.raises(UserError, match=rf"{name}: holds .* values; real numbers are needed"):
                read_volume(name, tmp_path)

    @pytest.mark.parametrize("column", [0, 2])
    @pytest.mark.parametrize("value", [0, 1], ids=["a zero axis", "two axes alike"])
    def test_a_singular_affine_is_refused(self, tmp_path, column, value):
        affine = AFFINE.copy()
        affine[:3, column] = value * AFFINE[:3, 1]
        save_with_sform(tmp_path / "v.nii.gz", affine[:3])
        with pytest.raises(UserError, match=r"v.nii.gz: its affine is singular \(voxels of .* mm .*sform or qform"):
            read_volume("v.nii.gz", tmp_path)

    def test_an_affine_of_no_numbers_is_refused(self, tmp_path):
        save_with_sform(tmp_path / "v.nii.gz", AFFINE[:3] * np.nan)
        with pytest.raises(UserError, match=r"v.nii.gz: its affine holds values that are not finite"):
            read_volume("v.nii.gz", tmp_path)

    def test_damaged_files_are_named(self, tmp_path):
        whole = save(tmp_path / "v.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20))).read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "end.nii.gz").write_bytes(whole[:-6])
        (tmp_path / "flip.nii.gz").write_bytes(flipped)
        (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress(whole))
        (tmp_path / "cut.nii").write_bytes(gzip.decompress(whole)[:9000])
        (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"no scan"))
        (tmp_path / "empty.nii.gz").touch()
        for name in ("cut.nii.gz", "end.nii.gz", "flip.nii.gz", "plain.nii.gz", "cut.nii", "text.nii.gz"):
            with pytest.raises(
                UserError, match=rf"{name}: damaged, or not a NIfTI file at all \(.*\); replace"
            ) as error:
                read_volume(name, tmp_path)
            assert "\n" not in str(error.value)
        with pytest.raises(UserError, match=r"empty.nii.gz: the file is empty"):
            read_volume("empty.nii.gz", tmp_path)
        with pytest.raises(UserError, match=r"absent.nii.gz: no such file"):
            read_volume("absent.nii.gz", tmp_path)


class TestPictures:
    def test_rows_columns_and_one_slice(self, tmp_path):
        picture = np.arange(30, dtype=np.uint8).reshape(5, 6)
        Image.fromarray(picture).save(tmp_path / "p.png")
        scipy.io.savemat(tmp_path / "m.mat", {"image": picture.astype(np.int16)})
        for name, kind in (("p.png", np.uint8), ("m.mat", np.int16)):
            volume = read_volume(name, tmp_path)
            assert volume.data.dtype == kind
            np.testing.assert_array_equal(volume.data, picture[..., None])
            np.testing.assert_array_equal(volume.affine, np.eye(4))

    def test_grey_in_colour_is_grey_and_colour_is_refused(self, tmp_path):
        picture = np.arange(30, dtype=np.uint8).reshape(5, 6)
        Image.fromarray(np.stack([picture] * 3, -1)).save(tmp_path / "grey.png")
        Image.fromarray(np.stack([picture, picture, picture + 1], -1)).save(tmp_path / "colour.png")
        np.testing.assert_array_equal(read_volume("grey.png", tmp_path).data, picture[..., None])
        with pytest.raises(UserError, match=r"colour.png: is a colour image; one grey image is needed"):
            read_volume("colour.png", tmp_path)

    def test_a_slice_of_a_volume(self, tmp_path):
        save(tmp_path / "v.nii.gz", affine=np.diag([2.0, 3, 4, 1]))
        volume = read_volume("v.nii.gz#axis=2&index=3", tmp_path)
        np.testing.assert_array_equal(volume.data[..., 0], VOXELS[::-1, ::-1, 3].T)
        assert volume.spacing == (3, 2, 1)

    def test_an_array_of_slices_has_no_geometry(self, tmp_path):
        scipy.io.savemat(tmp_path / "m.mat", {"image": VOXELS})
        with pytest.raises(UserError, match=r"m.mat: holds an array of 6 × 7 × 8, .* store the volume as NIfTI"):
            read_volume("m.mat", tmp_path)


def test_the_phantom_is_read_without_files(tmp_path):
    slice_ = "phantom:seed=0&subject=1&lesion=glioma&z=12.5&size=64"
    volume = read_volume(slice_, tmp_path)
    np.testing.assert_array_equal(volume.data[..., 0], render(slice_))
    assert volume.spacing == pytest.approx((236 / 64, 236 / 64, 1))
    head = read_volume("phantom:volume=1&subject=1&spacing=8x8x8&size=24x27x16", tmp_path)
    assert head.shape == (24, 27, 16)
    assert head.spacing == pytest.approx((8, 8, 8))


class TestWriting:
    @pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
    def test_what_is_written_is_read(self, tmp_path, kind):
        path = write_volume(tmp_path / "new" / "v.nii.gz", VOXELS.astype(kind), AFFINE)
        assert path == tmp_path / "new" / "v.nii.gz"
        volume = read_volume(str(path), "/")
        assert volume.data.dtype == kind
        np.testing.assert_array_equal(volume.data, VOXELS.astype(kind))
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
        again = write_volume(tmp_path / "again.nii.gz", VOXELS.astype(kind), AFFINE)
        assert again.read_bytes() == path.read_bytes()
        assert [p.name for p in path.parent.iterdir()] == ["v.nii.gz"]

    def test_sform_and_qform_agree_where_a_qform_can_hold_the_grid(self, tmp_path):
        straight = np.array([[0, -2.0, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
        image = nib.load(write_volume(tmp_path / "v.nii.gz", VOXELS, straight))
        np.testing.assert_allclose(image.get_qform(coded=True)[0], image.get_sform(), atol=1e-5)
        assert image.header.get_xyzt_units()[0] == "mm"
        sheared = nib.load(write_volume(tmp_path / "s.nii.gz", VOXELS, AFFINE))
        assert sheared.get_qform(coded=True) == (None, 0)
        np.testing.assert_allclose(sheared.affine, AFFINE, atol=1e-5)

    @pytest.mark.parametrize(
        ("given", "stored"), [(bool, np.uint8), (np.float16, np.float32), (np.int64, np.int32), (np.uint64, np.int32)]
    )
    def test_types_that_other_programs_lack_are_widened_or_narrowed(self, tmp_path, given, stored):
        voxels = np.abs(VOXELS).astype(given)
        read = read_volume(str(write_volume(tmp_path / "v.nii", voxels, AFFINE)), "/").data
        assert read.dtype == stored
        np.testing.assert_array_equal(read, voxels)

    def test_maps_have_a_fourth_axis(self, tmp_path):
        maps = np.random.default_rng(0).random((6, 7, 8, 3)).astype(np.float32)
        write_volume(tmp_path / "v.nii.gz", maps, AFFINE)
        np.testing.assert_array_equal(read_volume("v.nii.gz#volume=2", tmp_path).data, maps[..., 2])

    def test_mistakes(self, tmp_path):
        with pytest.raises(UserError, match=r"v.png: a volume's name must end in .nii.gz or .nii"):
            write_volume(tmp_path / "v.png", VOXELS, AFFINE)
        save(tmp_path / "v.nii")
        with pytest.raises(ValueError, match="do not fit the grid"):
            write_volume(tmp_path / "w.nii.gz", VOXELS[1:], read_volume("v.nii", tmp_path))
        with pytest.raises(ValueError, match="32 bits"):
            write_volume(tmp_path / "w.nii.gz", VOXELS.astype(np.int64) * 2**40, AFFINE)
        assert not (tmp_path / "w.nii.gz").exists()


@pytest.mark.real_data
def test_real_volumes_are_read_and_come_back(real_data, tmp_path):
    case = real_data / "brats2021" / "BraTS2021_00006"
    mask = read_volume("BraTS2021_00006_seg.nii.gz", case)
    assert mask.shape == (240, 240, 155)
    assert set(np.unique(mask.data)) == {0, 1, 2, 4}
    written = nib.load(write_volume(tmp_path / "m.nii.gz", mask.data, mask))
    original = nib.load(case / "BraTS2021_00006_seg.nii.gz")
    np.testing.assert_array_equal(written.affine, original.affine)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(original.dataobj))
