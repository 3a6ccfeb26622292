"""fastMRI's folders as a table: one row a volume."""

import h5py
import numpy as np
import pytest
from kspace_files import random_kspace

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.fastmri import fastmri
from mrtransfer.data.kspace import open_volume, write_fastmri

MASK = np.arange(12) % 4 == 0


@pytest.fixture
def put(tmp_path):
    def one(name, coils=2, **options):
        kspace = random_kspace(slices=2, coils=abs(coils))
        return write_fastmri(tmp_path / name, kspace if coils > 1 else kspace[:, 0], **options)

    return one


@pytest.fixture
def published(put, tmp_path):
    """Folders as they are when fastMRI's archives were unpacked into one place."""
    put("multicoil_train/file1.h5", acquisition="CORPD_FBK", subject="p1", scanner="Skyra", spacing=(0.5, 0.6, 3))
    put("multicoil_train/file2.h5", acquisition="CORPDFS_FBK", subject="p1")
    put("multicoil_val/file3.h5", acquisition="CORPD_FBK", subject="p2")
    put("multicoil_test/file4.h5", acquisition="CORPD_FBK", subject="p3", mask=MASK)
    put("multicoil_challenge/file5.h5", acquisition="CORPD_FBK", mask=MASK)
    put("singlecoil_train/file1.h5", coils=1, acquisition="CORPD_FBK", subject="p1")
    put("singlecoil_val/file3.h5", coils=1, acquisition="CORPD_FBK", subject="p2")
    return tmp_path


def test_folders_give_split_and_coils_and_files_the_subject(published):
    manifest = fastmri(published)
    table = manifest.table.set_index("sample")
    assert list(table.index) == [
        "multicoil_challenge/file5",
        "multicoil_test/file4",
        "multicoil_train/file1",
        "multicoil_train/file2",
        "multicoil_val/file3",
    ]
    assert table["split"].tolist() == ["test", "test", "train", "train", "validation"]
    assert table["subject"].tolist() == ["multicoil_challenge/file5", "p3", "p1", "p1", "p2"]
    assert table["target"].tolist() == [False, False, True, True, True]
    assert set(table["anatomy"]) == {"knee"}
    one = table.loc["multicoil_train/file1"]
    assert one[["acquisition", "scanner", "slices", "coils", "rows", "columns"]].tolist() == [
        "CORPD_FBK", "Skyra", 2, 2, 16, 12]  # fmt: skip
    assert one[["spacing_y", "spacing_x", "spacing_z"]].tolist() == pytest.approx([0.5, 0.6, 3])
    assert manifest.notes == (
        "acquisitions: 1 × CORPDFS_FBK, 4 × CORPD_FBK",
        "2 volumes are undersampled and have no reconstructed images: they cannot be trained on or scored",
    )
    assert manifest.classes == ()
    assert open_volume(manifest.locations(2)[0], manifest.root).slices == 2


def test_single_coil(published):
    manifest = fastmri(published, coils="single")
    assert manifest.table["sample"].tolist() == ["singlecoil_train/file1", "singlecoil_val/file3"]
    assert manifest.table["coils"].tolist() == [1, 1]


def test_acquisitions_and_targets_are_chosen(published):
    manifest = fastmri(published, acquisition="CORPD_FBK", targets=True)
    assert manifest.table["sample"].tolist() == ["multicoil_train/file1", "multicoil_val/file3"]
    assert manifest.notes[:2] == (
        "left out: 1 volumes (another acquisition than CORPD_FBK)",
        "left out: 2 volumes (undersampled, without reconstructed images)",
    )
    assert len(fastmri(published, acquisition=["CORPD_FBK", "CORPDFS_FBK"])) == 5


def test_anatomies_are_known_by_acquisition_or_folder(put, tmp_path):
    put("all/knee_multicoil_train/a.h5", acquisition="CORPD_FBK")
    put("all/brain_multicoil_train_batch_3/b.h5", acquisition="AXT2")
    put("all/brain/multicoil_val/c.h5")
    put("all/multicoil_val/d.h5")
    table = fastmri(tmp_path / "all").table.set_index("sample")["anatomy"]
    assert table.fillna("?").to_dict() == {
        "brain/multicoil_val/c": "brain",
        "brain_multicoil_train_batch_3/b": "brain",
        "knee_multicoil_train/a": "knee",
        "multicoil_val/d": "?",
    }
    brain = fastmri(tmp_path / "all", anatomy="brain")
    assert brain.table["split"].tolist() == ["validation", "train"]
    assert brain.notes[0] == "left out: 2 volumes (not known to show a brain)"


def test_one_folder_alone_has_no_published_split(published):
    manifest = fastmri(published / "multicoil_val")
    assert manifest.table["split"].isna().all()
    assert manifest.table["sample"].tolist() == ["file3"]
    with pytest.raises(UserError, match=r"holds no singlecoil \.h5 files"):
        fastmri(published / "multicoil_val", coils="single")


def test_a_flat_folder_of_own_files(put, tmp_path):
    put("mine/a.h5")
    put("mine/train/b.h5")
    (tmp_path / "mine" / "notes.txt").write_text("hello")
    manifest = fastmri(tmp_path / "mine")
    assert manifest.table["subject"].tolist() == ["a", "train/b"]
    assert manifest.table["split"].fillna("").tolist() == ["", "train"]
    assert manifest.notes == ("1 other file ignored (1 × .txt)",)


def test_one_coil_where_many_are_meant(put, tmp_path):
    put("multicoil_train/a.h5")
    put("multicoil_train/b.h5", coils=1)
    with pytest.raises(UserError, match=r"b\.h5: has one coil, and multi-coil k-space is needed"):
        fastmri(tmp_path)
    put("flat/c.h5")
    with pytest.raises(UserError, match=r"c\.h5: has 2 coils, and single-coil k-space is needed"):
        fastmri(tmp_path / "flat", coils="single")


def test_all_damaged_files_are_named(published):
    for name in ("multicoil_train/file1.h5", "multicoil_val/file3.h5"):
        with h5py.File(published / name, "r+") as file:
            del file["kspace"]
    with pytest.raises(UserError, match=r"2 of 5 files cannot be used: .*train/file1\.h5: holds no dataset 'kspace'"):
        fastmri(published)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"coils": "many"}, "unknown value of coils 'many'"),
        ({"anatomy": "nee"}, "unknown anatomy 'nee': did you mean 'knee'"),
        ({"acquisition": "CORPD"}, "unknown acquisition 'CORPD': did you mean 'CORPD_FBK'"),
        ({"anatomy": "brain"}, "no volume is left"),
    ],
)
def test_wrong_options_are_named(options, said, published):
    with pytest.raises(UserError, match=said):
        fastmri(published, **options)


def test_a_folder_without_k_space(tmp_path):
    with pytest.raises(UserError, match=r"holds no multicoil \.h5 files \(it is empty\)"):
        fastmri(tmp_path)
