"""MRAugment's geometry: the published order and conventions, alike for real parts, imaginary parts and coils."""

import numpy as np
import pytest
import scipy.ndimage
import torch
import torchvision.transforms.functional as TF  # noqa: N812  (torchvision's own convention)
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.augment.kspace import MRAugment
from mrtransfer.augment.kspace_geometry import MRParams
from mrtransfer.physics.coils import combine, rss

PLANE = (-2, -1)
SHAPES = [(24, 24), (26, 20), (21, 27)]


def images(n=1, coils=2, shape=(24, 24), seed=0, dtype=torch.complex128):
    return torch.randn(n, coils, *shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def only(n=1, **values):
    """Identity parameters but for ``values``, the same for all slices."""
    base = MRParams.identity(n)
    return base.changed(
        **{
            name: torch.as_tensor(value).to(getattr(base, name)).expand_as(getattr(base, name))
            for name, value in values.items()
        }
    )


def drawn(n, shape, seed=0, **settings):
    return MRAugment(strength=1, **settings).sample(n, shape, 1.0, torch.Generator().manual_seed(seed))


def placed(image, shape):
    """The centre of (C, h, w), cropped or reflected to ``shape``."""
    for axis in (1, 2):
        first = (image.shape[axis] - shape[axis - 1]) // 2
        if first < 0:
            border = [(0, 0)] * 3
            border[axis] = (-first, shape[axis - 1] - image.shape[axis] + first)
            image, first = np.pad(image, border, mode="reflect"), 0
        image = image.take(range(first, first + shape[axis - 1]), axis)
    return image


def step_by_step(image, params, row):
    """One slice (C, H, W), one change after another, as published; interpolated by SciPy."""
    shape = image.shape[1:]
    image = image[:, :, ::-1] if params.hflip[row] else image
    image = image[:, ::-1] if params.vflip[row] else image
    image = placed(np.rot90(image, int(params.rot90[row]), axes=(1, 2)), shape)
    down, right = params.translate[row].tolist()
    image = np.pad(image, ((0, 0), (abs(down), abs(down)), (abs(right), abs(right))), mode="reflect")
    image = image[:, abs(down) - down :, abs(right) - right :][:, : shape[0], : shape[1]]
    matrix = back(float(params.rotate[row]), params.shear[row].tolist(), float(params.scale[row]))
    middle = (np.array(shape) - 1) / 2
    options = {"offset": middle - matrix @ middle, "order": 1, "mode": "mirror"}
    return np.stack([scipy.ndimage.affine_transform(coil, matrix, **options) for coil in image])


def back(rotate, shear, scale):
    """Where an offset (rows, columns) comes from, with x to the right and y down."""
    turn, (x, y) = np.deg2rad(rotate), np.tan(np.deg2rad(shear))
    anticlockwise = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    forward = anticlockwise @ np.array([[1, 0], [-y, 1]]) @ np.array([[1, -x], [0, 1]]) * scale
    return np.linalg.inv(forward)[::-1, ::-1]


def test_identity_parameters_change_no_bit():
    before = images(3)
    assert torch.equal(MRAugment.apply(before, MRParams.identity(3)), before)
    assert not MRParams.identity(3).changes.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_flips_and_half_turns_are_the_pixels_themselves(shape):
    before = images(2, shape=shape, dtype=torch.complex64)
    assert torch.equal(MRAugment.apply(before, only(2, hflip=True)), before.flip(-1))
    assert torch.equal(MRAugment.apply(before, only(2, vflip=True)), before.flip(-2))
    assert torch.equal(MRAugment.apply(before, only(2, rot90=2)), torch.rot90(before, 2, PLANE))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_go_anticlockwise_and_so_do_degrees(turns):
    before = images(2)
    expected = torch.rot90(before, turns, PLANE)
    assert torch.equal(MRAugment.apply(before, only(2, rot90=turns)), expected)
    turned = MRAugment.apply(before, only(2, rotate=90.0 * turns))
    torch.testing.assert_close(turned, expected)


@pytest.mark.parametrize("shape", [(26, 20), (20, 26), (21, 16)])
@pytest.mark.parametrize("turns", [1, 3])
def test_a_quarter_turn_that_does_not_fit_keeps_its_centre_and_is_reflected_around_it(shape, turns):
    before = images(1, shape=shape)
    after = MRAugment.apply(before, only(rot90=turns))
    assert after.shape == before.shape
    expected = placed(np.rot90(before[0].numpy(), turns, axes=(1, 2)), shape)
    np.testing.assert_array_equal(after[0].numpy(), expected)


@pytest.mark.parametrize(("down", "right"), [(3, 0), (-2, 0), (0, 4), (0, -1), (5, -3)])
def test_a_translation_moves_down_and_right_and_reflects_at_the_border(down, right):
    before = images(1, shape=(20, 18))
    after = MRAugment.apply(before, only(translate=(down, right)))[0]
    rows = np.abs(np.arange(20) - down)
    columns = np.abs(np.arange(18) - right)
    rows, columns = np.minimum(rows, 38 - rows), np.minimum(columns, 34 - columns)
    assert torch.equal(after, before[0][:, rows][:, :, columns])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("change", [{"rotate": 33.0}, {"shear": (9.0, 0.0)}, {"shear": (0.0, -12.0)}, {"scale": 0.78}])
def test_each_interpolating_change_is_scipys_affine_map_up_to_the_border(shape, change):
    before, params = images(1, shape=shape), only(**change)
    after = MRAugment.apply(before, params)[0].numpy()
    np.testing.assert_allclose(after, step_by_step(before[0].numpy(), params, 0), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_changes_together_are_the_published_steps_one_after_another(shape):
    before, params = images(12, shape=shape, seed=1), drawn(12, shape, max_translate=(0.3, 0.25))
    after = MRAugment.apply(before, params).numpy()
    assert params.changes.all()
    for row in range(12):
        np.testing.assert_allclose(after[row], step_by_step(before[row].numpy(), params, row), atol=1e-9)


def test_rotation_shear_and_scale_are_torchvisions_affine_map_away_from_the_border():
    smooth = scipy.ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((1, 2, 40, 40)), (0, 0, 2, 2))
    before, params = torch.from_numpy(smooth).to(torch.complex64), only(rotate=-20.0, shear=(8.0, -5.0), scale=1.1)
    bilinear = TF.InterpolationMode.BILINEAR
    expected = TF.affine(before.real, 20.0, [0, 0], 1.1, [8.0, -5.0], interpolation=bilinear)
    after = MRAugment.apply(before, params).real
    inner = (..., slice(10, -10), slice(10, -10))
    torch.testing.assert_close(after[inner], expected[inner], atol=1e-5, rtol=0)


def test_the_affine_parts_are_composed_into_one_interpolation():
    before = images(1, shape=(32, 32), seed=3)
    together = MRAugment.apply(before, only(rotate=45.0, scale=1.2))
    twice = MRAugment.apply(MRAugment.apply(before, only(scale=1.2)), only(rotate=45.0))
    assert together.abs().square().mean() > 1.2 * twice.abs().square().mean()  # interpolating noise twice blurs it more


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), upsample=st.sampled_from([1, 2]))
@settings(max_examples=25, deadline=None)
def test_augmentation_is_linear_and_moves_real_and_imaginary_parts_and_coils_alike(seed, shape, upsample):
    params = drawn(2, shape, seed, upsample=upsample)
    a, b = images(2, 3, shape, seed), images(2, 3, shape, seed + 1)
    apply = MRAugment.apply
    torch.testing.assert_close(apply(a + 2j * b, params), apply(a, params) + 2j * apply(b, params))
    assert torch.equal(apply(a.real + 0j, params).imag, torch.zeros(2, 3, *shape, dtype=torch.float64))
    for coil in range(3):
        alone = apply(a[:, coil : coil + 1], params)
        torch.testing.assert_close(apply(a, params)[:, coil : coil + 1], alone)


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), order=st.sampled_from([1, 3]))
@settings(max_examples=20, deadline=None)
def test_a_constant_image_stays_constant(seed, shape, order):
    flat = torch.full((2, 1, *shape), 2 - 1j, dtype=torch.complex128)
    for upsample in (1, 2):
        params = drawn(2, shape, seed, upsample=upsample, order=order)
        torch.testing.assert_close(MRAugment.apply(flat, params), flat)


@given(seed=st.integers(0, 10_000), row=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_every_slice_is_moved_on_its_own(seed, row):
    before = images(4, seed=seed)
    params = MRAugment().sample(4, (24, 24), 0.5, torch.Generator().manual_seed(seed))
    alone = MRAugment.apply(before[row : row + 1], params.take([row]))
    torch.testing.assert_close(MRAugment.apply(before, params)[row], alone[0], atol=1e-12, rtol=0)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_whole_pixel_changes_keep_values_and_energy_and_commute_with_combining_the_coils(seed):
    before, maps = images(3, 4, seed=seed), images(3, 4, seed=seed + 1)
    params = drawn(3, (24, 24), seed, translate=0).without_affine()
    after = MRAugment.apply(before, params)
    assert torch.equal(after.abs().flatten(1).sort(dim=1)[0], before.abs().flatten(1).sort(dim=1)[0])
    moved_rss = MRAugment.apply(rss(before)[:, None].to(torch.complex128), params)[:, 0].real
    torch.testing.assert_close(rss(after), moved_rss)
    combined = MRAugment.apply(combine(before, maps)[:, None], params)[:, 0]
    torch.testing.assert_close(combine(after, MRAugment.apply(maps, params)), combined)


def test_interpolated_coils_still_combine_to_about_the_moved_image():
    grid = torch.linspace(-1, 1, 48, dtype=torch.float64)
    smooth = torch.exp(-2 * (grid[:, None] ** 2 + grid**2))
    maps = torch.stack([torch.exp(1j * angle * grid).expand(48, 48) for angle in (0.5, 1.0, 2.0)])[None]
    params = only(rotate=17.0, shear=(5.0, -3.0), scale=0.9)
    after = rss(MRAugment.apply(maps * smooth, params))
    expected = MRAugment.apply((rss(maps * smooth))[:, None] + 0j, params)[:, 0].real
    torch.testing.assert_close(after, expected, atol=2e-3, rtol=0)


def test_a_finer_grid_keeps_more_of_the_detail_and_moves_whole_pixels_alone():
    before = images(1, shape=(32, 32), seed=5)
    coarse, fine = (
        MRAugment.apply(before, only(rotate=30.0).changed(upsample=factor, order=3)).abs().square().mean()
        for factor in (1, 3)
    )
    assert fine > coarse
    whole = only(hflip=True, translate=(2, -3)).changed(upsample=2)
    assert torch.equal(MRAugment.apply(before, whole), MRAugment.apply(before, whole.changed(upsample=1)))


@pytest.mark.parametrize("order", [1, 3])
def test_upsampling_enlarges_maps_and_reduces_as_published(order):
    before, params = images(1, shape=(20, 16), seed=6), only(rotate=25.0, scale=0.9)
    mode = {1: TF.InterpolationMode.BILINEAR, 3: TF.InterpolationMode.BICUBIC}[order]
    parts = torch.cat([before.real, before.imag])
    fine = TF.resize(parts, [40, 32], mode, antialias=False).numpy()
    fine = step_by_step(fine.reshape(-1, 40, 32), params, 0).reshape(fine.shape)
    expected = TF.resize(torch.from_numpy(fine), [20, 16], mode, antialias=False)
    after = MRAugment.apply(before, params.changed(upsample=2, order=order))
    torch.testing.assert_close(torch.cat([after.real, after.imag]), expected, atol=1e-9, rtol=0)


def test_single_precision_agrees_with_double_precision():
    before, params = images(6, shape=(64, 48)), drawn(6, (64, 48))
    single = MRAugment.apply(before.to(torch.complex64), params)
    assert single.dtype == torch.complex64
    assert (single - MRAugment.apply(before, params)).abs().max() < 1e-4 * before.abs().max()


def test_the_arguments_are_left_alone_and_their_number_is_checked():
    before = images(3)
    kept = before.clone()
    MRAugment.apply(before, drawn(3, (24, 24)))
    assert torch.equal(before, kept)
    with pytest.raises(ValueError, match="parameters for 2"):
        MRAugment.apply(before, MRParams.identity(2))
