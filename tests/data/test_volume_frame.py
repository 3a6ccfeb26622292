"""Frames: a scan on its prepared grid and back, against closed forms, Pillow, SciPy and slow loops."""

import json
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from PIL import Image

from mrtransfer.data.volume import Frame, background_values, make_frame, nonzero_crop
from mrtransfer.data.volume.resample import axis_weights, resample, resample_classes

ORIENTATIONS = [
    (axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)
]  # the 48 ways to store one anatomy


def oblique(spacing=(1.0, 1.0, 1.0), degrees=(4.0, -7.0, 5.0), origin=(-30.0, 12.0, 55.0)):
    """A right-handed affine, turned a little about each axis."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = (a for a in range(3) if a != axis)
        about = np.eye(3)
        about[i, i] = about[j, j] = np.cos(angle)
        about[i, j], about[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ about
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag(spacing), origin
    return affine


def stored(volume, affine, axes, flips):
    """The same anatomy with its axes in another order and direction; nibabel keeps track of where it lies."""
    start = nib.orientations.axcodes2ornt("RAS")
    directions = np.column_stack([axes, [-1 if flip else 1 for flip in flips]])
    transform = nib.orientations.ornt_transform(start, directions)
    changed = nib.orientations.apply_orientation(volume, transform)
    return changed, affine @ nib.orientations.inv_ornt_aff(transform, volume.shape)


def coordinates(shape, affine):
    """RAS coordinates (X, Y, Z, 3) of every voxel's centre."""
    return apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1))


def ramp(points):
    """A linear function of the place in the patient."""
    return (0.5 * points[..., 0] - 0.8 * points[..., 1] + 0.3 * points[..., 2] + 7).astype(np.float32)


def smooth(points):
    """A field whose shortest wave is 40 mm."""
    x, y, z = np.moveaxis(points, -1, 0) * (2 * np.pi)
    return (np.sin(x / 40) * np.cos(y / 50) + np.sin(z / 45 + 1)).astype(np.float32)


class TestOrientation:
    @settings(max_examples=60, deadline=None)
    @given(
        orientation=st.sampled_from(ORIENTATIONS),
        seed=st.integers(0, 10),
        spacing=st.sampled_from([None, (1.5, 1.0, 2.5), (0.8, 0.9, 2.0)]),
        cropped=st.booleans(),
    )
    def test_one_anatomy_stored_in_any_orientation_is_prepared_alike(self, orientation, seed, spacing, cropped):
        draw = np.random.default_rng(seed)
        volume, affine = draw.normal(size=(7, 9, 5)).astype(np.float32), oblique((1.0, 0.9, 2.0))
        classes = draw.integers(0, 3, volume.shape).astype(np.uint8)
        crop = ((1, 2, 0), (6, 9, 4)) if cropped else None
        first = make_frame(volume.shape, affine, spacing=spacing, crop=crop)
        assert first.axes == (0, 1, 2)
        assert first.flips == (False, False, False)
        other, other_affine = stored(volume, affine, *orientation)
        frame = make_frame(other.shape, other_affine, spacing=spacing, crop=crop)
        np.testing.assert_array_equal(frame.image_to_prepared(other[None]), first.image_to_prepared(volume[None]))
        np.testing.assert_array_equal(
            frame.mask_to_prepared(stored(classes, affine, *orientation)[0]), first.mask_to_prepared(classes)
        )
        np.testing.assert_allclose(frame.prepared_affine, first.prepared_affine, atol=1e-9)
        maps = draw.random((2, *frame.prepared_shape)).astype(np.float32)
        for back, expected in zip(frame.to_original(maps), first.to_original(maps), strict=True):
            np.testing.assert_array_equal(back, stored(expected, affine, *orientation)[0])

    def test_axes_agree_with_nibabel(self):
        volume = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
        for orientation in ORIENTATIONS:
            other, affine = stored(volume, oblique(), *orientation)
            canonical = nib.as_closest_canonical(nib.Nifti1Image(other, affine))
            frame = make_frame(other.shape, affine)
            np.testing.assert_array_equal(frame.image_to_prepared(other[None])[0], canonical.get_fdata())
            np.testing.assert_allclose(frame.prepared_affine, canonical.affine, atol=1e-12)

    def test_an_image_of_one_slice_keeps_its_rows_and_columns(self):
        # Rows run to the back, columns to the left: as every picture of an axial slice does.
        affine = np.array([[0, -1.0, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        image = np.random.default_rng(0).normal(size=(3, 6, 8, 1)).astype(np.float32)
        frame = make_frame((6, 8, 1), affine)
        np.testing.assert_array_equal(frame.image_to_prepared(image), image)
        finer = make_frame((6, 8, 1), affine, spacing=(0.5, 0.5, 0.5))
        assert finer.prepared_shape == (12, 16, 1)


class TestUnchangedGrid:
    def test_image_mask_and_maps_are_only_moved(self):
        draw = np.random.default_rng(0)
        image = draw.normal(size=(2, 6, 7, 8)).astype(np.float32)
        mask = draw.integers(0, 4, (6, 7, 8)).astype(np.uint8)
        frame = make_frame(mask.shape, np.diag([-1.0, -1, 1, 1]), crop=((1, 0, 2), (5, 7, 6)))
        prepared = frame.image_to_prepared(image)
        np.testing.assert_array_equal(prepared, image[:, ::-1, ::-1, :][:, 1:5, :, 2:6])
        assert prepared.flags.c_contiguous
        np.testing.assert_array_equal(frame.mask_to_prepared(mask), mask[::-1, ::-1, :][1:5, :, 2:6])
        back = frame.to_original(prepared, outside=(-5, 3))
        expected = np.empty_like(image)
        expected[0], expected[1] = -5, 3
        expected[:, 1:5, :, 2:6] = image[:, 1:5, :, 2:6]  # the box is symmetric about x
        np.testing.assert_array_equal(back, expected)
        assert (frame.to_original(prepared)[:, 0] == 0).all()

    def test_a_spacing_that_gives_the_same_number_of_voxels_changes_nothing(self):
        volume = np.random.default_rng(0).normal(size=(1, 20, 20, 20)).astype(np.float32)
        frame = make_frame((20, 20, 20), np.eye(4), spacing=(1.01, 0.99, 1.0))
        np.testing.assert_array_equal(frame.image_to_prepared(volume), volume)

    def test_a_crop_outside_the_scan_is_a_mistake(self):
        for crop in (((0, 0, 0), (5, 5, 6)), ((2, 0, 0), (2, 5, 5)), ((-1, 0, 0), (5, 5, 5))):
            with pytest.raises(ValueError, match="crop from"):
                make_frame((5, 5, 5), np.eye(4), crop=crop)


class TestPlaceInThePatient:
    @pytest.mark.parametrize("spacing", [(1.7, 0.6, 1.0), (2.0, 2.0, 2.0), (0.5, 0.7, 3.1)])
    @pytest.mark.parametrize("orientation", [((0, 1, 2), (False,) * 3), ((2, 0, 1), (True, False, True))])
    def test_a_linear_ramp_survives_where_the_kernel_is_whole(self, spacing, orientation):
        affine = oblique((0.9, 1.1, 1.3))
        other, affine = stored(np.zeros((24, 26, 22)), affine, *orientation)
        shape = other.shape
        image = ramp(coordinates(shape, affine))[None]
        frame = make_frame(shape, affine, spacing=spacing, crop=((2, 1, 0), (23, 25, 22)))
        prepared = frame.image_to_prepared(image)[0]
        expected = ramp(coordinates(frame.prepared_shape, frame.prepared_affine))
        inner = tuple(slice(margin, -margin) for margin in (2 + int(2 / step) for step in spacing))
        assert prepared[inner].size > 0
        np.testing.assert_allclose(prepared[inner], expected[inner], atol=2e-4)
        # and the way back, from maps that are known on the prepared grid
        back = frame.to_original(expected[None])[0]
        box = tuple(slice(6, -6) for _ in range(3))
        np.testing.assert_allclose(back[box], image[0][box], atol=2e-4)

    def test_the_prepared_grid_covers_the_crop_face_to_face(self):
        affine = oblique((1.0, 2.0, 0.7))
        crop = ((3, 1, 5), (17, 12, 30))
        frame = make_frame((20, 14, 40), affine, spacing=(1.3, 1.3, 1.3), crop=crop)
        for prepared, original in (
            (np.array([-0.5] * 3), np.array(crop[0]) - 0.5),
            (np.array(frame.prepared_shape) - 0.5, np.array(crop[1]) - 0.5),
        ):
            np.testing.assert_allclose(
                apply_affine(frame.prepared_affine, prepared), apply_affine(affine, original), atol=1e-9
            )
        np.testing.assert_allclose(nib.affines.voxel_sizes(frame.prepared_affine), 1.3, rtol=0.06)

    @pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (0.7, 0.7, 0.7), (1.0, 1.0, 3.0)])
    def test_a_smooth_field_comes_back(self, spacing):
        affine = oblique()
        field = smooth(coordinates((60, 50, 40), affine))[None]
        frame = make_frame(field.shape[1:], affine, spacing=spacing)
        back = frame.to_original(frame.image_to_prepared(field))
        inner = (slice(None), *(slice(5, -5),) * 3)
        assert np.abs(back - field)[inner].max() < 0.05 * np.ptp(field)
        assert np.abs(back - field).mean() < 0.01 * np.ptp(field)

    def test_thick_slices_do_not_ring(self):
        image = np.zeros((1, 16, 16, 8), np.float32)
        image[..., 4] = 1  # one bright slice of 5 mm
        frame = make_frame((16, 16, 8), np.diag([1.0, 1, 5, 1]), spacing=(1.0, 1.0, 1.0))
        prepared = frame.image_to_prepared(image)[0]
        assert frame.prepared_shape == (16, 16, 40)
        assert prepared.min() == 0
        cubic = resample(image[0], (16, 16, 40), ("cubic",) * 3)
        assert cubic.min() < -0.05


class TestResampling:
    @pytest.mark.parametrize("size", [8, 12, 24, 40, 57])
    @pytest.mark.parametrize(("kernel", "pillow"), [("cubic", "BICUBIC"), ("linear", "BILINEAR")])
    def test_pillow_resamples_alike(self, size, kernel, pillow):
        picture = np.random.default_rng(0).normal(size=(24, 31)).astype(np.float32)
        expected = np.asarray(Image.fromarray(picture).resize((31, size), Image.Resampling[pillow]))
        # Where an axis shrinks by a fraction Pillow is off by up to a tenth of a voxel from row to row, and we are not.
        np.testing.assert_allclose(axis_weights(24, size, kernel) @ picture, expected, atol=1e-5)

    @given(st.integers(10, 60), st.integers(3, 90), st.sampled_from(["linear", "cubic"]))
    def test_a_linear_function_is_reproduced_inside(self, size, new_size, kernel):
        weights = axis_weights(size, new_size, kernel).astype(float)
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
        reach = (2 if kernel == "cubic" else 1) * max(1, size / new_size)
        inside = (centres >= reach) & (centres <= size - 1 - reach)
        np.testing.assert_allclose((weights @ np.arange(size))[inside], centres[inside], atol=1e-4)

    def test_each_axis_has_its_own_kernel_and_size(self):
        volume = np.random.default_rng(0).normal(size=(6, 9, 7)).astype(np.float32)
        kernels, shape = ("cubic", "linear", "linear"), (9, 5, 7)
        weights = [axis_weights(n, m, k).astype(float) for n, m, k in zip(volume.shape, shape, kernels, strict=True)]
        expected = np.einsum("ai,bj,ck,ijk->abc", *weights, volume.astype(float))
        np.testing.assert_allclose(resample(volume, shape, kernels), expected, atol=1e-5)

    def test_what_the_coarse_grid_cannot_hold_is_not_folded_into_it(self):
        fast = np.cos(np.pi * 0.9 * np.arange(80))[:, None, None] * np.ones((1, 2, 2), np.float32)
        assert np.abs(resample(fast, (20, 2, 2), ("cubic",) * 3))[2:-2].max() < 0.02
        assert np.abs(fast[::4]).max() > 0.9  # as plain subsampling would

    @settings(max_examples=40, deadline=None)
    @given(
        st.tuples(*[st.integers(1, 9)] * 3),
        st.tuples(*[st.integers(1, 9)] * 3),
        st.integers(0, 1000),
    )
    def test_classes_go_to_the_largest_share(self, old, new, seed):
        classes = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 5], old).astype(np.uint8)
        result = resample_classes(classes, new)
        shares = np.stack([resample(classes == k, new, ("linear",) * 3, smooth=False).astype(float) for k in range(6)])
        if old == new:
            np.testing.assert_array_equal(result, classes)
        assert result.dtype == np.uint8
        assert result.shape == new
        chosen = np.take_along_axis(shares, result[None].astype(int), axis=0)[0]
        np.testing.assert_allclose(chosen, shares.max(axis=0), atol=3e-5)
        # on a tie the lower class wins
        assert (result <= (shares > shares.max(axis=0) - 1e-7).argmax(axis=0)).all()

    def test_small_structures_keep_more_than_by_smoothing(self):
        draw = np.random.default_rng(0)
        classes = np.zeros((60, 60, 40), np.uint8)
        for x, y, z in draw.integers(2, (56, 56, 36), (100, 3)):
            classes[x : x + 3, y : y + 3, z : z + 3] = 1
        kept = resample_classes(classes, (40, 40, 20)).mean() / classes.mean()
        smoothed = (resample(classes, (40, 40, 20), ("linear",) * 3) > 0.5).mean() / classes.mean()
        assert kept > 1.05 * smoothed > 0.5

    def test_maps_on_a_finer_grid_are_read_where_the_voxels_are(self):
        frame = make_frame((10, 10, 10), np.eye(4), spacing=(0.5, 0.5, 0.5))
        maps = np.random.default_rng(0).random((1, 20, 20, 20)).astype(np.float32)
        blocks = maps[0].reshape(10, 2, 10, 2, 10, 2)  # a voxel's centre is the corner that eight finer ones share
        np.testing.assert_allclose(frame.to_original(maps)[0], blocks.mean(axis=(1, 3, 5)), atol=1e-6)

    def test_a_ball_keeps_its_volume_and_place(self):
        affine = oblique((1.0, 1.0, 3.0))
        points = coordinates((50, 50, 18), affine)
        centre = points[25, 24, 9]
        ball = (np.linalg.norm(points - centre, axis=-1) < 13).astype(np.uint8)
        frame = make_frame(ball.shape, affine, spacing=(1.0, 1.0, 1.0))
        prepared = frame.mask_to_prepared(ball)
        volume = prepared.sum() * abs(np.linalg.det(frame.prepared_affine[:3, :3]))
        assert volume == pytest.approx(4 / 3 * np.pi * 13**3, rel=0.06)
        found = coordinates(frame.prepared_shape, frame.prepared_affine)[prepared > 0].mean(axis=0)
        np.testing.assert_allclose(found, points[ball > 0].mean(axis=0), atol=0.1)
        indicator = np.stack([prepared == 0, prepared == 1]).astype(np.float32)
        back = frame.to_original(indicator, outside=(1, 0)).argmax(axis=0)
        assert 2 * (back & ball).sum() / (back.sum() + ball.sum()) > 0.95


class TestCrop:
    def test_the_box_holds_all_that_is_not_background(self):
        image = np.zeros((2, 8, 9, 10), np.float32)
        image[0, 2:5, 3, 4:8] = 1
        image[1, 3, 3:7, 5] = -2
        assert nonzero_crop(image, np.eye(4)) == ((2, 3, 4), (5, 7, 8))
        assert nonzero_crop(image, np.diag([-1.0, 1, 1, 1])) == ((3, 3, 4), (6, 7, 8))
        assert nonzero_crop(0 * image, np.eye(4)) == ((0, 0, 0), (8, 9, 10))

    def test_background_need_not_be_zero(self):
        image = np.full((1, 8, 8, 8), -0.4, np.float32)
        image[0, 2:4, 3:6, 1:7] = 1
        assert nonzero_crop(image, np.eye(4)) == ((2, 3, 1), (4, 6, 7))
        assert background_values(image) == np.float32(-0.4)
        image[0, 0, 0, 0] = 5  # a corner that is not background: nothing is known about it
        assert background_values(image) == 0
        assert nonzero_crop(image, np.eye(4)) == ((0, 0, 0), (8, 8, 8))


def test_a_frame_survives_json():
    frame = make_frame((5, 6, 7), oblique((1, 2, 3)), spacing=(1, 1, 1), crop=((0, 1, 2), (4, 6, 7)))
    again = Frame.from_json(json.loads(json.dumps(frame.to_json())))
    assert again.to_json() == frame.to_json()
    assert (again.axes, again.flips, again.crop, again.prepared_shape) == (
        frame.axes,
        frame.flips,
        frame.crop,
        frame.prepared_shape,
    )
    image = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(again.image_to_prepared(image), frame.image_to_prepared(image))
    without = make_frame((5, 6, 7), np.eye(4))
    assert Frame.from_json(without.to_json()).spacing is None
