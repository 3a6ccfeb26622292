"""Rendered datasets written in published layouts, read back by other libraries and by their adapters."""

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets.phantom import phantom
from mrtransfer.data.phantom.layouts import FIGSHARE_CODES, write
from mrtransfer.data.phantom.render import render, render_mask

TUMOURS = tuple(FIGSHARE_CODES)


@pytest.fixture(scope="module")
def types():
    return phantom(subjects=20, slices=2, size=48)


@pytest.fixture(scope="module")
def channels():
    return phantom(subjects=3, slices=5, task="detection", contrast=["flair", "t1ce", "t1"], size=48)


@pytest.fixture(scope="module")
def tumours():
    return phantom(subjects=9, slices=2, lesions=TUMOURS, size=48)


def test_folder_is_written_as_jpeg_with_a_split_by_subject(types, tmp_path):
    root = write(types, "folder", tmp_path / "set", test=0.25)
    files = sorted(root.glob("*/*/*.jpg"))
    assert len(files) == len(types)
    assert {f.parts[-3] for f in files} == {"Training", "Testing"}
    assert {f.parent.name for f in files} == {"glioma_tumor", "meningioma_tumor", "pituitary_tumor", "no_tumor"}
    sides = {}
    for file in files:
        sides.setdefault(file.stem.rpartition("-")[0], set()).add(file.parts[-3])
    assert all(len(side) == 1 for side in sides.values())
    assert sum(side == {"Testing"} for side in sides.values()) == 4  # a quarter of five subjects of each class
    row = types.table.index[types.table["sample"] == files[0].stem][0]
    with Image.open(files[0]) as image:
        assert image.mode == "RGB"
        difference = np.asarray(image.convert("L")).astype(float) - render(types.locations(row)[0])
    assert np.abs(difference).mean() < 4


def test_folder_keeps_a_published_split(types, tmp_path):
    table = types.table.assign(split=np.where(np.arange(len(types)) < 10, "test", "train"))
    manifest = type(types).create(table, types.root, types.name, types.classes)
    root = write(manifest, "folder", tmp_path / "set")
    assert len(list(root.glob("Testing/*/*.jpg"))) == 10


def test_lgg_is_written_as_three_channel_tiff_with_masks(channels, tmp_path):
    root = write(channels, "lgg", tmp_path / "lgg")
    assert len(list(root.glob("kaggle_3m/*/*_mask.tif"))) == len(channels)
    subject = channels.table["subject"].iloc[0]
    flair, post, pre = channels.locations(1)
    with Image.open(root / "kaggle_3m" / subject / f"{subject}_2.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), np.stack([render(x) for x in (pre, flair, post)], -1))
    with Image.open(root / "kaggle_3m" / subject / f"{subject}_2_mask.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), 255 * render_mask(flair).astype(np.uint8))


def test_figshare_is_written_as_matlab_7_3(tumours, tmp_path):
    root = write(tumours, "figshare", tmp_path / "figshare")
    assert (root / "1.mat").read_bytes()[:19] == b"MATLAB 7.3 MAT-file"
    assert (root / "1.mat").read_bytes()[124:128] == b"\x00\x02IM"
    for row in range(len(tumours)):
        location, label = tumours.locations(row)[0], tumours.table["label"].iloc[row]
        with h5py.File(root / f"{row + 1}.mat") as file:
            struct = file["cjdata"]
            assert struct.attrs["MATLAB_class"] == b"struct"
            assert struct["image"].dtype == np.int16
            np.testing.assert_array_equal(struct["image"][()].T, render(location).astype(np.int16) * 8)
            assert struct["label"][()].item() == FIGSHARE_CODES[label]
            assert struct["label"].attrs["MATLAB_class"] == b"double"
            assert "".join(map(chr, struct["PID"][()].ravel())) == tumours.table["subject"].iloc[row]
            mask = struct["tumorMask"][()].T
            np.testing.assert_array_equal(mask.astype(bool), render_mask(location + "&region=core"))
            points = struct["tumorBorder"][()].reshape(-1, 2)
            outline = mask.astype(bool) & ~ndimage.binary_erosion(mask)
            distance = ndimage.distance_transform_edt(~outline)
            x, y = np.clip(points.round().astype(int) - 1, 0, 47).T
            assert distance[y, x].max() <= 1
    with h5py.File(root / "cvind.mat") as file:
        folds = file["cvind"][()].ravel()
    assert folds.shape == (len(tumours),)
    assert set(folds) <= {1, 2, 3, 4, 5}
    assert tumours.table.assign(fold=folds).groupby("subject")["fold"].nunique().max() == 1


@pytest.mark.parametrize("layout", ["folder", "lgg", "figshare"])
def test_the_adapter_of_the_published_set_reads_it(layout, types, channels, tumours, tmp_path):
    manifest = {"folder": types, "lgg": channels, "figshare": tumours}[layout]
    read = DATASETS.get(layout)(write(manifest, layout, tmp_path / "written"))
    assert len(read) == len(manifest)
    assert sorted(np.bincount(read.labels)) == sorted(np.bincount(manifest.labels))
    if layout != "folder":
        assert set(read.table["subject"]) == set(manifest.table["subject"])


def test_a_folder_in_use_is_not_touched(types, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        write(types, "folder", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tumours, tmp_path):
    write(tumours, "figshare", tmp_path)
    assert (tmp_path / "1.mat").is_file()


def test_wrong_layouts_are_refused_with_what_would_be_right(types, channels, tmp_path):
    with pytest.raises(UserError, match="'figshare'"):
        write(types, "figshar", tmp_path / "x")
    with pytest.raises(UserError, match="contrast="):
        write(types, "lgg", tmp_path / "x")
    with pytest.raises(UserError, match="lesions="):
        write(types, "figshare", tmp_path / "x")
    with pytest.raises(UserError, match="one contrast"):
        write(channels, "folder", tmp_path / "x")
    with pytest.raises(UserError, match="task='segmentation'"):
        write(channels, "brats", tmp_path / "x")
    for layout in ("folder", "lgg", "figshare"):
        with pytest.raises(UserError, match="holds slices"):
            write(phantom(subjects=1, task="segmentation", spacing=12), layout, tmp_path / "x")
    assert not (tmp_path / "x").exists()
