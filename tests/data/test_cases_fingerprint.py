"""The fingerprint: what the training cases look like, and nothing else."""

import json

import numpy as np
import pandas as pd
import pytest
from case_files import LABELS, affine_of, blob, manifest_of, scan, write
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases import fingerprint as module
from mrtransfer.data.cases import reading
from mrtransfer.data.cases.fingerprint import Fingerprint, fingerprint
from mrtransfer.data.manifest import Manifest


def every(manifest):
    return np.arange(len(manifest))


def test_sizes_are_along_canonical_axes(tmp_path):
    shapes = [(12, 14, 10), (16, 18, 11), (20, 14, 13)]
    turned = affine_of((2, 3, 1), axes=(1, 2, 0), signs=(-1, 1, -1))  # voxel axes point to posterior, superior, left
    affines = [affine_of((1, 1.5, 4)), affine_of((1, 1.5, 5)), turned]
    manifest = manifest_of(tmp_path, [scan(shape) for shape in shapes], affine=affines)
    found = fingerprint(manifest, every(manifest))
    canonical = np.array([[12, 14, 10], [16, 18, 11], [13, 20, 14]])
    spacing = np.array([[1, 1.5, 4], [1, 1.5, 5], [1, 2, 3]])
    np.testing.assert_allclose(found.shape.median, np.median(canonical, axis=0))
    np.testing.assert_allclose(found.spacing.tenth, np.percentile(spacing, 10, axis=0))
    np.testing.assert_allclose(found.extent.most, (canonical * spacing).max(axis=0))
    assert (found.cases, found.labelled, found.channels) == (3, 0, ("flair",))


def test_classes_are_counted_over_all_masks(tmp_path):
    masks = [blob(), np.zeros_like(blob()), None]
    manifest = manifest_of(tmp_path, [scan(seed=i) for i in range(3)], masks)
    found = fingerprint(manifest, every(manifest))
    rim, core, total = 6 * 6 * 6 - 2 * 4 * 4, 2 * 4 * 4, 2 * 12 * 14 * 10
    assert found.class_voxels == {"background": total - rim - core, "core": core, "rim": rim}
    assert found.class_cases == {"background": 2, "core": 1, "rim": 1}
    assert found.class_frequencies["rim"] == pytest.approx(rim / total)
    assert found.labelled == 2


@pytest.mark.parametrize("value", [0.0, -0.6])  # brains that were cut out, and those that were normalised afterwards
def test_a_removed_background_is_found_and_left_out(tmp_path, value):
    image = np.full((20, 24, 16), value, np.float32)
    image[4:16, 5:20, 2:14] = scan((12, 15, 12))
    manifest = manifest_of(tmp_path, [image] * 2, affine=affine_of((1, 1, 2)))
    found = fingerprint(manifest, every(manifest))
    assert found.background_removed
    assert found.background_share == pytest.approx(1 - 12 * 15 * 12 / image.size)
    assert found.extent.median == (12, 15, 24)
    assert found.intensities["flair"].mean == pytest.approx(image[4:16, 5:20, 2:14].mean(), rel=1e-5)
    assert found.intensities["flair"].deviation == pytest.approx(image[4:16, 5:20, 2:14].std(), rel=1e-5)


def test_a_few_voxels_of_0_are_no_removed_background(tmp_path):
    image = scan((20, 24, 16))
    image[:2] = 0  # all corners of one side
    manifest = manifest_of(tmp_path, [image])
    found = fingerprint(manifest, every(manifest))
    assert not found.background_removed
    assert found.extent.median == (20, 24, 16)


def test_only_the_given_rows_are_read(tmp_path):
    manifest = manifest_of(tmp_path, [scan(seed=i) for i in range(4)])
    for row in (0, 3):
        (tmp_path / f"case{row}" / "flair.nii").unlink()
    assert fingerprint(manifest, np.array([2, 1])).cases == 2


def test_a_kept_case_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    manifest = manifest_of(tmp_path / "scans", [scan(seed=i) for i in range(4)], [blob()] * 4)
    cache, read, rows = tmp_path / "cache", reading.read_case, []
    monkeypatch.setattr(reading, "read_case", lambda manifest, row: rows.append(row) or read(manifest, row))
    first = fingerprint(manifest, np.array([0, 1, 2]), cache=cache)
    assert fingerprint(manifest, np.array([0, 1, 2]), cache=cache) == first
    assert sorted(rows) == [0, 1, 2]
    fingerprint(manifest, np.array([1, 2, 3]), cache=cache)
    assert sorted(rows) == [0, 1, 2, 3]
    write(tmp_path / "scans" / "case1" / "seg.nii", np.zeros_like(blob()))
    assert fingerprint(manifest, np.array([0, 1, 2]), cache=cache).class_cases["rim"] == 2
    assert rows[4:] == [1]
    for file in cache.iterdir():
        file.write_text("{")
    assert fingerprint(manifest, np.array([0]), cache=cache).cases == 1


def test_pictures_of_8_bits_are_told_from_scans(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    table = pd.DataFrame({"sample": ["a"], "image": ["a.png"]})
    found = fingerprint(Manifest.create(table, tmp_path, "pictures"), np.array([0]))
    assert found.uint8
    assert found.channels == ("red", "green", "blue")
    assert found.shape.median == (20, 24, 1)
    whole_numbers = manifest_of(tmp_path, [np.rint(scan()).astype(np.uint8)])
    assert not fingerprint(whole_numbers, np.array([0])).uint8


def test_grey_and_colour_pictures_do_not_mix(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    Image.fromarray(colours[..., 0]).save(tmp_path / "b.png")
    table = pd.DataFrame({"sample": ["a", "b"], "image": ["a.png", "b.png"]})
    with pytest.raises(UserError, match=r"some cases have the channels .* and .*; all cases must have the same"):
        fingerprint(Manifest.create(table, tmp_path, "pictures"), np.arange(2))


def test_all_unreadable_cases_are_named_at_once(tmp_path):
    manifest = manifest_of(tmp_path, [scan(seed=i) for i in range(9)])
    for row in range(1, 8):
        (tmp_path / f"case{row}" / "flair.nii").write_bytes(b"no scan")
    with pytest.raises(UserError, match=r"tiny: 7 of 9 cases cannot be used: .*and 2 more: case6, case7") as error:
        fingerprint(manifest, every(manifest))
    assert [f"case{row}/flair.nii" in str(error.value) for row in range(9)] == [False, *[True] * 5, *[False] * 3]


def test_without_training_cases_there_is_nothing_to_look_at(tmp_path):
    with pytest.raises(UserError, match="tiny: there are no training cases"):
        fingerprint(manifest_of(tmp_path, [scan()]), np.array([], dtype=int))


def test_it_is_json(tmp_path):
    manifest = manifest_of(tmp_path, [scan()], [blob()])
    found = fingerprint(manifest, np.array([0]))
    assert Fingerprint(**json.loads(json.dumps(found.to_json()))) == found
    assert LABELS.names == tuple(found.class_voxels)


def test_percentiles_are_those_of_all_voxels_within_sampling_error(tmp_path, monkeypatch):
    image = scan((40, 40, 40))
    manifest = manifest_of(tmp_path, [image])
    whole = fingerprint(manifest, np.array([0])).intensities["flair"]
    np.testing.assert_allclose([whole.low, whole.median, whole.high], np.percentile(image, [0.5, 50, 99.5]), rtol=1e-5)
    monkeypatch.setattr(module, "_SAMPLED", 5000)
    part = fingerprint(manifest, np.array([0])).intensities["flair"]
    assert part.mean == pytest.approx(whole.mean)
    np.testing.assert_allclose([part.low, part.median, part.high], [whole.low, whole.median, whole.high], atol=2)
