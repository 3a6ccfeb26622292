"""Signal equations against closed forms, limits and a Bloch simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrtransfer.physics.signal import (
    ernst_angle,
    gradient_echo,
    inversion_recovery,
    null_inversion_time,
    relaxation_with_agent,
    spin_echo,
)

TIMES = st.floats(min_value=20, max_value=5000)


def bloch_steady_state(t1, tr, flip, pulses=4000):
    """Longitudinal magnetisation before a pulse and the signal after it, pulse by pulse, transverse part spoiled."""
    m, angle = 1.0, np.deg2rad(flip)
    for _ in range(pulses):
        signal = m * np.sin(angle)
        m = 1 + (m * np.cos(angle) - 1) * np.exp(-tr / t1)
    return signal


def test_spin_echo_shows_the_proton_density_at_long_tr_and_short_te():
    assert spin_echo(0.8, 900, 80, tr=1e6, te=0) == pytest.approx(0.8)


def test_spin_echo_is_weighted_by_t1_and_t2():
    assert spin_echo(1, 500, 100, tr=500, te=0) == pytest.approx(1 - np.exp(-1))
    assert spin_echo(1, 500, 100, tr=1e6, te=100) == pytest.approx(np.exp(-1))


@pytest.mark.parametrize(("t1", "tr", "flip"), [(800, 20, 15), (1200, 250, 75), (300, 10, 30)])
def test_gradient_echo_is_the_steady_state_of_the_bloch_equations(t1, tr, flip):
    assert gradient_echo(1, t1, 1e9, tr=tr, te=1e-6, flip=flip) == pytest.approx(
        bloch_steady_state(t1, tr, flip), rel=1e-6
    )


def test_a_90_degree_gradient_echo_is_a_spin_echo():
    expected = spin_echo(0.7, 900, 60, tr=500, te=9)
    assert gradient_echo(0.7, 900, 60, tr=500, te=9, flip=90) == pytest.approx(expected)


@given(t1=TIMES, tr=st.floats(min_value=2, max_value=500))
def test_no_flip_angle_is_brighter_than_the_ernst_angle(t1, tr):
    flips = np.linspace(0.5, 90, 180)
    best = gradient_echo(1, t1, 50, tr=tr, te=2, flip=float(ernst_angle(t1, tr=tr)))
    assert best >= max(gradient_echo(1, t1, 50, tr=tr, te=2, flip=f) for f in flips) - 1e-12


@given(t1=TIMES, tr=st.floats(min_value=500, max_value=20000))
def test_inversion_recovery_is_dark_at_the_null(t1, tr):
    assert inversion_recovery(1, t1, 100, tr=tr, te=0, ti=float(null_inversion_time(t1, tr=tr))) == pytest.approx(
        0, abs=1e-9
    )


def test_the_null_is_at_t1_ln_2_for_long_tr():
    assert null_inversion_time(1000, tr=1e6) == pytest.approx(1000 * np.log(2))


def test_inversion_recovery_begins_inverted_and_ends_recovered():
    assert inversion_recovery(1, 800, 100, tr=1e6, te=0, ti=0, signed=True) == pytest.approx(-1)
    assert inversion_recovery(1, 800, 100, tr=1e6, te=0, ti=1e5, signed=True) == pytest.approx(1)
    assert inversion_recovery(1, 800, 100, tr=1e6, te=0, ti=0) == pytest.approx(1)


def test_contrast_agent_adds_rates():
    # 1/T1' = 1/1 s + 4 /(s mM) · 0.25 mM = 2 /s
    assert relaxation_with_agent(1000, relaxivity=4.0, concentration=0.25) == pytest.approx(500)
    assert relaxation_with_agent(700, relaxivity=4.0, concentration=0) == pytest.approx(700)


def test_arguments_broadcast():
    assert spin_echo(np.ones(3), np.full((2, 1), 800.0), 90.0, tr=500, te=10).shape == (2, 3)
