"""Small volumes written as NIfTI files, and the manifest that names them."""

import nibabel as nib
import numpy as np
import pandas as pd

from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels

LABELS = MaskLabels.create({"core": 1, "rim": [2, 4]}, {"whole": ["core", "rim"], "core": ["core"]})


def affine_of(spacing=(1.0, 1.0, 1.0), axes=(0, 1, 2), signs=(1, 1, 1)):
    """Voxel axis i runs along patient axis ``axes[i]`` in direction ``signs[i]``, in steps of ``spacing[i]`` mm."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for i, (axis, sign, step) in enumerate(zip(axes, signs, spacing, strict=True)):
        affine[axis, i] = sign * step
    return affine


def write(path, data, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)


def scan(shape=(12, 14, 10), seed=0, offset=100.0):
    """Noise without any exact 0."""
    return (np.random.default_rng(seed).normal(offset, 10, shape)).astype(np.float32)


def blob(shape=(12, 14, 10)):
    """Mask values 0, 1, 2 and 4."""
    mask = np.zeros(shape, np.uint8)
    mask[2:8, 3:9, 2:8] = 2
    mask[3:5, 4:8, 3:7] = 4
    mask[5:7, 4:8, 3:7] = 1
    return mask


def manifest_of(folder, images, masks=None, affine=None, channels=("flair",), labels=LABELS, name="tiny"):
    """One case per entry of ``images``, an array or one array per channel; ``affine``: one for all, or one per case."""
    table = {"sample": [f"case{i}" for i in range(len(images))]}
    affines = affine if isinstance(affine, list) else [affine] * len(images)
    for c, channel in enumerate(channels):
        table[f"image:{channel}"] = [f"case{i}/{channel}.nii" for i in range(len(images))]
        for i, image in enumerate(images):
            write(folder / f"case{i}" / f"{channel}.nii", image[c] if len(channels) > 1 else image, affines[i])
    if masks is not None:
        table["mask"] = [None if mask is None else f"case{i}/seg.nii" for i, mask in enumerate(masks)]
        for i, mask in enumerate(masks):
            if mask is not None:
                write(folder / f"case{i}" / "seg.nii", mask, affines[i])
    return Manifest.create(pd.DataFrame(table), folder, name, mask_labels=labels)
