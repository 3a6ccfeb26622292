"""Segmentation metrics agree with MONAI, with slow loops, and with the rule for empty masks."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mrtransfer.common.errors import UserError
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation import metrics as own
from mrtransfer.tasks.segmentation.extent import bounding_box, common_box
from mrtransfer.tasks.segmentation.surface import hd95, surface, surface_dice, surface_distances

BRATS = MaskLabels.create(
    {"necrosis": 1, "oedema": 2, "enhancing": 4},
    {"whole": ["necrosis", "oedema", "enhancing"], "core": ["necrosis", "enhancing"], "enhancing": ["enhancing"]},
)
BINARY = MaskLabels.binary()
SPACING = (0.9, 1.1, 2.5)


def blobs(shape, seed, *, classes=3, threshold=0.6):
    """Smooth random shapes: class 0 … ``classes``."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), [1.5 if n > 1 else 0 for n in shape])
    return np.digitize(field / field.std(), np.linspace(threshold, threshold + 1, classes)).astype(np.uint8)


def slow_surface(mask):
    found = []
    for index in zip(*np.nonzero(mask), strict=True):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                other = list(index)
                other[axis] += step
                outside = not 0 <= other[axis] < mask.shape[axis]
                if mask.shape[axis] > 1 and (outside or not mask[tuple(other)]):
                    found.append(index)
    return np.array(sorted(set(found))).reshape(-1, mask.ndim)


def slow_distances(predicted, reference, spacing):
    """All pairs of surface voxels; the diagonal of the grid where there is no counterpart."""
    a, b = slow_surface(predicted) * np.array(spacing), slow_surface(reference) * np.array(spacing)
    far = math.sqrt(sum((n * s) ** 2 for n, s in zip(predicted.shape, spacing, strict=True) if n > 1))
    pairs = np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))
    return (
        (pairs.min(1) if len(b) else np.full(len(a), far)) if len(a) else np.zeros(0),
        (pairs.min(0) if len(a) else np.full(len(b), far)) if len(b) else np.zeros(0),
    )


@pytest.mark.parametrize("shape", [(14, 12, 9), (20, 17, 1), (3, 30, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_surface_distances_are_those_of_all_pairs(shape, seed):
    predicted, reference = (blobs(shape, [seed, k], classes=1).astype(bool) for k in (0, 1))
    for found, slow in zip(
        surface_distances(predicted, reference, SPACING), slow_distances(predicted, reference, SPACING), strict=True
    ):
        np.testing.assert_allclose(found, slow, atol=1e-9)


def test_both_ways_to_a_distance_agree(monkeypatch):
    from mrtransfer.tasks.segmentation import surface as module

    predicted, reference = (blobs((30, 28, 20), k, classes=1).astype(bool) for k in (0, 1))
    found = []
    for voxels in (0, 10**9):
        monkeypatch.setattr(module, "_VOXELS_PER_QUERY", voxels)
        found.append(surface_distances(predicted, reference, SPACING))
    for tree, transform in zip(*found, strict=True):
        np.testing.assert_allclose(tree, transform, atol=1e-9)


@pytest.mark.parametrize("shape", [(26, 22, 14), (40, 36, 1)])
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0])
def test_surface_metrics_agree_with_monai(shape, tolerance):
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    predicted, reference = (blobs(shape, k, classes=1).astype(bool) for k in (3, 4))
    flat = [axis for axis, size in enumerate(shape) if size > 1]
    spacing = [SPACING[axis] for axis in flat]
    a, b = (torch.from_numpy(mask.squeeze())[None, None] for mask in (predicted, reference))
    expected = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=spacing)
    distances = surface_distances(predicted, reference, SPACING)
    assert hd95(*distances) == pytest.approx(expected.item(), rel=1e-6)
    shares = compute_surface_dice(a, b, class_thresholds=[tolerance], include_background=True, spacing=spacing)
    assert surface_dice(*distances, tolerance) == pytest.approx(shares.item(), abs=1e-6)


def test_overlap_agrees_with_monai_and_scikit_learn():
    import sklearn.metrics as sk
    import torch
    from monai.metrics import DiceMetric

    predicted, reference = (blobs((20, 18, 12), k) for k in (5, 6))
    found = own.evaluate_case(predicted, reference, SPACING, BRATS)
    for region, member in zip(BRATS.region_names, BRATS.membership, strict=True):
        a, b = member[predicted], member[reference]
        dice = DiceMetric(include_background=True)
        dice(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
        assert found[f"{region}/dice"] == pytest.approx(dice.aggregate().item(), rel=1e-6)
        truth, guess = b.ravel(), a.ravel()
        expected = {
            "iou": sk.jaccard_score(truth, guess),
            "precision": sk.precision_score(truth, guess),
            "sensitivity": sk.recall_score(truth, guess),
            "specificity": sk.recall_score(~truth, ~guess),
            "accuracy": sk.accuracy_score(truth, guess),
        }
        for name, value in expected.items():
            assert found[f"{region}/{name}"] == pytest.approx(value), name
    for name in own.SEGMENTATION_METRICS:
        assert found[name] == pytest.approx(np.mean([found[f"{region}/{name}"] for region in BRATS.region_names]))


def test_every_metric_has_direction_range_and_words():
    names = set(own.SEGMENTATION_METRICS)
    assert names == set(own.HIGHER_IS_BETTER) == set(own.RANGES) == set(own.WORDS)
    assert set(own.evaluate_case(*np.zeros((2, 2, 2, 2), int), (1, 1, 1), BINARY)) == names | {
        f"tumour/{name}" for name in names
    }


def test_the_rule_for_empty_masks_is_that_of_brats():
    empty, one = np.zeros((240, 240, 155), np.uint8), np.zeros((240, 240, 155), np.uint8)
    one[100:104, 100:104, 70:74] = 1
    both = own.evaluate_case(empty, empty, (1, 1, 1), BINARY)
    assert all(both[name] == (0 if name == "hd95" else 1) for name in own.SEGMENTATION_METRICS)
    for predicted, reference in ((empty, one), (one, empty)):
        found = own.evaluate_case(predicted, reference, (1, 1, 1), BINARY)
        assert found["hd95"] == pytest.approx(373.1287, abs=1e-4)  # the number that BraTS prints
        for name in ("dice", "iou", "precision", "sensitivity", "nsd", "lesion_f1"):
            assert found[name] == 0, name
    for word in ("1", "0 mm", "diagonal", "Dice"):
        assert word in own.EMPTY_RULE


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0, 1), other=st.floats(0, 1), flat=st.booleans())
def test_metrics_are_never_nan_and_stay_in_their_range(seed, density, other, flat):
    rng = np.random.default_rng(seed)
    shape = (*rng.integers(1, 7, 2), 1 if flat else rng.integers(1, 5))
    predicted, reference = (rng.integers(1, 4, shape) * (rng.random(shape) < d) for d in (density, other))
    found = own.evaluate_case(predicted, reference, SPACING, BRATS)
    for name, value in found.items():
        low, high = own.RANGES[name.rpartition("/")[2]]
        assert low <= value <= high, name
        assert math.isfinite(value), name
    perfect = own.evaluate_case(reference, reference, SPACING, BRATS)
    assert all(perfect[name] == (0 if name == "hd95" else 1) for name in own.SEGMENTATION_METRICS)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_moving_and_mirroring_change_nothing(seed):
    predicted, reference = blobs((12, 10, 8), [seed, 0]), blobs((12, 10, 8), [seed, 1])
    predicted, reference = (np.pad(mask, 2) for mask in (predicted, reference))
    before = own.evaluate_case(predicted, reference, SPACING, BRATS)
    shifted = [np.roll(np.flip(mask, 1), (1, -2, 0), (0, 1, 2)) for mask in (predicted, reference)]
    after = own.evaluate_case(*shifted, SPACING, BRATS)
    for name, value in before.items():
        assert after[name] == pytest.approx(value, abs=1e-9), name


def test_hd95_scales_with_the_spacing():
    predicted, reference = (blobs((14, 12, 10), k, classes=1) for k in (7, 8))
    once = own.evaluate_case(predicted, reference, SPACING, BINARY)["hd95"]
    twice = own.evaluate_case(predicted, reference, 2 * np.array(SPACING), BINARY)["hd95"]
    assert twice == pytest.approx(2 * once)


def test_hd95_of_a_shifted_plane_is_the_shift():
    mask = np.zeros((20, 20, 20), bool)
    mask[4:8] = True
    assert hd95(*surface_distances(mask, np.roll(mask, 3, 0), (2.0, 1.0, 1.0))) == pytest.approx(6.0)


def test_a_subject_of_one_case_is_that_case():
    predicted, reference = (blobs((14, 12, 9), k) for k in (1, 2))
    alone = own.evaluate_case(predicted, reference, SPACING, BRATS)
    assert own.evaluate_subject([predicted], [reference], [SPACING], BRATS) == alone


def test_slices_of_a_subject_are_pooled_before_the_ratio():
    predicted, reference = (blobs((24, 20, 6), k, classes=1) for k in (1, 2))
    predicted[..., 2] = 0
    slices = [predicted[..., z : z + 1] for z in range(6)], [reference[..., z : z + 1] for z in range(6)]
    found = own.evaluate_subject(*slices, [SPACING] * 6, BINARY)
    volume = own.evaluate_case(predicted, reference, SPACING, BINARY)
    for name in ("dice", "iou", "precision", "sensitivity", "specificity", "accuracy"):
        assert found[name] == pytest.approx(volume[name])
    distances = [slow_distances(a.astype(bool), b.astype(bool), SPACING) for a, b in zip(*slices, strict=True)]
    pooled = [np.concatenate(direction) for direction in zip(*distances, strict=True)]
    assert found["hd95"] == pytest.approx(max(np.percentile(direction, 95) for direction in pooled))
    near = sum((direction <= 1).sum() for direction in pooled)
    assert found["nsd"] == pytest.approx(near / sum(map(len, pooled)))
    stacked = own.evaluate_subject(*slices, [SPACING] * 6, BINARY, stack=True)
    assert stacked == volume


def test_a_mask_in_one_slice_of_a_volume_is_not_a_2d_image():
    volume = np.zeros((8, 8, 5), np.uint8)
    volume[1:6, 1:6, 2] = 1
    assert surface(volume.astype(bool)).sum() == 25
    assert surface(volume[..., 2:3].astype(bool)).sum() == 16
    score = own.score_case(volume, volume, (1, 1, 1), BINARY)[0]
    assert len(score.to_reference) == 25


def test_bounding_boxes_are_tight():
    mask = np.zeros((6, 7, 8), bool)
    assert bounding_box(mask) is None
    assert common_box(mask, mask) is None
    mask[2, 3:5, 7] = True
    assert bounding_box(mask) == (slice(2, 3), slice(3, 5), slice(7, 8))
    assert common_box(mask, np.zeros_like(mask), margin=1) == (slice(1, 4), slice(2, 6), slice(6, 8))


@pytest.mark.parametrize(
    ("predicted", "reference", "spacing", "says"),
    [
        (np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int), (1, 1, 1), "do not fit"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), (1, 1), "right are equal"),
        (np.full((2, 2, 2), 7), np.zeros((2, 2, 2), int), (1, 1, 1), "prediction: holds class indices 7 … 7"),
        (np.zeros((2, 2, 2), int), np.zeros((2, 2, 2)), (1, 1, 1), "reference: holds float64"),
        (np.zeros((2, 2, 2), int), np.zeros((2, 2, 2), int), (1, 0, 1), "3 lengths in mm"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(predicted, reference, spacing, says):
    with pytest.raises(UserError, match=says):
        own.evaluate_case(predicted, reference, spacing, BRATS)


def test_subjects_without_cases_and_slices_that_differ_are_refused():
    with pytest.raises(UserError, match="no case"):
        own.evaluate_subject([], [], [], BINARY)
    masks = [np.zeros((4, 4, 1), int), np.zeros((5, 4, 1), int)]
    with pytest.raises(UserError, match="cannot be stacked"):
        own.evaluate_subject(masks, masks, [(1, 1, 1)] * 2, BINARY, stack=True)
    with pytest.raises(UserError, match="tolerance_mm"):
        own.evaluate_case(masks[0], masks[0], (1, 1, 1), BINARY, tolerance_mm=-1)


@pytest.mark.slow
def test_a_case_of_brats_size_takes_seconds():
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (240, 240, 155)], indexing="ij"))
    masks = []
    for seed, centre in enumerate(((100, 120, 80), (103, 121, 79))):
        radius = np.sqrt(((grid - np.array(centre)[:, None, None, None]) ** 2).sum(0))
        mask = np.digitize(-radius, [-45, -27, -18]).astype(np.uint8)
        masks.append(np.where(np.random.default_rng(seed).random(mask.shape) < 1e-4, 1, mask).astype(np.uint8))
    own.evaluate_case(*masks, (1, 1, 1), BRATS)
    start = time.process_time()
    own.evaluate_case(*masks, (1, 1, 1), BRATS)
    assert time.process_time() - start < 4  # 1 s on an idle core
