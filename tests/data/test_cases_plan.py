"""The plan: sizes that fit the data and the machine, JSON that may be edited, one sentence for every wrong key."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.fingerprint import Fingerprint, Intensities, Spread
from mrtransfer.data.cases.geometry import halvings, largest_patch, target_spacing
from mrtransfer.data.cases.plan import SegmentationPlan, make_plan


def seen(shape, spacing=(1.0, 1.0, 1.0), *, cases=100, channels=("flair", "t1ce"), removed=False, uint8=False, **more):
    """The fingerprint of cases that are all alike."""
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]
    intensities = Intensities(mean=1, deviation=1, low=0, median=1, high=3)
    return Fingerprint(
        **{
            "cases": cases, "labelled": cases, "channels": channels, "shape": Spread.of([shape]),
            "spacing": Spread.of([spacing]), "extent": Spread.of([extent]), "background_share": 0.0,
            "background_removed": removed, "uint8": uint8, "intensities": dict.fromkeys(channels, intensities),
            "class_voxels": {"background": 97, "tumour": 3}, "class_cases": {"background": cases, "tumour": cases},
            **more,
        }
    )  # fmt: skip


def test_small_volumes_are_seen_whole():
    plan = make_plan(seen((35, 50, 35), channels=("t1",)))
    assert plan.dims == 3
    assert plan.patch == (40, 56, 40)
    assert plan.batch == 8
    assert plan.features == (32, 64, 128, 256)
    assert plan.strides == ((2, 2, 2),) * 3
    assert plan.normalise == ("zscore",)
    assert plan.class_frequencies == {"background": 0.97, "tumour": 0.03}


def test_large_brains_are_seen_in_cubes_of_the_memory_and_cropped():
    plan = make_plan(seen((140, 172, 138), removed=True))
    assert plan.patch == (80, 80, 80)
    assert (plan.batch, plan.features) == (2, (16, 32, 64, 128, 256))
    assert (plan.crop, plan.normalise) == ("nonzero", ("zscore_nonzero", "zscore_nonzero"))
    assert plan.spacing == (1, 1, 1)
    larger = make_plan(seen((140, 172, 138)), memory=32)
    assert math.prod(larger.patch) == pytest.approx(4.0 * 2**20, rel=0.2)


def test_thick_slices_keep_their_number_until_the_plane_is_as_coarse():
    plan = make_plan(seen((320, 280, 22), (0.75, 0.75, 5.0)))
    assert plan.patch[2] in (20, 22, 24)
    assert plan.strides[:2] == ((2, 2, 1), (2, 2, 1))
    assert plan.strides[2] == (2, 2, 2)


def test_slices_make_a_2d_plan_that_fits_timm_encoders():
    plan = make_plan(seen((250, 200, 1), uint8=True, channels=("red", "green", "blue")))
    assert (plan.dims, plan.patch, plan.spacing) == (2, (256, 224, 1), None)
    assert plan.normalise == ("uint8",) * 3
    assert plan.batch == 16
    assert all(stride == (2, 2, 1) for stride in plan.strides)


def test_volumes_may_be_seen_slice_by_slice():
    plan = make_plan(seen((140, 172, 138)), dims=2)
    assert plan.patch == (160, 192, 1)
    with pytest.raises(UserError, match="plan: dims is 3, and the network is for 2-D; leave one of them out"):
        make_plan(seen((140, 172, 138)), dims=2, overrides={"dims": 3})


class TestSpacing:
    def test_is_the_median_to_three_digits_so_that_folds_agree(self):
        assert target_spacing((0.93751, 0.93754, 1.2), (0.9, 0.9, 1.0), (180, 180, 180)) == (0.938, 0.938, 1.2)
        assert target_spacing((0.93799, 0.93804, 1.2), (0.9, 0.9, 1.0), (180, 180, 180)) == (0.938, 0.938, 1.2)

    def test_thick_slices_are_interpolated_as_finely_as_the_finest_tenth_has_them(self):
        assert target_spacing((0.5, 0.5, 5.0), (0.4, 0.4, 3.0), (200, 200, 100)) == (0.5, 0.5, 3.0)
        assert target_spacing((5.0, 0.5, 0.5), (0.1, 0.4, 0.4), (100, 200, 200)) == (0.5, 0.5, 0.5)

    def test_many_or_slightly_thicker_slices_are_not_thick(self):
        assert target_spacing((0.5, 0.5, 5.0), (0.4, 0.4, 3.0), (50, 50, 500))[2] == 5
        assert target_spacing((1.0, 1.0, 2.9), (0.4, 0.4, 1.0), (200, 200, 50))[2] == 2.9

    def test_single_slices_have_no_thickness(self):
        assert target_spacing((0.5, 0.5, 5.0), (0.4, 0.4, 3.0), (200, 200, 5.0))[2] == 5


sizes = st.tuples(*[st.integers(1, 400)] * 3)
widths = st.tuples(*[st.floats(0.2, 8)] * 3)


@given(sizes, widths, st.sampled_from([2, 3, None]), st.sampled_from([0.5, 4, 20]))
@settings(max_examples=150, deadline=None)
def test_every_plan_fits_together(shape, spacing, dims, memory):
    found = make_plan(seen(shape, spacing), dims=dims, memory=memory)
    step = memory * 2**18
    least, most, share = (2, 8, 2) if found.dims == 3 else (4, 16, 4)
    multiple = [math.prod(stride[a] for stride in found.strides) for a in range(3)]
    smallest = math.prod(multiple) if found.dims == 3 else 32 * 32
    assert math.prod(found.patch) <= max(step / share, smallest)
    assert least <= found.batch <= most
    assert found.batch == least or found.batch * math.prod(found.patch) <= step
    assert found.patch[2] == 1 or found.dims == 3
    prepared = [max(1, round(n * s / w)) for n, s, w in zip(shape, spacing, found.spacing, strict=True)]
    for axis, (length, whole, step) in enumerate(zip(found.patch, prepared, multiple, strict=True)):
        assert length % step == 0
        assert length < whole + (32 if found.dims == 2 and axis < 2 else step)
    assert len(found.features) == len(found.strides) + 1 <= 6
    assert SegmentationPlan.from_json(json.loads(json.dumps(found.to_json()))) == found


@given(sizes, widths)
@settings(deadline=None)
def test_maps_are_halved_until_they_are_about_4_wide(size, spacing):
    strides = halvings(size, spacing)
    last, widest = list(size), list(spacing)
    for stride in strides:
        assert 2 in stride
        for axis in range(3):
            if stride[axis] == 2:
                assert last[axis] >= 8
                last[axis], widest[axis] = math.ceil(last[axis] / 2), widest[axis] * 2
    assert len(strides) == 5 or all(length < 8 for length in last)


@given(sizes, widths, st.integers(1, 10**6))
def test_the_largest_patch_is_inside_both_bounds_and_near_them(shape, spacing, voxels):
    patch = largest_patch(shape, spacing, voxels)
    assert all(1 <= length <= whole for length, whole in zip(patch, shape, strict=True))
    assert math.prod(patch) <= voxels
    if math.prod(shape) <= voxels:
        assert patch == shape
    cut = [a for a in range(3) if 1 < patch[a] < shape[a]]
    edges = [patch[a] * spacing[a] for a in cut]
    assert all(abs(x - y) <= max(spacing) for x in edges for y in edges)


class TestOverrides:
    def test_what_is_not_given_is_made_to_fit(self):
        plan = make_plan(seen((140, 172, 138)), overrides={"patch": [96, 64, 48]})
        assert plan.patch == (96, 64, 48)
        assert plan.strides == ((2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 1))
        assert len(plan.features) == 5
        assert make_plan(seen((140, 172, 138)), overrides={"features": [8, 16, 32]}).strides == ((2, 2, 2),) * 2
        two = make_plan(seen((140, 172, 138)), overrides={"strides": [[1, 1, 1], [2, 2, 2]]})
        assert (two.features, two.patch) == ((16, 32, 64), (80, 80, 80))
        coarse = make_plan(seen((140, 172, 138)), overrides={"spacing": [2, 2, 2]})
        assert coarse.patch == (80, 96, 64)
        assert make_plan(seen((35, 50, 35)), overrides={"batch": 3, "foreground": 0.5}).batch == 3

    def test_one_normalisation_stands_for_all_channels(self):
        plan = make_plan(seen((35, 50, 35)), overrides={"normalise": "zscore_nonzero"})
        assert plan.normalise == ("zscore_nonzero", "zscore_nonzero")

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"pach": [8, 8, 8]}, "plan: unknown key 'pach': did you mean 'patch'"),
            ({"patch": [8, 8]}, r"plan: patch: \[8, 8\] has 2 numbers; three are needed, for X, Y and Z"),
            ({"patch": "8"}, "plan: patch: Input should be a valid tuple"),
            ({"patch": [8, 8, 0]}, "plan: patch.2: Input should be greater than or equal to 1"),
            ({"normalise": "z-score"}, "plan: normalise.0: Input should be 'zscore'"),
            (
                {"normalise": ["zscore"]},
                r"plan: normalise has 1 entries, and the images have 2 channels \(flair, t1ce\)",
            ),
            ({"patch": [33, 33, 33], "strides": [[2, 2, 2]], "features": [8, 16]}, "plan: patch: is 33 voxels along X"),
            ({"strides": [[2, 2, 2]], "features": [8, 16, 32]}, "plan: strides: has 1 entries for 3 levels"),
            ({"dims": 2, "patch": [32, 32, 4]}, "plan: patch: has 4 slices, and dims is 2"),
            ({"spacing": [1, 1, float("nan")]}, "plan: spacing.2: Input should be a finite number"),
            ({"spacing": [1, 1, -1]}, "plan: spacing.2: Input should be greater than 0"),
            ({"batch": 0}, "plan: batch: Input should be greater than or equal to 1"),
        ],
    )
    def test_wrong_ones_are_one_sentence(self, overrides, message):
        with pytest.raises(UserError, match=message) as error:
            make_plan(seen((35, 50, 35)), overrides=overrides)
        assert "\n" not in str(error.value)


class TestFile:
    def plan(self):
        return make_plan(seen((140, 172, 138)))

    def test_what_was_saved_is_loaded(self, tmp_path):
        self.plan().save(tmp_path / "plan.json")
        assert SegmentationPlan.load(tmp_path / "plan.json") == self.plan()

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("version", 2, r"version: Input should be 1 \(given: 2\)"),
            ("dims", 4, r"dims: Input should be 2 or 3 \(given: 4\)"),
            ("spacing", [1, 1], r"spacing: \[1, 1\] has 2 numbers; three are needed"),
            ("crop", "brain", r"crop: Input should be 'nonzero' or 'none' \(given: 'brain'\)"),
            ("normalise", [], "normalise: Tuple should have at least 1 item"),
            ("patch", [80, 80, 81], "patch: is 81 voxels along Z, .* it must be a multiple of 16, such as 80"),
            ("batch", "two", "batch: Input should be a valid integer"),
            ("features", [16, 0], "features.1: Input should be greater than or equal to 1"),
            ("strides", [[2, 2]] * 4, r"strides: \[2, 2\] has 2 numbers; three are needed"),
            ("strides", [[2, 2, 2]], "strides: has 1 entries for 5 levels of features; it must have 4"),
            ("foreground", 1.5, r"foreground: Input should be less than or equal to 1 \(given: 1.5\)"),
            ("class_frequencies", {"a": 0.2}, "class_frequencies: the shares of all classes sum to 0.2"),
            ("Patch", [80, 80, 80], "unknown key 'Patch': did you mean 'patch'"),
        ],
    )
    def test_each_wrong_key_is_named_with_the_file(self, tmp_path, key, value, message):
        file = tmp_path / "plan.json"
        file.write_text(json.dumps({**self.plan().to_json(), key: value}))
        with pytest.raises(UserError, match=f"plan.json: {message}"):
            SegmentationPlan.load(file)

    def test_a_missing_key_a_missing_file_and_no_plan_at_all(self, tmp_path):
        file = tmp_path / "plan.json"
        with pytest.raises(UserError, match=r"plan.json: no such plan"):
            SegmentationPlan.load(file)
        file.write_text("[1]")
        with pytest.raises(UserError, match=r"plan.json: must be a JSON object with the keys version, dims"):
            SegmentationPlan.load(file)
        file.write_text("{")
        with pytest.raises(UserError, match=r"plan.json is not valid JSON"):
            SegmentationPlan.load(file)
        left = self.plan().to_json()
        del left["crop"]
        file.write_text(json.dumps(left))
        with pytest.raises(UserError, match=r"plan.json: crop: Field required"):
            SegmentationPlan.load(file)


def test_the_data_key_names_what_changes_stored_voxels_and_nothing_else():
    plan = make_plan(seen((140, 172, 138)))
    for change in ({"batch": 3}, {"foreground": 0.1}, {"patch": (64, 64, 64)}, {"class_frequencies": {}}):
        assert plan.model_copy(update=change).data_key == plan.data_key
    for change in ({"spacing": (1, 1, 2)}, {"crop": "nonzero"}, {"normalise": ("zscore", "zscore_nonzero")}):
        assert plan.model_copy(update=change).data_key != plan.data_key


def test_nnunets_rule_for_thick_slices():
    """The rule as the paper words it, on random medians."""
    random = np.random.default_rng(0)
    for _ in range(300):
        median, tenth = random.uniform(0.3, 6, 3), random.uniform(0.3, 6, 3)
        voxels = random.uniform(5, 400, 3)
        worst = int(median.argmax())
        others = np.delete(np.arange(3), worst)
        expected = median.copy()
        if median[worst] > 3 * median[others].max() and voxels[worst] * 3 < voxels[others].min():
            expected[worst] = max(tenth[worst], median[others].max())
        np.testing.assert_allclose(target_spacing(median, tenth, voxels * median), expected, rtol=6e-3)
