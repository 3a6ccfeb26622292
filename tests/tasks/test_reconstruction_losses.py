"""Losses of reconstruction are one minus the metric and its kin; their gradients are those of finite differences."""

import pytest
import torch
from torch.nn import functional

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.reconstruction import losses as own
from mrtransfer.tasks.reconstruction.metrics import psnr, ssim_of_slices

MIXTURE = {"ssim": 0.8, "l1": 0.2}
CASES = [*own.LOSSES, MIXTURE]


def example(*, samples=3, shape=(14, 11), dtype=torch.float64, offset=0.0, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(samples, *shape, generator=generator, dtype=torch.float64) + offset
    pred = target + 0.2 * torch.randn(samples, *shape, generator=generator, dtype=torch.float64)
    largest = target.amax((1, 2)) * torch.linspace(1, 2, samples, dtype=torch.float64)
    return tuple((scale * one).to(dtype) for one in (pred, target, largest))


def dense(pred, target, largest):
    """(N,) SSIM by dense convolutions with the window, in float64; everything differentiated by autograd."""
    x, y, scale = pred[:, None], target[:, None], largest[:, None, None, None]
    window = torch.full((1, 1, 7, 7), 1 / 49, dtype=pred.dtype)

    def mean(image):
        return functional.conv2d(image, window)

    def covariance(a, b):
        return 49 / 48 * (mean(a * b) - mean(a) * mean(b))

    c1, c2 = (0.01 * scale) ** 2, (0.03 * scale) ** 2
    above = (2 * mean(x) * mean(y) + c1) * (2 * covariance(x, y) + c2)
    below = (mean(x) ** 2 + mean(y) ** 2 + c1) * (covariance(x, x) + covariance(y, y) + c2)
    return (above / below).mean((1, 2, 3))


def test_the_ssim_loss_is_one_minus_the_metric_of_every_slice():
    pred, target, largest = example()
    metric = [ssim_of_slices(pred[i : i + 1], target[i : i + 1], largest[i].item())[0] for i in range(3)]
    torch.testing.assert_close(own.ssim_loss(pred, target, largest), 1 - torch.stack(metric), rtol=0, atol=1e-12)
    torch.testing.assert_close(own.ssim_loss(pred, target, largest), 1 - dense(pred, target, largest))
    assert own.build_loss()(pred, target, largest).item() == pytest.approx(1 - torch.stack(metric).mean().item())


def test_the_ssim_loss_is_that_of_fastmri():
    losses = pytest.importorskip("fastmri.losses", exc_type=ImportError)
    pred, target, largest = example()
    found, expected = pred.clone().requires_grad_(), pred.clone().requires_grad_()
    own.build_loss("ssim")(found, target, largest).backward()
    reference = losses.SSIMLoss().double()(expected[:, None], target[:, None], largest)  # its 1/49 is a float32
    reference.backward()
    assert own.build_loss("ssim")(pred, target, largest).item() == pytest.approx(reference.item(), abs=1e-6)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("loss", CASES, ids=str)
def test_gradients_are_those_of_finite_differences(loss):
    pred, target, largest = example(samples=2, shape=(9, 8))
    inputs = pred.requires_grad_(), target.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: own.build_loss(loss)(x, y, largest), inputs)


def test_second_derivatives_are_those_of_finite_differences():
    pred, target, largest = example(samples=1, shape=(8, 8))
    assert torch.autograd.gradgradcheck(
        lambda x: own.build_loss("ssim")(x, target, largest), (pred.requires_grad_(),), atol=1e-4
    )


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (0.0, 1e-8), (0.0, 1e5), (20.0, 1.0), (20.0, 1e-8)])
def test_single_precision_gives_exact_values_and_gradients(offset, scale):
    pred, target, largest = example(shape=(40, 36), offset=offset)
    exact = pred.clone().requires_grad_()
    value = (1 - dense(exact, target, largest)).mean()
    value.backward()
    single = [(scale * one).float() for one in (pred, target, largest)]
    leaf = single[0].requires_grad_()
    found = own.build_loss("ssim")(*single)
    found.backward()
    assert found.item() == pytest.approx(value.item(), abs=1e-6)
    error = (leaf.grad.double() * scale - exact.grad).norm() / exact.grad.norm()
    assert error < 1e-4  # the rounding of the images alone gives a bright offset's gradients an error of 2e-5


def test_l1_and_mse_are_measured_in_units_of_the_maximum():
    pred, target, largest = example()
    error = [(pred[i] - target[i]) / largest[i] for i in range(3)]
    l1 = torch.stack([one.abs().mean() for one in error])
    mse = torch.stack([(one**2).mean() for one in error])
    torch.testing.assert_close(own.l1_loss(pred, target, largest), l1)
    torch.testing.assert_close(own.mse_loss(pred, target, largest), mse)
    slice_psnr = psnr(pred[:1], target[:1], largest[0].item())
    torch.testing.assert_close(-10 * own.mse_loss(pred, target, largest)[0].log10(), slice_psnr)


@pytest.mark.parametrize("loss", CASES, ids=str)
def test_losses_do_not_depend_on_the_scanners_units(loss):
    plain = own.build_loss(loss)(*example())
    torch.testing.assert_close(own.build_loss(loss)(*example(scale=1e-7)), plain)


@pytest.mark.parametrize("loss", CASES, ids=str)
def test_the_loss_of_a_batch_is_the_mean_of_its_slices(loss):
    batch, one_loss = example(samples=4), own.build_loss(loss)
    parts = [one_loss(*(one[i : i + 1] for one in batch)) for i in range(4)]
    torch.testing.assert_close(one_loss(*batch), torch.stack(parts).mean())


def test_a_mixture_is_the_weighted_sum_of_its_parts():
    batch = example()
    parts = {name: own.build_loss(name)(*batch) for name in own.LOSSES}
    torch.testing.assert_close(own.build_loss(MIXTURE)(*batch), 0.8 * parts["ssim"] + 0.2 * parts["l1"])
    everything = own.build_loss({"mse": 3, "ssim": 1, "l1": 0})
    torch.testing.assert_close(everything(*batch), 3 * parts["mse"] + parts["ssim"])
    assert str(own.build_loss(MIXTURE)) == "ReconstructionLoss(0.8 ssim + 0.2 l1)"


@pytest.mark.parametrize("loss", CASES, ids=str)
@pytest.mark.parametrize("blank", [False, True])
def test_a_perfect_image_costs_nothing_and_has_a_finite_gradient(loss, blank):
    _, target, largest = example(dtype=torch.float32)
    target = torch.zeros_like(target) if blank else target
    pred = target.clone().requires_grad_()
    value = own.build_loss(loss)(pred, target, largest)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("loss", CASES, ids=str)
def test_half_precision_is_computed_in_single(loss):
    pred, target, largest = example(dtype=torch.float32)
    half = pred.bfloat16()
    found = own.build_loss(loss)(half, target, largest)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, own.build_loss(loss)(half.float(), target, largest))


def test_descending_along_the_gradient_restores_the_image():
    pred, target, largest = example(samples=1, shape=(20, 20))
    image = pred.clone().requires_grad_()
    optimiser = torch.optim.Adam([image], lr=0.02)
    for _ in range(80):
        optimiser.zero_grad()
        own.build_loss("ssim")(image, target, largest).backward()
        optimiser.step()
    assert ssim_of_slices(image.detach(), target, largest.item()).item() > 0.99


def test_unknown_losses_and_weights_are_refused_in_one_sentence():
    with pytest.raises(UserError, match="unknown loss 'sim': did you mean 'ssim'"):
        own.build_loss("sim")
    with pytest.raises(UserError, match="unknown loss 'L1': did you mean 'l1'"):
        own.build_loss({"ssim": 0.8, "L1": 0.2})
    for weight in (-1, float("nan"), float("inf"), "0.5", True, None):
        with pytest.raises(UserError, match=r"the weight of l1 is .*; it must be a number, 0 or more"):
            own.build_loss({"ssim": 1, "l1": weight})
    for empty in ({}, {"l1": 0}):
        with pytest.raises(UserError, match="at least one of ssim, l1, mse needs one"):
            own.build_loss(empty)
    with pytest.raises(UserError, match=r"\['ssim'\] is neither a name nor a mapping"):
        own.build_loss(["ssim"])


def test_images_that_do_not_belong_together_are_refused():
    pred, target, largest = example()
    for wrong in ((pred[:2], target, largest), (pred, target, largest[:2]), (pred[0], target[0], largest[0])):
        with pytest.raises(ValueError, match=r"right are \(N, h, w\), \(N, h, w\) and \(N,\)"):
            own.build_loss("l1")(*wrong)
