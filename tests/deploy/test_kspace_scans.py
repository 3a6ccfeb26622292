"""What a user types leads to the files of k-space that are meant, each under a name of its own."""

import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.deploy.kspace_scans import find_kspace


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.h5", "deep/b.npy", "deep/c.cfl", "deep/c.hdr", ".hidden/d.h5", "out/a_reconstruction.h5",
                 "notes.txt", "other/a.h5"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")


def found(*names):
    return [(scan.name, *scan.locations) for scan in find_kspace(names)]


def test_a_folder_stands_for_the_k_space_below_it(files):
    assert found("deep") == [("b", "deep/b.npy"), ("c", "deep/c.cfl")]
    assert [one[1] for one in found(".")] == ["a.h5", "deep/b.npy", "deep/c.cfl", "other/a.h5"]


def test_files_of_one_name_are_told_apart(files, tmp_path):
    assert found("a.h5", "other/a.h5") == [(f"{tmp_path.name}_a", "a.h5"), ("other_a", "other/a.h5")]


def test_patterns_and_options(files):
    assert found("*/[bc].*#axes=chw") == [("b", "deep/b.npy#axes=chw"), ("c", "deep/c.cfl#axes=chw")]
    assert found("a.h5#repetition=1", "a.h5#repetition=2") == [
        ("a_repetition1", "a.h5#repetition=1"),
        ("a_repetition2", "a.h5#repetition=2"),
    ]


def test_a_bart_pair_is_one_scan_by_any_of_its_names(files):
    assert found("deep/c", "deep/c.hdr", "deep/c.cfl") == [("c", "deep/c.cfl")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.h5", "nowhere.h5: no such file or folder"),
        ("*.mrd", r"\*.mrd: no file matches this pattern"),
        ("out", "out: holds no k-space in this folder or below; known: .h5, .hdf5, .mrd, .cfl, .npy, .npz"),
    ],
)
def test_names_that_lead_nowhere(files, name, said):
    with pytest.raises(UserError, match=said):
        find_kspace([name])
    with pytest.raises(UserError, match="no scans given"):
        find_kspace([])
