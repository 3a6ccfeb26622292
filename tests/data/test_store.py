"""The store: decoded once, named by what defines it, rebuilt when a file changes, whole or absent."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data import store as store_module
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.pixels import prepare
from mrtransfer.data.store import open_store


def manifest_of(folder, images, **columns):
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number, image in enumerate(images):
        names.append(f"{number}.{'tif' if image.dtype.kind == 'f' else 'png'}")
        Image.fromarray(image).save(folder / names[-1])
    return Manifest.create(pd.DataFrame({"sample": names, "image": names, **columns}), folder, "tiny")


def random_images(count, shape=(20, 30), seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8))


class TestPrepare:
    def test_halving_is_close_to_the_mean_of_blocks(self):
        smooth = np.add.outer(np.linspace(0, 100, 64), np.linspace(0, 100, 64)).astype(np.uint8)
        blocks = smooth.reshape(32, 2, 32, 2).mean((1, 3))
        inner = (slice(2, -2), slice(2, -2))
        assert np.abs(prepare([smooth], size=32)[0][inner] - blocks[inner]).max() <= 1

    def test_shrinking_a_checkerboard_gives_grey_not_a_moire(self):
        board = (np.indices((120, 120)).sum(0) % 2 * 255).astype(np.uint8)
        inner = prepare([board], size=17)[0][2:-2, 2:-2].astype(int)
        assert np.abs(inner - 127).max() <= 8

    def test_uint8_of_the_right_size_is_kept_as_it_is(self):
        image = random_images(1, (16, 16))[0]
        np.testing.assert_array_equal(prepare([image], size=16)[0], image)

    def test_pad_keeps_the_aspect_and_fills_with_0(self):
        padded = prepare([np.full((10, 40), 200, np.uint8)], size=20, fit="pad")[0]
        assert (padded[8:13] == 200).sum() == 5 * 20 or (padded[7:12] == 200).sum() == 5 * 20
        assert (padded == 0).sum() == 15 * 20
        stretched = prepare([np.full((10, 40), 200, np.uint8)], size=20, fit="stretch")[0]
        assert (stretched == 200).all()

    def test_other_types_are_windowed_by_percentiles(self):
        values = np.linspace(-5, 5, 10_000, dtype=np.float32).reshape(100, 100)
        windowed = prepare([values], size=100, window=(10, 90))[0]
        expected = np.clip((values + 4) / 8, 0, 1) * 255
        assert np.abs(windowed - expected).max() <= 1
        hot = values.copy()
        hot[0, 0], hot[0, 1], hot[0, 2] = np.nan, np.inf, 1e9
        assert np.abs(prepare([hot], size=100)[0][1:].astype(int) - prepare([values], size=100)[0][1:]).max() <= 1

    @pytest.mark.parametrize("value", [0, 7, np.nan])
    def test_constant_and_empty_images_are_black(self, value):
        assert not prepare([np.full((8, 8), value, np.float32)], size=4).any()

    def test_a_thin_bright_spot_survives_the_window(self):
        spot = np.zeros((100, 100), np.uint16)
        spot[50, 50] = 60_000  # 0.01 % of the pixels: both percentiles are 0
        assert prepare([spot], size=100).max() == 255

    def test_equal_channels_count_as_one(self):
        grey = random_images(1)[0]
        assert prepare([np.stack([grey] * 3, -1)], size=8).shape == (1, 8, 8)
        assert prepare([np.stack([grey, grey, grey // 2], -1)], size=8).shape == (3, 8, 8)
        assert prepare([grey, grey], size=8).shape == (2, 8, 8)

    @given(
        st.integers(1, 40),
        st.integers(1, 40),
        st.integers(1, 33),
        st.sampled_from(["stretch", "pad"]),
        st.integers(0, 9),
    )
    def test_any_shape_fits_and_stays_between_its_values(self, height, width, size, fit, seed):
        image = np.random.default_rng(seed).integers(30, 90, (height, width), np.uint8)
        prepared = prepare([image], size=size, fit=fit)
        assert prepared.shape == (1, size, size)
        inside = prepared[prepared > 0] if fit == "pad" else prepared
        assert image.min() <= inside.min()
        assert inside.max() <= image.max()


def test_rows_are_the_prepared_images_and_opening_again_decodes_nothing(tmp_path, monkeypatch):
    images = random_images(7)
    manifest = manifest_of(tmp_path / "scans", images)
    store = open_store(manifest, size=16, directory=tmp_path / "pixels")
    assert store.images.shape == (7, 1, 16, 16)
    assert isinstance(store.images, np.memmap)
    assert not store.images.flags.writeable
    for row, image in enumerate(images):
        np.testing.assert_array_equal(store.images[row], prepare([image], size=16))
    monkeypatch.setattr(store_module, "read_image", lambda *_: pytest.fail("decoded again"))
    again = open_store(manifest, size=16, directory=tmp_path / "pixels")
    assert again.folder == store.folder
    assert again.content == store.content
    assert again.row_digests.tolist() == store.row_digests.tolist()


def test_the_content_names_the_pixels_not_the_place(tmp_path):
    images = random_images(4)
    here = open_store(manifest_of(tmp_path / "a", images), size=16, directory=tmp_path / "pixels")
    there = open_store(manifest_of(tmp_path / "b" / "c", images), size=16, directory=tmp_path / "other")
    assert here.content == there.content
    fewer = open_store(manifest_of(tmp_path / "d", images[1:3]), size=16, directory=tmp_path / "pixels")
    assert fewer.content != here.content
    assert fewer.row_digests.tolist() == here.row_digests.tolist()[1:3]
    larger = open_store(manifest_of(tmp_path / "a", images), size=17, directory=tmp_path / "pixels")
    assert larger.content != here.content


def test_a_changed_file_makes_a_new_store_and_removes_the_old_one(tmp_path):
    manifest = manifest_of(tmp_path / "scans", random_images(3))
    old = open_store(manifest, size=16, directory=tmp_path / "pixels")
    file = tmp_path / "scans" / "1.png"
    before = file.stat()
    pixels = np.asarray(Image.open(file)).copy()
    pixels[3, 3] ^= 255
    Image.fromarray(pixels).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # even with its time of change set back
    new = open_store(manifest, size=16, directory=tmp_path / "pixels")
    assert new.folder != old.folder
    assert new.content != old.content
    assert (new.row_digests == old.row_digests).tolist() == [True, False, True]
    assert not old.folder.exists()
    assert old.images[0].any()  # still readable by whoever had it open


def test_a_damaged_store_is_built_again(tmp_path):
    manifest = manifest_of(tmp_path / "scans", random_images(3))
    store = open_store(manifest, size=16, directory=tmp_path / "pixels")
    content, file = store.content, store.folder / "images.npy"
    del store
    for left in (200, 0):
        os.truncate(file, left)
        assert open_store(manifest, size=16, directory=tmp_path / "pixels").content == content
    file.unlink()
    assert open_store(manifest, size=16, directory=tmp_path / "pixels").content == content
    (file.parent / "meta.json").write_text("{")
    assert open_store(manifest, size=16, directory=tmp_path / "pixels").content == content


def test_one_colour_image_among_grey_ones_gives_all_three_channels(tmp_path):
    grey = random_images(3)
    colour = np.stack(random_images(3, seed=1), -1)
    mixed = open_store(manifest_of(tmp_path / "a", [*grey, colour, grey[0]]), size=16, directory=tmp_path / "p")
    assert mixed.images.shape == (5, 3, 16, 16)
    for row, image in enumerate(grey):
        np.testing.assert_array_equal(mixed.images[row], np.repeat(prepare([image], size=16), 3, axis=0))
    np.testing.assert_array_equal(mixed.images[3], prepare([colour], size=16))
    np.testing.assert_array_equal(mixed.images[4], mixed.images[0])
    only_grey = open_store(manifest_of(tmp_path / "b", grey), size=16, directory=tmp_path / "p")
    assert only_grey.row_digests.tolist() == mixed.row_digests.tolist()[:3]


def test_channels_from_files_of_their_own(tmp_path):
    manifest_of(tmp_path / "scans", random_images(4))
    table = pd.DataFrame({"sample": ["a", "b"], "image:flair": ["0.png", "1.png"], "image:t1": ["2.png", "3.png"]})
    manifest = Manifest.create(table, tmp_path / "scans", "two")
    store = open_store(manifest, size=16, directory=tmp_path / "pixels")
    assert store.images.shape == (2, 2, 16, 16)
    np.testing.assert_array_equal(store.images[1, 1], prepare([random_images(4)[3]], size=16)[0])
    Image.fromarray(random_images(1, (5, 5))[0]).save(tmp_path / "scans" / "3.png")
    with pytest.raises(UserError, match="sample b: its channels have different sizes"):
        open_store(manifest, size=16, directory=tmp_path / "pixels")


def test_all_unreadable_images_are_told_at_once_and_nothing_is_left(tmp_path):
    manifest = manifest_of(tmp_path / "scans", random_images(9))
    for number in range(1, 8):
        (tmp_path / "scans" / f"{number}.png").write_text("text")
    (tmp_path / "scans" / "7.png").unlink()
    with pytest.raises(UserError, match=r"tiny: 7 of 9 images cannot be used: .*and 2 more") as error:
        open_store(manifest, size=16, directory=tmp_path / "pixels")
    assert [f"{n}.png" in str(error.value) for n in range(9)] == [False, *[True] * 5, False, False, False]
    assert list((tmp_path / "pixels").iterdir()) == []


def test_files_that_change_under_the_reader_are_noticed(tmp_path, monkeypatch):
    manifest = manifest_of(tmp_path / "scans", random_images(3))
    read = store_module.read_image

    def disturbed(location, root):
        image = read(location, root)
        other = tmp_path / f"{threading.get_ident()}.png"
        Image.fromarray(255 - image).save(other)
        other.replace(tmp_path / "scans" / "0.png")  # at once: another thread may be reading it
        return image

    monkeypatch.setattr(store_module, "read_image", disturbed)
    with pytest.raises(UserError, match="tiny: its files changed while they were being read"):
        open_store(manifest, size=16, directory=tmp_path / "pixels")
    assert list((tmp_path / "pixels").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size: is 0"),
        ({"fit": "padd"}, "unknown fit 'padd': did you mean 'pad'"),
        ({"window": (99, 1)}, "window: is"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        open_store(manifest_of(tmp_path, random_images(1)), directory=tmp_path / "pixels", **options)


FULL_DISK = """
import sys
import tempfile
from pathlib import Path
from pathlib import Path
import pandas as pd
from mrtransfer.common.errors import UserError
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.store import open_store
scans, disk = Path(sys.argv[1]), Path(sys.argv[2])
names = sorted(path.name for path in scans.iterdir())
manifest = Manifest.create(pd.DataFrame({"sample": names, "image": names}), scans, "tiny")
try:
    open_store(manifest, size=64, directory=disk)
except UserError as error:
    sys.stdout.write(f"{error}\\n{[path.name for path in disk.iterdir()]}")
"""


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    manifest_of(tmp_path / "scans", random_images(40))  # 40 × 64 × 64 bytes do not fit in 64 KiB
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=64k none {tmp_path / "disk"} && exec "$@"'
    inside = ["unshare", "--mount", "--map-root-user"] if shutil.which("unshare") else ["false"]
    python = [sys.executable, "-c", FULL_DISK, str(tmp_path / "scans"), str(tmp_path / "disk")]
    if subprocess.run([*inside, "sh", "-c", mount, "sh", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    ran = subprocess.run([*inside, "sh", "-c", mount, "sh", *python], capture_output=True, text=True, check=True)
    sentence, left = ran.stdout.splitlines()
    assert "the disk is full; free some space" in sentence
    assert left == "[]"


def test_no_permission_to_write_is_one_sentence(tmp_path):
    manifest = manifest_of(tmp_path / "scans", random_images(2))
    (tmp_path / "locked").mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(Path(tempfile.gettempdir()).resolve()):
            folder.chmod(folder.stat().st_mode | 0o055)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # nobody: the superuser may write anywhere
        with pytest.raises(UserError, match=r"cannot write .*locked.*: no permission to write there; choose a folder"):
            open_store(manifest, size=16, directory=tmp_path / "locked")
    finally:
        if user == 0:
            os.seteuid(0)


def test_the_phantom_needs_no_files(tmp_path):
    phantom = pytest.importorskip("mrtransfer.data.datasets.phantom").phantom
    manifest = phantom(subjects=4, slices=2)
    store = open_store(manifest, size=32, directory=tmp_path)
    assert store.images.shape == (len(manifest), 1, 32, 32)
    assert len(set(store.row_digests)) == len(manifest)
    assert open_store(manifest, size=32, directory=tmp_path / "again").content == store.content


@pytest.mark.real_data
def test_real_slices_with_three_channels(real_data, tmp_path):
    from mrtransfer.data.datasets.lgg import lgg

    manifest = lgg(real_data / "lgg_segmentation").take(range(0, 445, 40))
    store = open_store(manifest, size=64, directory=tmp_path)
    assert store.images.shape == (12, 3, 64, 64)
    assert len(set(store.row_digests)) == 12
