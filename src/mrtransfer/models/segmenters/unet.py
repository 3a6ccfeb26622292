"""U-Nets of segmentation-models-pytorch on timm's classification networks, also made three-dimensional."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import timm
import torch
from pydantic import Field
from torch import Tensor, nn

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.models.network import Encoder, classifier_names, first_convolution, pretrained_config, sentence
from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.models.stages import Stage, find_stages
from mrtransfer.models.three_d import make_3d
from mrtransfer.models.ushape import Parts, check_strides, meta_call

Depth = Annotated[int, Field(ge=2, le=5)] | None
Widths = tuple[Annotated[int, Field(ge=1)], ...] | None

PREFIX = "encoder.model."
_DECODER = (256, 128, 64, 32, 16)  # of segmentation-models-pytorch


class EncoderDecoder(nn.Module):
    """Encoder and decoder of an SMP U-Net under its names, run in two or three dimensions.

    The same as SMP's own forward pass in two; a decoder block with a ``shortcut`` is a residual unit.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the size of ``x``."""
        features = self.encoder(x)
        x = self.decoder.get_submodule("center")(features[-1])
        blocks: Any = self.decoder.blocks
        for number, block in enumerate(blocks, start=1):
            finer = features[-1 - number]
            x = nn.functional.interpolate(x, size=finer.shape[2:], mode="nearest")
            if number < len(blocks):  # the finest features are the image itself
                x = torch.cat((x, finer), dim=1)
            x = _residual(block, x) if hasattr(block, "shortcut") else block.conv2(block.conv1(x))
        return x


def _residual(block: Any, x: Tensor) -> Tensor:
    convolution, norm, activation = block.conv2
    return activation(norm(convolution(block.conv1(x))) + block.shortcut(x))


@SEGMENTERS.register("unet")
def unet(
    in_channels: int,
    dims: int,
    features: Sequence[int] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    *,
    encoder: str = "resnet18",
    depth: Depth = None,
    decoder: Widths = None,
) -> Parts:
    """U-Net on any timm encoder, so that ImageNet weights fit; 2-D, or made three-dimensional.

    ``depth``: how often the encoder halves the image, 2 to 5; by default as often as the plan, or 5. Its features are
    the encoder's own; ``decoder`` are those of the decoder's blocks, the deepest first (default 256, 128, 64, 32, 16).
    In 3-D the plan's strides decide which axes are halved; in 2-D it is always both.
    """
    return encoder_decoder(in_channels, dims, strides, encoder, depth, decoder, residual=False)


def encoder_decoder(
    in_channels: int,
    dims: int,
    strides: Sequence[Sequence[int]] | None,
    encoder: str,
    depth: int | None,
    decoder: Sequence[int] | None,
    *,
    residual: bool,
) -> Parts:
    """The U-Net of :func:`unet`; ``residual``: with residual units in its decoder too."""
    planned = [stride for stride in check_strides(dims, strides or ()) if max(stride) > 1]
    depth = depth or (min(max(len(planned), 2), 5) if planned else 5)
    widths = tuple(decoder or _DECODER[-depth:])
    if len(widths) != depth:
        raise UserError(f"network unet: decoder {list(widths)} needs as many entries as the depth, which is {depth}")
    shape = (2, in_channels, 2 * 2**depth, 2 * 2**depth)
    body = _smp_unet(encoder, shape, widths)
    if residual:
        _add_shortcuts(body)
    published = _published(encoder)
    if dims == 3:
        steps = [*planned, *[(2, 2, 2)] * depth][:depth]
        make_3d(body, shape, steps, f"unet with encoder {encoder}")
    else:
        steps = [(2, 2, 1)] * depth
    return Parts(
        body,
        tuple(steps),
        _stages(body, published),
        first_convolution(body),
        Encoder(encoder, PREFIX, _own_names(body, published)),
        classifier_names(pretrained_config(published)),
    )


def _smp_unet(encoder: str, shape: Sequence[int], widths: Sequence[int]) -> EncoderDecoder:
    """For inputs like ``shape``; what the encoder has beyond its last feature maps is left out."""
    if not timm.is_model(encoder) or ":" in encoder:
        raise unknown_name("encoder", encoder, timm.list_models())
    import segmentation_models_pytorch as smp  # takes seconds to import

    try:
        whole = smp.Unet(f"tu-{encoder}", len(widths), None, decoder_channels=tuple(widths), in_channels=shape[1])
        body = EncoderDecoder(whole.encoder, whole.decoder)
        _, unused = meta_call(body, shape)
    except Exception as error:  # timm's models raise whatever their authors chose
        raise UserError(
            f"network unet: {encoder} cannot be an encoder of depth {len(widths)} ({sentence(error)}); convolutional "
            "networks can, for example resnet18, resnet50 or mobilenetv2_100"
        ) from error
    _drop(body, set(unused))
    return body


def _add_shortcuts(body: EncoderDecoder) -> None:
    blocks: Any = body.decoder.blocks
    for block in blocks:
        into, out = block.conv1[0].in_channels, block.conv2[0].out_channels
        block.shortcut = nn.Conv2d(into, out, 1, bias=False)


def _drop(body: EncoderDecoder, unused: set[str]) -> None:
    """Take out modules whose parameters are all ``unused``: they would cost time, and never get a gradient."""
    for path, module in list(body.named_modules()):
        own = [f"{path}.{name}" for name, _ in module.named_parameters()]
        if own and unused.issuperset(own):
            unused -= set(own)  # so that what is inside is not looked at again
            parent, _, name = path.rpartition(".")
            setattr(body.get_submodule(parent), name, nn.Identity())


def _published(encoder: str) -> nn.Module:
    """The encoder's network as published, without classifier; only names and shapes."""
    with torch.device("meta"):
        return timm.create_model(encoder, num_classes=0)


def _own_names(body: EncoderDecoder, published: nn.Module) -> dict[str, str | None]:
    """Published tensor names to the body's; timm writes ``stages.0`` as ``stages_0`` in some encoders."""
    names: dict[str, str | None] = dict.fromkeys(published.state_dict())
    for own in body.state_dict():
        if own.startswith(PREFIX):
            found = next((name for name in _spellings(own.removeprefix(PREFIX)) if name in names), None)
            if found is not None:
                names[found] = own
    return names


def _spellings(name: str) -> Iterator[str]:
    yield name
    for position, letter in enumerate(name.partition(".")[0]):
        if letter == "_":
            yield f"{name[:position]}.{name[position + 1 :]}"


def _stages(body: EncoderDecoder, published: nn.Module) -> tuple[Stage, ...]:
    """The encoder's stages under their published names (``stem``, ``layer1``, …), then the decoder's blocks."""
    paths = {path for path, _ in published.named_modules()}
    encoder = []
    for stage in find_stages(body.encoder.get_submodule("model")):
        name = next((spelling for spelling in _spellings(stage.name) if spelling in paths), stage.name)
        encoder.append(Stage(name, tuple(f"{PREFIX}{member}" for member in stage.members)))
    blocks = range(len(list(body.decoder.get_submodule("blocks").children())))
    return (*encoder, *(Stage(f"decoder.{number}", (f"decoder.blocks.{number}",)) for number in blocks))
