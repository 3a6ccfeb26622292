"""DICOM series as volumes: placed as nibabel places them, and refused where their headers do not say where they lie."""

import shutil
import warnings

import numpy as np
import pandas as pd
import pydicom
import pytest
from nibabel.affines import apply_affine
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mrtransfer.common.errors import UserError
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.volume import make_frame, read_case, read_volume

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from nibabel.nicom import dicomwrappers

LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])
MR, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
# Rows run to the left and a little up, columns to the back: an axial slice, tilted.
TILT = np.radians(10)
ORIENTATION = [np.cos(TILT), 0, np.sin(TILT), 0, 1, 0]
NORMAL = np.cross(ORIENTATION[:3], ORIENTATION[3:])
ORIGIN = np.array([-60.0, -80.0, 12.5])
SPACING = (0.9, 0.7)  # between rows, between columns
SLICES = np.random.default_rng(0).integers(0, 2000, (6, 8, 10)).astype(np.uint16)
UIDS = [generate_uid(entropy_srcs=[str(k)]) for k in range(3)]


def image(pixels, **attributes):
    """A file with one image, or as many as ``pixels`` has, and ``attributes`` (None: left out)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = attributes.pop("sop_class", MR)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality, dataset.PatientID, dataset.SeriesInstanceUID = "MR", "P1", UIDS[0]
    if pixels is not None:
        dataset.Rows, dataset.Columns = pixels.shape[-2:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = 0
        if pixels.ndim == 3:
            dataset.NumberOfFrames = len(pixels)
        dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def series(folder, gap=5.0, order=(3, 0, 5, 1, 4, 2), positions=None, **attributes):
    """Slice k of :data:`SLICES` as a file ``IM<order of export>``, ``gap`` mm apart; the folder and its files by k."""
    folder.mkdir(exist_ok=True)
    files = {}
    for name, k in enumerate(order):
        at = ORIGIN + NORMAL * gap * k if positions is None else positions[k]
        place = {
            "ImagePositionPatient": [round(float(x), 6) for x in at],
            "ImageOrientationPatient": [round(float(x), 7) for x in ORIENTATION],
            "PixelSpacing": list(SPACING),
            "SliceThickness": 3.0,
        }
        dataset = image(SLICES[k], **{**place, **attributes, "InstanceNumber": name + 1})
        files[k] = folder / f"IM{name:04d}"
        dataset.save_as(files[k], enforce_file_format=True)
    return files


def edit(file, **attributes):
    dataset = pydicom.dcmread(file)
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(file)


class TestGeometry:
    def test_slices_are_in_order_of_position_and_placed(self, tmp_path):
        series(tmp_path / "s")
        volume = read_volume("s", tmp_path)
        assert volume.data.dtype == np.uint16
        np.testing.assert_array_equal(volume.data, SLICES.transpose(2, 1, 0))
        assert volume.spacing == pytest.approx((0.7, 0.9, 5.0), abs=1e-5)
        assert np.linalg.det(volume.affine[:3, :3]) > 0
        for index in [(0, 0, 0), (9, 7, 5), (3, 2, 4)]:
            column, row, k = index
            lps = ORIGIN + column * 0.7 * np.array(ORIENTATION[:3]) + row * 0.9 * np.array(ORIENTATION[3:])
            lps = lps + k * 5.0 * NORMAL
            np.testing.assert_allclose(apply_affine(volume.affine, index), lps * [-1, -1, 1], atol=1e-4)

    def test_nibabel_places_each_slice_there_too(self, tmp_path):
        for k, file in series(tmp_path / "s").items():
            theirs = LPS_TO_RAS @ dicomwrappers.wrapper_from_file(file).affine  # from (row, column)
            volume = read_volume("s", tmp_path)
            for row, column in [(0, 0), (7, 9), (3, 1)]:
                np.testing.assert_allclose(
                    apply_affine(volume.affine, (column, row, k)), apply_affine(theirs, (row, column, 0)), atol=1e-4
                )
            single = read_volume(str(file), "/")
            np.testing.assert_array_equal(single.data, SLICES[k][..., None])
            np.testing.assert_allclose(single.affine[:, :2], theirs[:, :2], atol=1e-6)
            np.testing.assert_allclose(single.affine[:, 3], theirs[:, 3], atol=1e-6)
            assert single.spacing[2] == pytest.approx(3.0)

    def test_thickness_does_not_count(self, tmp_path):
        series(tmp_path / "s", SliceThickness=None, SpacingBetweenSlices=99.0)
        assert read_volume("s", tmp_path).spacing[2] == pytest.approx(5.0, abs=1e-4)

    def test_exported_against_the_normal(self, tmp_path):
        series(tmp_path / "s", gap=-5.0)
        volume = read_volume("s", tmp_path)
        np.testing.assert_array_equal(volume.data, SLICES[::-1].transpose(2, 1, 0))
        np.testing.assert_allclose(apply_affine(volume.affine, (0, 0, 5)), ORIGIN * [-1, -1, 1], atol=1e-4)

    def test_rounded_positions_are_even_enough(self, tmp_path):
        positions = [np.round(ORIGIN + NORMAL * 0.8 * k, 2) for k in range(6)]
        series(tmp_path / "s", positions=positions)
        assert read_volume("s", tmp_path).spacing[2] == pytest.approx(0.8, rel=0.01)

    def test_an_anisotropic_series_is_prepared_on_an_even_grid(self, tmp_path):
        series(tmp_path / "s", gap=5.0)
        volume = read_volume("s", tmp_path)
        frame = make_frame(volume.shape, volume.affine, spacing=(1.0, 1.0, 1.0))
        assert frame.prepared_shape == (7, 7, 30)
        prepared = frame.image_to_prepared(volume.data[None])
        assert np.isfinite(prepared).all()
        assert frame.to_original(prepared).shape == (1, *volume.shape)


class TestRefused:
    def refused(self, folder, message):
        with pytest.raises(UserError, match=message) as error:
            read_volume(str(folder), "/")
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_missing_slices(self, tmp_path):
        files = series(tmp_path / "s")
        files[2].unlink()
        said = self.refused(tmp_path / "s", r"s: slices are missing: IM\d+ and IM\d+ are 10.00 mm apart, most of its 5")
        assert files[1].name in said
        assert files[3].name in said

    @pytest.mark.parametrize("shift", [0.3, -0.3, 2.2])
    def test_uneven_slices(self, tmp_path, shift):
        steps = np.arange(6) * 5.0
        steps[3:] += shift
        series(tmp_path / "s", positions=[ORIGIN + NORMAL * s for s in steps])
        self.refused(tmp_path / "s", r"s: its slices are uneven: .* mm apart, most of its 6 slices 5.00 mm")

    def test_slices_shifted_in_their_plane(self, tmp_path):
        positions = [ORIGIN + NORMAL * 5 * k for k in range(6)]
        positions[2] = positions[2] + np.array([0, 1.0, 0])
        series(tmp_path / "s", positions=positions)
        self.refused(tmp_path / "s", "s: its slices are shifted against each other in their own plane")

    def test_several_images_at_one_position(self, tmp_path):
        files = series(tmp_path / "s")
        for k, file in files.items():
            edit(file, EchoTime=10.0)
            shutil.copy(file, tmp_path / "s" / f"second{k}")
            edit(tmp_path / "s" / f"second{k}", EchoTime=90.0)
        self.refused(tmp_path / "s", r"s: several images lie at one position, .* which differ in echo time; export one")

    @pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
    def test_missing_geometry(self, tmp_path, name):
        files = series(tmp_path / "s")
        edit(files[4], **{name: None})
        said = self.refused(tmp_path / "s", rf"has no {name}, without which nobody knows where its slice lies")
        assert files[4].name in said

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({"ImageOrientationPatient": [0.0, 1, 0, 0, 0, -1]}, "of different orientation, as a localiser does"),
            ({"PixelSpacing": [0.9, 0.9]}, "of different PixelSpacing"),
            ({"ImageOrientationPatient": [1.0, 0, 0, 1, 0, 0]}, "not two perpendicular directions"),
            ({"PixelSpacing": [0.0, 0.9]}, "its PixelSpacing must be above 0 mm"),
            ({"SamplesPerPixel": 3}, "is a colour image"),
            ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "is a mosaic"),
            ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "is a DICOM segmentation"),
        ],
    )
    def test_one_image_unlike_the_others(self, tmp_path, attributes, message):
        files = series(tmp_path / "s")
        edit(files[4], **attributes)
        assert files[4].name in self.refused(tmp_path / "s", message)

    def test_sizes_that_differ(self, tmp_path):
        files = series(tmp_path / "s")
        edit(files[4], Rows=10, Columns=8)
        self.refused(tmp_path / "s", r"images of different sizes \((8 × 10 and 10 × 8|10 × 8 and 8 × 10) pixels\)")

    def test_one_image_is_no_volume(self, tmp_path):
        series(tmp_path / "s", order=(0,))
        self.refused(tmp_path / "s", "s: holds one image, and a volume needs two or more")

    def test_damaged_slices(self, tmp_path):
        files = series(tmp_path / "s")
        files[1].write_bytes(files[1].read_bytes()[:-30])
        assert files[1].name in self.refused(tmp_path / "s", "damaged, or not a DICOM file")
        files[1].write_bytes(b"")
        assert files[1].name in self.refused(tmp_path / "s", "the file is empty")
        files[1].unlink()
        (tmp_path / "s" / "other.dcm").write_text("no scan " * 50)
        self.refused(tmp_path / "s", "other.dcm: is not a DICOM file")

    def test_folders_without_images(self, tmp_path):
        (tmp_path / "s" / "DICOM").mkdir(parents=True)
        self.refused(tmp_path / "s", "s: holds no DICOM images; its folders are DICOM: give one of them")
        self.refused(tmp_path / "s" / "DICOM", "holds no DICOM images; give the series' folder")
        self.refused(tmp_path / "absent", "absent: no such file")


class TestChoice:
    def test_one_of_two_series_must_be_chosen(self, tmp_path):
        series(tmp_path / "s", SeriesDescription="T1")
        for k, file in series(tmp_path / "t", SeriesDescription="FLAIR", SeriesInstanceUID=UIDS[1]).items():
            edit(file, PixelData=(SLICES[k] + 1).tobytes())
            shutil.move(file, tmp_path / "s" / f"flair{k}")
        with pytest.raises(UserError, match=r"s: holds 2 series where one is needed; choose one with #series=UID") as e:
            read_volume("s", tmp_path)
        assert f"{UIDS[0]} (T1, 6 files)" in str(e.value)
        assert f"{UIDS[1]} (FLAIR, 6 files)" in str(e.value)
        chosen = read_volume(f"s#series={UIDS[1]}", tmp_path)
        np.testing.assert_array_equal(chosen.data, SLICES.transpose(2, 1, 0) + 1)
        with pytest.raises(UserError, match=r"the folder holds no such series; it has .*T1"):
            read_volume("s#series=1.2.3", tmp_path)
        with pytest.raises(UserError, match="unknown option 'uid'"):
            read_volume("s#uid=1.2.3", tmp_path)

    def test_what_is_no_image_is_passed_over(self, tmp_path):
        series(tmp_path / "s")
        (tmp_path / "s" / ".DS_Store").touch()
        (tmp_path / "s" / "LICENSE.txt").write_text("free")
        (tmp_path / "s" / "sub").mkdir()
        report = image(None, Modality="SR", SeriesInstanceUID=UIDS[2])
        report.save_as(tmp_path / "s" / "report.dcm", enforce_file_format=True)
        assert read_volume("s", tmp_path).shape == (10, 8, 6)


class TestValues:
    def test_each_slice_has_its_own_rescale(self, tmp_path):
        files = series(tmp_path / "s")
        for k, file in files.items():
            edit(file, RescaleSlope=1 + k / 2, RescaleIntercept=-k)
        volume = read_volume("s", tmp_path)
        assert volume.data.dtype == np.float32
        for k in files:
            np.testing.assert_allclose(volume.data[..., k], SLICES[k].T * (1 + k / 2) - k, rtol=1e-6)

    def test_signed_values(self, tmp_path):
        files = series(tmp_path / "s", PixelRepresentation=1)
        for k, file in files.items():
            edit(file, PixelData=(SLICES[k].astype(np.int16) - 1000).tobytes())
        volume = read_volume("s", tmp_path)
        assert volume.data.dtype == np.int16
        np.testing.assert_array_equal(volume.data, SLICES.transpose(2, 1, 0).astype(np.int16) - 1000)


def enhanced(path, order=(2, 0, 1, 3), **attributes):
    """Frames in one file, each with its functional groups."""

    def item(**values):
        dataset = Dataset()
        for name, value in values.items():
            setattr(dataset, name, value)
        return dataset

    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=list(ORIGIN + NORMAL * 4 * k))],
            PixelValueTransformationSequence=[item(RescaleSlope=2.0, RescaleIntercept=float(k))],
            FrameContentSequence=[item(StackID="1", DimensionIndexValues=[1, k + 1], InStackPositionNumber=k + 1)],
        )
        for k in order
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(ORIENTATION))],
        PixelMeasuresSequence=[item(PixelSpacing=list(SPACING), SliceThickness=4.0)],
    )
    groups = {"PerFrameFunctionalGroupsSequence": frames, "SharedFunctionalGroupsSequence": [shared]}
    dataset = image(SLICES[list(order)], sop_class=ENHANCED, **{**groups, **attributes})
    dataset.save_as(path, enforce_file_format=True)


class TestMultiFrame:
    def test_frames_are_placed_by_their_functional_groups(self, tmp_path):
        enhanced(tmp_path / "e.dcm")
        volume = read_volume("e.dcm", tmp_path)
        expected = np.stack([SLICES[k] * 2.0 + k for k in range(4)])
        np.testing.assert_allclose(volume.data, expected.transpose(2, 1, 0), rtol=1e-6)
        enhanced(tmp_path / "sorted.dcm", order=(0, 1, 2, 3))  # nibabel misplaces frames in another order
        theirs = LPS_TO_RAS @ dicomwrappers.wrapper_from_file(tmp_path / "sorted.dcm").affine
        for column, row, k in [(0, 0, 0), (9, 7, 3), (4, 1, 2)]:  # its slices run the other way
            there = apply_affine(theirs, (row, column, 3 - k))
            np.testing.assert_allclose(apply_affine(volume.affine, (column, row, k)), there, atol=1e-6)
        (tmp_path / "s").mkdir()
        shutil.move(tmp_path / "e.dcm", tmp_path / "s" / "e.dcm")
        np.testing.assert_array_equal(read_volume("s", tmp_path).data, volume.data)

    def test_a_frame_is_a_slice(self, tmp_path):
        enhanced(tmp_path / "e.dcm")
        volume = read_volume("e.dcm#frame=0", tmp_path)
        np.testing.assert_allclose(volume.data[..., 0], SLICES[2] * 2.0 + 2)
        np.testing.assert_allclose(volume.affine[:3, 3], (ORIGIN + NORMAL * 8) * [-1, -1, 1], atol=1e-6)

    def test_frames_that_nobody_knows_the_place_of(self, tmp_path):
        enhanced(tmp_path / "e.dcm", PerFrameFunctionalGroupsSequence=None)
        with pytest.raises(UserError, match=r"e.dcm: has no ImagePositionPatient"):
            read_volume("e.dcm", tmp_path)
        enhanced(tmp_path / "t.dcm", order=(0, 0, 1, 1))
        with pytest.raises(UserError, match=r"t.dcm: several images lie at one position"):
            read_volume("t.dcm", tmp_path)


def test_channels_and_mask_of_a_case_may_be_series(tmp_path):
    series(tmp_path / "t1")
    series(tmp_path / "flair", SeriesInstanceUID=UIDS[1])
    series(tmp_path / "shifted", SeriesInstanceUID=UIDS[2], positions=[ORIGIN + NORMAL * (5 * k + 1) for k in range(6)])

    def manifest(flair):
        return Manifest.create(pd.DataFrame([{"sample": "a", "image:t1": "t1", "image:flair": flair}]), tmp_path, "x")

    case = read_case(manifest("flair"), 0)
    assert case.channels == ("t1", "flair")
    np.testing.assert_array_equal(case.image[1], SLICES.transpose(2, 1, 0))
    with pytest.raises(UserError, match=r"t1 and shifted: lie on different grids \(.* up to 0.2 voxels apart\)"):
        read_case(manifest("shifted"), 0)


@pytest.mark.real_data
def test_real_series_of_thick_slices(real_data):
    folders = sorted((real_data / "dicom_glioma").iterdir())
    volumes = [read_volume(folder.name, folder.parent) for folder in folders]
    for folder, volume in zip(folders, volumes, strict=True):
        assert volume.shape == (280, 320, 22)
        assert volume.spacing == pytest.approx((0.6875, 0.6875, 6.5), abs=1e-4)  # 5 mm thick, with gaps
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(folder.iterdir())]
        heights = sorted(float(header.ImagePositionPatient[2]) for header in headers)
        assert volume.affine[2, 3] == pytest.approx(heights[0], abs=1e-6)
        assert apply_affine(volume.affine, (0, 0, 21))[2] == pytest.approx(heights[-1], abs=1e-6)
    np.testing.assert_allclose(volumes[0].affine, volumes[1].affine, atol=1e-6)
    frame = make_frame(volumes[0].shape, volumes[0].affine)
    # As stored: to the left, to the back and to the head.
    assert (frame.axes, frame.flips) == ((0, 1, 2), (True, True, False))
