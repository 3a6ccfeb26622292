"""(h) MRAugment: our batches against slices one at a time, slices a second.

    python -m bench.mraugment [--coils 8] [--batch 8] [--probability 0.55] [--rounds 7] [--threads 1] [--device cpu]

Every side starts from the same fully sampled complex64 k-space and the same drawn parameters, and ends with augmented
k-space and target. ``torchvision``: a slice at a time as the authors' published code does it (real and imaginary parts
of all coils through torchvision's functions, reflect padding to the transformed bounding box, affine, crop back).
``scipy``: a slice at a time, every coil by scipy.ndimage, as their paper did it with scikit-image, but bilinear like
the others. Alternately in one process, each round with a batch of its own. On a processor, both of these and ours use
the same number of threads; on an accelerator they stay on the processor. ``transforms``: nothing but the two Fourier
transforms that no side can do without, on the same device as ours, so ``most_over_torchvision`` is what could be gained
at all. Agreement: the largest difference of targets, and of coil images away from the border, over the largest value.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import torch
import torchvision.transforms.functional as TF  # noqa: N812  (torchvision's own convention)

from bench.common import median
from mrtransfer.augment.kspace import MRAugment, MRParams, augmented
from mrtransfer.physics.fourier import ifft2c

MATRICES = {(256, 256): (256, 256), (640, 368): (320, 320)}  # and the target's crop
PLANE = (-2, -1)


def main() -> None:
    """Measure every matrix size, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--probability", type=float, default=0.55)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {f"{height}x{width}": measure(options, (height, width)) for height, width in MATRICES}
    print(json.dumps({**vars(options), **found}, indent=1))


def measure(options: argparse.Namespace, shape: tuple[int, int]) -> dict[str, Any]:
    """Slices a second of each side, by wall clock and by processor time, the ratios, and how far they agree."""
    crop = MATRICES[shape]
    kspace = scan(options.batch, options.coils, shape)
    on_device = kspace.to(options.device)
    sides: dict[str, Callable[[MRParams], Any]] = {
        "ours": lambda params: finished(augmented(on_device, params, crop)),
        "torchvision": lambda params: [with_torchvision(k, params, i, crop) for i, k in enumerate(kspace)],
        "scipy": lambda params: [with_scipy(k.numpy(), params, i, crop) for i, k in enumerate(kspace)],
        "transforms": lambda params: finished((torch.fft.fft2(torch.fft.ifft2(on_device)),)),
    }
    wall: dict[str, list[float]] = {side: [] for side in sides}
    processor: dict[str, list[float]] = {side: [] for side in sides}
    largest: dict[str, float] = {}
    for turn in range(options.rounds + 1):
        seeds = [turn * options.batch + item for item in range(options.batch)]
        params = MRAugment().sample_each(seeds, shape, options.probability)
        results = {}
        for side, work in sides.items():
            started, busy = time.perf_counter(), time.process_time()
            results[side] = work(params)
            if turn:  # the first warms up
                wall[side].append(time.perf_counter() - started)
                processor[side].append(time.process_time() - busy)
        for name, value in differences(results).items():
            largest[name] = max(largest.get(name, 0.0), value)
    found: dict[str, Any] = {
        side: {
            "slices_per_s": round(options.batch / median(wall[side]), 2),
            "slices_per_cpu_s": round(options.batch / median(processor[side]), 2),
        }
        for side in sides
    }
    for side in ("torchvision", "scipy"):
        by_round = [other / own for own, other in zip(wall["ours"], wall[side], strict=True)]
        found[f"ours_over_{side}"] = round(median(by_round), 2)
    possible = [other / least for least, other in zip(wall["transforms"], wall["torchvision"], strict=True)]
    found["most_over_torchvision"] = round(median(possible), 2)
    return found | {name: float(f"{value:.1e}") for name, value in largest.items()}


def scan(batch: int, coils: int, shape: tuple[int, int]) -> torch.Tensor:
    """Fully sampled k-space (N, C, H, W) whose energy falls off from the centre as that of anatomy does."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, coils, *shape, dtype=torch.complex64, generator=generator)
    rows, columns = (torch.arange(side) - side // 2 for side in shape)
    return noise / (1 + (rows[:, None] ** 2 + columns**2) / 16)


def finished(results: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """``results``, once the device has them."""
    if results[0].is_cuda:
        torch.cuda.synchronize()
    return results


def differences(results: dict[str, Any], margin: int = 16) -> dict[str, float]:
    """The largest difference of each slice-wise side from ours, relative to the largest value."""
    ours, ours_targets = (part.cpu() for part in results["ours"][:2])
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    found = {}
    for side in ("torchvision", "scipy"):
        spectra, targets = (
            torch.stack([torch.as_tensor(part) for part in of]) for of in zip(*results[side], strict=True)
        )
        images, ours_images = ifft2c(spectra), ifft2c(ours)
        found[f"{side}_target_difference"] = relative(targets[inner], ours_targets[inner])
        found[f"{side}_image_difference"] = relative(images[inner], ours_images[inner])
    return found


def relative(these: torch.Tensor, those: torch.Tensor) -> float:
    return float((these - those).abs().max() / those.abs().max())


def with_torchvision(
    kspace: torch.Tensor, params: MRParams, item: int, crop: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One slice (C, H, W), as the published code does it."""
    shape = kspace.shape[-2:]
    images = torch.fft.ifftshift(kspace, dim=PLANE)
    images = torch.fft.fftshift(torch.fft.ifft2(images, dim=PLANE, norm="ortho"), dim=PLANE)
    parts = torch.view_as_real(images).permute(3, 0, 1, 2)
    if params.hflip[item]:
        parts = TF.hflip(parts)
    if params.vflip[item]:
        parts = TF.vflip(parts)
    if turns := int(params.rot90[item]):
        parts = torch.rot90(parts, turns, dims=PLANE)
        missing = [max(shape[axis] - parts.shape[axis - 2], 0) for axis in range(2)]
        parts = TF.pad(parts, [missing[1] // 2, missing[0] // 2], padding_mode="reflect") if any(missing) else parts
        parts = TF.center_crop(parts, list(shape))
    down, right = params.translate[item].tolist()
    if down or right:
        border = [max(right, 0), max(down, 0), max(-right, 0), max(-down, 0)]
        parts = TF.pad(parts, border, padding_mode="reflect")
        parts = TF.crop(parts, max(-down, 0), max(-right, 0), *shape)
    if params.warps[item]:
        angle, scale, shear = -float(params.rotate[item]), float(params.scale[item]), params.shear[item].tolist()
        back = np.array(TF._get_inverse_affine_matrix([0.0, 0.0], angle, [0, 0], scale, shear)).reshape(2, 3)[:, :2]
        box = np.abs(back) @ np.array(shape[::-1])
        border = [int(np.clip((box[axis] - shape[1 - axis]) // 2, 0, shape[1 - axis] - 1)) for axis in range(2)]
        parts = TF.pad(parts, border, padding_mode="reflect")
        parts = TF.affine(parts, angle, [0, 0], scale, shear, interpolation=TF.InterpolationMode.BILINEAR)
        parts = TF.center_crop(parts, list(shape))
    parts = parts.permute(1, 2, 3, 0).contiguous()
    target = TF.center_crop((parts**2).sum(dim=-1).sum(dim=0).sqrt(), list(crop))
    images = torch.fft.ifftshift(torch.view_as_complex(parts), dim=PLANE)
    return torch.fft.fftshift(torch.fft.fft2(images, dim=PLANE, norm="ortho"), dim=PLANE), target


def with_scipy(kspace: np.ndarray, params: MRParams, item: int, crop: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One slice (C, H, W), every coil by itself."""
    shape = kspace.shape[-2:]
    images = scipy.fft.ifft2(scipy.fft.ifftshift(kspace, axes=PLANE), norm="ortho")
    images = scipy.fft.fftshift(images, axes=PLANE)
    images = images[..., ::-1] if params.hflip[item] else images
    images = images[..., ::-1, :] if params.vflip[item] else images
    if turns := int(params.rot90[item]):
        images = np.rot90(images, turns, axes=PLANE)
        images = fitted(images, shape)
    down, right = params.translate[item].tolist()
    if down or right:
        border = ((0, 0), (max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0)))
        images = np.pad(images, border, mode="reflect")
        images = images[:, max(-down, 0) :][:, : shape[0], max(-right, 0) :][..., : shape[1]]
    if params.warps[item]:
        angle, scale, shear = -float(params.rotate[item]), float(params.scale[item]), params.shear[item].tolist()
        back = np.array(TF._get_inverse_affine_matrix([0.0, 0.0], angle, [0, 0], scale, shear)).reshape(2, 3)[:, :2]
        back, middle = back[::-1, ::-1], (np.array(shape) - 1) / 2
        options: dict[str, Any] = {"offset": middle - back @ middle, "order": 1, "mode": "mirror"}
        images = np.stack([scipy.ndimage.affine_transform(image, back, **options) for image in images])
    target = fitted(np.sqrt((np.abs(images) ** 2).sum(axis=0)), crop)
    spectrum = scipy.fft.fft2(scipy.fft.ifftshift(images, axes=PLANE), norm="ortho")
    return scipy.fft.fftshift(spectrum, axes=PLANE), target


def fitted(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The centre of ``images``, reflected where there is too little."""
    missing = [max(shape[axis] - images.shape[axis - 2], 0) for axis in range(2)]
    border = [(0, 0)] * (images.ndim - 2) + [
        (side - side // 2 if side % 2 else side // 2, side // 2) for side in missing
    ]
    images = np.pad(images, border, mode="reflect") if any(missing) else images
    top, left = ((images.shape[axis - 2] - shape[axis]) // 2 for axis in range(2))
    return images[..., top : top + shape[0], left : left + shape[1]]


if __name__ == "__main__":
    main()
