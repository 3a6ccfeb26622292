"""The store of k-space: files read once and then known, phantom volumes rendered once, nothing stale."""

import os
import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
from kspace_files import random_kspace, reference_target, write_cfl

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import KspaceVolume, needs_targets, open_kspace, open_volume, write_fastmri
from mrtransfer.data.kspace import store as module
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.phantom import kspace as phantom
from mrtransfer.data.phantom.kspace_scan import kspace_location


def manifest_of(root, locations, **columns):
    table = {"sample": [f"v{i}" for i in range(len(locations))], "image": list(locations), **columns}
    return Manifest.create(pd.DataFrame(table), root, "tiny")


@pytest.fixture
def three(tmp_path):
    """Three files of 2, 3 and 4 slices, and their manifest."""
    for number in range(3):
        write_fastmri(tmp_path / "scans" / f"{number}.h5", random_kspace(2 + number, seed=number), crop=(8, 8))
    return manifest_of(tmp_path / "scans", [f"{number}.h5" for number in range(3)])


@pytest.fixture
def reads(monkeypatch):
    """The names of the files of which slices were read, for descriptions."""
    found, arrays = [], KspaceVolume.arrays

    def counted(volume, *args):
        found.append(volume.name)
        return arrays(volume, *args)

    monkeypatch.setattr(KspaceVolume, "arrays", counted)
    return found


@pytest.fixture
def renders(monkeypatch):
    """The locations that the phantom was asked to render."""
    asked, render = [], phantom.render_kspace

    def counted(location):
        asked.append(location)
        return render(location)

    monkeypatch.setattr(phantom, "render_kspace", counted)
    return asked


def small_phantom(subject, **settings):
    """The location of a volume of two coils and two slices."""
    return kspace_location(**{"subject": subject, "coils": 2, "matrix": (32, 32), "slices": 2, **settings})


class TestFiles:
    def test_volumes_are_read_where_they_lie(self, three, tmp_path):
        store = open_kspace(three, tmp_path / "store")
        assert len(store) == 3
        assert store.slices.tolist() == [2, 3, 4]
        assert store.coils.tolist() == [2, 2, 2]
        assert store.matrices.tolist() == [[16, 12]] * 3
        assert store.volume(1).location == str(tmp_path / "scans" / "1.h5")
        assert store.volume(1) is store.volume(1)
        kspace = random_kspace(3, seed=1)
        one = store.volume(1).read(2)
        np.testing.assert_array_equal(one.kspace, kspace[2])
        assert one.max_value == pytest.approx(reference_target(kspace, (8, 8)).max(), rel=1e-5)
        assert sum(file.stat().st_size for file in (tmp_path / "store").rglob("*.*") if file.is_file()) < 5000

    def test_opening_again_reads_no_slice(self, three, tmp_path, reads):
        first = open_kspace(three, tmp_path / "store")
        assert len(reads) == 2 + 3 + 4
        again = open_kspace(three, tmp_path / "store")
        assert len(reads) == 9
        assert (again.content, again.described) == (first.content, first.described)
        part = open_kspace(three.take([2, 0]), tmp_path / "store")
        assert len(reads) == 9
        assert part.row_digests.tolist() == first.row_digests[[2, 0]].tolist()

    def test_a_maximum_that_had_to_be_computed_is_remembered(self, tmp_path, reads):
        kspace = random_kspace()
        np.save(tmp_path / "a.npy", kspace)
        manifest = manifest_of(tmp_path, ["a.npy"])
        open_kspace(manifest, tmp_path / "store")
        del reads[:]
        store = open_kspace(manifest, tmp_path / "store")
        assert store.volume(0).read(0).max_value == pytest.approx(reference_target(kspace, (16, 12)).max(), rel=1e-5)
        assert len(reads) == 1

    def test_the_content_names_the_data_not_the_place(self, three, tmp_path):
        store = open_kspace(three, tmp_path / "store")
        for number in range(3):
            write_fastmri(tmp_path / "there" / f"x{number}.h5", random_kspace(2 + number, seed=number), crop=(8, 8))
        other = open_kspace(manifest_of(tmp_path / "there", ["x0.h5", "x1.h5", "x2.h5"]), tmp_path / "other")
        assert other.content == store.content
        assert other.row_digests.tolist() == store.row_digests.tolist()
        assert open_kspace(three.take([0, 1]), tmp_path / "store").content != store.content

    def test_another_target_or_crop_is_another_content_of_the_same_k_space(self, tmp_path):
        kspace = random_kspace()
        options = [{}, {"crop": (8, 8)}, {"targets": np.ones((3, 8, 8), np.float32)}]
        stores = []
        for number, option in enumerate(options):
            write_fastmri(tmp_path / f"{number}.h5", kspace, **option)
            stores.append(open_kspace(manifest_of(tmp_path, [f"{number}.h5"]), tmp_path / "store"))
        assert len({store.content for store in stores}) == 3
        assert len({store.row_digests[0] for store in stores}) == 1
        write_fastmri(tmp_path / "p.h5", kspace, padding=(1, 11))
        write_fastmri(tmp_path / "m.h5", kspace, mask=np.arange(12) > 3)
        others = open_kspace(manifest_of(tmp_path, ["p.h5", "m.h5"]), tmp_path / "store")
        assert len({*others.row_digests, stores[0].row_digests[0]}) == 3

    def test_a_changed_file_is_read_again_and_the_others_are_not(self, three, tmp_path, reads):
        old = open_kspace(three, tmp_path / "store")
        folders = sorted((tmp_path / "store").iterdir())
        file = tmp_path / "scans" / "1.h5"
        before = file.stat()
        del reads[:]
        with h5py.File(file, "r+") as opened:
            opened["kspace"][1, 0, 2, 2] += 1
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        new = open_kspace(three, tmp_path / "store")
        assert set(reads) == {"1.h5"}
        assert (new.row_digests == old.row_digests).tolist() == [True, False, True]
        assert new.content != old.content
        left = sorted((tmp_path / "store").iterdir())
        assert len(left) == 3
        assert len(set(left) - set(folders)) == 1  # what was known of the old file is gone

    def test_a_changed_header_of_bart_is_seen(self, tmp_path):
        kspace = random_kspace(1)
        write_cfl(tmp_path / "a", kspace.transpose(2, 3, 0, 1))
        manifest = manifest_of(tmp_path, ["a.cfl"])
        first = open_kspace(manifest, tmp_path / "store")
        (tmp_path / "a.hdr").write_text("# Dimensions\n12 16 1 2\n")
        second = open_kspace(manifest, tmp_path / "store")
        assert (first.matrices.tolist(), second.matrices.tolist()) == ([[16, 12]], [[12, 16]])

    def test_a_damaged_description_is_made_again(self, three, tmp_path):
        content = open_kspace(three, tmp_path / "store").content
        for meta in (tmp_path / "store").rglob("meta.json"):
            meta.write_text("{")
        assert open_kspace(three, tmp_path / "store").content == content

    def test_another_process_opens_its_own_volumes(self, three, tmp_path):
        store = open_kspace(three, tmp_path / "store")
        store.volume(0).read(0)
        handed = pickle.loads(pickle.dumps(store))
        assert "_opened" not in handed.__dict__
        np.testing.assert_array_equal(handed.volume(2).read(3).kspace, random_kspace(4, seed=2)[3])
        assert handed.volume(2).stored_max == store.described[2]["max"]

    def test_undersampled_volumes_have_no_maximum(self, tmp_path):
        write_fastmri(tmp_path / "a.h5", random_kspace(), mask=np.arange(12) > 3)
        store = open_kspace(manifest_of(tmp_path, ["a.h5"]), tmp_path / "store")
        assert store.volume(0).max_value is None
        with pytest.raises(UserError, match=r"a\.h5: is undersampled"):
            needs_targets(map(store.volume, range(1)))


class TestPhantoms:
    def test_are_rendered_once(self, tmp_path, renders):
        locations = [small_phantom(0), small_phantom(1)]
        manifest = manifest_of(tmp_path, locations, subject=["a", "b"],
                               acquisition=["AXT2", "AXT1"], scanner=["x", None], spacing_x=[1.0, 2.0],
                               spacing_y=[1.5, 2.0], spacing_z=[5.0, np.nan])  # fmt: skip
        store = open_kspace(manifest, tmp_path / "store")
        assert sorted(renders) == locations
        volume = store.volume(0)
        np.testing.assert_array_equal(volume.read(1).kspace, phantom.render_kspace(locations[0])[1])
        del renders[2:]  # what was asked for in this test
        assert (volume.name, volume.acquisition, volume.subject, volume.scanner) == ("v0.h5", "AXT2", "a", "x")
        assert volume.spacing == pytest.approx((1.5, 1.0, 5.0))
        assert store.volume(1).spacing is None
        assert volume.stored_targets
        again = open_kspace(manifest, tmp_path / "store")
        assert len(renders) == 2
        assert again.content == store.content

    def test_a_larger_cohort_renders_only_what_is_new(self, tmp_path, renders):
        locations = [small_phantom(subject) for subject in range(4)]
        small = open_kspace(manifest_of(tmp_path, locations[:2]), tmp_path / "store")
        large = open_kspace(manifest_of(tmp_path, locations), tmp_path / "store")
        assert sorted(renders) == locations
        assert large.row_digests[:2].tolist() == small.row_digests.tolist()

    def test_the_image_is_the_middle_of_an_oversampled_readout(self, tmp_path):
        """From the store and straight from the location."""
        location = small_phantom(0, matrix=(64, 32), oversampled=True)
        stored = open_kspace(manifest_of(tmp_path, [location]), tmp_path / "store").volume(0)
        for volume in (stored, open_volume(location, tmp_path)):
            assert (volume.matrix, volume.crop) == ((64, 32), (32, 32))
            assert volume.read(0).target.shape == (32, 32)

    def test_a_damaged_file_is_rendered_again(self, tmp_path, renders):
        manifest = manifest_of(tmp_path, [small_phantom(0)])
        content = open_kspace(manifest, tmp_path / "store").content
        for damage in (lambda file: os.truncate(file, 100), os.unlink):
            (file,) = (tmp_path / "store").rglob("*.h5")
            damage(file)
            assert open_kspace(manifest, tmp_path / "store").content == content
        assert len(renders) == 3


class TestBadVolumes:
    def test_all_are_named_at_once(self, three, tmp_path):
        scans = tmp_path / "scans"
        with h5py.File(scans / "0.h5", "r+") as file:
            file["kspace"][1, 0, 0, 0] = np.nan
        os.truncate(scans / "2.h5", 3000)
        with pytest.raises(UserError) as error:
            open_kspace(three, tmp_path / "store")
        said = str(error.value)
        assert said.startswith("tiny: 2 of 3 volumes cannot be used: sample v0: ")
        assert "0.h5: slice 1: k-space holds 1 NaN" in said
        assert "2.h5: is cut short" in said
        assert "1.h5" not in said

    def test_several_channels(self, tmp_path):
        table = pd.DataFrame({"sample": ["a"], "image:t1": ["a.h5"], "image:t2": ["b.h5"]})
        with pytest.raises(UserError, match="has the images t1, t2; k-space has one"):
            open_kspace(Manifest.create(table, tmp_path, "tiny"), tmp_path / "store")

    def test_files_that_change_under_the_reader_are_noticed(self, three, tmp_path, monkeypatch):
        described = module._described

        def disturbed(volume):
            found = described(volume)
            with h5py.File(volume.location, "r+") as file:
                file["kspace"][0, 0, 0, 0] += 1
            return found

        monkeypatch.setattr(module, "_described", disturbed)
        with pytest.raises(UserError, match="its files changed while they were being read"):
            open_kspace(three, tmp_path / "store")
