"""A user's own k-space as a table."""

import numpy as np
import pytest
from kspace_files import random_kspace, write_cfl

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.kspace import kspace
from mrtransfer.data.kspace import open_kspace, open_volume, write_fastmri


@pytest.fixture
def folder(tmp_path):
    write_fastmri(tmp_path / "a.h5", random_kspace(), subject="p9", acquisition="AXT2")
    write_cfl(tmp_path / "b", random_kspace(1).transpose(2, 3, 0, 1))
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "deep" / "c_1.npy", random_kspace() * (np.arange(12) % 2))
    return tmp_path


def test_a_folder(folder):
    (folder / "notes.txt").write_text("hello")
    manifest = kspace(folder)
    table = manifest.table
    assert table["sample"].tolist() == ["a", "b", "deep/c_1"]
    assert table["subject"].tolist() == ["p9", "b", "deep/c_1"]
    assert table["slices"].tolist() == [3, 1, 3]
    assert table["anatomy"].fillna("").tolist() == ["brain", "", ""]
    assert table["target"].tolist() == [True, True, False]
    assert manifest.notes == (
        "1 volumes are undersampled and have no reconstructed images: they cannot be trained on or scored",
        "1 other file ignored (1 × .txt)",
    )


@pytest.mark.parametrize(("path", "samples"), [("a.h5", ["a"]), ("b.hdr", ["b"]), ("*.cfl", ["b"]),
                                               ("**/[ac]*", ["a", "deep/c_1"])])  # fmt: skip
def test_a_file_or_pattern(folder, path, samples):
    manifest = kspace(folder / path)
    assert manifest.table["sample"].tolist() == samples
    for row in range(len(manifest)):
        assert open_volume(manifest.locations(row)[0], manifest.root).read(0).kspace.shape == (2, 16, 12)


def test_files_that_differ_in_their_suffix_are_told_apart(folder):
    np.save(folder / "a.npy", random_kspace())
    assert kspace(folder / "a.*").table["sample"].tolist() == ["a.h5", "a.npy"]


def test_subjects_from_names(folder):
    assert kspace(folder / "deep", subject=r"(c)_").table["subject"].tolist() == ["c"]
    with pytest.raises(UserError, match=r"c_1\.npy: its name does not match subject: 'q'"):
        kspace(folder / "deep", subject="q")
    with pytest.raises(UserError, match="not a regular expression"):
        kspace(folder / "deep", subject="(")


def test_axes_are_said(folder):
    np.save(folder / "deep" / "c_1.npy", random_kspace()[0])
    with pytest.raises(UserError, match=r"1 of 1 files cannot be used: .*has 3 axes; say which"):
        kspace(folder / "deep")
    manifest = kspace(folder / "deep", axes="chw")
    assert manifest.table["coils"].tolist() == [2]
    assert manifest.locations(0) == ["c_1.npy#axes=chw"]


def test_images_are_called_simulated(tmp_path):
    write_cfl(tmp_path / "b", random_kspace(1, 1).transpose(2, 3, 0, 1))
    manifest = kspace(tmp_path, image=True)
    assert manifest.locations(0) == ["b.cfl#image=true"]
    assert manifest.notes[0].startswith("1 of 1 volumes are simulated, not measured: ")
    assert not kspace(tmp_path).notes


def test_nothing_to_read_is_named(tmp_path, folder):
    (folder / "empty").mkdir()
    for path, said in (
        (None, "dataset kspace needs a path"),
        (folder / "absent", "absent: no such file or folder"),
        (folder / "*.mat", r"\*\.mat: nothing is there"),
        (folder / "empty", "empty: nothing is there"),
    ):
        with pytest.raises(UserError, match=said):
            kspace(path)
    with pytest.raises(UserError, match="unknown key of choose 'average'"):
        kspace(folder, choose={"average": 1})
    with pytest.raises(UserError, match=r"a\.h5#repetition=1: unknown option 'repetition'"):
        kspace(folder / "a.h5", choose={"repetition": 1})


@pytest.mark.real_data
def test_the_published_brain_and_knee(real_data, tmp_path):
    brain = kspace(real_data / "kspace" / "brain_8coil.cfl")
    assert brain.table[["coils", "rows", "columns"]].to_numpy().tolist() == [[8, 230, 180]]
    assert not brain.notes
    knee = kspace(real_data / "kspace" / "knee_*.cfl", image=True)
    assert "simulated" in knee.notes[0]
    stores = [open_kspace(manifest, tmp_path) for manifest in (brain, knee)]
    assert [store.volume(0).read(0).kspace.shape for store in stores] == [(8, 230, 180), (1, 288, 236)]
    assert stores[0].volume(0).max_value == pytest.approx(148.3169, abs=1e-3)
