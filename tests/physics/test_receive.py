"""Receive coils: the field of loops, and arrays of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.physics.receive import CoilArray, loop_field, receive_maps


def biot_savart(point, radius, segments=4000):
    """The field at ``point`` of a polygon of ``segments`` straight wires around the z axis, for μ₀I = 1."""
    angle = 2 * np.pi * (np.arange(segments) + 0.5) / segments
    wire = radius * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    element = 2 * np.pi * radius / segments * np.stack([-np.sin(angle), np.cos(angle), 0 * angle], axis=1)
    way = np.asarray(point) - wire
    return (np.cross(element, way) / np.linalg.norm(way, axis=1, keepdims=True) ** 3).sum(axis=0) / (4 * np.pi)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 150), st.floats(-120, 120), st.floats(20, 90))
def test_a_loop_has_the_field_of_biot_and_savart(rho, z, radius):
    if np.hypot(rho - radius, z) < 6:
        return  # in the conductor
    radial, axial = loop_field(rho, z, radius)
    x, _, up = biot_savart((rho, 0, z), radius)
    scale = np.hypot(x, up)
    assert radial == pytest.approx(x, abs=1e-5 * scale)
    assert axial == pytest.approx(up, abs=1e-5 * scale)


def test_on_its_axis_a_loop_has_the_textbook_field():
    z = np.linspace(-100, 100, 9)
    radial, axial = loop_field(0.0, z, 40.0)
    np.testing.assert_allclose(axial, 40**2 / (2 * (40**2 + z**2) ** 1.5), rtol=1e-6)
    assert np.abs(radial).max() < 1e-3 * axial.min()


def test_the_field_stays_finite_in_the_wire():
    rho = np.linspace(30, 50, 201)
    assert all(np.isfinite(part).all() for part in loop_field(rho, 0.0, 40.0))
    assert np.abs(loop_field(rho, 0.0, 40.0)[1]).max() < 0.1


def test_sensitivity_is_bx_minus_i_by():
    # A loop in the plane x = -50 whose current makes a field along +x on its axis; at the origin, 50 mm away.
    array = CoilArray(np.array([[-50.0, 0, 0]]), np.array([[1.0, 0, 0]]), np.array([40.0]), np.array([1 + 0j]))
    on_axis = 40**2 / (2 * (40**2 + 50**2) ** 1.5)
    assert array.sensitivities(0.0, 0.0, 0.0)[0] == pytest.approx(on_axis)
    turned = CoilArray(np.array([[0, -50.0, 0]]), np.array([[0, 1.0, 0]]), np.array([40.0]), np.array([1 + 0j]))
    assert turned.sensitivities(0.0, 0.0, 0.0)[0] == pytest.approx(-1j * on_axis)
    along_field = CoilArray(np.array([[0, 0, -50.0]]), np.array([[0, 0, 1.0]]), np.array([40.0]), np.array([1 + 0j]))
    assert abs(along_field.sensitivities(0.0, 0.0, 0.0)[0]) < 1e-6 * on_axis  # a field along z is not seen


@pytest.mark.parametrize("coils", [2, 4, 8, 12, 16, 32])
def test_maps_are_smooth_differ_and_see_everything(coils):
    maps = receive_maps(coils, (48, 40), (200.0, 160.0), 10.0, np.random.default_rng(3))
    assert maps.shape == (coils, 48, 40)
    assert maps.dtype == np.complex64
    inner = maps[:, 12:36, 10:30]
    seen = np.sqrt((np.abs(inner) ** 2).sum(axis=0))
    assert seen.min() > 0.5
    assert np.abs(np.diff(inner, axis=1)).max() < 0.25 * seen.max()
    shapes = inner.reshape(coils, -1)
    shapes = shapes / np.linalg.norm(shapes, axis=1, keepdims=True)
    overlap = np.abs(shapes @ shapes.conj().T) - np.eye(coils)
    assert overlap.max() < 0.999


def test_every_coil_is_strongest_on_its_own_side():
    array = CoilArray.around(8, (120.0, 140.0), np.random.default_rng(0))
    towards = 0.6 * array.centres
    seen = np.abs(array.sensitivities(towards[:, 0], towards[:, 1], towards[:, 2]))
    assert (seen.argmax(axis=0) == np.arange(8)).all()


def test_one_coil_sees_the_body_evenly():
    maps = receive_maps(1, (40, 40), (200.0, 200.0), 0.0, np.random.default_rng(1))
    body = np.abs(maps[0, 12:28, 12:28])
    assert body.max() / body.min() < 1.5
    assert np.angle(maps[0, 12:28, 12:28] / maps[0, 20, 20]).std() < 0.2


def test_the_same_generator_state_gives_the_same_array_and_another_another():
    one, same, other = (
        receive_maps(4, (16, 16), (200.0, 200.0), 0.0, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other, atol=0.01)


def test_no_coils_are_refused():
    with pytest.raises(ValueError, match="0 coils"):
        CoilArray.around(0, (100.0, 100.0), np.random.default_rng(0))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0, 0.9))
def test_noise_correlation_is_a_correlation(seed, share):
    array = CoilArray.around(6, (110.0, 110.0), np.random.default_rng(seed))
    place = np.random.default_rng(seed).uniform(-60, 60, (3, 50))
    found = array.noise_correlation(*place, share=share)
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-6)
    np.testing.assert_allclose(found, found.conj().T, atol=1e-12)
    assert np.linalg.eigvalsh(found).min() >= (1 - share) - 1e-6
    assert np.abs(found - np.eye(6)).max() <= share + 1e-6
