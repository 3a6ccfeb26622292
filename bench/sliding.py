"""(e) Sliding-window inference: ours against MONAI's with its defaults, on the same network, volume and window.

    python -m bench.sliding [--path BRATS_CASE] [--window 96 96 96] [--network residual_unet] [--repeats 3]

One volume of 240 × 240 × 155 voxels and two channels: a BraTS case (FLAIR and T1 post-contrast), or a made-up head in
air with a tumour of three tissues. The network first learns to segment that very volume for some steps, so that the
label maps which are compared have tumours in them; with random weights they would be noise.

MONAI's defaults: float32, overlap 0.25, constant blending. Ours, in the precision that a short measurement picks:

    same       the same windows and blending, so that the label maps must agree
    gaussian   the same overlap, Gaussian blending, windows over the box that is not air
    default    as `mrtransfer predict` does it: that with overlap 0.5

All run in turns; the median time of each counts. Dice per class: of MONAI's label map with ours, of each with the
reference.
"""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from scipy.ndimage import gaussian_filter
from torch import nn

from bench.common import median, seconds
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.training.precision import placed
from mrtransfer.training.sliding import precision_for_prediction, predict_case

CLASSES = 4
LEARNING_PATCH = 48
WAYS: dict[str, dict[str, Any]] = {
    "same": {"overlap": 0.25, "blending": "constant", "skip_background": False},
    "gaussian": {"overlap": 0.25},
    "default": {},
}


def main() -> None:
    """Let the network learn, run both sides alternately, print times, ratio and Dice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, help="a BraTS case folder (*_flair, *_t1ce, *_seg)")
    parser.add_argument("--network", default="residual_unet")
    parser.add_argument("--shape", type=int, nargs=3, default=(240, 240, 155))
    parser.add_argument("--window", type=int, nargs=3, default=(96, 96, 96))
    parser.add_argument("--steps", type=int, default=200, help="of learning, before anything is timed")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(measure(options), indent=1))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both sides, their ratio, and how far the label maps agree."""
    image, mask = brats_case(options.path) if options.path else made_up(tuple(options.shape))
    network = build_segmentation_network(options.network, in_channels=2, dims=3, seed=0)
    head = pixel_head(network.features, CLASSES, seed=0)
    learn(network, head, image, mask, options.steps)
    network.eval()
    plan = SimpleNamespace(patch=tuple(options.window), normalise=("zscore_nonzero",) * 2)
    precision = precision_for_prediction(network, head, image, plan=plan)
    inputs = torch.from_numpy(image[None])
    maps: dict[str, np.ndarray] = {}

    def monai() -> None:
        with torch.no_grad():
            found = sliding_window_inference(inputs, plan.patch, 1, lambda x: head(network(x)))
        maps["monai"] = found[0].argmax(dim=0).numpy()

    def ours(name: str) -> None:
        found = predict_case(network, head, image, plan=plan, loss="dice_ce", precision=precision, **WAYS[name])
        maps[name] = torch.from_numpy(found).argmax(dim=0).numpy()

    times: dict[str, list[float]] = {name: [] for name in ("monai", *WAYS)}
    for _ in range(options.repeats):
        times["monai"].append(seconds(monai))
        with placed(precision, "cpu", network, head):
            for name in WAYS:
                times[name].append(seconds(lambda name=name: ours(name)))
    monais = mean_dice(maps["monai"], mask)
    return {
        "volume": list(image.shape),
        "window": list(plan.patch),
        "network": options.network,
        "precision": precision.name,
        "seconds": {name: [round(value, 2) for value in values] for name, values in times.items()},
        "times_faster_than_monai": {name: round(median(times["monai"]) / median(times[name]), 2) for name in WAYS},
        "mean_dice_minus_monais": {name: round(mean_dice(maps[name], mask) - monais, 5) for name in WAYS},
        "dice_with_monai": {name: dice(maps[name], maps["monai"]) for name in WAYS},
        "dice_with_reference": {name: dice(found, mask) for name, found in maps.items()},
    }


def made_up(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A head in air, z-scored (2, X, Y, Z) float32, and its mask: oedema 1 around a rim 2 around a core 3."""
    generator = np.random.default_rng(0)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij"))
    head = ((place / np.reshape((0.56, 0.74, 0.87), (3, 1, 1, 1))) ** 2).sum(axis=0) < 1  # the share that brains have
    distance = np.sqrt(((place - np.reshape((0.2, -0.15, 0.1), (3, 1, 1, 1))) ** 2).sum(axis=0))
    distance += 0.02 * gaussian_filter(generator.normal(size=shape).astype(np.float32), 3) * 3**1.5
    mask = sum((distance < radius).astype(np.uint8) for radius in (0.4, 0.28, 0.18))
    texture = gaussian_filter(generator.normal(size=(2, *shape)).astype(np.float32), (0, 2, 2, 2))
    levels = np.array([[1.0, 1.8, 1.5, 0.7], [1.0, 0.9, 2.2, 0.6]], np.float32)
    image = levels[:, mask] + 0.8 * texture + generator.normal(0, 0.08, (2, *shape)).astype(np.float32)
    return standardised(image * head), mask * head


def brats_case(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """FLAIR and T1 post-contrast of a BraTS case, z-scored, and its mask with enhancing tumour as 3."""
    files = [next(folder.glob(f"*_{name}.nii*")) for name in ("flair", "t1ce", "seg")]
    flair, t1ce, mask = (np.asarray(nib.load(file).dataobj) for file in files)
    return standardised(np.stack([flair, t1ce]).astype(np.float32)), np.where(mask == 4, 3, mask).astype(np.uint8)


def standardised(image: np.ndarray) -> np.ndarray:
    """Each channel with mean 0 and standard deviation 1 in what is not air, which stays 0."""
    inside = image != 0
    for channel, where in zip(image, inside, strict=True):
        channel[where] = (channel[where] - channel[where].mean()) / channel[where].std()
    return image


def learn(network: nn.Module, head: nn.Module, image: np.ndarray, mask: np.ndarray, steps: int) -> None:
    """Steps of Adam on patches that are centred on tumour or anywhere in the head, alternately."""
    generator = np.random.default_rng(0)
    patch = [min(LEARNING_PATCH, size // 16 * 16) for size in mask.shape]
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], 2e-3)
    tumour, tissue = np.argwhere(mask > 0), np.argwhere(image[0] != 0)
    network.to(memory_format=torch.channels_last_3d)
    for step in range(steps):
        centre = generator.choice(tumour if step % 2 else tissue)
        low = [int(np.clip(c - p // 2, 0, n - p)) for c, p, n in zip(centre, patch, mask.shape, strict=True)]
        at = tuple(slice(first, first + size) for first, size in zip(low, patch, strict=True))
        inputs = torch.from_numpy(image[(slice(None), *at)][None].copy())
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(network(inputs.contiguous(memory_format=torch.channels_last_3d)))
        loss = nn.functional.cross_entropy(logits.float(), torch.from_numpy(mask[at][None].astype(np.int64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.to(memory_format=torch.contiguous_format)


def dice(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Dice of each tumour class between two label maps."""
    return [
        round(float(2 * ((one == k) & (other == k)).sum() / max((one == k).sum() + (other == k).sum(), 1)), 5)
        for k in range(1, CLASSES)
    ]


def mean_dice(found: np.ndarray, mask: np.ndarray) -> float:
    """The mean over tumour classes."""
    return float(np.mean(dice(found, mask)))


if __name__ == "__main__":
    main()
