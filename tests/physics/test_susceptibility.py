"""The main field around magnetised bodies."""

import numpy as np
import pytest

from mrtransfer.physics.susceptibility import field_shift, shimmed

N, RADIUS = 64, 8.0


@pytest.fixture(scope="module")
def places():
    axis = np.arange(N) - N // 2
    return np.meshgrid(axis, axis, axis, indexing="ij")


def test_a_sphere_is_a_dipole_outside_and_unshifted_inside(places):
    z, y, x = places
    r = np.sqrt(x**2 + y**2 + z**2)
    edge = np.clip(RADIUS - r + 0.5, 0, 1)  # a smooth surface: partial volume
    field = field_shift(9.0 * edge, (1.0, 1.0, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        closed = 9 / 3 * (RADIUS / r) ** 3 * (3 * (z / r) ** 2 - 1)
    shell = (r > 12) & (r < 20)
    assert np.abs(field - closed)[shell].max() < 0.06 * np.abs(closed[shell]).max()
    assert np.abs(field[r < 5]).max() < 0.05


def test_spacing_scales_space(places):
    z, y, x = places
    body = np.sqrt(x**2 + y**2 + (2.0 * z) ** 2) < 12  # a sphere on slices twice as thick
    field = field_shift(body.astype(np.float32), (2.0, 1.0, 1.0))
    assert np.abs(field[np.sqrt(x**2 + y**2 + (2.0 * z) ** 2) < 8]).max() < 0.03


def test_a_cylinder_along_the_field_shifts_the_inside_by_a_third(places):
    _, y, x = places
    inside = np.hypot(x, y) < 12
    field = field_shift(inside.astype(np.float32), (1.0, 1.0, 1.0))
    # Its ends meet at the array's edges, so it is endless: the mean over the array, a third of its share, is taken out.
    assert field[inside].mean() == pytest.approx((1 - inside.mean()) / 3, abs=1e-3)


def test_a_shim_removes_solid_harmonics_and_nothing_else():
    rng = np.random.default_rng(0)
    inside = rng.random((12, 14, 16)) < 0.5
    z, y, x = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / 16 for n in inside.shape), indexing="ij")
    smooth = 3 + x - 2 * y + 0.5 * z + x * y - 3 * y * z + 2 * (x**2 - y**2) + (2 * z**2 - x**2 - y**2)
    assert np.abs(shimmed(smooth.astype(np.float32), inside)).max() < 1e-4
    rough = rng.standard_normal(inside.shape).astype(np.float32)
    left = shimmed(rough, inside)
    assert np.square(left[inside]).sum() < np.square(rough[inside]).sum()
    np.testing.assert_allclose(shimmed(left + smooth.astype(np.float32), inside), left, atol=1e-4)
