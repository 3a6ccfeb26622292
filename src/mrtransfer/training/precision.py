"""Number format and memory layout: chosen by a short measurement on this machine, and written down."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.augment.prepare import to_input
from mrtransfer.common.errors import UserError

Requested = Literal["auto", "float32", "bfloat16"]

TOLERANCE = 0.1  # of the root mean square of the logits: bfloat16 carries 8 bits, and a deep network adds up its layers
_GAIN = 1.1  # a smaller gain is within what a busy machine does by itself
_ROUNDS = 3


@dataclass(frozen=True)
class Precision:
    """``dtype`` of matrix products and convolutions (sums and weights stay float32), and the layout of images.

    ``measured``: seconds per step of every candidate, and how far its outputs are from float32; empty where forced.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``bfloat16 channels_last``, ``float32``, …: what was chosen, without what was measured."""
        return f"{self.dtype} channels_last" if self.channels_last else self.dtype

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images (N, C, H, W) and of the weights that see them."""
        return self.layout(4)

    def layout(self, dimensions: int) -> torch.memory_format:
        """The layout of a tensor: of images and their weights with 4 dimensions, of volumes and theirs with 5."""
        if not self.channels_last or dimensions not in (4, 5):
            return torch.contiguous_format
        return torch.channels_last if dimensions == 4 else torch.channels_last_3d

    def lay_out(self, tensor: Tensor) -> Tensor:
        """The tensor in its layout."""
        return tensor.contiguous(memory_format=self.layout(tensor.ndim))

    def autocast(self, device: str | torch.device) -> torch.autocast:
        """The context in which networks are to be run."""
        kind = torch.device(device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")

    def to_json(self) -> dict[str, Any]:
        """For a run's record; :meth:`from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Precision":
        """From a run's record."""
        return cls(**value)


FLOAT32 = Precision()
CANDIDATES = (FLOAT32, Precision("float32", True), Precision("bfloat16", True))


def choose_device(requested: str = "auto") -> str:
    """``cuda`` where there is one, else ``cpu``; a device asked for by name must be there."""
    if requested == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(requested).type
    except RuntimeError as error:
        raise UserError(f"device: {requested!r} is not a device; use auto, cpu or cuda") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda was asked for, but PyTorch finds none; use auto or cpu")
    return requested


def choose_precision(
    make_step: Callable[[Precision], Callable[[], Tensor]],
    requested: Requested = "auto",
    device: str = "cpu",
) -> Precision:
    """Measure a few training steps in every candidate setting and keep the fastest that agrees with float32.

    ``make_step(precision)`` sets up a fresh training (always from the same weights, on the same images) and returns a
    function that does one step and returns its logits. ``float32`` and ``bfloat16`` are taken as asked, unmeasured.
    """
    if requested == "float32":
        return FLOAT32
    if requested == "bfloat16":
        _require_bfloat16(device)
        return Precision("bfloat16", True)
    candidates = [c for c in CANDIDATES if c.dtype == "float32" or bfloat16_works(device)]
    steps = {candidate.name: make_step(candidate) for candidate in candidates}
    logits = {name: step() for name, step in steps.items()}
    times = _least_seconds(steps, device)
    reference = logits[FLOAT32.name]
    differences = {
        name: float((own - reference).norm() / reference.norm().clamp_min(1e-12)) for name, own in logits.items()
    }
    chosen = FLOAT32
    for candidate in candidates[1:]:
        agrees = differences[candidate.name] <= TOLERANCE  # also false where not a number
        if agrees and times[candidate.name] * _GAIN < times[chosen.name]:
            chosen = candidate
    measured = {
        "device": device_name(device),
        "seconds_per_step": {name: round(seconds, 4) for name, seconds in times.items()},
        "difference": {n: round(d, 5) if math.isfinite(d) else None for n, d in differences.items()},
        "tolerance": TOLERANCE,
    }
    return Precision(chosen.dtype, chosen.channels_last, measured)


def precision_for_training(
    backbone: nn.Module,
    head: nn.Module,
    images: np.ndarray,
    *,
    input: Mapping[str, Any],  # noqa: A002  (the recipe's word)
    batch: int,
    requested: Requested = "auto",
    device: str = "auto",
) -> Precision:
    """The setting in which to train a classifier on stored ``images`` (N, C, H, W): measured on the first ``batch``.

    The modules are copied, not changed. What was chosen by measurement can differ from one time to the next: keep the
    answer beside the runs that use it, and give it to a run that is resumed.
    """
    device = choose_device(device)
    if requested != "auto":
        return choose_precision(lambda _: lambda: torch.zeros(0), requested, device)
    pixels = torch.from_numpy(np.array(images[: max(batch, 2)]))
    inputs = to_input(pixels, channels=int(input["channels"]), normalise=input["normalise"])
    return choose_precision(training_steps(backbone, head, inputs, device), requested, device)


def training_steps(
    backbone: nn.Module, head: nn.Module, images: Tensor, device: str
) -> Callable[[Precision], Callable[[], Tensor]]:
    """``make_step`` for :func:`choose_precision`: forward, loss, backward of copies of the two modules.

    ``images`` (B, C, H, W) or (B, C, X, Y, Z) float32, ready for the network, at the real size and batch. Labels are
    made up, one per image or one per voxel, as the head answers: they do not change the work.
    """

    def make(precision: Precision) -> Callable[[], Tensor]:
        model = nn.Sequential(deepcopy(backbone), deepcopy(head)).to(device)
        _set_layout(model, precision)
        model.train()
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.eval()  # chance would make the outputs incomparable
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        batch = precision.lay_out(images.to(device))

        def step() -> Tensor:
            with precision.autocast(device):
                logits = model(batch)
            target = torch.zeros((len(batch), *logits.shape[2:]), dtype=torch.int64, device=device)
            loss = nn.functional.cross_entropy(logits.float(), target)
            model.zero_grad(set_to_none=True)
            loss.backward()
            return logits.detach().float().cpu()

        return step

    return make


def bfloat16_works(device: str) -> bool:
    """Whether the device computes in bfloat16 at all (on a CPU without support it is merely slow)."""
    return torch.device(device).type != "cuda" or torch.cuda.is_bf16_supported()


def device_name(device: str) -> str:
    """The processor's own name where PyTorch knows it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    return f"cpu, {torch.get_num_threads()} threads"


@contextmanager
def placed(precision: Precision, device: str, *modules: nn.Module) -> Iterator[None]:
    """Modules on ``device`` in the chosen layout; afterwards on the CPU in the usual one, ready to be saved."""
    for module in modules:
        _set_layout(module.to(device), precision)
    try:
        yield
    finally:
        for module in modules:
            _set_layout(module.to("cpu"), FLOAT32)


def _set_layout(module: nn.Module, precision: Precision) -> None:
    """Put every weight in its layout; a network may have weights for images and for volumes."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim in (4, 5):
            tensor.data = tensor.data.to(memory_format=precision.layout(tensor.ndim))


def _require_bfloat16(device: str) -> None:
    if not bfloat16_works(device):
        raise UserError("precision: this GPU does not compute in bfloat16; use auto or float32")


def _least_seconds(steps: Mapping[str, Callable[[], Tensor]], device: str) -> dict[str, float]:
    """Least seconds per step; taken in turns, so that other work on the machine falls on all alike."""
    least = dict.fromkeys(steps, math.inf)
    for _ in range(_ROUNDS):
        for name, step in steps.items():
            _wait(device)
            started = time.perf_counter()
            step()
            _wait(device)
            least[name] = min(least[name], time.perf_counter() - started)
    return least


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
