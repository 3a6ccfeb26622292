"""Masks are resized as their images are, read once, and refused where they do not fit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.masks import open_masks, prepare_mask
from mrtransfer.data.pixels import prepare


def dataset(folder, masks, image=(20, 30)):
    """A table of grey images with these masks (None: no mask)."""
    rows = []
    for number, mask in enumerate(masks):
        Image.fromarray(np.full(image, 100, np.uint8)).save(folder / f"{number}.png")
        if mask is not None:
            Image.fromarray(np.uint8(255) * mask).save(folder / f"{number}_mask.png")
        rows.append(
            {
                "sample": str(number),
                "image": f"{number}.png",
                "mask": f"{number}_mask.png" if mask is not None else None,
            }
        )
    return Manifest.create(pd.DataFrame(rows), folder, "drawn")


def block(shape, rows, columns):
    mask = np.zeros(shape, dtype=bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("fit", ["stretch", "pad"])
@given(st.integers(0, 2**32 - 1), st.integers(8, 60), st.integers(8, 60), st.sampled_from([16, 24, 64]))
@settings(max_examples=25, deadline=None)
def test_a_mask_goes_where_its_image_goes(fit, seed, height, width, size):
    draw = np.random.default_rng(seed)
    top, left = draw.integers(0, height // 2), draw.integers(0, width // 2)
    mask = block((height, width), slice(top, top + height // 2), slice(left, left + width // 2))
    image = prepare([mask.astype(np.uint8) * 200], size=size, fit=fit)[0]
    inside = prepare_mask(mask, size=size, fit=fit)
    clear = np.abs(image.astype(int) - 100) > 1  # half covered is a matter of rounding
    np.testing.assert_array_equal(inside[clear], image[clear] > 100)


def test_a_lesion_of_one_pixel_does_not_get_lost():
    found = prepare_mask(block((240, 240), 100, 180), size=64, fit="stretch")
    assert 1 <= found.sum() <= 4
    assert np.abs(np.argwhere(found).mean(0) + 0.5 - np.array([100.5, 180.5]) * 64 / 240).max() < 1
    assert not prepare_mask(np.zeros((240, 240), bool), size=64, fit="pad").any()


def test_masks_are_kept_and_found_again(tmp_path):
    masks = [block((20, 30), slice(2, 9), slice(20, 28)), None, np.zeros((20, 30), bool)]
    manifest = dataset(tmp_path, masks)
    first = open_masks(manifest, size=16, fit="pad", directory=tmp_path / "kept")
    assert first.filled.tolist() == [True, False, False]
    np.testing.assert_array_equal(first.mask(0), prepare_mask(masks[0], size=16, fit="pad"))
    assert not first.mask(1).any()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.npy")}
    again = open_masks(manifest, size=16, fit="pad", directory=tmp_path / "kept")
    assert again.content == first.content
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.npy")} == written
    Image.fromarray(np.uint8(255) * masks[0][::-1]).save(tmp_path / "0_mask.png")
    changed = open_masks(manifest, size=16, fit="pad", directory=tmp_path / "kept")
    assert changed.content != first.content


def test_a_dataset_without_masks_has_none(tmp_path):
    assert open_masks(dataset(tmp_path, [None, None]), size=16, directory=tmp_path / "kept") is None


def test_masks_that_do_not_fit_their_images_are_all_counted(tmp_path):
    manifest = dataset(tmp_path, [np.zeros((20, 30), bool), np.ones((30, 20), bool), np.ones((5, 5), bool)])
    with pytest.raises(
        UserError, match=r"2 of 3 masks cannot be used: sample 1: .*30 × 20 pixels and its image 20 × 30"
    ):
        open_masks(manifest, size=16, directory=tmp_path / "kept")
    (tmp_path / "1_mask.png").unlink()
    with pytest.raises(UserError, match=r"sample 1: .*1_mask\.png: no such file"):
        open_masks(manifest, size=16, directory=tmp_path / "kept")


def test_every_slice_of_the_phantom_that_is_called_tumour_has_a_mask(tmp_path):
    contrasts = ["t1", "flair", "t1ce"]
    manifest = DATASETS.get("phantom")(None, task="detection", contrast=contrasts, subjects=5, slices=6, size=64)
    masks = open_masks(manifest, size=64, directory=tmp_path)
    np.testing.assert_array_equal(masks.filled, manifest.labels == manifest.classes.index("tumour"))
