"""LGG slices: labels from masks, patients from data.csv."""

import numpy as np
import pytest
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.lgg import lgg
from mrtransfer.data.readers import read_mask


def write(root, subject, slices, suffix=".tif", shape=(8, 6)):
    (root / subject).mkdir(parents=True, exist_ok=True)
    for number, tumour in slices:
        stem = root / subject / f"{subject}_{number}"
        Image.fromarray(np.full((*shape, 3), number, np.uint8)).save(f"{stem}{suffix}")
        mask = np.zeros(shape, np.uint8)
        mask[2:4, 2:4] = 255 * tumour
        Image.fromarray(mask).save(f"{stem}_mask{suffix}")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("above", ["", "kaggle_3m", "lgg-mri-segmentation/kaggle_3m"])
def test_a_slice_with_an_empty_mask_shows_no_tumour(tmp_path, suffix, above):
    write(tmp_path / above, "TCGA_CS_4941_19960909", [(2, True), (10, False)], suffix)
    write(tmp_path / above, "TCGA_DU_5849_19950405", [(1, True)], suffix)
    manifest = lgg(tmp_path)
    assert manifest.classes == ("no_tumour", "tumour")
    assert manifest.labels.tolist() == [1, 0, 1]
    assert manifest.table["slice"].tolist() == [2, 10, 1]  # in the order of the slices, not of the letters
    assert manifest.table["subject"].nunique() == 2
    assert manifest.table["site"].tolist() == ["CS", "CS", "DU"]
    assert read_mask(manifest.table["mask"].iloc[0], manifest.root).sum() == 4


def test_the_archive_that_holds_everything_twice_is_read_once(tmp_path):
    for above in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m"):
        write(tmp_path / above, "TCGA_CS_4941_19960909", [(1, True), (2, False)])
    assert len(lgg(tmp_path)) == 2


def test_columns_of_data_csv_are_joined(tmp_path):
    write(tmp_path, "TCGA_CS_4941_19960909", [(1, True)])
    write(tmp_path, "TCGA_DU_5849_19950405", [(1, False)])
    (tmp_path / "data.csv").write_text("Patient,RNASeqCluster,gender\nTCGA_CS_4941,2,1\n")
    manifest = lgg(tmp_path)
    assert manifest.table["RNASeqCluster"].tolist()[0] == 2
    assert np.isnan(manifest.table["RNASeqCluster"].tolist()[1])
    assert manifest.notes == ("1 subjects are not in data.csv (TCGA_DU_5849)",)
    (tmp_path / "data.csv").write_text("id\n1\n")
    with pytest.raises(UserError, match=r"data.csv: the column 'Patient' is missing"):
        lgg(tmp_path)


def test_a_missing_mask_and_one_of_another_size_are_named(tmp_path):
    write(tmp_path, "s1", [(1, True), (2, True)])
    (tmp_path / "s1" / "s1_2_mask.tif").unlink()
    with pytest.raises(UserError, match=r"s1_2.tif: has no mask; s1_2_mask.tif should lie beside it"):
        lgg(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "s1" / "s1_2_mask.tif")
    with pytest.raises(UserError, match=r"s1_2_mask.tif: the mask has 4 × 4 pixels and its image 8 × 6"):
        lgg(tmp_path)


@pytest.mark.real_data
def test_the_real_slices_all_show_tumour_and_it_is_said(real_data):
    manifest = lgg(real_data / "lgg_segmentation")
    assert len(manifest) == 445
    assert manifest.table["subject"].nunique() == 35
    assert (manifest.labels == 1).all()
    assert manifest.notes == ("no slice is labelled no_tumour: every mask has pixels",)
