"""Losses agree with MONAI and with slow loops in float64, their gradients with finite differences."""

import numpy as np
import pytest
import torch

from mrtransfer.common.errors import UserError
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation import losses as own
from mrtransfer.tasks.segmentation.outputs import own_classes, region_counts

BRATS = MaskLabels.create(
    {"necrosis": 1, "oedema": 2, "enhancing": 4},
    {
        "whole tumour": ["necrosis", "oedema", "enhancing"],
        "tumour core": ["necrosis", "enhancing"],
        "enhancing tumour": ["enhancing"],
    },
)
SHAPE = (5, 4, 3)


def example(name, labels=BRATS, *, samples=3, dtype=torch.float64, seed=0, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, own.outputs(name, labels), *shape, generator=generator, dtype=dtype)
    target = torch.randint(0, len(labels.names), (samples, *shape), generator=generator)
    target[0] = target[0].clamp(max=1)  # one sample without most classes
    return logits, target.to(torch.uint8)


def slow(name, logits, target, labels):
    """Every loss from its formula, voxel by voxel, in float64."""
    z, truth = logits.double().numpy(), target.numpy()
    found = []
    for sample in range(len(z)):
        voxels = [(z[(sample, slice(None), *index)], truth[(sample, *index)]) for index in np.ndindex(truth.shape[1:])]
        if name == "region":
            p = np.array([1 / (1 + np.exp(-v)) for v, _ in voxels])
            g = np.array([[labels.names[t] in members for _, members in labels.regions] for _, t in voxels], float)
        else:
            p = np.array([np.exp(v) / np.exp(v).sum() for v, _ in voxels])
            g = np.eye(p.shape[1])[[t for _, t in voxels]]
        first = 0 if name == "region" else 1
        terms = {"ce": 0.0, "dice": 0.0, "focal": 0.0}
        for (_, t), row, truth_row in zip(voxels, p, g, strict=True):
            if name == "region":
                terms["ce"] -= np.mean(truth_row * np.log(row) + (1 - truth_row) * np.log(1 - row)) / len(voxels)
            else:
                terms["ce"] -= np.log(row[t]) / len(voxels)
        channels = range(first, p.shape[1])
        for c in channels:
            tp, fn, fp = sum(p[:, c] * g[:, c]), sum((1 - p[:, c]) * g[:, c]), sum(p[:, c] * (1 - g[:, c]))
            terms["dice"] += (1 - (2 * tp + 1e-5) / (2 * tp + fn + fp + 1e-5)) / len(channels)
            terms["focal"] += (1 - (tp + 1e-5) / (tp + 0.7 * fn + 0.3 * fp + 1e-5)) ** 0.75 / len(channels)
        used = {
            "dice_ce": ("ce", "dice"), "region": ("ce", "dice"), "cross_entropy": ("ce",), "dice": ("dice",),
            "focal_tversky": ("focal",),
        }[name]  # fmt: skip
        found.append(sum(terms[term] for term in used))
    return np.mean(found)


@pytest.mark.parametrize("name", own.LOSSES)
def test_losses_are_their_formulas(name):
    logits, target = example(name)
    assert own.build_loss(name, BRATS)(logits, target).item() == pytest.approx(
        slow(name, logits, target, BRATS), rel=1e-9
    )


@pytest.mark.parametrize("name", own.LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    logits, target = example(name, samples=2, shape=(2, 2, 2))
    loss = own.build_loss(name, BRATS)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits.requires_grad_())


@pytest.mark.parametrize("name", own.LOSSES)
def test_the_loss_of_a_batch_is_the_mean_of_its_samples(name):
    logits, target = example(name, samples=4)
    loss = own.build_loss(name, BRATS)
    parts = [loss(logits[i : i + 1], target[i : i + 1]).item() for i in range(4)]
    assert loss(logits, target).item() == pytest.approx(np.mean(parts), rel=1e-12)


def test_losses_agree_with_monai():
    from monai.losses import DiceCELoss, DiceLoss, TverskyLoss

    logits, target = example("dice", dtype=torch.float32)
    index = target.long()[:, None]
    options = {"to_onehot_y": True, "softmax": True, "include_background": False}
    torch.testing.assert_close(own.build_loss("dice", BRATS)(logits, target), DiceLoss(**options)(logits, index))
    torch.testing.assert_close(
        own.build_loss("dice_ce", BRATS, ce_weight=0.5)(logits, target),
        DiceCELoss(**options, lambda_ce=0.5)(logits, index),
    )
    tversky = TverskyLoss(**options, alpha=0.3, beta=0.7, reduction="none")(logits, index)
    torch.testing.assert_close(own.build_loss("focal_tversky", BRATS)(logits, target), (tversky**0.75).mean())
    logits, target = example("region", dtype=torch.float32)
    there = torch.from_numpy(BRATS.membership)[:, target.long()].transpose(0, 1).float()
    expected = DiceLoss(sigmoid=True)(logits, there) + torch.nn.BCEWithLogitsLoss()(logits, there)
    torch.testing.assert_close(own.build_loss("region", BRATS)(logits, target), expected)


def test_focal_tversky_with_equal_weights_and_gamma_one_is_dice():
    logits, target = example("dice")
    focal = own.build_loss("focal_tversky", BRATS, alpha=0.5, beta=0.5, gamma=1.0, smooth=0.0)
    torch.testing.assert_close(focal(logits, target), own.build_loss("dice", BRATS, smooth=0.0)(logits, target))


def test_alpha_punishes_what_was_missed():
    labels, target = MaskLabels.binary(), torch.zeros(1, 4, 4, 1, dtype=torch.uint8)
    target[0, :2] = 1
    logits = torch.full((1, 2, 4, 4, 1), -5.0)
    logits[:, 0] = 5.0
    missed = logits.clone()
    missed[0, :, 0] = missed[0, :, 0].flip(0)  # half of the tumour is found
    beyond = logits.clone()
    beyond[0, :, :4] = beyond[0, :, :4].flip(0)  # all of it, and as much again
    loss = own.build_loss("focal_tversky", labels)
    assert loss(missed, target) > loss(beyond, target)


@pytest.mark.parametrize("name", own.LOSSES)
@pytest.mark.parametrize("empty", [False, True])
def test_a_perfect_certain_prediction_costs_nothing_and_has_a_finite_gradient(name, empty):
    _, target = example(name)
    target = torch.zeros_like(target) if empty else target
    if name == "region":
        there = torch.from_numpy(BRATS.membership)[:, target.long()].transpose(0, 1)
    else:
        there = torch.nn.functional.one_hot(target.long(), 4).movedim(-1, 1).bool()
    logits = torch.where(there, 200.0, -200.0).requires_grad_()
    loss = own.build_loss(name, BRATS)(logits, target)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", own.LOSSES)
def test_half_precision_is_computed_in_single(name):
    logits, target = example(name, dtype=torch.float32)
    half = logits.bfloat16()
    found = own.build_loss(name, BRATS)(half, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, own.build_loss(name, BRATS)(half.float(), target))


def test_unknown_losses_and_settings_are_refused_in_one_sentence():
    with pytest.raises(UserError, match="did you mean 'dice_ce'"):
        own.build_loss("dice-ce", BRATS)
    with pytest.raises(UserError, match="loss focal_tversky: unknown key 'alhpa': did you mean"):
        own.build_loss("focal_tversky", BRATS, alhpa=1.0)
    with pytest.raises(UserError, match=r"gamma is 0\.5; it must be between 1 and 3"):
        own.build_loss("focal_tversky", BRATS, gamma=0.5)
    with pytest.raises(UserError, match="smooth is -1"):
        own.build_loss("dice", BRATS, smooth=-1)
    crossed = MaskLabels.create({"a": 1, "b": 2, "c": 3}, {"ab": ["a", "b"], "bc": ["b", "c"]})
    with pytest.raises(UserError, match="'ab' and 'bc' share classes, yet neither holds the other"):
        own.build_loss("region", crossed)


@pytest.mark.parametrize("name", own.LOSSES)
def test_probabilities_of_regions_are_sums_of_their_classes(name):
    logits, _ = example(name, dtype=torch.float32)
    probs = own.probabilities(logits, name)
    regions = own.region_probabilities(probs, name, BRATS)
    assert regions.shape == (3, 3, *SHAPE)
    if name == "region":
        torch.testing.assert_close(regions, logits.sigmoid())
    else:
        torch.testing.assert_close(probs.sum(1), torch.ones(3, *SHAPE))
        torch.testing.assert_close(regions[:, 1], probs[:, 1] + probs[:, 3])
    one_case = own.region_maps(probs[0].numpy(), name, BRATS)
    np.testing.assert_allclose(one_case, regions[0].numpy(), atol=1e-6)


def test_regions_are_painted_largest_first():
    probs = np.zeros((3, 5, 1, 1), dtype=np.float32)
    probs[:, :, 0, 0] = np.array([[0, 0, 0], [0.9, 0, 0], [0.9, 0.9, 0], [0.9, 0.9, 0.9], [0.1, 0.1, 0.9]]).T
    np.testing.assert_array_equal(own.to_classes(probs, "region", BRATS).ravel(), [0, 2, 1, 3, 3])
    assert own_classes(BRATS) == [(0, 2), (1, 1), (2, 3)]


def test_a_region_made_of_smaller_ones_is_not_painted():
    labels = MaskLabels.create(
        {"front": 1, "back": 2}, {"all": ["front", "back"], "front": ["front"], "back": ["back"]}
    )
    assert own_classes(labels) == [(1, 1), (2, 2)]
    probs = np.array([0.9, 0.1, 0.4], dtype=np.float32).reshape(3, 1, 1, 1)
    assert own.to_classes(probs, "region", labels).item() == 0


def test_classes_of_a_softmax_are_the_most_probable():
    logits, _ = example("dice", dtype=torch.float32)
    classes = own.to_classes(own.probabilities(logits, "dice")[1].numpy(), "dice", BRATS)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, logits[1].argmax(0).numpy())


@pytest.mark.parametrize("name", ["dice_ce", "region"])
def test_counts_of_regions_are_those_of_the_masks(name):
    logits, target = example(name)
    counts = region_counts(logits, target, name, BRATS)
    for sample in range(3):
        for region, member in enumerate(BRATS.membership):
            decided = member[logits[sample].argmax(0).numpy()]
            found = logits[sample, region].numpy() > 0 if name == "region" else decided
            there = member[target[sample].numpy()]
            expected = [(found & there).sum(), (found & ~there).sum(), (~found & there).sum()]
            assert counts[sample, region].tolist() == expected
