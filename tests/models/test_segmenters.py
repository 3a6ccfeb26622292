"""Each segmentation network is the one that it says it is: compared with papers and with the libraries' own."""

import pytest
import torch
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.instance_norm import SampleNorm2d, SampleNorm3d, keep_layout
from mrtransfer.models.network import seeded
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.models.segmenters.dynunet import kernels


def build(name, in_channels=3, dims=3, seed=0, **more):
    keys = {key: more.pop(key) for key in ("features", "strides") if key in more}
    return build_segmentation_network(name, in_channels=in_channels, dims=dims, options=more, seed=seed, **keys)


def counted(*modules, without=(nn.BatchNorm3d,)):
    norms = {id(p) for module in modules for m in module.modules() if isinstance(m, without) for p in m.parameters()}
    return sum(p.numel() for module in modules for p in module.parameters() if id(p) not in norms)


def test_the_3d_unet_has_the_parameters_of_the_paper():
    """Çiçek et al. 2016, section 2: 19,069,955 with three channels and three labels; batch norm is not among them."""
    network = build("unet3d")
    head = pixel_head(network.features, 3)
    assert counted(network, head) == 19_069_955
    convolutions = [m for m in (*network.modules(), *head.modules()) if isinstance(m, nn.Conv3d)]
    ups = [m for m in network.modules() if isinstance(m, nn.ConvTranspose3d)]
    assert len(convolutions) == 2 * 4 + 2 * 3 + 1
    assert all(layer.bias is not None for layer in convolutions)
    assert [(up.kernel_size, up.stride, up.bias) for up in ups] == [((2, 2, 2), (2, 2, 2), None)] * 3
    widths = [layer.out_channels for layer in convolutions]
    assert widths == [32, 64, 64, 128, 128, 256, 256, 512, 256, 256, 128, 128, 64, 64, 3]
    assert sum(isinstance(m, nn.BatchNorm3d) for m in network.modules()) == 14


def test_the_3d_unet_shrinks_by_its_width_or_the_plan_and_keeps_four_levels():
    by_width = build("unet3d", width=2, features=(16, 32, 64, 64, 64), strides=[(2, 2, 1)] * 2 + [(2, 2, 2)] * 2)
    assert by_width.stage_names[:5] == ["encoder1", "encoder2", "encoder3", "encoder4", "decoder.3"]
    assert by_width.divisor == (8, 8, 2)
    assert by_width.features == 4
    by_plan = build("unet3d", features=(6, 12, 24), strides=[(2, 2, 1), (2, 2, 2)])
    assert (by_plan.features, by_plan.divisor) == (6, (4, 4, 2))
    with pytest.raises(UserError, match="3 dimensions"):
        build("unet3d", dims=2)


@pytest.mark.parametrize(("dims", "norm"), [(2, "batch"), (3, "instance")])
def test_the_residual_unet_is_monais(dims, norm):
    from monai.networks.nets import UNet

    kind = ("instance", {"affine": True}) if norm == "instance" else "batch"
    with seeded(7):
        theirs = UNet(dims, 2, 4, (4, 8, 16), (2, 2), num_res_units=2, norm=kind)
    ours = build("residual_unet", 2, dims, seed=7, norm=norm, features=(4, 8, 16))
    x = torch.rand(2, 2, *[16] * dims)
    expected = theirs(x)
    torch.testing.assert_close(ours(x if dims == 3 else x.unsqueeze(-1)).reshape(expected.shape), expected)
    assert build("residual_unet", maps=3, features=(4, 8)).features == 3


@pytest.mark.parametrize("residual", [True, False])
def test_the_dynamic_unet_is_monais(residual):
    from monai.networks.nets import DynUNet

    with seeded(7):
        theirs = DynUNet(
            3, 2, 1, [(3, 3, 1), 3, 3], [1, (2, 2, 1), 2], [(2, 2, 1), 2], filters=(4, 8, 16),
            norm_name=("instance", {"affine": True}), res_block=residual,
        )  # fmt: skip
    ours = build("dynunet", 2, residual=residual, features=(4, 8, 16), strides=[(2, 2, 1), (2, 2, 2)], seed=7)
    x = torch.rand(2, 2, 16, 16, 8)
    torch.testing.assert_close(ours(x), theirs.skip_layers(x))


def test_kernels_wait_for_thick_slices():
    """nnU-Net: no convolution along an axis that is much coarser than the others."""
    assert kernels([(2, 2, 1), (2, 2, 1), (2, 2, 2)]) == [(3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3)]
    assert kernels([(2, 2, 2), (2, 2, 1)]) == [(3, 3, 3)] * 3
    assert kernels([(2, 2, 1), (2, 2, 1)]) == [(3, 3, 3)] * 3  # a 2-D plan


@pytest.mark.parametrize(("encoder", "depth"), [("resnet18", 4), ("mobilenetv2_100", 3), ("convnext_atto", 5)])
def test_the_unet_is_that_of_segmentation_models_pytorch(encoder, depth):
    import segmentation_models_pytorch as smp

    widths = (256, 128, 64, 32, 16)[-depth:]
    with seeded(7):
        theirs = smp.Unet(f"tu-{encoder}", depth, None, decoder_channels=widths, in_channels=2).eval()
    ours = build("unet", 2, 2, encoder=encoder, depth=depth, seed=7).eval()
    x = torch.rand(1, 2, 64, 96)
    with torch.inference_mode():
        expected = theirs.decoder(theirs.encoder(x))
        torch.testing.assert_close(ours(x.unsqueeze(-1)).squeeze(-1), expected)


def test_layers_that_an_encoder_never_uses_are_left_out():
    """timm keeps all blocks of a MobileNetV2 whose features end earlier; they would never get a gradient."""
    network = build("unet", 2, 2, encoder="mobilenetv2_100", depth=4)
    assert not any(name.startswith("encoder.model.blocks.5") for name, _ in network.body.named_parameters())
    network.train()(torch.rand(2, 2, 32, 32, 1)).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_residual_decoder_is_the_plain_one_plus_shortcuts(shaken):
    plain = build("unet", 1, 2, encoder="resnet18", depth=2)
    residual = build("resunet", 1, 2, encoder="resnet18", depth=2)
    missing = residual.body.load_state_dict(plain.body.state_dict(), strict=False).missing_keys
    assert missing == [f"decoder.blocks.{number}.shortcut.weight" for number in range(2)]
    shaken(plain), shaken(residual)
    x = torch.rand(1, 1, 16, 16, 1)
    with torch.inference_mode():
        assert not torch.allclose(residual(x), plain(x))
        for block in residual.body.decoder.blocks:
            block.shortcut.weight.zero_()
        torch.testing.assert_close(residual(x), plain(x))


def test_an_encoder_halves_as_often_as_the_plan_and_along_its_axes():
    network = build("unet", 1, strides=[(2, 2, 1), (2, 2, 2), (2, 2, 2)])
    assert network.divisor == (8, 8, 4)
    assert network.stage_names == ["stem", "layer1", "layer2", "decoder.0", "decoder.1", "decoder.2"]
    with torch.inference_mode():
        features = network.body.encoder(torch.rand(1, 1, 32, 32, 16))
    assert [tuple(maps.shape[2:]) for maps in features] == [(32, 32, 16), (16, 16, 16), (8, 8, 8), (4, 4, 4)]
    assert build("unet", 1, 2).divisor == (32, 32, 1)


@pytest.mark.parametrize(("encoder", "layer"), [("efficientnet_b0", "SqueezeExcite"), ("convnext_atto", "LayerNorm2d")])
def test_an_encoder_with_layers_for_two_dimensions_only_is_refused_in_three(encoder, layer):
    with pytest.raises(UserError, match=rf"cannot be made three-dimensional.*{layer}.*resnet18"):
        build("unet", 1, encoder=encoder)


def test_kernels_made_three_dimensional_keep_the_size_of_the_response():
    flat, deep = (build("unet", 1, dims, depth=3, encoder="resnet18") for dims in (2, 3))
    for path, module in deep.body.named_modules():
        if isinstance(module, nn.Conv3d) and module.weight.numel() > 20_000:
            ratio = deep.body.get_submodule(path).weight.std() / flat.body.get_submodule(path).weight.std()
            assert ratio.item() == pytest.approx(module.kernel_size[2] ** -0.5, rel=0.05), path


@pytest.mark.parametrize(("kind", "dims", "layout"), [
    (SampleNorm2d, 2, torch.channels_last), (SampleNorm3d, 3, torch.channels_last_3d),
])  # fmt: skip
def test_instance_norm_in_channels_last_keeps_values_gradients_and_layout(kind, dims, layout):
    plain = nn.Sequential({2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims](5, affine=True))
    with torch.no_grad():
        plain[0].weight.uniform_(), plain[0].bias.uniform_()
    fast = nn.Sequential({2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims](5, affine=True))
    fast.load_state_dict(plain.state_dict())
    keep_layout(fast)
    assert type(fast[0]) is kind
    plain, fast = plain.double(), fast.double()
    x = torch.rand(3, 5, *[6] * dims, dtype=torch.float64)
    one, two = x.clone().requires_grad_(), x.clone().contiguous(memory_format=layout).requires_grad_()
    first, second = plain(one), fast(two)
    weight = torch.rand_like(first)
    (first * weight).sum().backward()
    (second * weight).sum().backward()
    assert second.is_contiguous(memory_format=layout)
    torch.testing.assert_close(second, first)
    torch.testing.assert_close(two.grad, one.grad)
    torch.testing.assert_close(fast[0].weight.grad, plain[0].weight.grad)
    with torch.no_grad():  # where no gradients are wanted, it is computed in another way
        torch.testing.assert_close(fast(two), first)
