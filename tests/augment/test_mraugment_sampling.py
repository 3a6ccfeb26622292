"""What MRAugment draws: the published schedule, weights and limits, and paired random streams."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mrtransfer.augment.kspace import MRAugment

FIELDS = ("hflip", "vflip", "rot90", "translate", "rotate", "shear", "scale")
SHAPE = (640, 368)


def draw(augment, n=4000, probability=0.5, seed=0, shape=SHAPE):
    return augment.sample(n, shape, probability, torch.Generator().manual_seed(seed))


def test_the_exponential_schedule_has_the_published_values():
    augment = MRAugment()
    for share, expected in ((0.1, 0.22), (0.2, 0.35), (0.5, 0.51), (0.9, 0.548)):
        assert augment.probability(round(share * 100), 100) == pytest.approx(expected, abs=0.006)
    for epoch in (0, 3, 17, 49):
        by_formula = 0.55 * (1 - math.exp(-5 * epoch / 50)) / (1 - math.exp(-5))
        assert augment.probability(epoch, 50) == pytest.approx(by_formula, rel=1e-12)
    assert augment.probability(50, 50) == pytest.approx(0.55, rel=1e-12)


def test_linear_and_constant_schedules_and_the_delay():
    linear = MRAugment(schedule="linear", strength=0.4, delay=10)
    assert [linear.probability(epoch, 50) for epoch in (0, 9, 10, 30, 50)] == pytest.approx([0, 0, 0, 0.2, 0.4])
    constant = MRAugment(schedule="constant", strength=0.3, delay=2)
    assert [constant.probability(epoch, 9) for epoch in range(4)] == [0, 0, 0.3, 0.3]
    exponential = MRAugment(delay=10)
    assert exponential.probability(10, 50) == 0
    assert exponential.probability(30, 50) == pytest.approx(MRAugment().probability(20, 40))
    assert MRAugment(delay=60).probability(55, 50) == 0  # a training that ends before the delay does


@given(
    schedule=st.sampled_from(["exponential", "linear", "constant"]),
    strength=st.floats(0, 1),
    delay=st.integers(0, 20),
    epochs=st.integers(1, 60),
)
def test_every_schedule_rises_within_its_limits(schedule, strength, delay, epochs):
    augment = MRAugment(schedule=schedule, strength=strength, delay=delay)
    values = [augment.probability(epoch, epochs) for epoch in range(epochs)]
    assert values == sorted(values)
    assert all(0 <= value <= strength + 1e-12 for value in values)


def test_each_transform_happens_with_its_weight_times_the_probability():
    params = draw(MRAugment())
    for name, weight in zip(FIELDS, (0.5, 0.5, 0.5, 1.0, 0.5, 1.0, 1.0), strict=True):
        value = getattr(params, name)
        happened = (value != (1 if name == "scale" else 0)).reshape(len(value), -1).any(dim=1)
        assert happened.double().mean().item() == pytest.approx(0.5 * weight, abs=0.03), name


def test_late_in_training_few_slices_stay_as_they_are_and_most_are_interpolated():
    params = draw(MRAugment(), n=20_000, probability=0.55)
    assert 1 - params.changes.double().mean().item() == pytest.approx(0.025, abs=0.004)
    assert params.warps.double().mean().item() == pytest.approx(0.85, abs=0.01)


def test_values_are_uniform_within_the_published_limits():
    params = draw(MRAugment(), probability=1.0)
    every = params.rot90[params.rot90 > 0]
    assert torch.bincount(every, minlength=4)[1:].double().div(len(every)).tolist() == pytest.approx(
        [1 / 3] * 3, abs=0.05
    )
    limits = {"rotate": (params.rotate, 180), "shear": (params.shear, 15), "scale": (params.scale - 1, 0.25)}
    for value, limit in limits.values():
        used = value[value != 0]
        assert used.abs().max().item() == pytest.approx(limit, rel=0.02)
        assert used.abs().max() <= limit
        assert used.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.05)
    assert abs(torch.corrcoef(params.shear.T)[0, 1].item()) < 0.06  # x and y are drawn apart


def test_trap_4_rows_and_columns_have_their_own_translation_limits():
    params = draw(MRAugment(max_translate=(0.125, 0.08)), probability=1.0)
    rows, columns = params.translate.abs().amax(dim=0).tolist()
    assert (rows, columns) == (79, 29)  # up to 640 · 0.125 and 368 · 0.08, whole pixels towards zero
    still = draw(MRAugment(max_translate=(0, 0.1)), probability=1.0).translate
    assert (still[:, 0] == 0).all()
    assert still[:, 1].abs().max() == 36
    assert not params.translate.is_floating_point()


def test_probability_zero_and_strength_zero_change_nothing():
    assert not draw(MRAugment(), probability=0.0).changes.any()
    assert not MRAugment(strength=0).active
    assert not MRAugment(**dict.fromkeys(FIELDS, 0.0)).active
    assert MRAugment().active


@given(seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6), row=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_trap_6_a_samples_draws_depend_on_its_seed_alone(seeds, row):
    row %= len(seeds)
    together = MRAugment().sample_each(seeds, SHAPE, 0.5)
    alone = MRAugment().sample_each([seeds[row]], SHAPE, 0.5)
    assert len(together) == len(seeds)
    for name in FIELDS:
        assert torch.equal(getattr(together, name)[row], getattr(alone, name)[0])


@given(seed=st.integers(0, 2**31), low=st.floats(0, 1), high=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_trap_6_arms_that_share_seeds_share_their_draws_whatever_their_settings(seed, low, high):
    low, high = sorted((low, high))
    rarely, often = (MRAugment().sample_each(range(seed, seed + 8), SHAPE, p) for p in (low, high))
    other = MRAugment(hflip=0, max_scale=0.1, upsample=2).sample_each(range(seed, seed + 8), SHAPE, high)
    for name in FIELDS:
        none = 1 if name == "scale" else 0
        happened = getattr(rarely, name) != none
        assert torch.equal(getattr(rarely, name)[happened], getattr(often, name)[happened])
    for name in ("vflip", "rot90", "translate", "rotate", "shear"):
        assert torch.equal(getattr(other, name), getattr(often, name))
    torch.testing.assert_close((other.scale - 1) * 2.5, often.scale - 1)


def test_the_same_generator_seed_gives_the_same_draws_and_the_global_stream_is_left_alone():
    state = torch.get_rng_state()
    first, second = draw(MRAugment(), n=5, seed=3), draw(MRAugment(), n=5, seed=3)
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in FIELDS)
    assert torch.equal(torch.get_rng_state(), state)


def test_trap_1_a_setting_that_nobody_reads_is_refused():
    for wrong in ("train_resolution", "max_train_resolution", "strengh", "max_translation_x"):
        with pytest.raises(ValidationError, match="unknown key"):
            MRAugment(**{wrong: 1})
    with pytest.raises(ValidationError, match="did you mean 'strength'"):
        MRAugment(strengh=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"strength": 1.1}, {"hflip": -0.1}, {"rotate": 2}, {"max_rotate": 200}, {"max_scale": 1}, {"max_shear": 60}),
        *(
            {"schedule": "cosine"},
            {"delay": -1},
            {"upsample": 0},
            {"order": 2},
            {"decay": 0},
            {"max_translate": (2, 0)},
        ),
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        MRAugment(**wrong)
