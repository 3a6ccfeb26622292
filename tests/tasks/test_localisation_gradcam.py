"""Grad-CAM is its formula, by autograd and in closed form, in two and three dimensions, and leaves no trace."""

import numpy as np
import pytest
import torch
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.data.phantom.render import render
from mrtransfer.models.network import build_network
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.tasks.localisation.boxes import find_in_heat
from mrtransfer.tasks.localisation.gradcam import grad_cam, heat_maps
from mrtransfer.tasks.localisation.scores import score_heat

CNNS = ("cbr_tiny", "test_resnet", "test_efficientnet")


def images(n=3, size=64, channels=3, seed=0):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CNNS)
def test_a_linear_head_on_pooled_maps_gives_the_class_activation_map(name):
    network = build_network(name, seed=1).eval()
    head = build_head("linear", network.features, 4, seed=2)
    x, classes = images(), torch.tensor([3, 0, 1])
    with torch.no_grad():
        maps = network.maps(x)
        expected = torch.einsum("nf,nfhw->nhw", head[0].weight[classes], maps).relu() / maps[0, 0].numel()
    torch.testing.assert_close(grad_cam(network, head, x, classes), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "until"), [("cbr_tiny", None), ("test_resnet", "layer3"), ("test_efficientnet", None)]
)
def test_any_head_gives_the_mean_gradient_times_the_maps(name, until):
    network = build_network(name, until=until, seed=3).double().eval()
    head = build_head("mlp", network.features, 3, seed=4).double().eval()
    x = images(2).double()
    for number in range(2):
        maps = network.maps(x[number : number + 1])
        pooled = maps.mean(dim=(2, 3))
        torch.testing.assert_close(pooled, network(x[number : number + 1]))
        logits = head(pooled)
        gradient = torch.autograd.grad(logits[0, logits.argmax()], maps)[0]
        expected = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(1).relu().detach()
        found = grad_cam(network, head, x)[number]
        torch.testing.assert_close(found.double(), expected[0], rtol=1e-5, atol=1e-12)


def test_networks_that_keep_channels_last_are_understood():
    network = build_network("swin_s3_tiny_224", seed=0).eval()
    head = build_head("linear", network.features, 2, seed=0)
    x = images(1, size=224)
    with torch.no_grad():
        maps = network.maps(x)
        expected = (maps @ head[0].weight[1]).relu() / (maps.shape[1] * maps.shape[2])
    torch.testing.assert_close(grad_cam(network, head, x, 1), expected, rtol=1e-4, atol=1e-7)


def test_a_network_without_maps_is_refused():
    network = build_network("test_vit", seed=0)
    head = build_head("linear", network.features, 2)
    with pytest.raises(UserError, match=r"test_vit gives .* and no feature maps"):
        grad_cam(network, head, images(1, size=network.size))


@pytest.mark.parametrize("inference", [False, True])
def test_network_and_head_stay_as_they_were(inference):
    network, head = build_network("test_resnet", seed=0).train(), build_head("mlp", 96, 2).train()
    network.stage_modules("layer1")[0].eval()
    frozen = next(network.parameters()).requires_grad_(False)
    modes = [module.training for part in (network, head) for module in part.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.inference_mode(inference):
        first, second = grad_cam(network, head, images()), grad_cam(network, head, images(), stage="layer2")
    assert first.shape == (3, 2, 2)
    assert second.shape[0] == 3
    assert [module.training for part in (network, head) for module in part.modules()] == modes
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in [*list(network.parameters())[1:], *head.parameters()])
    assert all(p.grad is None for p in network.parameters())
    assert "forward_features" not in vars(network.body)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_a_head_that_works_in_place_changes_nothing():
    network = build_network("cbr_tiny", seed=0)
    plain = nn.Sequential(nn.ReLU(), *build_head("linear", network.features, 2))
    in_place = nn.Sequential(nn.ReLU(inplace=True), *plain[1:])
    torch.testing.assert_close(grad_cam(network, in_place, images()), grad_cam(network, plain, images()))


def test_classes_and_stages_that_do_not_exist_are_refused():
    network = build_network("cbr_tiny")
    head = build_head("linear", network.features, 2)
    with pytest.raises(UserError, match="class 2 does not exist; there are 0 … 1"):
        grad_cam(network, head, images(), 2)
    with pytest.raises(UserError, match="did you mean 'block1'"):
        grad_cam(network, head, images(), stage="blok1")
    with pytest.raises(UserError, match="no named stages"):
        grad_cam(nn.Identity(), head, images(), stage="block1")


@pytest.mark.parametrize(("dims", "depth"), [(2, 1), (2, 3), (3, 16)])
def test_segmentation_networks_are_explained_at_any_stage(dims, depth):
    network = build_segmentation_network(
        "residual_unet", in_channels=2, dims=dims, features=(4, 8), strides=((2, 2, 2 if dims == 3 else 1),)
    )
    head = pixel_head(network.features, 3)
    x = torch.randn(2, 2, 16, 16, depth, generator=torch.Generator().manual_seed(0))
    found = grad_cam(network, head, x, 1)
    with torch.no_grad():
        maps = network.eval()(x)
        expected = torch.einsum("f,nf...->n...", head[0].weight[1].flatten(), maps).relu() / maps[0, 0].numel()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    for stage in network.stage_names:
        cams = grad_cam(network, head, x, 1, stage=stage)
        assert cams.ndim == 4
        assert cams.shape[0] == 2
        assert torch.isfinite(cams).all()
        assert heat_maps(cams, x.shape[2:]).shape == (2, 16, 16, depth)


def test_heat_maps_reach_one_or_are_empty():
    cams = torch.stack([torch.rand(3, 4), torch.zeros(3, 4)])
    found = heat_maps(cams, (30, 40))
    assert found.shape == (2, 30, 40)
    assert found[0].max() == 1
    assert not found[1].any()
    torch.testing.assert_close(heat_maps(cams, (3, 4))[0], cams[0] / cams[0].max())
    with pytest.raises(UserError, match="does not fit"):
        heat_maps(cams, (30, 40, 5))


class Bright(nn.Module):
    """Two maps on a grid of blocks: how much brighter, and how much darker than 1 a block is."""

    def __init__(self, dims, block):
        super().__init__()
        self.pool = (nn.AvgPool2d if dims == 2 else nn.AvgPool3d)(block)

    def forward(self, x):
        mean = self.pool(x)
        return torch.cat([mean - 1, 1 - mean], dim=1).relu()


class Pooled(nn.Sequential):
    def forward(self, maps):
        return super().forward(maps.flatten(2).mean(2))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_planted_blob_is_found_where_it_is(dims):
    slice_ = render("phantom:seed=1&subject=2&z=10&contrast=t1&size=128").astype(np.float32)
    slice_ = slice_.reshape(128, 128) / slice_.max()
    volume = slice_ if dims == 2 else np.repeat(slice_[..., None], 32, axis=2)
    mask = np.zeros(volume.shape, bool)
    place = (slice(40, 56), slice(64, 88), slice(8, 16))[:dims]
    mask[place] = True
    blob = torch.from_numpy(np.where(mask, np.float32(3), volume))[None, None]
    network = Bright(dims, 8)
    head = Pooled(nn.Linear(2, 2))
    with torch.no_grad():
        head[0].weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
    cam = grad_cam(network, head, blob, 1)
    maps = network(blob)
    torch.testing.assert_close(cam, (maps[:, 0] - maps[:, 1]).relu() / maps[0, 0].numel())
    heat = heat_maps(cam, volume.shape)[0].numpy()
    found = find_in_heat(heat, share=0.5)
    assert found.box.first == tuple(part.start for part in place)
    assert found.box.last == tuple(part.stop - 1 for part in place)
    assert found.centre == pytest.approx([(part.start + part.stop - 1) / 2 for part in place], abs=0.1)
    scores = score_heat(heat, mask, share=0.5)
    assert scores["pointing"] == 1
    assert scores["box_iou"] == 1
    assert 0.5 < scores["heat_inside"] < 1
    # The other class looks at all that is dark, and so away from the blob.
    other = score_heat(heat_maps(grad_cam(network, head, blob, 0), volume.shape)[0].numpy(), mask)
    assert other["pointing"] == 0
    assert other["heat_inside"] < 0.02
