"""Frozen features: one pass of a backbone over all images, kept on disk under a name that says what they are."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.augment.prepare import resolve_normalise, to_input
from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.files import atomic_path, digest, write_json
from mrtransfer.common.progress import progress
from mrtransfer.models.network import Backbone, network_state
from mrtransfer.models.state_files import state_digest

Dtype = Literal["float32", "bfloat16"]
VIEWS = ("plain", "hflip")
FORMAT = 1
"""Raised when the same inputs would give other features than an earlier version did."""


class Pixels(Protocol):
    """What is needed of a store: uint8 images (N, C, H, W), and the digest of their pixels."""

    @property
    def images(self) -> np.ndarray:
        """Pixels, usually memory-mapped."""

    @property
    def content(self) -> str:
        """The same pixels have the same name."""


def feature_matrix(
    network: Backbone,
    store: Pixels,
    *,
    normalise: str | Mapping[str, Any] | Sequence[Any] = "imagenet",
    cache: Path,
    precision: Dtype = "float32",
    channels_last: bool = True,
    device: str = "cpu",
    views: Sequence[str] = ("plain",),
    batch: int = 64,
) -> np.ndarray:
    """Pooled features of every image of ``store``, memory-mapped float32 (views, N, ``network.features``).

    The backbone runs in evaluation mode, once per image and view: ``plain`` as stored, ``hflip`` mirrored left to
    right. What was computed before is found again in ``cache``; the name there is the digest of weights, network, cut,
    pixels, normalisation, views and arithmetic, so a change of any of them gives another file. ``batch`` changes memory
    only. Raises :class:`UserError` for an unknown view, a size that the network cannot take, and values that are not
    finite.
    """
    for view in views:
        if view not in VIEWS:
            raise unknown_name("view", view, VIEWS)
    count, _, height, width = store.images.shape
    defined_by = {
        "format": FORMAT,
        "network": network.name,
        "until": network.until,
        "in_channels": network.in_channels,
        "weights": state_digest(network_state(network)),
        "pixels": store.content,
        "normalise": resolve_normalise(normalise),
        "views": list(views),
        "precision": precision,
        "channels_last": channels_last,
        "device": torch.device(device).type,
    }
    shape = (len(views), count, network.features)
    file = Path(cache) / f"{digest(defined_by)}.npy"
    found = _kept(file, shape)
    if found is not None:
        return found
    if height == width:
        network.check_size(height)
    with progress(f"Features of {network.name}", len(views) * count) as advance, _evaluating(network, device):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=layout)
        with atomic_path(file) as temporary, open(temporary, "wb") as out:
            # Written piece by piece: a full disk is then an error, where writing to a memory map would be a crash.
            np.lib.format.write_array_header_2_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for view in views:
                for start in range(0, count, batch):
                    pixels = torch.from_numpy(np.array(store.images[start : start + batch]))
                    x = to_input(pixels.to(device), channels=network.in_channels, normalise=normalise)
                    x = (x.flip(3) if view == "hflip" else x).contiguous(memory_format=layout)
                    out.write(_pooled(network, x, precision).numpy().astype("<f4", copy=False).tobytes())
                    advance(len(pixels))
    write_json(file.with_suffix(".json"), {**defined_by, "shape": list(shape)})
    kept = _kept(file, shape)
    assert kept is not None, f"{file} was just written"
    return kept


def _pooled(network: nn.Module, x: Tensor, precision: Dtype) -> Tensor:
    """(n, D) float32 on the CPU."""
    with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        features = network(x).float().cpu()
    if not torch.isfinite(features).all():
        raise UserError("the features are not finite: do the weights and normalise belong together? Try float32")
    return features


def _kept(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The stored matrix, or None where it is missing, damaged or of another shape."""
    if not file.is_file():
        return None
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


@contextmanager
def _evaluating(network: nn.Module, device: str) -> Iterator[None]:
    """Evaluation mode on ``device``; every module's own mode, the place and the layout are given back afterwards."""
    modes = {module: module.training for module in network.modules()}
    home = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    network.eval().to(device)
    try:
        yield
    finally:
        network.to(home).to(memory_format=torch.contiguous_format)
        for module, mode in modes.items():
            module.training = mode
