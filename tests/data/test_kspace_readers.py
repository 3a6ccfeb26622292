"""BART's, NumPy's and ISMRMRD's raw files, and the phantom, as volumes of k-space."""

import h5py
import numpy as np
import pytest
from kspace_files import random_kspace, readout, reference_target, write_cfl, write_raw

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import open_volume
from mrtransfer.data.kspace.header import Header
from mrtransfer.data.kspace.open import files_of, rendered
from mrtransfer.data.phantom import kspace as phantom
from mrtransfer.data.phantom.kspace_scan import kspace_location

REGULAR = np.arange(12) % 3 == 0


def bart(kspace, dims=(16, 12, 1)):
    """K-space (S, C, H, W) along BART's dimensions."""
    array = kspace.transpose(2, 3, 1, 0)  # H W C S
    return array.reshape(*dims, array.shape[2], *[1] * 9, array.shape[3])


class TestBart:
    @pytest.mark.parametrize("dims", [(16, 12, 1), (1, 16, 12), (16, 1, 12)])
    def test_coils_and_slices_are_read(self, tmp_path, dims):
        kspace = random_kspace()
        write_cfl(tmp_path / "scan", bart(kspace, dims))
        for location in ("scan.cfl", "scan.hdr", "scan"):
            volume = open_volume(location, tmp_path)
            assert (volume.slices, volume.coils, volume.matrix, volume.crop) == (3, 2, (16, 12), (16, 12))
            assert volume.name == "scan.cfl"
            for index in range(3):
                np.testing.assert_array_equal(volume.read(index).kspace, kspace[index])
        targets = reference_target(kspace, (16, 12))
        np.testing.assert_allclose(volume.read(2).target, targets[2], rtol=1e-5)
        assert volume.max_value == pytest.approx(targets.max(), rel=1e-5)

    def test_columns_that_are_empty_were_not_sampled(self, tmp_path):
        write_cfl(tmp_path / "a", bart(random_kspace() * REGULAR))
        volume = open_volume("a.cfl", tmp_path)
        np.testing.assert_array_equal(volume.columns, REGULAR)
        assert not volume.has_targets
        assert volume.read(0).target is None

    def test_empty_columns_at_the_sides_are_padding(self, tmp_path):
        kspace = random_kspace()
        kspace[..., :2] = kspace[..., 11:] = 0
        kspace[0] = 0  # a slice outside the body says nothing
        write_cfl(tmp_path / "a", bart(kspace))
        volume = open_volume("a.cfl", tmp_path)
        assert volume.fully_sampled
        assert volume.padding == volume.read(1).padding == (2, 11)

    def test_an_image_becomes_k_space_that_is_called_simulated(self, tmp_path):
        image = random_kspace(slices=1, coils=1)
        write_cfl(tmp_path / "a", bart(image))
        volume = open_volume("a.cfl#image=true", tmp_path)
        assert volume.simulated
        one = volume.read(0)
        np.testing.assert_allclose(one.target, np.abs(image[0, 0]), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(one.kspace), np.linalg.norm(image), rtol=1e-5)
        assert not open_volume("a.cfl", tmp_path).simulated

    def test_an_image_of_one_location_is_flat_in_k_space(self, tmp_path):
        image = np.zeros((1, 1, 16, 12), np.complex64)
        image[0, 0, 8, 6] = 1  # the centre
        write_cfl(tmp_path / "a", bart(image))
        kspace = open_volume("a.cfl#image=1", tmp_path).read(0).kspace
        np.testing.assert_allclose(kspace, np.full((1, 16, 12), 1 / np.sqrt(16 * 12)), atol=1e-6)

    def test_what_is_wrong_is_named(self, tmp_path):
        good = bart(random_kspace())
        for name, array, said in (
            ("maps", np.ones((16, 12, 1, 2, 2)), r"maps\.cfl: has dimensions 16 12 1 2 2 \(MAPS of 2\); only two of"),
            ("volume", np.ones((16, 12, 4, 2)), r"volume\.cfl: has dimensions 16 12 4 2; only two of"),
            ("line", np.ones((16, 1, 1, 2)), r"line\.cfl: has dimensions 16 1 1 2; only two of"),
            ("zeros", np.zeros((16, 12, 1, 2)), r"zeros\.cfl: holds nothing but zeros"),
        ):
            write_cfl(tmp_path / name, array)
            with pytest.raises(UserError, match=said):
                open_volume(f"{name}.cfl", tmp_path)
        write_cfl(tmp_path / "cut", good).write_bytes(b"1234")
        with pytest.raises(UserError, match=r"cut\.cfl: has 4 bytes, and its header cut\.hdr says 9216"):
            open_volume("cut.cfl", tmp_path)
        write_cfl(tmp_path / "alone", good)
        (tmp_path / "alone.hdr").unlink()
        with pytest.raises(UserError, match=r"alone\.hdr: no such file"):
            open_volume("alone.cfl", tmp_path)
        (tmp_path / "alone.hdr").write_text("1 2 3")
        with pytest.raises(UserError, match=r"alone\.hdr: damaged, or not a BART header at all"):
            open_volume("alone.cfl", tmp_path)
        (tmp_path / "alone.hdr").write_text("# Dimensions\n16 0\n")
        with pytest.raises(UserError, match=r"alone\.hdr: its dimensions are \(16, 0\)"):
            open_volume("alone.cfl", tmp_path)
        write_cfl(tmp_path / "coils", good)
        with pytest.raises(UserError, match=r"coils\.cfl: has 2 coils, and image: true needs one"):
            open_volume("coils.cfl#image=true", tmp_path)
        with pytest.raises(UserError, match="image must be true or false"):
            open_volume("coils.cfl#image=maybe", tmp_path)
        with pytest.raises(UserError, match="unknown option 'axes'"):
            open_volume("coils.cfl#axes=hw", tmp_path)

    def test_a_volume_is_made_of_two_files(self, tmp_path):
        write_cfl(tmp_path / "a.v1", bart(random_kspace()))  # without a suffix that would be .v1
        (tmp_path / "b.v1.hdr").write_bytes((tmp_path / "a.hdr").read_bytes())
        (tmp_path / "b.v1.cfl").write_bytes((tmp_path / "a.cfl").read_bytes())
        assert open_volume("b.v1", tmp_path).slices == 3
        assert files_of("b.v1", tmp_path) == ["b.v1.cfl", "b.v1.hdr"]
        assert files_of("a.cfl#image=true", tmp_path) == ["a.cfl#image=true", "a.hdr"]
        assert files_of("a.h5", tmp_path) == ["a.h5"]


class TestNumpy:
    @pytest.mark.parametrize(
        ("axes", "order"), [("schw", (0, 1, 2, 3)), ("hwcs", (2, 3, 1, 0)), ("cswh", (1, 0, 3, 2))]
    )
    def test_axes_are_put_in_order(self, tmp_path, axes, order):
        kspace = random_kspace()
        np.save(tmp_path / "a.npy", kspace.transpose(order))
        volume = open_volume("a.npy" if axes == "schw" else f"a.npy#axes={axes}", tmp_path)
        assert (volume.slices, volume.coils, volume.matrix) == (3, 2, (16, 12))
        np.testing.assert_array_equal(volume.read(1).kspace, kspace[1])

    def test_fewer_axes(self, tmp_path):
        kspace = random_kspace()
        np.save(tmp_path / "coils.npy", kspace[0])
        np.save(tmp_path / "plane.npy", kspace[0, 0].astype(np.complex128))
        np.testing.assert_array_equal(open_volume("coils.npy#axes=chw", tmp_path).read(0).kspace, kspace[0])
        np.testing.assert_array_equal(open_volume("coils.npy#axes=shw", tmp_path).read(1).kspace, kspace[0, 1:])
        one = open_volume("plane.npy", tmp_path).read(0).kspace
        np.testing.assert_array_equal(one, kspace[0, :1])
        assert one.dtype == np.complex64

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_archives(self, tmp_path, save):
        kspace = random_kspace()
        save(tmp_path / "a.npz", kspace=kspace, other=np.ones(3))
        save(tmp_path / "b.npz", whatever=2 * kspace)
        for _ in range(2):
            np.testing.assert_array_equal(open_volume("a.npz", tmp_path).read(2).kspace, kspace[2])
            np.testing.assert_array_equal(open_volume("b.npz", tmp_path).read(2).kspace, 2 * kspace[2])
        save(tmp_path / "a.npz", kspace=3 * kspace, other=np.ones(3))
        np.testing.assert_array_equal(open_volume("a.npz", tmp_path).read(2).kspace, 3 * kspace[2])

    def test_an_image(self, tmp_path):
        image = random_kspace(coils=1)[:, 0]
        np.save(tmp_path / "a.npy", image)
        volume = open_volume("a.npy#axes=shw&image=true", tmp_path)
        assert volume.simulated
        np.testing.assert_allclose(volume.read(1).target, np.abs(image[1]), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(
        ("array", "options", "said"),
        [
            (np.ones((2, 4, 4), np.complex64), "", r"a\.npy: has 3 axes; say which they are, for example axes: chw"),
            (np.ones((2, 4, 4), np.complex64), "#axes=cxw", "has 3 axes, and axes is 'cxw'"),
            (np.ones((2, 4, 4), np.complex64), "#axes=hw", "has 3 axes, and axes is 'hw'"),
            (np.ones((2, 4, 4), np.complex64), "#axes=sch", "name each once, h and w among them"),
            (np.ones((4, 4), np.float32), "", r"a\.npy: holds float32 of shape \(4, 4\); complex values are needed"),
            (np.ones((0, 4), np.complex64), "", "complex values are needed"),
            (np.array([{}], dtype=object), "", r"a\.npy: damaged, or not a NumPy file"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, array, options, said):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(UserError, match=said):
            open_volume(f"a.npy{options}", tmp_path)

    def test_an_archive_without_k_space(self, tmp_path):
        np.savez(tmp_path / "a.npz", one=np.ones(2), two=np.ones(2))
        with pytest.raises(UserError, match=r"a\.npz: holds no array 'kspace' \(it holds one, two\)"):
            open_volume("a.npz", tmp_path)


HEADER = Header((16, 12, 1), (8, 12, 1), (8.0, 9.0, 4.0), (4.0, 9.0, 4.0), (10, 5), coils=2, subject="p3",
                system="Aera").to_xml()  # fmt: skip
"""Lines 0 to 10, of which 5 is the centre: columns 1 to 11 of 12. Readouts are oversampled twice."""


def lines_of(kspace, columns=range(1, 12), **fields):
    """All readouts of k-space (S, C, H, W), column 1 being line 0."""
    return [readout(one[:, :, column], column - 1, index, **fields) for index, one in enumerate(kspace)
            for column in columns]  # fmt: skip


class TestRawAcquisitions:
    def opened(self, folder, readouts, header=HEADER, options="", **how):
        write_raw(folder / "raw.h5", header, readouts, **how)
        return open_volume(f"raw.h5{options}", folder)

    def test_readouts_are_sorted_into_slices(self, tmp_path):
        kspace = random_kspace()
        readouts = lines_of(kspace)
        np.random.default_rng(0).shuffle(readouts)
        volume = self.opened(tmp_path, readouts)
        assert (volume.slices, volume.coils, volume.matrix, volume.crop) == (3, 2, (16, 12), (8, 12))
        assert (volume.subject, volume.scanner, volume.padding) == ("p3", "Aera", (1, 12))
        assert volume.spacing == pytest.approx((0.5, 0.75, 4))
        assert volume.fully_sampled
        kspace[..., 0] = 0
        for index in range(3):
            np.testing.assert_array_equal(volume.read(index).kspace, kspace[index])
        np.testing.assert_allclose(volume.read(1).target, reference_target(kspace, (8, 12))[1], rtol=1e-5)

    def test_what_is_no_image_is_left_out(self, tmp_path):
        kspace = random_kspace()
        noise = np.full((2, 40), 99)
        others = [readout(noise, 0, flags=(flag,)) for flag in (19, 23, 24, 26, 27, 28, 29, 30, 31)]
        volume = self.opened(tmp_path, [*others, *lines_of(kspace)])
        np.testing.assert_array_equal(volume.read(0).kspace[..., 1:], kspace[0, ..., 1:])

    @pytest.mark.parametrize(("mode", "counted"), [("embedded", True), ("separate", False)])
    def test_calibration_lines_count_where_they_are_of_the_same_scan(self, tmp_path, mode, counted):
        kspace = random_kspace()
        header = HEADER.replace(
            "</accelerationFactor>", f"</accelerationFactor><calibrationMode>{mode}</calibrationMode>"
        )
        readouts = [*lines_of(kspace, range(1, 12, 2)), *lines_of(kspace, (6,), flags=(20,))]
        volume = self.opened(tmp_path, readouts, header)
        expected = np.isin(np.arange(12), [1, 3, 5, *([6] if counted else []), 7, 9, 11])
        np.testing.assert_array_equal(volume.columns, expected)
        assert not volume.has_targets
        np.testing.assert_array_equal(volume.read(2).kspace, kspace[2] * expected)

    def test_averages_are_averaged(self, tmp_path):
        one, two = random_kspace(seed=1), random_kspace(seed=2)
        volume = self.opened(tmp_path, [*lines_of(one, average=0), *lines_of(two, average=1)])
        np.testing.assert_allclose(volume.read(1).kspace[..., 1:], (one[1] + two[1])[..., 1:] / 2, atol=1e-6)

    def test_reversed_and_asymmetric_readouts_are_put_where_they_belong(self, tmp_path):
        kspace = random_kspace()
        kspace[..., :3, :] = 0  # three samples before the echo were not acquired
        short = [readout(one[:, 3:, column], column - 1, index, centre=5) for index, one in enumerate(kspace)
                 for column in range(1, 12)]  # fmt: skip
        volume = self.opened(tmp_path, short)
        np.testing.assert_array_equal(volume.read(0).kspace[..., 1:], kspace[0, ..., 1:])
        backwards = [readout(one[:, :2:-1, column], column - 1, index, centre=7, flags=(22,))
                     for index, one in enumerate(kspace) for column in range(1, 12)]  # fmt: skip
        volume = self.opened(tmp_path, backwards)
        np.testing.assert_array_equal(volume.read(0).kspace[..., 1:], kspace[0, ..., 1:])

    def test_samples_to_discard_are_discarded(self, tmp_path):
        kspace = random_kspace()
        kspace[..., :1, :] = kspace[..., 14:, :] = 0
        padded = [(head, np.where(np.isin(np.arange(16), (0, 14, 15)), 99, samples)) for head, samples in
                  lines_of(kspace, discard_pre=1, discard_post=2)]  # fmt: skip
        volume = self.opened(tmp_path, [(head, samples.astype(np.complex64)) for head, samples in padded])
        np.testing.assert_array_equal(volume.read(0).kspace[..., 1:], kspace[0, ..., 1:])

    def test_one_of_several_images_is_chosen(self, tmp_path):
        one, two = random_kspace(seed=1), random_kspace(seed=2)
        readouts = [*lines_of(one, repetition=0), *lines_of(two, repetition=1)]
        with pytest.raises(UserError, match=r"raw\.h5: holds several images of a slice, repetition 0, 1; choose one, "):
            self.opened(tmp_path, readouts)
        volume = open_volume("raw.h5#repetition=1", tmp_path)
        np.testing.assert_array_equal(volume.read(0).kspace[..., 1:], two[0, ..., 1:])
        with pytest.raises(UserError, match=r"raw\.h5: has no repetition 2; there are 0, 1"):
            open_volume("raw.h5#repetition=2", tmp_path)
        with pytest.raises(UserError, match="unknown option 'image'"):
            open_volume("raw.h5#image=true", tmp_path)

    def test_the_group_may_have_another_name(self, tmp_path):
        assert self.opened(tmp_path, lines_of(random_kspace()), group="scan_2").slices == 3

    def test_the_crop_is_the_field_of_view_whatever_was_interpolated(self, tmp_path):
        header = Header((16, 12, 1), (32, 30, 1), (8.0, 9.0, 4.0), (4.0, 7.5, 4.0), (10, 5)).to_xml()
        assert self.opened(tmp_path, lines_of(random_kspace()), header).crop == (8, 10)
        header = Header((16, 12, 1), (32, 10, 1), lines=(10, 5)).to_xml()
        assert self.opened(tmp_path, lines_of(random_kspace()), header).crop == (16, 10)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (("cartesian", "spiral"), "its trajectory is spiral; only Cartesian"),
            (("<z>1</z>", "<z>24</z>"), "is a 3-D acquisition of 24 partitions"),
            (("</encoding>", "</encoding><encoding></encoding>"), "has 2 encoding spaces"),
            (("<x>16</x>", "<x>64</x>"), "readouts of 16 samples centred at 8 do not fit the 64"),
            (("<x>16</x>", "<x>12</x>"), "readouts of 16 samples centred at 8 do not fit the 12"),
            (("<y>12</y>", "<y>9</y>"), "its phase-encoding lines do not fit the 9"),
        ],
    )
    def test_headers_that_do_not_fit(self, tmp_path, change, said):
        with pytest.raises(UserError, match=rf"raw\.h5: {said}"):
            self.opened(tmp_path, lines_of(random_kspace()), HEADER.replace(*change))

    def test_readouts_that_do_not_fit_together(self, tmp_path):
        readouts = lines_of(random_kspace())
        with pytest.raises(UserError, match=r"raw\.h5: slices 0 and 2 have different phase-encoding lines"):
            self.opened(tmp_path, readouts[:-1])
        with pytest.raises(UserError, match=r"raw\.h5: its readouts have 2, 3 coils"):
            self.opened(tmp_path, [*readouts, readout(np.ones((3, 16)), 0)])
        with pytest.raises(UserError, match=r"raw\.h5: holds no readouts of an image"):
            self.opened(tmp_path, [readout(np.ones((2, 16)), 0, flags=(19,))])

    def test_a_file_that_the_ismrmrd_package_wrote(self, tmp_path):
        ismrmrd = pytest.importorskip("ismrmrd")
        kspace = random_kspace()
        with ismrmrd.Dataset(tmp_path / "raw.h5", "dataset", True) as file:
            file.write_xml_header(HEADER.encode())
            for index, one in enumerate(kspace):
                for column in range(1, 12):
                    acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(one[:, :, column]))
                    acquisition.idx.kspace_encode_step_1, acquisition.idx.slice = column - 1, index
                    acquisition.center_sample = 8
                    file.append_acquisition(acquisition)
        volume = open_volume("raw.h5", tmp_path)
        np.testing.assert_array_equal(volume.read(2).kspace[..., 1:], kspace[2, ..., 1:])

    def test_a_group_without_header_is_no_acquisition(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["dataset/data"] = np.zeros(3)
        with pytest.raises(UserError, match=r"a\.h5: holds no dataset 'kspace' \(it holds dataset\)"):
            open_volume("a.h5", tmp_path)


def test_a_phantom_is_rendered_once(monkeypatch):
    location, asked, render = kspace_location(subject=1, coils=2, matrix=(32, 32), slices=2), [], phantom.render_kspace
    kspace = render(location)
    monkeypatch.setattr(phantom, "render_kspace", lambda asked_for: asked.append(asked_for) or render(asked_for))
    rendered.cache_clear()
    volume = open_volume(location, ".")
    assert volume.location == location
    for index in range(2):
        np.testing.assert_array_equal(volume.read(index).kspace, kspace[index])
    assert asked == [location]
    rendered.cache_clear()


@pytest.mark.real_data
class TestRealScans:
    def test_eight_coils_of_a_brain(self, real_data):
        volume = open_volume("kspace/brain_8coil.cfl", real_data)
        assert (volume.slices, volume.coils, volume.matrix) == (1, 8, (230, 180))
        assert volume.fully_sampled
        one = volume.read(0)
        whole = np.fromfile(real_data / "kspace" / "brain_8coil.cfl", np.complex64).reshape(8, 180, 230)
        np.testing.assert_array_equal(one.kspace, whole.transpose(0, 2, 1))
        np.testing.assert_allclose(one.target, reference_target(one.kspace[None], (230, 180))[0], rtol=1e-4)
        head, air = one.target[80:150, 50:130], one.target[:8, :8]
        assert np.median(head) > 5 * np.median(air)  # an image, its centre in the middle

    def test_the_image_of_a_knee_is_simulated(self, real_data):
        volume = open_volume("kspace/knee_image.cfl#image=true", real_data)
        assert volume.simulated
        one = volume.read(0)
        assert one.kspace.shape == (1, 288, 236)
        image = np.fromfile(real_data / "kspace" / "knee_image.cfl", np.complex64).reshape(236, 288).T
        np.testing.assert_allclose(one.target, np.abs(image), atol=1e-5)
        strongest = np.unravel_index(np.abs(one.kspace[0]).argmax(), (288, 236))
        assert np.abs(np.subtract(strongest, (144, 118))).max() <= 2
