"""The store of cases: prepared once as the plan says, memory-mapped, named by its sources, whole or absent."""

import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from case_files import LABELS, affine_of, blob, manifest_of, scan, write

from mrtransfer.common.errors import UserError
from mrtransfer.data import stored
from mrtransfer.data.cases import reading
from mrtransfer.data.cases import store as module
from mrtransfer.data.cases.normalise import normalised, padding_values
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.data.cases.prepare import case_frame
from mrtransfer.data.cases.store import POINTS, open_cases
from mrtransfer.data.volume import read_case


def plan_of(**changes):
    fields = {
        "dims": 3, "spacing": (1, 1, 1), "crop": "none", "normalise": ("zscore",), "patch": (8, 8, 8), "batch": 2,
        "features": (8, 16), "strides": ((2, 2, 2),), "class_frequencies": {},
    }  # fmt: skip
    return SegmentationPlan(**{**fields, **changes})


def noise(count, shape=(12, 14, 10)):
    return [scan(shape, seed) for seed in range(count)]


class TestNormalise:
    def test_zscore_has_mean_0_and_deviation_1(self):
        image = np.stack([scan(offset=500), scan(offset=-3)])
        found = normalised(image, ("zscore", "zscore"))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.mean((1, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(found.std((1, 2, 3)), 1, rtol=1e-5)
        np.testing.assert_allclose(found[1], (image[1] - image[1].mean()) / image[1].std(), atol=1e-5)

    @pytest.mark.parametrize("value", [0.0, -0.6])
    def test_zscore_of_what_is_not_background_which_becomes_0(self, value):
        image = np.full((2, 20, 20, 20), value, np.float32)
        image[:, 4:16, 4:16, 4:16] = np.stack([scan((12,) * 3, 0), scan((12,) * 3, 1)])
        image[0, 8, 8, 8] = value  # the other channel shows something there
        found = normalised(image, ("zscore_nonzero",) * 2)
        inside = image[0, 4:16, 4:16, 4:16]
        np.testing.assert_allclose(found[0, 4:16, 4:16, 4:16], (inside - inside.mean()) / inside.std(), atol=1e-4)
        found[:, 4:16, 4:16, 4:16] = 0
        assert not found.any()

    @pytest.mark.slow  # the import
    def test_monai_agrees_where_every_channel_shows_the_whole_brain(self):
        transforms = pytest.importorskip("monai.transforms")
        image = np.zeros((2, 20, 20, 20), np.float32)
        image[:, 3:17, 3:17, 3:17] = np.stack([scan((14,) * 3, 0), scan((14,) * 3, 1)])
        theirs = transforms.NormalizeIntensity(nonzero=True, channel_wise=True)(image)
        np.testing.assert_allclose(normalised(image, ("zscore_nonzero",) * 2), np.asarray(theirs), atol=1e-4)

    def test_uint8_as_networks_for_photographs_see_it(self):
        image = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.float32)
        expected = (image[:, :, :, 0].transpose(1, 2, 0) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(normalised(image, ("uint8",) * 3)[..., 0].transpose(1, 2, 0), expected, atol=1e-5)
        np.testing.assert_allclose(normalised(image[:1], ("uint8",)), image[:1] / 127.5 - 1, atol=1e-5)

    def test_a_channel_of_one_value_becomes_0(self):
        assert not normalised(np.full((1, 4, 4, 1), 7, np.float32), ("zscore",)).any()
        assert not normalised(np.zeros((1, 4, 4, 1), np.float32), ("zscore_nonzero",)).any()

    def test_padding_is_background_or_else_the_least_value(self):
        image = np.array([[[[-2.0, 3.0]]], [[[-4.0, 0.0]]]], np.float32)
        assert padding_values(image, ("zscore", "zscore_nonzero")).tolist() == [-2, 0]


class TestPrepared:
    def test_axes_are_canonical_and_voxels_are_kept_where_the_spacing_fits(self, tmp_path):
        affine = affine_of((1.004, 1, 1), axes=(1, 0, 2), signs=(-1, 1, 1))
        manifest = manifest_of(tmp_path, noise(1), [blob()], affine=affine)
        store = open_cases(manifest, plan_of(), tmp_path / "cases")
        expected = normalised(scan()[None], ("zscore",))[0].transpose(1, 0, 2)[:, ::-1]
        np.testing.assert_array_equal(store.image(0)[0], expected.astype(np.float16))
        classes = LABELS.to_classes(blob(), "mask").transpose(1, 0, 2)[:, ::-1]
        np.testing.assert_array_equal(store.mask(0), classes)

    def test_other_spacings_are_resampled(self, tmp_path):
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in (24, 20, 16)), indexing="ij"))
        wave = np.sin(grid[0] / 4) + np.cos(grid[1] / 5) + grid[2] / 8
        mask = np.zeros(wave.shape, np.uint8)
        mask[8:16, 6:14, 4:12] = 1
        manifest = manifest_of(tmp_path, [wave.astype(np.float32)], [mask], affine=affine_of((1, 1, 2)))
        store = open_cases(manifest, plan_of(spacing=(2, 2, 2)), tmp_path / "cases")
        assert store.shapes.tolist() == [[12, 10, 16]]
        np.testing.assert_array_equal(store.mask(0), mask[::2, ::2])
        halves = normalised(wave[None].astype(np.float32), ("zscore",))[0].reshape(12, 2, 10, 2, 16).mean((1, 3))
        assert np.abs(store.image(0)[0] - halves)[1:-1, 1:-1].max() < 0.03
        assert store.frame(0).prepared_shape == (12, 10, 16)

    def test_a_brain_is_cropped_and_written_back_where_it_was(self, tmp_path):
        image, mask = np.zeros((2, 30, 28, 26), np.float32), np.zeros((30, 28, 26), np.uint8)
        image[0, 5:25, 6:20, 7:19], image[1, 5:25, 6:20, 7:19] = scan((20, 14, 12), 0), scan((20, 14, 12), 1)
        mask[8:14, 8:14, 9:15] = 4
        manifest = manifest_of(tmp_path, [image], [mask], channels=("flair", "t1"), affine=affine_of(signs=(-1, -1, 1)))
        plan = plan_of(crop="nonzero", normalise=("zscore_nonzero",) * 2)
        store = open_cases(manifest, plan, tmp_path / "cases")
        assert store.shapes.tolist() == [[20, 14, 12]]
        assert store.channels == ("flair", "t1")
        one_hot = np.stack([store.mask(0) == k for k in range(3)]).astype(np.float32)
        back = store.frame(0).to_original(one_hot, outside=(1, 0, 0)).argmax(0)
        np.testing.assert_array_equal(back, LABELS.to_classes(mask, "mask"))

    def test_thick_slices_and_a_volume_smaller_than_the_patch(self, tmp_path):
        manifest = manifest_of(tmp_path, noise(1, (32, 30, 5)), affine=affine_of((1, 1, 5)))
        store = open_cases(manifest, plan_of(spacing=(1, 1, 3), patch=(64, 64, 64)), tmp_path / "cases")
        assert store.shapes.tolist() == [[32, 30, 8]]

    def test_the_frame_of_prediction_is_the_frame_of_training(self, tmp_path):
        manifest = manifest_of(tmp_path, noise(1), affine=affine_of((1.5, 1, 1)))
        plan = plan_of()
        store, case = open_cases(manifest, plan, tmp_path / "cases"), read_case(manifest, 0)
        assert store.frame(0).to_json() == case_frame(case.image, case.affine, plan).to_json()


class TestForeground:
    def test_few_voxels_are_all_kept(self, tmp_path):
        store = open_cases(manifest_of(tmp_path, noise(2), [np.zeros_like(blob()), blob()]), plan_of(), tmp_path / "c")
        classes = LABELS.to_classes(blob(), "mask")
        for cls in (1, 2):
            np.testing.assert_array_equal(store.foreground(1, cls), np.argwhere(classes == cls))
            assert store.foreground(0, cls).shape == (0, 3)
        assert store.foreground(1, 1).dtype == np.int32
        assert store.classes_in == ((), (1, 2))

    def test_of_many_an_even_sample_is_kept(self, tmp_path):
        mask = np.zeros((40, 30, 30), np.uint8)
        mask[:, :, 5:] = 1
        manifest = manifest_of(tmp_path, noise(2, mask.shape), [mask, mask])
        store = open_cases(manifest, plan_of(), tmp_path / "cases")
        points = store.foreground(0, 1)
        assert points.shape == (POINTS, 3)
        assert len(np.unique(points, axis=0)) == POINTS
        assert (mask[tuple(points.T)] == 1).all()
        np.testing.assert_allclose(points.mean(0), [19.5, 14.5, 17], atol=4 * 12 / np.sqrt(POINTS))
        np.testing.assert_array_equal(points, store.foreground(1, 1))


class TestNames:
    def test_opening_again_reads_nothing(self, tmp_path, monkeypatch):
        manifest = manifest_of(tmp_path, noise(3), [blob(), None, blob()])
        store = open_cases(manifest, plan_of(), tmp_path / "cases")
        assert len(store) == 3
        assert store.mask(1) is None
        assert store.labelled.tolist() == [True, False, True]
        for array in (store.image(0), store.mask(0), store.foreground(0, 1)):
            assert not array.flags.writeable
        monkeypatch.setattr(reading, "read_case", lambda *_: pytest.fail("read again"))
        again = open_cases(manifest, plan_of(patch=(4, 4, 4), batch=9), tmp_path / "cases")
        assert (again.folder, again.content) == (store.folder, store.content)
        np.testing.assert_array_equal(again.image(2), store.image(2))

    def test_the_content_names_the_data_not_the_place(self, tmp_path):
        here = open_cases(manifest_of(tmp_path / "a", noise(3), [blob()] * 3), plan_of(), tmp_path / "cases")
        there = open_cases(manifest_of(tmp_path / "b", noise(3), [blob()] * 3), plan_of(), tmp_path / "other")
        assert here.content == there.content
        fewer = open_cases(manifest_of(tmp_path / "c", noise(3)[1:]), plan_of(), tmp_path / "cases")
        assert fewer.row_digests.tolist() == here.row_digests.tolist()[1:]
        assert fewer.content != here.content

    def test_another_mask_or_grid_is_another_content_of_the_same_images(self, tmp_path):
        first = open_cases(manifest_of(tmp_path / "a", noise(1), [blob()]), plan_of(), tmp_path / "cases")
        masked = open_cases(manifest_of(tmp_path / "b", noise(1), [blob() // 2]), plan_of(), tmp_path / "cases")
        thicker = manifest_of(tmp_path / "c", noise(1), [blob()], affine=affine_of((1, 1, 1.001)))
        grid = open_cases(thicker, plan_of(), tmp_path / "cases")
        assert len({first.content, masked.content, grid.content}) == 3
        assert first.row_digests.tolist() == masked.row_digests.tolist() == grid.row_digests.tolist()

    def test_a_changed_mask_makes_a_new_store_and_removes_the_old_one(self, tmp_path):
        manifest = manifest_of(tmp_path / "scans", noise(2), [blob()] * 2)
        old = open_cases(manifest, plan_of(), tmp_path / "cases")
        file = tmp_path / "scans" / "case1" / "seg.nii"
        before = file.stat()
        write(file, np.flip(blob(), 0).copy())
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        new = open_cases(manifest, plan_of(), tmp_path / "cases")
        assert new.folder != old.folder
        assert not old.folder.exists()
        assert old.image(0).any()  # still readable by whoever had it open
        assert (new.mask(1) != old.mask(1)).any()

    def test_other_pixels_are_beside_each_other_and_renamed_classes_share_a_store(self, tmp_path):
        manifest = manifest_of(tmp_path, noise(1), [blob()])
        first = open_cases(manifest, plan_of(), tmp_path / "cases")
        coarse = open_cases(manifest, plan_of(spacing=(2, 2, 2)), tmp_path / "cases")
        assert first.folder.exists()
        assert coarse.folder.exists()
        renamed = manifest_of(tmp_path, noise(1), [blob()], labels=LABELS.merged({"core": "a", "rim": "b"}))
        merged = manifest_of(tmp_path, noise(1), [blob()], labels=LABELS.merged({"*": "tumour"}))
        assert open_cases(renamed, plan_of(), tmp_path / "cases").content == first.content
        assert open_cases(merged, plan_of(), tmp_path / "cases").classes_in == ((1,),)

    def test_a_damaged_store_is_built_again(self, tmp_path):
        manifest = manifest_of(tmp_path / "scans", noise(2), [blob()] * 2)
        content, folder = (store := open_cases(manifest, plan_of(), tmp_path / "cases")).content, store.folder
        del store
        for name in ("images.f16", "masks.u8", "points.i32"):
            os.truncate(folder / name, 120)
            assert open_cases(manifest, plan_of(), tmp_path / "cases").content == content
        (folder / "images.f16").unlink()
        assert open_cases(manifest, plan_of(), tmp_path / "cases").content == content
        (folder / "meta.json").write_text("{")
        assert open_cases(manifest, plan_of(), tmp_path / "cases").content == content

    def test_a_folder_of_dicom_files_is_known_by_its_files(self, tmp_path):
        (tmp_path / "series").mkdir()
        (tmp_path / "series" / "1.dcm").write_text("a")
        sources = stored.Sources("x", tmp_path, [["series"]], {})
        before = sources.fingerprint()
        assert sources.fingerprint() == before
        (tmp_path / "series" / "1.dcm").write_text("ab")
        assert sources.fingerprint() != before


def test_another_process_maps_the_same_files(tmp_path):
    store = open_cases(manifest_of(tmp_path, noise(2, (40, 40, 40)), [np.zeros((40,) * 3, np.uint8)] * 2), plan_of(),
                       tmp_path / "cases")  # fmt: skip
    handed = pickle.dumps(store)
    assert len(handed) < 1000
    np.testing.assert_array_equal(pickle.loads(handed).image(1), store.image(1))
    shutil.rmtree(store.folder)
    with pytest.raises(UserError, match="the prepared cases are gone or damaged"):
        pickle.loads(handed)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads what Linux says about a process")
def test_pages_that_were_read_can_be_let_go_of(tmp_path):
    shape = (160, 160, 160)
    store = open_cases(manifest_of(tmp_path, noise(1, shape)), plan_of(), tmp_path / "cases")

    def mapped():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("RssFile"))

    before = mapped()
    total = store.image(0).sum(dtype=np.float64)
    read = mapped()
    store.release()
    assert read - before > 7000  # kB of 8192
    assert mapped() - before < 1000
    assert store.image(0).sum(dtype=np.float64) == total


class TestBadCases:
    def test_all_are_named_at_once_and_nothing_is_left(self, tmp_path):
        images, masks = noise(8), [blob()] * 8
        images[1] = np.full((12, 14, 10), 3, np.float32)
        images[2] = images[2].copy()
        images[2][3, 3, 3] = np.nan
        masks[3] = np.full_like(blob(), 9)
        manifest = manifest_of(tmp_path / "scans", images, masks)
        (tmp_path / "scans" / "case4" / "flair.nii").unlink()
        os.truncate(tmp_path / "scans" / "case5" / "flair.nii", 3000)
        write(tmp_path / "scans" / "case6" / "seg.nii", np.zeros((12, 14, 11), np.uint8))
        with pytest.raises(UserError, match=r"tiny: 6 of 8 cases cannot be used: .*; and 1 more: case6") as error:
            open_cases(manifest, plan_of(), tmp_path / "cases")
        for part in ("case1/flair.nii", "case2/flair.nii", "case3/seg.nii", "case4/flair.nii", "case5/flair.nii"):
            assert part in str(error.value)
        for row in (0, 7):
            assert f"case{row}" not in str(error.value)
        assert list((tmp_path / "cases").iterdir()) == []

    def test_a_plan_for_other_channels(self, tmp_path):
        with pytest.raises(
            UserError, match=r"sample case0: has 1 channels \(flair\), and the plan's 'normalise' is for 2"
        ):
            open_cases(manifest_of(tmp_path, noise(1)), plan_of(normalise=("zscore",) * 2), tmp_path / "cases")

    def test_no_case_at_all(self, tmp_path):
        with pytest.raises(UserError, match="tiny: there are no cases to prepare"):
            open_cases(manifest_of(tmp_path, noise(1)).take([]), plan_of(), tmp_path / "cases")

    def test_files_that_change_under_the_reader_are_noticed(self, tmp_path, monkeypatch):
        manifest = manifest_of(tmp_path / "scans", noise(2), [blob()] * 2)
        read = reading.read_case

        def disturbed(manifest, row):
            case = read(manifest, row)
            write(tmp_path / "scans" / "case0" / "flair.nii", scan(seed=9))
            return case

        monkeypatch.setattr(reading, "read_case", disturbed)
        with pytest.raises(UserError, match="tiny: its files changed while they were being read"):
            open_cases(manifest, plan_of(), tmp_path / "cases")
        assert list((tmp_path / "cases").iterdir()) == []


class TestTwoProcesses:
    def test_the_one_that_is_slower_uses_the_store_of_the_other(self, tmp_path, monkeypatch):
        manifest = manifest_of(tmp_path / "scans", noise(2), [blob()] * 2)
        prepare, others = module.prepare_case, []

        def slow(case, plan, harmonise):
            if not others:
                others.append(None)
                others[0] = open_cases(manifest, plan, tmp_path / "cases")
            return prepare(case, plan, harmonise)

        monkeypatch.setattr(module, "prepare_case", slow)
        store = open_cases(manifest, plan_of(), tmp_path / "cases")
        assert store.folder == others[0].folder
        inode = os.stat(store.folder / "images.f16").st_ino
        assert inode == os.stat(others[0].folder / "images.f16").st_ino
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(others[0])).image(1), store.image(1))
        assert [path.name for path in (tmp_path / "cases").iterdir()] == [store.folder.name]

    def test_a_store_that_appears_at_the_last_moment_is_used(self, tmp_path, monkeypatch):
        manifest = manifest_of(tmp_path / "scans", noise(2))
        replace = os.replace

        def late(source, target):
            if os.path.isdir(source) and not os.path.exists(target):
                shutil.copytree(source, target)
            replace(source, target)

        monkeypatch.setattr(os, "replace", late)
        store = open_cases(manifest, plan_of(), tmp_path / "cases")
        assert [path.name for path in (tmp_path / "cases").iterdir()] == [store.folder.name]

    @pytest.mark.slow
    def test_four_at_once_all_get_it(self, tmp_path):
        manifest = manifest_of(tmp_path / "scans", noise(6, (40, 40, 40)), [np.ones((40,) * 3, np.uint8)] * 6)
        manifest.save(tmp_path / "scans" / "table.csv")
        plan_of().save(tmp_path / "plan.json")
        command = [sys.executable, "-c", BUILD, str(tmp_path / "scans" / "table.csv"), str(tmp_path / "plan.json"),
                   str(tmp_path / "cases")]  # fmt: skip
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        said = [process.communicate(timeout=60)[0] for process in started]
        assert [process.returncode for process in started] == [0] * 4
        assert len(set(said)) == 1
        assert len(list((tmp_path / "cases").iterdir())) == 1


BUILD = """
import sys
from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.data.cases.store import open_cases
from mrtransfer.data.manifest import Manifest
table, plan, folder = sys.argv[1:]
try:
    store = open_cases(Manifest.load(table), SegmentationPlan.load(plan), folder)
    sys.stdout.write(f"{store.content} {store.image(5).sum(dtype='float32')}")
except UserError as error:
    sys.stdout.write(f"{error}")
"""


def test_few_cases_are_in_memory_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MEMORY", 1)
    shape = (48, 48, 48)
    manifest = manifest_of(tmp_path, noise(12, shape), [np.zeros(shape, np.uint8)] * 12)
    tracemalloc.start()
    open_cases(manifest, plan_of(), tmp_path / "cases")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 4 * 48**3  # times the float32 image; all twelve would take more in float16 alone


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    manifest = manifest_of(tmp_path / "scans", noise(6, (40, 40, 40)))
    manifest.save(tmp_path / "scans" / "table.csv")
    plan_of().save(tmp_path / "plan.json")
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=256k none {tmp_path / "disk"} && "$@" && ls -A {tmp_path / "disk"}'
    inside = ["unshare", "--mount", "--map-root-user"] if shutil.which("unshare") else ["false"]
    python = [sys.executable, "-c", BUILD, str(tmp_path / "scans" / "table.csv"), str(tmp_path / "plan.json"),
              str(tmp_path / "disk")]  # fmt: skip
    if subprocess.run([*inside, "sh", "-c", mount, "sh", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    ran = subprocess.run([*inside, "sh", "-c", mount, "sh", *python], capture_output=True, text=True, check=True)
    assert "the disk is full; free some space" in ran.stdout
    assert ran.stdout.endswith("run it again")  # nothing is listed after it


@pytest.mark.real_data
class TestRealScans:
    @pytest.mark.slow
    def test_cropped_brains_of_two_channels(self, real_data, tmp_path):
        import pandas as pd

        from mrtransfer.data.cases.fingerprint import fingerprint
        from mrtransfer.data.cases.plan import make_plan
        from mrtransfer.data.manifest import Manifest
        from mrtransfer.data.mask_labels import MaskLabels

        folder = real_data / "brats2021" / "BraTS2021_00006"
        found = {name: str(next(folder.glob(f"*_{name}.nii*"))) for name in ("flair", "t1ce", "seg")}
        table = pd.DataFrame(
            {"sample": ["a"], "image:flair": found["flair"], "image:t1ce": found["t1ce"], "mask": found["seg"]}
        )
        labels = MaskLabels.create({"necrosis": 1, "oedema": 2, "enhancing": 4})
        manifest = Manifest.create(table, folder, "brats", mask_labels=labels)
        seen = fingerprint(manifest, np.array([0]))
        plan = make_plan(seen)
        assert seen.background_removed
        assert plan.patch == (80, 80, 80)
        store, case = open_cases(manifest, plan, tmp_path), read_case(manifest, 0)
        assert store.shapes[0].prod() < 0.5 * case.image[0].size
        assert np.bincount(store.mask(0).ravel()).tolist()[1:] == np.bincount(case.mask.ravel()).tolist()[1:]
        one_hot = np.stack([store.mask(0) == k for k in range(4)]).astype(np.float32)
        np.testing.assert_array_equal(store.frame(0).to_original(one_hot, (1, 0, 0, 0)).argmax(0), case.mask)
        brain = (case.image != 0).any(0)
        for own, channel in zip(store.image(0).astype(np.float64), case.image, strict=True):
            assert own[own != 0].mean() == pytest.approx(0, abs=2e-3)
            assert own.max() == pytest.approx((channel.max() - channel[brain].mean()) / channel[brain].std(), rel=2e-3)

    def test_hippocampi_are_stored_whole(self, real_data, tmp_path):
        import pandas as pd

        from mrtransfer.data.cases.fingerprint import fingerprint
        from mrtransfer.data.cases.plan import make_plan
        from mrtransfer.data.manifest import Manifest
        from mrtransfer.data.mask_labels import MaskLabels

        root = real_data / "decathlon_hippocampus"
        names = sorted(path.name for path in (root / "imagesTr").glob("hippocampus*"))[:40]
        table = pd.DataFrame(
            {"sample": names, "image": [f"imagesTr/{n}" for n in names], "mask": [f"labelsTr/{n}" for n in names]}
        )
        labels = MaskLabels.create({"anterior": 1, "posterior": 2})
        manifest = Manifest.create(table, root, "hippocampus", mask_labels=labels)
        plan = make_plan(fingerprint(manifest, np.arange(len(manifest)), cache=tmp_path))
        assert plan.patch == (40, 56, 40)
        assert plan.batch == 8
        store = open_cases(manifest, plan, tmp_path)
        assert store.classes_in == ((1, 2),) * len(manifest)
        for row in range(0, len(manifest), 7):
            np.testing.assert_array_equal(store.mask(row), read_case(manifest, row).mask)
