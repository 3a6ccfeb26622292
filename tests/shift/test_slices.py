"""Slices of any dataset: raw intensities, one grid, evenly through the anatomy, never stale."""

import os

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.kspace import kspace
from mrtransfer.data.datasets.phantom import phantom
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.silhouette import air_threshold, foreground, ranks
from mrtransfer.shift.planes import spread
from mrtransfer.shift.slices import open_slices


def pictures(folder, images, name="tiny", **columns):
    """A manifest of PNG files."""
    files = [f"p{i}.png" for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(folder / file)
    table = pd.DataFrame({"sample": [file[:-4] for file in files], "image": files, **columns})
    return Manifest.create(table, folder, name)


def volumes(folder, volumes, affines=None, **columns):
    affines = [np.eye(4)] * len(volumes) if affines is None else affines
    names = [f"v{i}" for i in range(len(volumes))]
    for name, volume, affine in zip(names, volumes, affines, strict=True):
        nib.save(nib.Nifti1Image(volume, affine), folder / f"{name}.nii")
    table = pd.DataFrame({"sample": names, "image": [f"{name}.nii" for name in names], **columns})
    return Manifest.create(table, folder, "vols")


def ball(shape=(20, 24, 40), first=10, last=30):
    """Tissue of 100 to 139, brighter from slice to slice, from plane ``first`` to ``last``."""
    volume = np.zeros(shape, np.float32)
    volume[4:-4, 4:-4, first:last] = 100 + np.arange(first, last)
    return volume


def test_intensities_stay_as_the_files_have_them(tmp_path):
    rows = np.random.default_rng(0).integers(0, 60000, (16, 16)).astype(np.uint16)
    found = open_slices(pictures(tmp_path, [rows]), size=16, directory=tmp_path / "s")
    assert found.images.shape == (1, 1, 16, 16)
    assert found.images.dtype == np.float32
    assert np.array_equal(found.images[0, 0], rows.astype(np.float32))


def test_a_coarser_grid_averages_and_keeps_the_mean(tmp_path):
    image = np.random.default_rng(1).integers(0, 255, (64, 64)).astype(np.uint8)
    found = np.asarray(open_slices(pictures(tmp_path, [image]), size=16, directory=tmp_path / "s").images[0, 0])
    blocks = image.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert found.mean() == pytest.approx(image.mean(), rel=0.02)
    assert np.corrcoef(found.ravel(), blocks.ravel())[0, 1] > 0.7
    assert found.std() < 0.4 * image.std()  # one pixel of sixteen would keep all of it


@pytest.mark.parametrize(
    ("spacing", "rows", "columns"), [(None, 16, 8), ((1.0, 2.0), 16, 16), ((2.0, 1.0), 16, 4), ((1.0, 4.0), 8, 16)]
)
def test_the_shape_in_millimetres_is_kept_with_background_around(tmp_path, spacing, rows, columns):
    image = np.full((32, 16), 200, np.uint8)
    image[[0, -1]] = 0  # corners are background
    sizes = {} if spacing is None else {"spacing_y": [spacing[0]], "spacing_x": [spacing[1]]}
    found = open_slices(pictures(tmp_path, [image], **sizes), size=16, directory=tmp_path / "s")
    shown = np.asarray(found.images[0, 0]) > 0
    assert (int(shown.any(axis=1).sum()), int(shown.any(axis=0).sum())) == (rows, columns)
    if spacing is None:
        assert np.isnan(found.pixel[0])
        assert np.isnan(found.spacing).all()
    else:
        assert found.spacing.tolist() == [list(spacing)]
        assert found.pixel[0] == max(32 * spacing[0], 16 * spacing[1]) / 16


def test_planes_are_evenly_spread_through_the_anatomy(tmp_path):
    found = open_slices(volumes(tmp_path, [ball()]), slices=4, size=32, directory=tmp_path / "s")
    assert found.images.shape == (4, 1, 32, 32)
    # Planes 12, 17, 22 and 27 of 10 to 29.
    assert [float(image.max()) for image in found.images] == pytest.approx([112, 117, 122, 127])
    assert found.samples.tolist() == ["v0"] * 4
    assert found.channels == ("image",)


def test_a_thin_volume_gives_all_its_planes_and_an_empty_one_is_refused(tmp_path):
    thin = ball((20, 24, 5), 1, 4)
    assert len(open_slices(volumes(tmp_path, [thin]), slices=8, size=16, directory=tmp_path / "s")) == 3
    with pytest.raises(UserError, match="everywhere"):
        open_slices(volumes(tmp_path, [np.zeros((8, 8, 4), np.float32)]), size=16, directory=tmp_path / "s")


def test_the_order_in_which_axes_are_stored_makes_no_difference(tmp_path):
    volume = np.random.default_rng(2).normal(100, 10, (12, 14, 10)).astype(np.float32)
    other = np.ascontiguousarray(volume[::-1, :, ::-1].transpose(2, 0, 1))
    turned = np.array([[0, -1, 0, 11], [0, 0, 1, 0], [-1, 0, 0, 9], [0, 0, 0, 1]], float)
    found = open_slices(volumes(tmp_path, [volume, other], [np.eye(4), turned]), size=16, directory=tmp_path / "s")
    assert np.array_equal(found.images[:8], found.images[8:])
    assert found.row_digests[:8].tolist() == found.row_digests[8:].tolist()


def test_axial_planes_are_shown_with_anterior_on_top_and_the_right_on_the_left(tmp_path):
    volume = np.zeros((16, 16, 3), np.float32)
    volume[12:, 12:] = 50  # right, anterior
    volume[0, 0] = 1
    image = open_slices(volumes(tmp_path, [volume]), size=16, directory=tmp_path / "s").images[0, 0]
    assert image[:4, :4].min() == 50
    assert image[-1, -1] == 1


def test_kspace_is_the_root_sum_of_squares_of_its_coils(tmp_path):
    draw = np.random.default_rng(0)
    samples = (draw.normal(size=(4, 2, 16, 16)) + 1j * draw.normal(size=(4, 2, 16, 16))).astype(np.complex64)
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(samples, axes=(2, 3)), norm="ortho"), axes=(2, 3))
    expected = np.sqrt((np.abs(coils) ** 2).sum(axis=1))
    np.save(tmp_path / "k.npy", samples)
    found = open_slices(kspace(tmp_path / "k.npy", axes="schw"), slices=2, size=16, directory=tmp_path / "s")
    np.testing.assert_allclose(found.images[:, 0], expected[[1, 3]], rtol=1e-5)
    samples[2, 0, 3, 3] = np.nan
    np.save(tmp_path / "k.npy", samples)
    with pytest.raises(UserError, match=r"k\.npy: slice 2"):
        open_slices(kspace(tmp_path / "k.npy", axes="schw"), directory=tmp_path / "s")


def test_what_was_read_is_found_again_and_never_stale(tmp_path):
    manifest = pictures(tmp_path, [np.full((16, 16), 7, np.uint8)])
    first = open_slices(manifest, size=16, directory=tmp_path / "s")
    place = first.images.filename
    assert open_slices(manifest, size=16, directory=tmp_path / "s").images.filename == place
    Image.fromarray(np.full((16, 16), 9, np.uint8)).save(tmp_path / "p0.png")
    os.utime(tmp_path / "p0.png", ns=(1, 1))
    again = open_slices(manifest, size=16, directory=tmp_path / "s")
    assert float(again.images.max()) == 9
    assert again.content != first.content
    os.truncate(again.images.filename, 100)  # damaged
    assert open_slices(manifest, size=16, directory=tmp_path / "s").content == again.content


def test_the_same_pixels_have_the_same_digest_wherever_they_lie(tmp_path):
    images = [np.full((16, 16), value, np.uint8) for value in (3, 4)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = open_slices(pictures(tmp_path / "a", images, "one"), size=16, directory=tmp_path / "s")
    other = open_slices(pictures(tmp_path / "b", images[::-1], "other"), size=16, directory=tmp_path / "s")
    assert one.row_digests.tolist() == other.row_digests.tolist()[::-1]
    assert one.content != other.content
    assert other.take([1, 0]).content == one.take([0, 1]).content


def test_grey_pictures_among_colours_get_three_equal_channels(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = np.stack([grey, grey[::-1], grey.T], axis=-1)
    found = open_slices(pictures(tmp_path, [grey, colour, grey]), size=16, directory=tmp_path / "s")
    assert found.channels == ("red", "green", "blue")
    assert np.array_equal(found.images[0], np.stack([grey] * 3))
    assert np.array_equal(found.images[1], np.moveaxis(colour, -1, 0))
    saved_in_colour = open_slices(pictures(tmp_path, [np.stack([grey] * 3, -1)]), size=16, directory=tmp_path / "s")
    assert saved_in_colour.channels == ("image",)


def test_who_a_slice_belongs_to(tmp_path):
    images = [np.full((16, 16), value, np.uint8) for value in range(4)]
    known = {"subject": ["anna", None, None, "anna"], "group": [None, "g1", None, None]}
    about = {"label": ["x", None, None, "y"], "scanner": [None, "s", None, None]}
    found = open_slices(pictures(tmp_path, images, **known, **about), size=16, directory=tmp_path / "s")
    assert found.subjects.tolist() == ["tiny:anna", "tiny:g1", "tiny:p2", "tiny:anna"]
    assert found.labels.tolist() == ["x", "", "", "y"]
    assert found.scanners.tolist() == ["", "s", "", ""]
    assert found.notes == ("tiny: the subject of 1 of 4 samples is not known; each counts as its own",)


def test_rows_and_channels_can_be_chosen(tmp_path):
    found = open_slices(phantom(subjects=2, slices=2, size=32, contrast=["t1", "t2"]), size=32, directory=tmp_path)
    part = found.take(found.subjects == "phantom:phantom-0001")
    assert len(part) == 2
    assert np.array_equal(part.images, found.images[2:])
    assert part.row_digests.tolist() == found.row_digests[2:].tolist()
    t2 = found.with_channels(["t2"])
    assert t2.channels == ("t2",)
    assert np.array_equal(t2.images, found.images[:, 1:])
    assert t2.content != found.content
    with pytest.raises(UserError, match="did you mean 't1'"):
        found.with_channels(["t1c"])


def test_values_that_are_not_finite_are_named(tmp_path):
    volume = ball()
    volume[5, 5, 20] = np.nan
    with pytest.raises(UserError, match=r"v1\.nii: 1 of its 19,200 values are NaN or infinite"):
        open_slices(volumes(tmp_path, [ball(), volume]), size=16, directory=tmp_path / "s")


@pytest.mark.parametrize(("options", "said"), [({"slices": 0}, "slices: is 0"), ({"size": 8}, "size: is 8")])
def test_impossible_options_are_refused(tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        open_slices(phantom(subjects=1), directory=tmp_path, **options)


def test_spread_takes_the_middles_of_equal_parts():
    assert spread(0, 10, 5) == [1, 3, 5, 7, 9]
    assert spread(3, 6, 8) == [3, 4, 5]
    assert spread(10, 110, 1) == [60]


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return open_slices(
        phantom(subjects=3, slices=2, size=96, contrast="t1"), size=96, directory=tmp_path_factory.mktemp("heads")
    )


def test_the_foreground_is_the_head_and_not_the_noise_around_it(heads):
    inside = foreground(heads.images)
    assert (inside.mean(axis=(1, 2)) > 0.25).all()
    assert (inside.mean(axis=(1, 2)) < 0.75).all()
    for image, mask in zip(heads.images[:, 0], inside, strict=True):
        assert not mask[:4, :4].any()
        assert mask[48, 48]
        assert image[mask].mean() > 5 * image[~mask].mean()


@pytest.mark.parametrize("change", [lambda v: v * 1000, lambda v: v / 1000, lambda v: v**1.5, lambda v: v**0.7])
def test_the_foreground_hardly_depends_on_intensities(heads, change):
    images = np.asarray(heads.images, np.float64)
    changed = change(images / images.max())
    before, after = foreground(images), foreground(changed)
    assert (before & after).sum() / (before | after).sum() > 0.97


def test_a_brain_cut_out_of_its_background_is_found_whatever_the_background_is():
    image = np.full((1, 1, 32, 32), -3.0)
    image[0, 0, 8:24, 8:24] = np.random.default_rng(0).normal(0, 1, (16, 16)).clip(-2.5)
    inside = foreground(image)[0]
    assert inside[9:23, 9:23].all()
    assert not inside[:6].any()


def test_a_picture_of_one_value_is_all_foreground():
    assert foreground(np.zeros((1, 1, 16, 16))).all()
    assert foreground(np.full((1, 2, 16, 16), 5.0)).all()
    assert air_threshold(np.zeros(10)) == np.inf


def test_ranks_are_those_of_the_inside_alone():
    values = np.array([[3.0, 9.0], [1.0, 3.0]])
    inside = np.array([[True, False], [True, True]])
    assert ranks(values, inside).tolist() == [[2.5 / 3, 0.0], [1 / 3, 2.5 / 3]]
