"""Files in fastMRI's layout: written here, read here and by the fastmri package alike; what is wrong is named."""

import multiprocessing
import os
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kspace_files import random_kspace, reference_target

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import check_same_matrix, needs_coils, needs_targets, open_volume, write_fastmri
from mrtransfer.data.kspace.fastmri import fitting_crop
from mrtransfer.data.kspace.header import Header
from mrtransfer.data.kspace.target import center_crop

MASK = np.arange(12) % 3 == 0


@pytest.fixture
def written(tmp_path):
    def one(kspace=None, name="file1.h5", **options):
        return write_fastmri(tmp_path / name, random_kspace() if kspace is None else kspace, **options)

    return one


def opened(path):
    return open_volume(path.name, path.parent)


class TestReadBack:
    def test_multi_coil(self, written):
        kspace = random_kspace()
        path = written(kspace, crop=(8, 10), acquisition="AXT2", subject="p7", scanner="Aera", spacing=(0.5, 0.75, 4))
        volume = opened(path)
        assert (volume.slices, len(volume), volume.coils, volume.matrix, volume.crop) == (3, 3, 2, (16, 12), (8, 10))
        assert (volume.acquisition, volume.subject, volume.scanner) == ("AXT2", "p7", "Aera")
        assert volume.spacing == pytest.approx((0.5, 0.75, 4))
        assert (volume.name, volume.location) == ("file1.h5", str(path))
        assert volume.fully_sampled
        assert volume.has_targets
        assert not volume.simulated
        targets = reference_target(kspace, (8, 10))
        for index in range(3):
            one = volume.read(index)
            np.testing.assert_array_equal(one.kspace, kspace[index])
            assert one.kspace.dtype == np.complex64
            assert one.target.dtype == np.float32
            np.testing.assert_allclose(one.target, targets[index], rtol=1e-5)
            assert one.max_value == volume.max_value == pytest.approx(targets.max(), rel=1e-5)
            assert (one.crop, one.columns, one.padding) == ((8, 10), None, None)

    def test_single_coil(self, written):
        kspace = random_kspace(coils=1)[:, 0]
        path = written(kspace)
        volume = opened(path)
        assert (volume.coils, volume.crop) == (1, (16, 12))
        one = volume.read(1)
        np.testing.assert_array_equal(one.kspace, kspace[1][None])
        np.testing.assert_allclose(one.target, reference_target(kspace[:, None], (16, 12))[1], rtol=1e-5)
        with h5py.File(path) as file:
            assert "reconstruction_esc" in file
            assert "reconstruction_rss" not in file

    def test_given_targets_and_maximum_are_kept(self, written):
        targets = np.random.default_rng(1).random((3, 7, 9), np.float32)
        volume = opened(written(targets=targets, max_value=3.5))
        assert volume.crop == (7, 9)
        np.testing.assert_array_equal(volume.read(2).target, targets[2])
        assert volume.read(2).max_value == 3.5

    def test_norm_is_that_of_the_targets(self, written):
        path = written()
        with h5py.File(path) as file:
            assert file.attrs["norm"] == pytest.approx(np.linalg.norm(file["reconstruction_rss"][()]), rel=1e-6)
            assert file.attrs["max"] == pytest.approx(file["reconstruction_rss"][()].max())

    def test_a_test_file_has_its_mask_and_no_targets(self, written):
        kspace = random_kspace()
        volume = opened(written(kspace, mask=MASK, crop=(8, 8)))
        one = volume.read(0)
        np.testing.assert_array_equal(one.columns, MASK)
        np.testing.assert_array_equal(one.kspace, kspace[0] * MASK)
        assert (one.target, one.max_value, volume.max_value, one.crop) == (None, None, None, (8, 8))
        assert not volume.fully_sampled
        assert not volume.has_targets

    def test_an_undersampled_file_may_have_targets(self, written):
        targets = np.ones((3, 8, 8), np.float32)
        volume = opened(written(mask=MASK, targets=targets))
        assert not volume.fully_sampled
        assert volume.has_targets
        np.testing.assert_array_equal(volume.read(1).target, targets[1])

    def test_a_mask_that_leaves_nothing_out_is_none(self, written):
        acquired = (np.arange(12) >= 2) & (np.arange(12) < 11)
        assert opened(written(mask=np.ones(12, bool))).fully_sampled
        volume = opened(written(mask=acquired, padding=(2, 11), name="b.h5"))
        assert volume.fully_sampled
        assert volume.padding == (2, 11)
        assert not opened(written(mask=acquired, name="c.h5")).fully_sampled

    def test_a_target_that_is_not_asked_for_is_not_made(self, written, monkeypatch):
        path = written()
        with h5py.File(path, "r+") as file:
            del file["reconstruction_rss"], file.attrs["max"]
        volume = opened(path)
        monkeypatch.setattr("mrtransfer.data.kspace.volume.magnitude_target", lambda *_: pytest.fail("computed"))
        one = volume.read(0, target=False)
        assert (one.target, one.max_value) == (None, None)

    def test_without_stored_targets_they_are_computed_and_so_is_their_maximum(self, written):
        kspace = random_kspace()
        path = written(kspace, crop=(8, 10))
        with h5py.File(path, "r+") as file:
            del file["reconstruction_rss"], file.attrs["max"]
        volume, targets = opened(path), reference_target(kspace, (8, 10))
        assert volume.has_targets
        assert not volume.stored_targets
        np.testing.assert_allclose(volume.read(0).target, targets[0], rtol=1e-5)
        assert volume.read(0).max_value == pytest.approx(targets.max(), rel=1e-5)

    def test_the_maximum_of_stored_targets_that_no_attribute_gives(self, written):
        path = written()
        with h5py.File(path, "r+") as file:
            del file.attrs["max"]
            largest = file["reconstruction_rss"][()].max()
        assert opened(path).max_value == largest

    def test_a_file_without_header_is_scored_on_its_targets_or_its_whole_image(self, written):
        path = written(crop=(8, 10))
        with h5py.File(path, "r+") as file:
            del file["ismrmrd_header"]
        assert opened(path).crop == (8, 10)
        with h5py.File(path, "r+") as file:
            del file["reconstruction_rss"]
        volume = opened(path)
        assert (volume.crop, volume.padding, volume.spacing) == ((16, 12), None, None)

    def test_an_accelerated_scan_without_mask_is_known_by_its_empty_columns(self, written):
        path = written(mask=MASK)
        with h5py.File(path, "r+") as file:
            header = file["ismrmrd_header"][()].decode()
            del file["mask"], file["ismrmrd_header"]
            changed = header.replace("<kspace_encoding_step_1>1<", "<kspace_encoding_step_1>3<")
            assert changed != header
            file["ismrmrd_header"] = changed
        volume = opened(path)
        np.testing.assert_array_equal(volume.columns, MASK)
        assert not volume.has_targets

    def test_k_space_that_is_narrower_than_its_target_is_scored_on_a_square(self, written):
        path = written(random_kspace(height=20, width=11))
        with h5py.File(path, "r+") as file:
            del file["reconstruction_rss"]
            file["reconstruction_rss"] = np.arange(3 * 14 * 14, dtype=np.float32).reshape(3, 14, 14)
            stored = file["reconstruction_rss"][1]
        volume = opened(path)
        assert volume.crop == (11, 11)  # as fastMRI scores its FLAIR volumes of 203 columns
        np.testing.assert_array_equal(volume.read(1).target, stored[1:12, 1:12])


@given(width=st.integers(2, 60), data=st.data())
def test_padding_survives_the_header(width, data):
    first = data.draw(st.integers(0, width // 2))
    end = data.draw(st.integers(width // 2 + 1, width))
    header = Header((8, width, 1), (8, width, 1), lines=(end - first - 1, width // 2 - first), coils=3)
    read = Header.parse(header.to_xml(), "here")
    assert read == header
    assert read.padding(width) == (None if (first, end) == (0, width) else (first, end))


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_the_crop_is_central_and_always_fits(height, width, data):
    crop = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    h, w = fitting_crop(crop, (height, width))
    assert 1 <= h <= min(height, crop[0])
    assert 1 <= w <= min(width, crop[1])
    image = np.arange(height * width).reshape(height, width)
    part = center_crop(image, (h, w))
    assert part.shape == (h, w)
    above, left = divmod(int(part[0, 0]), width)
    assert 0 <= (height - h - above) - above <= 1
    assert 0 <= (width - w - left) - left <= 1


class TestHeader:
    def test_of_a_scan_that_was_interpolated_zero_filled_and_partly_sampled(self):
        """Sizes as a clinical T2 TSE scan had them: 189 of 228 lines, images interpolated to 512 × 432."""
        xml = """<?xml version="1.0"?>
            <ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
              <subjectInformation><patientID>XXXXXXX</patientID></subjectInformation>
              <measurementInformation><patientPosition>HFS</patientPosition><protocolName> t2_tse </protocolName>
              </measurementInformation>
              <acquisitionSystemInformation><systemModel>Espree</systemModel><receiverChannels>12</receiverChannels>
              </acquisitionSystemInformation>
              <encoding>
                <encodedSpace><matrixSize><x>512</x><y>228</y><z>1</z></matrixSize>
                  <fieldOfView_mm><x>460.0</x><y>204.542404</y><z>7.5</z></fieldOfView_mm></encodedSpace>
                <reconSpace><matrixSize><x>512</x><y>432</y><z>1</z></matrixSize>
                  <fieldOfView_mm><x>230.0</x><y>194.063004</y><z>5.0</z></fieldOfView_mm></reconSpace>
                <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>188</maximum><center>94</center>
                  </kspace_encoding_step_1></encodingLimits>
                <trajectory>cartesian</trajectory>
                <parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>
                  <kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>
                  <calibrationMode>embedded</calibrationMode></parallelImaging>
              </encoding>
            </ismrmrdHeader>"""
        header = Header.parse(xml.encode(), "here")
        assert (header.encoded, header.recon, header.lines) == ((512, 228, 1), (512, 432, 1), (188, 94))
        assert (header.acceleration, header.calibration, header.coils) == (2.0, "embedded", 12)
        assert (header.system, header.protocol, header.subject) == ("Espree", "t2_tse", "")
        assert header.padding(228) == (20, 209)
        assert header.padding(200) is None
        assert header.spacing((512, 228)) == pytest.approx((460 / 512, 204.542404 / 228, 5.0))
        assert header.spacing((256, 216)) == pytest.approx((230 / 512, 194.063004 / 432, 5.0))

    def test_names_are_escaped(self):
        header = Header((4, 4, 1), (4, 4, 1), system="A & B <C>", subject="p<1>")
        assert Header.parse(header.to_xml(), "here") == Header(
            (4, 4, 1), (4, 4, 1), lines=(3, 2), coils=1, system="A & B <C>", subject="p<1>"
        )

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (("</encoding>", "</encode>"), r"f\.h5: its ISMRMRD header is not valid XML"),
            (("<x>16</x>", "<x>many</x>"), "encodedSpace/matrixSize/x in its ISMRMRD header is 'many'"),
            (("<x>16</x>", "<x>0</x>"), "its ISMRMRD header does not say encoding/encodedSpace/matrixSize"),
            (("reconSpace", "other"), "does not say encoding/reconSpace/matrixSize"),
        ],
    )
    def test_what_is_wrong_is_named(self, change, said):
        with pytest.raises(UserError, match=said):
            Header.parse(Header((16, 12, 1), (16, 12, 1)).to_xml().replace(*change), "f.h5")

    def test_the_ismrmrd_package_finds_it_valid(self):
        xsd = pytest.importorskip("ismrmrd").xsd
        header = Header((16, 12, 1), (8, 10, 1), (8.0, 9.0, 4.0), (4.0, 7.5, 4.0), (8, 4), 2, 5, "Aera", "p7")
        read = xsd.CreateFromDocument(header.to_xml())
        encoding = read.encoding[0]
        assert (encoding.encodedSpace.matrixSize.x, encoding.reconSpace.matrixSize.y) == (16, 10)
        assert encoding.encodingLimits.kspace_encoding_step_1.maximum == 8
        assert encoding.parallelImaging.accelerationFactor.kspace_encoding_step_1 == 2
        assert read.subjectInformation.patientID == "p7"
        assert read.acquisitionSystemInformation.receiverChannels == 5


class TestThePackage:
    """What the fastmri package reads of the files that are written here."""

    @pytest.fixture(scope="class")
    def data(self):
        return pytest.importorskip("fastmri.data.mri_data")

    @pytest.mark.parametrize("challenge", ["multicoil", "singlecoil"])
    @pytest.mark.parametrize("padding", [None, (2, 11)])
    def test_reads_the_same(self, data, written, tmp_path, challenge, padding):
        kspace = random_kspace(coils=3)
        path = written(kspace if challenge == "multicoil" else kspace[:, 0], crop=(8, 10), padding=padding,
                       acquisition="AXT1", subject="p1")  # fmt: skip
        volume, dataset = opened(path), data.SliceDataset(tmp_path, challenge)
        assert len(dataset) == len(volume)
        for index in range(3):
            theirs, mask, target, attributes, name, number = dataset[index]
            ours = volume.read(index)
            np.testing.assert_array_equal(theirs.reshape(ours.kspace.shape), ours.kspace)
            np.testing.assert_array_equal(target, ours.target)
            assert (name, number, mask) == (volume.name, index, None)
            assert (attributes["padding_left"], attributes["padding_right"]) == (ours.padding or (0, 12))
            assert attributes["recon_size"][:2] == ours.crop
            assert attributes["max"] == ours.max_value
            assert (attributes["acquisition"], attributes["patient_id"]) == ("AXT1", "p1")

    def test_computes_the_same_targets(self, data, written):
        import fastmri
        import torch
        from fastmri.data.transforms import complex_center_crop

        kspace = random_kspace(coils=3, height=15, width=13)
        volume = opened(written(kspace, crop=(8, 10)))
        images = fastmri.ifft2c(torch.view_as_real(torch.from_numpy(kspace[1])))
        cropped = complex_center_crop(images, (8, 10))
        expected = fastmri.rss(fastmri.complex_abs(cropped))
        np.testing.assert_allclose(volume.read(1).target, expected.numpy(), rtol=1e-5)

    def test_reads_the_same_test_file(self, data, written, tmp_path):
        from fastmri.data.transforms import VarNetDataTransform

        volume = opened(written(mask=MASK, padding=(1, 11), crop=(8, 8)))
        sample = data.SliceDataset(tmp_path, "multicoil", VarNetDataTransform())[2]
        ours = volume.read(2)
        np.testing.assert_array_equal(sample.masked_kspace.numpy().view(np.complex64)[..., 0], ours.kspace)
        inside = (np.arange(12) >= 1) & (np.arange(12) < 11)
        np.testing.assert_array_equal(sample.mask.numpy().ravel(), ours.columns & inside)
        assert sample.crop_size == ours.crop
        assert ours.padding == (1, 11)


class TestLaziness:
    def test_one_slice_is_read_and_nothing_stays_open(self, written):
        path = written(random_kspace(slices=40, coils=4, height=64, width=48))
        tracemalloc.start()
        volume = opened(path)
        volume.read(20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6 * 4 * 64 * 48 * 8  # bytes of a slice
        if os.path.isdir("/proc/self/fd"):
            assert str(path) not in [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]

    def test_threads_read_one_volume(self, written):
        kspace = random_kspace(slices=12)
        volume = opened(written(kspace))
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda index: volume.read(index % 12).kspace, range(48)))
        np.testing.assert_array_equal(read[:12], kspace)
        np.testing.assert_array_equal(read[36:], kspace)

    @pytest.mark.parametrize("start", [pytest.param("fork", marks=pytest.mark.skipif(os.name == "nt", reason="POSIX")),
                                       pytest.param("spawn", marks=pytest.mark.slow)])  # fmt: skip
    def test_other_processes_read_a_volume_that_was_read_here(self, written, start):
        kspace = random_kspace(slices=4)
        volume = opened(written(kspace))
        volume.read(0)
        assert len(pickle.dumps(volume)) < 2000
        context = multiprocessing.get_context(start)
        with context.Pool(2) as pool:
            read = pool.map(_KspaceOf(volume), range(4))
        np.testing.assert_array_equal(read, kspace)


class _KspaceOf:
    def __init__(self, volume):
        self.volume = volume

    def __call__(self, index):
        return self.volume.read(index, target=False).kspace


class TestBadInput:
    def test_no_k_space(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["data"], file["other"] = np.zeros(3), np.zeros(3)
        with pytest.raises(UserError, match=r"a\.h5: holds no dataset 'kspace' \(it holds data, other\)"):
            open_volume("a.h5", tmp_path)

    @pytest.mark.parametrize("array", [np.zeros((3, 2, 4, 4), np.float32), np.zeros((2, 4), np.complex64),
                                       np.zeros((0, 2, 4, 4), np.complex64)])  # fmt: skip
    def test_k_space_of_another_kind(self, tmp_path, array):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["kspace"] = array
        with pytest.raises(UserError, match=r"a\.h5: 'kspace' is .*it must be complex"):
            open_volume("a.h5", tmp_path)

    def test_a_mask_of_another_width(self, written):
        path = written(mask=MASK)
        with h5py.File(path, "r+") as file:
            del file["mask"]
            file["mask"] = np.ones(10, bool)
        with pytest.raises(UserError, match=r"file1\.h5: its mask has 10 columns and its k-space 12"):
            opened(path)
        with pytest.raises(UserError, match=r"b\.h5: its mask has 5 columns and its k-space 12"):
            written(mask=np.ones(5), name="b.h5")

    @pytest.mark.parametrize("mask", [np.zeros(12), np.full(12, 0.5)])
    def test_a_mask_that_is_none(self, written, mask):
        with pytest.raises(UserError, match=r"file1\.h5: its mask must hold a 1 for each sampled column"):
            written(mask=mask)

    def test_a_test_file_where_targets_are_needed(self, written):
        full, test = opened(written()), opened(written(mask=MASK, name="test7.h5"))
        needs_targets([full])
        with pytest.raises(UserError, match=r"test7\.h5: is undersampled and holds no reconstructed images .*training"):
            needs_targets([full, test])
        with pytest.raises(UserError, match="scoring needs targets"):
            needs_targets([test], "scoring")

    @pytest.mark.parametrize("part", [0.2, 0.7, 0.99])
    def test_a_truncated_file(self, written, part):
        path = written()
        os.truncate(path, int(path.stat().st_size * part))
        with pytest.raises(UserError, match=r"file1\.h5: is cut short, \d+ of \d+ bytes are there; copy it again"):
            opened(path)

    def test_a_file_that_is_truncated_after_it_was_opened(self, written):
        path = written()
        volume = opened(path)
        os.truncate(path, 3000)
        with pytest.raises(UserError, match=r"file1\.h5: is cut short"):
            volume.read(1)

    def test_files_that_are_no_hdf5(self, tmp_path):
        (tmp_path / "text.h5").write_text("no HDF5")
        (tmp_path / "empty.h5").touch()
        (tmp_path / "folder.h5").mkdir()
        for name, said in (
            ("text.h5", r"text\.h5: damaged, or not an HDF5 file at all"),
            ("empty.h5", r"empty\.h5: the file is empty \(0 bytes\)"),
            ("folder.h5", r"folder\.h5: is a folder, not an HDF5 file"),
            ("absent.h5", r"absent\.h5: no such file"),
            ("absent.dat", r"absent\.dat: no such file; known: \.h5"),
        ):
            with pytest.raises(UserError, match=said):
                open_volume(name, tmp_path)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, written, value):
        kspace = random_kspace()
        path = written(kspace)
        with h5py.File(path, "r+") as file:
            file["kspace"][1, 0, 3, 4] = value
            file["reconstruction_rss"][2, 3, 4] = value
        volume = opened(path)
        volume.read(0)
        with pytest.raises(UserError, match=r"file1\.h5: slice 1: k-space holds 1 NaN or infinite values"):
            volume.read(1)
        with pytest.raises(UserError, match=r"file1\.h5: slice 2: its target holds 1 NaN or infinite values"):
            volume.read(2)
        volume.read(2, target=False)

    def test_large_values_are_finite(self, written):
        path = written()
        with h5py.File(path, "r+") as file:
            file["kspace"][0] = 3e38
        opened(path).read(0)

    def test_one_coil_where_many_are_meant(self, written):
        many, one = opened(written()), opened(written(random_kspace(coils=1), name="one.h5"))
        needs_coils([many], many=True)
        needs_coils([one], many=False)
        with pytest.raises(UserError, match=r"one\.h5: has one coil, and multi-coil k-space is needed"):
            needs_coils([many, one], many=True)
        with pytest.raises(UserError, match=r"file1\.h5: has 2 coils, and single-coil k-space is needed"):
            needs_coils([one, many], many=False)

    def test_mixed_matrix_sizes_in_a_batch(self, written):
        same = [opened(written(name=f"{name}.h5")) for name in "ab"]
        wider = opened(written(random_kspace(width=14), name="wide.h5"))
        more = opened(written(random_kspace(coils=4), name="more.h5"))
        check_same_matrix(same)
        with pytest.raises(UserError, match=r"a\.h5 has 16 × 12 samples of 2 coils and .*wide\.h5 has 16 × 14 samples"):
            check_same_matrix([*same, wider])
        with pytest.raises(UserError, match=r"a\.h5 .*more\.h5 has 16 × 12 samples of 4 coils; .*batch of 1"):
            check_same_matrix([*same, more])

    def test_targets_that_do_not_belong_to_k_space(self, written):
        path = written()
        with h5py.File(path, "r+") as file:
            del file["reconstruction_rss"]
            file["reconstruction_rss"] = np.ones((2, 8, 8), np.float32)
        with pytest.raises(UserError, match=r"file1\.h5: reconstruction_rss has shape 2 × 8 × 8; it needs 3 slices"):
            opened(path)

    def test_a_slice_that_is_not_there(self, written):
        for index in (-1, 3):
            with pytest.raises(UserError, match=rf"file1\.h5: has no slice {index}; its slices are 0 to 2"):
                opened(written()).read(index)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"padding": (8, 12)}, r"padding is \(8, 12\); it must hold the centre, column 6 of 12"),
            ({"crop": (20, 8)}, r"crop is \(20, 8\), which .* does not fit 16 × 12"),
            ({"crop": (8, 8), "targets": np.ones((3, 9, 9), np.float32)}, "not the targets' size"),
            ({"targets": np.ones((2, 9, 9), np.float32)}, r"targets have shape \(2, 9, 9\); they need 3 slices"),
        ],
    )
    def test_the_writer_refuses_what_does_not_fit(self, written, tmp_path, options, said):
        with pytest.raises(UserError, match=said):
            written(**options)
        with pytest.raises(UserError, match="k-space must be complex"):
            written(np.ones((3, 2, 4, 4), np.float32))
        assert list(tmp_path.iterdir()) == []
