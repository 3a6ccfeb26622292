"""Sliding-window inference: volumes of any size through a network that sees one window at a time, in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from itertools import combinations
from math import prod
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.common.progress import progress
from mrtransfer.data.cases.geometry import AXES, Axis
from mrtransfer.data.cases.normalise import Normalise, padding_values
from mrtransfer.tasks.segmentation.outputs import probabilities
from mrtransfer.training.blend import Blend, allocate, fill_outside
from mrtransfer.training.precision import FLOAT32, Precision, Requested, choose_device, choose_precision, placed
from mrtransfer.training.windows import Tiles, cut, importance, place_windows

MEMORY = 2**30
"""Bytes of probabilities that are kept in memory; a larger result is a memory-mapped temporary file."""
_BATCH_VOXELS = 2**20  # of all windows that go through the network together
_KNOWN = 4  # answers to constant windows that are kept
_PROBE_VOXELS = 2**19  # of the window that settings are measured on

Run = Callable[[np.ndarray], Tensor]


class Plan(Protocol):
    """What of a :class:`~mrtransfer.data.cases.plan.SegmentationPlan` matters here."""

    @property
    def patch(self) -> tuple[int, int, int]:
        """Voxels of a window; (x, y, 1) for 2-D networks."""

    @property
    def normalise(self) -> tuple[Normalise, ...]:
        """How each channel was normalised, which says what its background is."""


def predict_case(
    network: nn.Module,
    head: nn.Module,
    image: np.ndarray,
    *,
    plan: Plan,
    loss: str,
    precision: Precision = FLOAT32,
    device: str | torch.device = "cpu",
    overlap: float = 0.5,
    mirror: Sequence[Axis] = (),
    blending: Literal["gaussian", "constant"] = "gaussian",
    batch: int | None = None,
    skip_background: bool = True,
    memory: int = MEMORY,
) -> np.ndarray:
    """Probabilities (K, X, Y, Z) float32 of a prepared ``image`` (C, X, Y, Z), array or memory map.

    The modules are on ``device`` in the layout of ``precision`` (see :func:`~mrtransfer.training.precision.placed`);
    they are run in evaluation mode. Windows of ``plan.patch`` voxels share ``overlap`` of themselves with their
    neighbours; their logits are averaged with Gaussian importance (σ = patch / 8; Isensee et al. 2021, nnU-Net), or all
    alike where ``blending`` is constant, and then become probabilities, by softmax or sigmoid as ``loss`` asks for.
    ``mirror``: every window is also seen mirrored along these axes, and all combinations of them (8 passes for three).
    A volume smaller than a window is surrounded by background, as patches are in training
    (:func:`~mrtransfer.data.cases.normalise.padding_values`).
    ``batch``: windows that are computed together, which changes nothing but time and memory.

    ``skip_background``: a window of constant channels is computed once and its answer reused, which is exact, as the
    same input gives the same output. And where it takes fewer windows, these cover only the box around everything that
    is not background, with a margin of 8 voxels; the rest is answered as the centre of a window of background is.

    Memory: sums are kept in float32 for a slab one window thick along the axis where that is least, so at most
    4 (K + 1) · X · Y · Z · min(patch / size) bytes; a result of more than ``memory`` bytes is a temporary file, mapped
    into memory, which vanishes with the array. Raises :class:`UserError` where the disk cannot hold it.
    """
    if image.ndim != 4 or not 0 <= overlap < 1:
        raise ValueError(f"an image (C, X, Y, Z) and an overlap in [0, 1) are needed, not {image.shape}, {overlap}")
    patch, shape = tuple(plan.patch), image.shape[1:]
    run = _runner(network, head, precision, torch.device(device), mirror)
    finish = partial(probabilities, name=loss)
    background = padding_values(image, plan.normalise)
    tiles = place_windows(image, patch, overlap, background if skip_background else None)
    with _evaluating(network, head), torch.inference_mode():
        blend: Blend | None = None
        with progress("windows", tiles.count) as advance:
            for start, answer in _answers(run, image, background, tiles, batch or max(_BATCH_VOXELS // prod(patch), 1)):
                if blend is None:
                    output = allocate((len(answer), *shape), memory)
                    weights = importance(patch) if blending == "gaussian" else np.ones(patch, np.float32)
                    blend = Blend(output, tiles, torch.from_numpy(weights).to(answer.device), finish)
                blend.add(start, answer)
                advance(1)
        assert blend is not None  # every grid has a window
        blend.move(blend.end)
        if not tiles.covers(shape):
            fill_outside(output, tiles, finish(_around(run, background, patch))[0].cpu().numpy())
    return output


def precision_for_prediction(
    network: nn.Module,
    head: nn.Module,
    image: np.ndarray,
    *,
    plan: Plan,
    requested: Requested = "auto",
    device: str = "auto",
) -> Precision:
    """The setting in which to run these modules on windows of ``image`` (C, X, Y, Z): measured on one in its middle.

    Large windows are halved for it as far as the network allows (``network.divisor``). The modules are copied, not
    changed. See :func:`~mrtransfer.training.precision.choose_precision`.
    """
    device = choose_device(device)
    patch = _probe_patch(plan.patch, getattr(network, "divisor", (1, 1, 1)))
    start = [(size - length) // 2 for size, length in zip(image.shape[1:], patch, strict=True)]
    windows = torch.from_numpy(cut(image, start, patch, padding_values(image, plan.normalise))[None])

    with ExitStack() as stack:

        def make_step(precision: Precision) -> Callable[[], Tensor]:
            model = nn.Sequential(deepcopy(network), deepcopy(head)).eval()
            stack.enter_context(placed(precision, device, model))
            inputs = precision.lay_out(windows.to(device))

            def step() -> Tensor:
                with torch.inference_mode(), precision.autocast(device):
                    return model(inputs).float().cpu()

            return step

        return choose_precision(make_step, requested, device)


def _probe_patch(patch: tuple[int, ...], divisor: tuple[int, ...]) -> tuple[int, ...]:
    """``patch`` with its longest axes halved while it is large and the halves are still multiples of ``divisor``."""
    while prod(patch) > _PROBE_VOXELS:
        axes = [axis for axis in range(3) if patch[axis] > 1 and patch[axis] % (2 * divisor[axis]) == 0]
        if not axes:
            break
        longest = max(axes, key=lambda axis: patch[axis])
        patch = tuple(length // 2 if axis == longest else length for axis, length in enumerate(patch))
    return patch


def _runner(
    network: nn.Module, head: nn.Module, precision: Precision, device: torch.device, mirror: Sequence[Axis]
) -> Run:
    """A function from windows (n, C, *patch) float32 to their logits (n, K, *patch) float32 on ``device``."""

    def run(windows: np.ndarray) -> Tensor:
        images = torch.from_numpy(windows).to(device)
        axes = [axis for axis, name in enumerate(AXES, 2) if name in mirror and images.shape[axis] > 1]
        flips = [flip for count in range(len(axes) + 1) for flip in combinations(axes, count)]
        total: Tensor | None = None
        for flip in flips:
            with precision.autocast(device):
                seen = images.flip(flip) if flip else images
                answer = head(network(precision.lay_out(seen))).float()
            total = answer if total is None else total + answer.flip(flip)  # the first flip is none at all
        assert total is not None
        return total / len(flips) if axes else total

    return run


def _answers(
    run: Run, image: np.ndarray, background: np.ndarray, tiles: Tiles, batch: int
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Every window's start and its logits (K, *patch), in the order of ``tiles``."""
    known: dict[bytes, Tensor] = {}
    waiting: list[tuple[tuple[int, ...], np.ndarray | Tensor]] = []
    fresh = 0
    for start in tiles:
        window = cut(image, start, tiles.patch, background)
        if tiles.reuse and (window == window[:, :1, :1, :1]).all():
            waiting.append((start, _constant(run, window, known)))
        else:
            waiting.append((start, window))
            fresh += 1
        if fresh == batch:
            yield from _computed(run, waiting)
            waiting, fresh = [], 0
    yield from _computed(run, waiting)


def _constant(run: Run, window: np.ndarray, known: dict[bytes, Tensor]) -> Tensor:
    """The answer to a window of constant channels, computed when their values are first met."""
    values = window[:, 0, 0, 0].tobytes()
    if values not in known:
        if len(known) == _KNOWN:
            del known[next(iter(known))]
        known[values] = run(window[None])[0]
    return known[values]


def _computed(
    run: Run, waiting: list[tuple[tuple[int, ...], np.ndarray | Tensor]]
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    windows = [window for _, window in waiting if isinstance(window, np.ndarray)]
    answers = iter(run(np.stack(windows)) if windows else ())
    for start, window in waiting:
        yield start, window if isinstance(window, Tensor) else next(answers)


def _around(run: Run, background: np.ndarray, patch: tuple[int, ...]) -> Tensor:
    """Logits (1, K) in the middle of a window of nothing but ``background`` (C,)."""
    window = np.broadcast_to(background[:, None, None, None], (len(background), *patch))
    x, y, z = (length // 2 for length in patch)
    return run(np.array(window[None]))[:, :, x, y, z]


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode; afterwards every part of them is in the mode it was in."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
