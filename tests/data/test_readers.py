"""Readers: the right pixels from every format, and one sentence that names the file where there are none."""

import gzip

import h5py
import nibabel as nib
import numpy as np
import pydicom
import pytest
import scipy.io
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers import read_image, read_image_meta, read_mask
from mrtransfer.data.readers.location import Location, moved

PIXELS = np.arange(6 * 5, dtype=np.uint16).reshape(6, 5) * 2000


def dicom(path, pixels=PIXELS, **attributes):
    """A minimal MR image file."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality, dataset.PatientID = "MR", "P1"
    dataset.Manufacturer, dataset.ManufacturerModelName = "ACME", "One"
    if pixels is not None:
        dataset.Rows, dataset.Columns = pixels.shape[-2:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        if pixels.ndim == 3:
            dataset.NumberOfFrames = len(pixels)
        dataset.PixelData = pixels.tobytes()
        dataset.PixelSpacing = [0.5, 0.75]
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_location_is_a_path_and_what_stands_behind_the_hash():
    assert Location.parse("a/b.nii.gz#axis=2&index=70") == ("a/b.nii.gz", {"axis": "2", "index": "70"})
    assert Location.parse("odd#name.png") == ("odd#name.png", {})
    assert str(Location.parse("a.nii#axis=1")) == "a.nii#axis=1"
    assert moved("a.nii#axis=1", "/data/x", "/data/y/z") == "../../x/a.nii#axis=1"
    assert moved("phantom:subject=1", "/data", "/other") == "phantom:subject=1"


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey.png", PIXELS.astype(np.uint8)),
        ("deep.png", PIXELS),
        ("deep.tif", PIXELS),
        ("float.tiff", PIXELS.astype(np.float32) / 7),
        ("colour.png", np.stack([PIXELS % 256, PIXELS % 100, PIXELS % 7], -1).astype(np.uint8)),
        ("colour.tif", np.stack([PIXELS % 256, PIXELS % 100, PIXELS % 7], -1).astype(np.uint8)),
    ],
)
def test_lossless_rasters_come_back_as_written(tmp_path, name, pixels):
    Image.fromarray(pixels).save(tmp_path / name)
    read = read_image(name, tmp_path)
    assert read.dtype == pixels.dtype
    np.testing.assert_array_equal(read, pixels)
    assert read_image_meta(name, tmp_path)["shape"] == (6, 5)


def test_jpeg_palette_alpha_and_big_endian_are_plain_pixels(tmp_path):
    smooth = np.tile(np.linspace(0, 200, 64, dtype=np.uint8), (64, 1))
    Image.fromarray(smooth).save(tmp_path / "a.JPG", quality=95)
    assert np.abs(read_image("a.JPG", tmp_path).astype(int) - smooth).max() <= 3
    Image.fromarray(smooth).convert("P").save(tmp_path / "p.png")
    assert read_image("p.png", tmp_path).shape == (64, 64, 3)
    Image.fromarray(smooth).convert("LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image("la.png", tmp_path), smooth)
    tags = [(256, 5), (257, 6), (258, 16), (259, 1), (262, 1), (273, 122), (277, 1), (278, 6), (279, 60)]
    entries = b"".join(
        tag.to_bytes(2, "big") + b"\0\3\0\0\0\1" + value.to_bytes(2, "big") + b"\0\0" for tag, value in tags
    )
    header = b"MM\0*\0\0\0\10" + len(tags).to_bytes(2, "big") + entries
    (tmp_path / "big.tif").write_bytes(header.ljust(122, b"\0") + PIXELS.astype(">u2").tobytes())
    read = read_image("big.tif", tmp_path)
    assert read.dtype == np.uint16
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, PIXELS)


def test_pages_of_a_tiff(tmp_path):
    pages = [Image.fromarray(PIXELS + page) for page in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_image("pages.tif#frame=2", tmp_path), PIXELS + 2)
    with pytest.raises(UserError, match="no frame 3; the file has 3"):
        read_image("pages.tif#frame=3", tmp_path)


def test_a_mask_is_true_where_there_is_anything(tmp_path):
    mask = np.zeros((6, 5), bool)
    mask[2:4, 1:3] = True
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "labels.png")  # 0 and 1
    Image.fromarray(np.stack([mask * np.uint8(0), mask * np.uint8(255), mask * np.uint8(0)], -1)).save(
        tmp_path / "c.png"
    )
    for name in ("labels.png", "c.png"):
        np.testing.assert_array_equal(read_mask(name, tmp_path, shape=(6, 5)), mask)
    with pytest.raises(UserError, match=r"labels.png: the mask has 6 × 5 pixels and its image 6 × 6"):
        read_mask("labels.png", tmp_path, shape=(6, 6))


class TestDicom:
    def test_pixels_and_header(self, tmp_path):
        dicom(tmp_path / "a.dcm")
        read = read_image("a.dcm", tmp_path)
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, PIXELS)
        assert read_image_meta("a.dcm", tmp_path) == {
            "shape": (6, 5),
            "spacing": (0.5, 0.75),
            "subject": "P1",
            "scanner": "ACME One",
        }

    def test_rescale_gives_output_values(self, tmp_path):
        signed = PIXELS.astype(np.int16) - 300
        dicom(tmp_path / "a.dcm", signed, RescaleSlope=2, RescaleIntercept=-10)
        read = read_image("a.dcm", tmp_path)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, signed * 2.0 - 10)

    def test_monochrome1_is_inverted(self, tmp_path):
        dicom(tmp_path / "a.dcm", PIXELS // 16, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
        np.testing.assert_array_equal(read_image("a.dcm", tmp_path), 4095 - PIXELS // 16)
        signed = PIXELS.astype(np.int16)
        dicom(tmp_path / "b.dcm", signed, PhotometricInterpretation="MONOCHROME1")
        np.testing.assert_array_equal(read_image("b.dcm", tmp_path), -1 - signed)

    def test_frames(self, tmp_path):
        dicom(tmp_path / "a.dcm", np.stack([PIXELS, PIXELS + 1, PIXELS + 2]))
        np.testing.assert_array_equal(read_image("a.dcm#frame=2", tmp_path), PIXELS + 2)
        np.testing.assert_array_equal(read_image("a.dcm", tmp_path), PIXELS + 1)
        with pytest.raises(UserError, match="no frame 3"):
            read_image("a.dcm#frame=3", tmp_path)

    def test_a_frame_has_its_own_rescale_and_spacing(self, tmp_path):
        groups = []
        for frame in range(2):
            transformed, measures, group = Dataset(), Dataset(), Dataset()
            transformed.RescaleSlope, transformed.RescaleIntercept = frame + 1, 5
            measures.PixelSpacing = [1.5, 1.25]
            group.PixelValueTransformationSequence, group.PixelMeasuresSequence = [transformed], [measures]
            groups.append(group)
        dicom(tmp_path / "a.dcm", np.stack([PIXELS, PIXELS]), PerFrameFunctionalGroupsSequence=groups)
        np.testing.assert_allclose(read_image("a.dcm#frame=1", tmp_path), PIXELS * 2.0 + 5)
        assert read_image_meta("a.dcm", tmp_path)["spacing"] == (1.5, 1.25)

    def test_a_file_without_suffix_is_known_by_its_mark(self, tmp_path):
        dicom(tmp_path / "IM0001")
        np.testing.assert_array_equal(read_image("IM0001", tmp_path), PIXELS)

    def test_no_pixels(self, tmp_path):
        dicom(tmp_path / "report.dcm", pixels=None, Modality="SR")
        with pytest.raises(UserError, match=r"report.dcm: holds no pixels \(modality SR\)"):
            read_image("report.dcm", tmp_path)

    def test_no_decoder(self, tmp_path, monkeypatch):
        dataset = pydicom.dcmread(dicom(tmp_path / "a.dcm"))
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 8])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(tmp_path / "j.dcm")
        decoder = type("Decoder", (), {"is_available": False})
        monkeypatch.setattr("mrtransfer.data.readers.dicom.get_decoder", lambda syntax: decoder)
        with pytest.raises(UserError, match=r"j.dcm: compressed as JPEG 2000 .* no decoder is installed; install"):
            read_image("j.dcm", tmp_path)

    def test_other_bytes_and_cut_off_pixels(self, tmp_path):
        (tmp_path / "text.dcm").write_text("not a scan " * 50)
        with pytest.raises(UserError, match=r"text.dcm: is not a DICOM file"):
            read_image("text.dcm", tmp_path)
        whole = dicom(tmp_path / "a.dcm").read_bytes()
        (tmp_path / "cut.dcm").write_bytes(whole[:-20])
        with pytest.raises(UserError, match=r"cut.dcm: damaged"):
            read_image("cut.dcm", tmp_path)


class TestNifti:
    volume = np.random.default_rng(0).integers(0, 1000, (7, 8, 9)).astype(np.int16)

    def save(self, path, affine=None, volume=None):
        nib.Nifti1Image(self.volume if volume is None else volume, np.eye(4) if affine is None else affine).to_filename(
            path
        )

    def test_a_slice_is_shown_as_a_radiologist_sees_it(self, tmp_path):
        self.save(tmp_path / "v.nii.gz", np.diag([2.0, 3.0, 4.0, 1.0]))  # indices grow to the right, front and top
        axial = read_image("v.nii.gz#axis=2&index=3", tmp_path)
        assert axial.dtype == np.int16
        np.testing.assert_array_equal(axial, self.volume[::-1, ::-1, 3].T)  # rows front to back, columns right to left
        np.testing.assert_array_equal(read_image("v.nii.gz", tmp_path), self.volume[::-1, ::-1, 4].T)
        np.testing.assert_array_equal(read_image("v.nii.gz#axis=0&index=1", tmp_path), self.volume[1, ::-1, ::-1].T)
        assert read_image_meta("v.nii.gz", tmp_path) == {"shape": (8, 7), "spacing": (3.0, 2.0)}

    def test_the_view_does_not_depend_on_how_the_volume_is_stored(self, tmp_path):
        self.save(tmp_path / "ras.nii")
        image = nib.load(tmp_path / "ras.nii")
        stored = image.as_reoriented(nib.orientations.axcodes2ornt("PIR"))
        stored.to_filename(tmp_path / "other.nii")
        codes = nib.aff2axcodes(stored.affine)
        assert codes != ("R", "A", "S")
        axis = next(i for i, code in enumerate(codes) if code in "SI")
        index = 6 if codes[axis] == "S" else self.volume.shape[2] - 1 - 6
        np.testing.assert_array_equal(
            read_image(f"other.nii#axis={axis}&index={index}", tmp_path), read_image("ras.nii#index=6", tmp_path)
        )

    def test_volumes_in_time(self, tmp_path):
        self.save(tmp_path / "v.nii", volume=np.stack([self.volume, self.volume + 1], -1))
        read = read_image("v.nii#index=3&volume=1", tmp_path)
        np.testing.assert_array_equal(read, self.volume[::-1, ::-1, 3].T + 1)

    @pytest.mark.parametrize(
        ("fragment", "message"),
        [
            ("axis=3", "axis must be 0, 1 or 2"),
            ("index=9", "index must be between 0 and 8"),
            ("index=two", "index must be a whole number"),
            ("slice=2", "unknown option 'slice'"),
            ("volume=1", "volume must be between 0 and 0"),
        ],
    )
    def test_wrong_fragments(self, tmp_path, fragment, message):
        self.save(tmp_path / "v.nii")
        with pytest.raises(UserError, match=message):
            read_image(f"v.nii#{fragment}", tmp_path)

    def test_damage(self, tmp_path):
        self.save(tmp_path / "v.nii.gz")
        whole = (tmp_path / "v.nii.gz").read_bytes()
        (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"no scan"))
        for name in ("cut.nii.gz", "text.nii.gz"):
            with pytest.raises(UserError, match=name):
                read_image(name, tmp_path)


class TestMatlab:
    def test_version_5_and_7_3_give_the_same(self, tmp_path):
        mask = (PIXELS > 9000).astype(np.uint8)
        scipy.io.savemat(tmp_path / "5.mat", {"cjdata": {"image": PIXELS.astype(np.int16), "tumorMask": mask}})
        with h5py.File(tmp_path / "7.mat", "w") as file:  # MATLAB writes its axes in reverse order
            file["cjdata/image"] = PIXELS.astype(np.int16).T
            file["cjdata/tumorMask"] = mask.T
        for name in ("5.mat", "7.mat"):
            np.testing.assert_array_equal(read_image(name, tmp_path), PIXELS.astype(np.int16))
            np.testing.assert_array_equal(read_mask(f"{name}#field=tumorMask", tmp_path), mask.astype(bool))
            with pytest.raises(UserError, match=rf"{name}: has no field 'mask'; it has: image, tumorMask"):
                read_mask(f"{name}#field=mask", tmp_path)

    def test_a_plain_variable(self, tmp_path):
        scipy.io.savemat(tmp_path / "a.mat", {"slice": PIXELS.astype(float)})
        assert read_image("a.mat#field=slice", tmp_path).dtype == np.float32

    def test_damage(self, tmp_path):
        (tmp_path / "a.mat").write_text("not MATLAB at all, but long enough to look at " * 9)
        with pytest.raises(UserError, match=r"a.mat: damaged, or not a MATLAB file"):
            read_image("a.mat", tmp_path)


def test_what_is_no_image_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "text.png").write_text("I am a text file")
    for kind in ("jpg", "dcm", "nii", "mat"):
        (tmp_path / f"empty.{kind}").touch()
    (tmp_path / "folder.png").mkdir()
    for name, message in [
        ("cut.jpg", "damaged, or not a JPG image"),
        ("text.png", "not a PNG image"),
        ("empty.jpg", "the file is empty"),
        ("empty.dcm", "the file is empty"),
        ("empty.nii", "the file is empty"),
        ("empty.mat", "the file is empty"),
        ("absent.png", "no such file"),
        ("absent", "no such file"),
        ("folder.png", "is a folder"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            read_image(name, tmp_path)
        assert str(tmp_path / name) in str(error.value)


@pytest.mark.real_data
def test_real_scans_are_read(real_data):
    assert read_image(next(real_data.glob("brain_tumour_4class/Training/*/*.jpg")).as_posix(), "/").ndim == 3
    series = next(real_data.glob("dicom_glioma/*T1post*/*.dcm")).as_posix()
    assert read_image(series, "/").shape == (320, 280)
    assert read_image_meta(series, "/")["spacing"] == pytest.approx((0.6875, 0.6875))
    folder = real_data / "brats2021" / "BraTS2021_00006"
    tumour = read_mask("BraTS2021_00006_seg.nii.gz#index=70", folder)
    brain = read_image("BraTS2021_00006_t1.nii.gz#index=70", folder) > 0
    assert tumour.any()
    assert (tumour <= brain).all()
