"""Sampling masks: fastMRI's for the same seed, and variable density."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mrtransfer.common.errors import UserError
from mrtransfer.physics.masks import (
    KINDS,
    Sampling,
    apply_mask,
    centre_lines,
    density,
    restrict,
    seed_of,
)

PUBLISHED = {
    "random": "RandomMaskFunc",
    "equispaced": "EquiSpacedMaskFunc",
    "equispaced_fraction": "EquispacedMaskFractionFunc",
    "magic": "MagicMaskFunc",
    "magic_fraction": "MagicMaskFractionFunc",
}
# What fastmri 0.3.0 draws: 32 columns, seed 7, 4× and 10 % | 33 columns, the seed of file1.h5, 4× 10 % or 6× 6 %.
KNOWN = {
    "random": ([0, 7, 13, 15, 16, 17, 19, 25], [8, 12, 14, 16, 17]),
    "equispaced": ([3, 7, 11, 15, 16, 17, 19, 23, 27, 31], [0, 6, 12, 16, 17, 18, 24, 30]),
    "equispaced_fraction": ([4, 10, 15, 16, 17, 21, 27], [6, 15, 16, 17, 24]),
    "magic": ([1, 5, 9, 13, 15, 16, 17, 21, 25, 29], [1, 7, 13, 16, 17, 23, 29]),
    "magic_fraction": ([3, 9, 15, 16, 17, 21, 27], [7, 16, 17, 23, 31]),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_columns_are_those_that_fastmri_is_known_to_draw(kind):
    one, two = KNOWN[kind]
    single = Sampling(mask=kind, acceleration=4, centre_fraction=0.1)
    assert np.flatnonzero(single.draw(32, 7).columns).tolist() == one
    several = Sampling(mask=kind, acceleration=(4, 6), centre_fraction=(0.1, 0.06))
    drawn = several.draw(33, seed_of("file1.h5"))
    assert np.flatnonzero(drawn.columns).tolist() == two
    assert (drawn.acceleration, drawn.centre) == (6, 2)


@pytest.mark.parametrize("kind", PUBLISHED)
@pytest.mark.parametrize(
    ("accelerations", "fractions"), [((4,), (0.08,)), ((8,), (0.04,)), ((4, 8), (0.08, 0.04)), ((2, 3, 5), (0.1,) * 3)]
)
def test_the_columns_are_those_of_the_fastmri_package(kind, accelerations, fractions):
    subsample = pytest.importorskip("fastmri.data.subsample")
    published = getattr(subsample, PUBLISHED[kind])(fractions, accelerations)
    sampling = Sampling(mask=kind, acceleration=accelerations, centre_fraction=fractions)
    seeds = [*range(8), 2**32 - 1, seed_of("file1000073.h5"), seed_of("file_brain_AXT2_200_2000019.h5")]
    for width in (31, 64, 180, 320, 368, 372, 640):
        for seed in seeds:
            mask, centre = published((1, width, 2), seed=seed)
            drawn = sampling.draw(width, seed)
            np.testing.assert_array_equal(drawn.columns, mask.numpy().ravel() > 0)
            assert drawn.centre == centre


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_chosen_acceleration_is_drawn_as_if_it_were_the_only_one(kind):
    several = Sampling(mask=kind, acceleration=(4, 8), centre_fraction=(0.08, 0.04))
    for choice, (acceleration, fraction) in enumerate([(4, 0.08), (8, 0.04)]):
        alone = Sampling(mask=kind, acceleration=acceleration, centre_fraction=fraction)
        for seed in range(5):
            drawn = several.draw(320, seed, choice=choice)
            np.testing.assert_array_equal(drawn.columns, alone.draw(320, seed).columns)
            assert drawn.acceleration == acceleration


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    width=st.integers(32, 400),
    acceleration=st.integers(1, 10),
    seed=st.one_of(st.integers(0, 2**63 - 1), st.tuples(st.integers(0, 2**40), st.integers(0, 9))),
)
def test_draws_keep_the_centre_and_depend_on_the_seed_alone(kind, width, acceleration, seed):
    fraction = 0.3 / acceleration
    sampling = Sampling(mask=kind, acceleration=acceleration, centre_fraction=fraction)
    drawn = sampling.draw(width, seed)
    assert drawn.columns.shape == (width,)
    assert drawn.columns.dtype == bool
    assert drawn.centre == round(width * fraction)
    kept = np.arange(width)[centre_lines(width, drawn.centre)]
    assert len(kept) == drawn.centre
    assert drawn.columns[kept].all()
    assert abs(kept.mean() - width // 2) <= 1
    np.testing.assert_array_equal(sampling.draw(width, seed).columns, drawn.columns)


def test_seeds_above_32_bits_differ():
    sampling = Sampling(mask="random", acceleration=4, centre_fraction=0.08)
    drawn = {sampling.draw(320, seed).columns.tobytes() for seed in (5, 2**32 + 5, 2**62 + 5, (5, 1), (1, 5))}
    assert len(drawn) == 4  # (5, 1) are the two 32-bit words of 2**32 + 5


@settings(max_examples=100, deadline=None)
@given(st.integers(16, 500), st.floats(1, 12), st.floats(0.01, 0.9))
def test_variable_density_expects_exactly_its_lines_and_falls_from_the_centre(width, acceleration, share):
    centre = max(int(share * width / acceleration), 1)
    probability = density(width, acceleration, centre)
    assert probability.sum() == pytest.approx(width / acceleration, rel=1e-9)
    assert probability.min() > 0
    assert probability.max() <= 1
    middle = width // 2
    assert (np.diff(probability[middle:]) <= 1e-12).all()
    assert (np.diff(probability[: middle + 1]) >= -1e-12).all()
    outside = np.ones(width, dtype=bool)
    outside[centre_lines(width, centre)] = False
    weight = (1 - np.abs(np.arange(width) - middle) / (middle + 1)) ** 3
    ratio = (probability / weight)[outside & (probability < 1)]
    np.testing.assert_allclose(ratio, ratio[:1].repeat(len(ratio)), rtol=1e-9)  # proportional where not certain


@pytest.mark.parametrize("kind", ["random", "variable_density"])
@pytest.mark.parametrize("acceleration", [1, 2.5, 4, 8])
def test_random_kinds_measure_the_asked_number_of_lines_on_average(kind, acceleration):
    sampling = Sampling(mask=kind, acceleration=acceleration, centre_fraction=0.04)
    draws = np.stack([sampling.draw(200, seed).columns for seed in range(600)])
    assert draws.sum(1).mean() == pytest.approx(200 / acceleration, abs=4 * np.sqrt(200 / acceleration / 600) + 1e-9)
    if kind == "variable_density":
        np.testing.assert_allclose(draws.mean(0), density(200, acceleration, 8), atol=0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"acceleration": 0.5}, "acceleration: must be 1 .* not 0.5"),
        ({"acceleration": (4, 0), "centre_fraction": (0.1, 0.1)}, "acceleration: must be 1"),
        ({"acceleration": float("nan")}, "acceleration: must be 1"),
        ({"acceleration": ()}, "acceleration: must be 1 .* not nothing"),
        ({"mask": "equispaced", "acceleration": 4.5}, "equispaced takes every n-th line, not 4.5"),
        ({"centre_fraction": 0}, "centre_fraction: must be above 0"),
        ({"centre_fraction": 1.1}, "centre_fraction: must be above 0 and at most 1, not 1.1"),
        ({"acceleration": (4, 8)}, "centre_fraction: give one per acceleration, not 1 for 2"),
        ({"mask": "equispace"}, "unknown mask 'equispace': did you mean 'equispaced'"),
        ({"center_fraction": 0.04}, "did you mean 'centre_fraction'"),
    ],
)
def test_impossible_settings_are_refused(changed, message):
    with pytest.raises(ValidationError, match=message):
        Sampling(**{"mask": "random", "acceleration": 8, "centre_fraction": 0.04, **changed})


@pytest.mark.parametrize("kind", KINDS)
def test_no_centre_line_is_refused(kind):
    with pytest.raises(UserError, match=r"0\.01 leaves no centre line; a width of 40 needs at least 0\.025"):
        Sampling(mask=kind, acceleration=4, centre_fraction=0.01).draw(40, 0)


@pytest.mark.parametrize("kind", ["random", "equispaced_fraction", "magic_fraction", "variable_density"])
def test_a_centre_that_leaves_nothing_to_sample_is_refused(kind):
    with pytest.raises(UserError, match="its 16 centre lines are already all that acceleration 8 allows"):
        Sampling(mask=kind, acceleration=8, centre_fraction=0.125).draw(128, 0)


def test_restrict_leaves_out_what_was_not_acquired():
    columns = np.ones(10, dtype=bool)
    assert restrict(columns, None).all()
    assert np.flatnonzero(restrict(columns, (2, 7))).tolist() == [2, 3, 4, 5, 6]
    assert columns.all()


def test_apply_mask_zeroes_the_columns_of_each_item():
    kspace = torch.randn(2, 3, 4, 6, dtype=torch.complex64)
    columns = torch.rand(2, 6) > 0.5
    masked = apply_mask(kspace, columns)
    for item in range(2):
        expected = kspace[item].clone()
        expected[..., ~columns[item]] = 0
        assert torch.equal(masked[item], expected)
        assert torch.equal(apply_mask(kspace[item], columns[item]), expected)
    with pytest.raises(UserError, match="the mask has 5 columns, but the k-space has 6"):
        apply_mask(kspace, columns[:, :5])
