"""The phantom's k-space as a dataset, and written as fastMRI's files are."""

import h5py
import numpy as np
import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets.phantom import phantom
from mrtransfer.data.kspace import open_kspace, open_volume
from mrtransfer.data.phantom.kspace import render_kspace
from mrtransfer.data.phantom.kspace_scan import parse_kspace
from mrtransfer.data.phantom.layouts import write

SMALL = {"task": "reconstruction", "matrix": [40, 32], "coils": 3, "slices": 2}


@pytest.fixture(scope="module")
def knees():
    return phantom(subjects=5, anatomy="knee", contrast="pd", oversampled=True, **{**SMALL, "matrix": [80, 32]})


def test_the_dataset_has_a_volume_a_subject_and_says_what_it_holds():
    manifest = phantom(subjects=3, **SMALL)
    assert manifest.channels == ("image",)
    assert manifest.table["subject"].is_unique
    scan = parse_kspace(manifest.locations(1)[0])
    assert (scan.anatomy, scan.subject, scan.coils, scan.matrix, scan.slices) == ("brain", 1, 3, (40, 32), 2)
    row = manifest.table.iloc[1]
    assert (row["spacing_y"], row["spacing_x"], row["spacing_z"]) == scan.spacing
    assert (row["acquisition"], row["rows"], row["columns"], row["slices"]) == (scan.acquisition, 40, 32, 2)
    assert manifest.table["label"].isna().all()


def test_defaults_are_quick_ones():
    scan = parse_kspace(phantom(subjects=1, task="reconstruction").locations(0)[0])
    assert (scan.coils, scan.matrix, scan.slices, scan.oversampled) == (8, (128, 128), 8, False)


def test_contrasts_and_scanners_are_dealt_out_in_all_pairs():
    table = phantom(subjects=12, anatomy="knee", scanner=["a", "b"], **SMALL).table
    assert table.groupby(["contrast", "scanner"]).size().tolist() == [3, 3, 3, 3]
    assert set(table["acquisition"]) == {"CORPD_FBK", "CORPDFS_FBK"}
    assert set(table["lesion"]) == {"sarcoma", "no_tumour"}
    assert set(phantom(subjects=4, **SMALL).table["contrast"]) == {"t1", "t1ce", "t2", "flair"}


def test_a_person_is_the_same_in_every_task_and_another_in_another_cohort():
    scans = phantom(subjects=3, anatomy="knee", **SMALL).table["subject"].tolist()
    assert scans == phantom(subjects=3, anatomy="knee", task="segmentation").table["subject"].tolist()
    others = phantom(subjects=3, anatomy="knee", first_subject=3, **SMALL).table["subject"]
    assert not set(scans) & set(others)
    assert not set(scans) & set(phantom(subjects=3, **SMALL).table["subject"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 64}, "size is for all tasks but reconstruction"),
        ({"spacing": 3.0}, "spacing is for all tasks"),
        ({"task": "types", "coils": 4}, "coils is for task: reconstruction, and task is types"),
        ({"task": "segmentation", "matrix": 64}, "matrix is for task: reconstruction"),
        ({"task": "types", "contrast": "pdfs"}, "unknown contrast 'pdfs'"),
        ({"contrast": "pdf"}, "'pdfs'"),
        ({"matrix": [64, 64, 3]}, "one number or two"),
        ({"matrix": "64"}, "one number or two"),
        ({"matrix": 8}, "rows of matrix: 8"),
        ({"coils": True}, "coils is True"),
        ({"coils": 0}, "coils: 0"),
        ({"plane": "coronal"}, "plane of the brain"),
        ({"slices": 0}, "slices is 0"),
        ({"lesions": ["sarcoma"]}, "unknown lesion 'sarcoma'"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(UserError, match=said):
        phantom(**{"task": "reconstruction", **options})


def test_a_store_renders_each_volume_once(tmp_path):
    manifest = phantom(subjects=2, **SMALL)
    store = open_kspace(manifest, tmp_path)
    assert (store.slices.tolist(), store.coils.tolist(), store.matrices.tolist()) == ([2, 2], [3, 3], [[40, 32]] * 2)
    kspace = render_kspace(manifest.locations(1)[0])
    np.testing.assert_array_equal(store.volume(1).read(0).kspace, kspace[0])
    assert store.volume(1).spacing == pytest.approx(parse_kspace(manifest.locations(1)[0]).spacing, rel=1e-4)
    assert open_kspace(manifest, tmp_path).content == store.content


def test_fastmri_reads_what_was_written(knees, tmp_path):
    root = write(knees, "fastmri", tmp_path / "set", validation=0.4)
    assert sorted(folder.name for folder in root.iterdir()) == ["multicoil_train", "multicoil_val"]
    read = DATASETS.get("fastmri")(root)
    assert len(read) == 5
    assert read.table["split"].value_counts().to_dict() == {"train": 3, "validation": 2}
    ours = knees.table.set_index("subject")
    for row, (subject, location) in enumerate(read.table[["subject", "image"]].itertuples(index=False)):
        scan = parse_kspace(ours.loc[subject, "image"])
        volume = open_volume(location, read.root)
        assert (volume.slices, volume.coils, volume.matrix, volume.crop) == (2, 3, (80, 32), (40, 32))
        assert volume.acquisition == "CORPD_FBK"
        assert volume.spacing == pytest.approx(scan.spacing, rel=1e-4)
        assert read.table["spacing_x"].iloc[row] == pytest.approx(ours.loc[subject, "spacing_x"], rel=1e-4)
        np.testing.assert_array_equal(volume.read(1).kspace, render_kspace(scan.location)[1])


def test_test_files_are_undersampled_and_hold_no_images(knees, tmp_path):
    root = write(knees, "fastmri", tmp_path / "set", validation=0.2, test=0.4)
    files = sorted(root.glob("multicoil_test/*.h5"))
    assert len(files) == 2
    with h5py.File(files[0]) as file:
        assert "reconstruction_rss" not in file
        mask = file["mask"][()].astype(bool)
        assert 4 <= mask.sum() <= 16
        assert not file["kspace"][..., ~mask].any()
    tested = {file.stem for file in files}
    others = {file.stem for part in ("train", "val") for file in root.glob(f"multicoil_{part}/*.h5")}
    assert len(tested | others) == 5


def test_one_coil_and_a_published_split_are_kept(tmp_path):
    manifest = phantom(subjects=2, **{**SMALL, "coils": 1})
    split = type(manifest).create(manifest.table.assign(split=["validation", "train"]), manifest.root, manifest.name)
    root = write(split, "fastmri", tmp_path / "set")
    assert [file.name for file in root.glob("singlecoil_val/*")] == ["phantom-0000.h5"]
    with h5py.File(root / "singlecoil_train" / "phantom-0001.h5") as file:
        assert file["kspace"].shape == (2, 40, 32)
        assert file["reconstruction_esc"].shape == (2, 40, 32)


def test_layouts_refuse_what_they_do_not_hold(knees, tmp_path):
    with pytest.raises(UserError, match="task='reconstruction'"):
        write(phantom(subjects=2, task="segmentation", spacing=12), "fastmri", tmp_path / "x")
    with pytest.raises(UserError, match="validation is 0"):
        write(knees, "fastmri", tmp_path / "x", validation=0.6, test=0.5)
    with pytest.raises(UserError, match="holds slices"):
        write(knees, "folder", tmp_path / "x")
    with pytest.raises(UserError, match="holds volumes"):
        write(knees, "decathlon", tmp_path / "x")
    assert not (tmp_path / "x").exists()
