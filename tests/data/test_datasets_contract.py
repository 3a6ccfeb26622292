"""What every dataset promises: a valid manifest whose images and masks can be read."""

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.kspace import open_volume, write_fastmri
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers import read_image, read_mask
from mrtransfer.data.volume import read_case

GREY = np.arange(16 * 12, dtype=np.uint8).reshape(16, 12)
VOXELS = np.arange(10 * 12 * 6, dtype=np.int16).reshape(10, 12, 6)
SEG = np.zeros((10, 12, 6), np.uint8)
SEG[2:8, 3:9, 1:5], SEG[4:6, 4:8, 2:4], SEG[5, 5, 3] = 2, 1, 4


def write_folder(folder):
    for label in ("glioma", "none"):
        (folder / label).mkdir()
        Image.fromarray(GREY).save(folder / label / "a.png")
    return folder


def write_figshare(folder):
    for number, label in ((1, 1), (2, 3)):
        with h5py.File(folder / f"{number}.mat", "w") as file:
            file["cjdata/image"] = GREY.astype(np.int16).T
            file["cjdata/label"] = np.array([[float(label)]])
            file["cjdata/PID"] = np.array([[ord(c)] for c in f"10{number}"], np.uint16)
            file["cjdata/PID"].attrs["MATLAB_class"] = np.bytes_("char")
            file["cjdata/tumorMask"] = (GREY > 100).astype(np.uint8).T
    return folder


def write_lgg(folder):
    for subject, highest in (("TCGA_CS_1_1", 50), ("TCGA_DU_2_2", 255)):
        (folder / "kaggle_3m" / subject).mkdir(parents=True)
        stem = folder / "kaggle_3m" / subject / f"{subject}_1"
        Image.fromarray(np.stack([GREY, GREY // 2, GREY // 3], -1)).save(f"{stem}.tif")
        Image.fromarray(np.uint8(255) * (highest < GREY)).save(f"{stem}_mask.tif")
    return folder


def write_table(folder):
    write_folder(folder)
    table = pd.DataFrame({"sample": ["a", "b"], "image": ["glioma/a.png", "none/a.png"], "label": ["yes", "no"]})
    table.to_csv(folder / "mine.csv", index=False)
    return folder / "mine.csv"


def write_nifti(path, voxels):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), path)


def write_brats(folder):
    for case in ("BraTS20_Training_001", "BraTS20_Training_002"):
        for part, voxels in {**dict.fromkeys(("flair", "t1", "t1ce", "t2"), VOXELS), "seg": SEG}.items():
            write_nifti(folder / case / f"{case}_{part}.nii.gz", voxels)
    return folder


def write_decathlon(folder):
    for case in ("hippocampus_001", "hippocampus_004"):
        write_nifti(folder / "imagesTr" / f"{case}.nii.gz", VOXELS)
        write_nifti(folder / "labelsTr" / f"{case}.nii.gz", SEG)
    return folder


def write_volumes(folder):
    for case in ("anna", "otto"):
        write_nifti(folder / case / "FLAIR.nii.gz", VOXELS)
        write_nifti(folder / case / "lesions.nii", np.uint8(SEG > 0))
    return folder


def write_fastmri_folders(folder):
    for name in ("multicoil_train/file1.h5", "multicoil_val/file2.h5"):
        write_fastmri(folder / name, np.ones((2, 2, 8, 6), np.complex64))
    return folder


def write_kspace(folder):
    np.save(folder / "scan.npy", np.ones((2, 2, 8, 6), np.complex64))
    return folder


LAYOUTS = {
    "folder": write_folder,
    "figshare": write_figshare,
    "lgg": write_lgg,
    "table": write_table,
    "brats": write_brats,
    "decathlon": write_decathlon,
    "volumes": write_volumes,
    "fastmri": write_fastmri_folders,
    "kspace": write_kspace,
}
K_SPACE = ("fastmri", "kspace")
OPTIONS = {"volumes": {"channels": {"flair": "*/FLAIR.nii.gz"}, "mask": "*/lesions.nii"}}


def opened(name, folder):
    """A tiny example of the dataset; one that needs no files is opened as it is."""
    return DATASETS.get(name)(LAYOUTS[name](folder) if name in LAYOUTS else None, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", DATASETS.names())
def test_a_dataset_builds_a_valid_manifest_whose_images_can_be_read(name, tmp_path):
    manifest = opened(name, tmp_path)
    assert isinstance(manifest, Manifest)
    again = Manifest.create(manifest.table, manifest.root, manifest.name, manifest.classes)
    pd.testing.assert_frame_equal(again.table, manifest.table)
    assert len(manifest.classes) >= 2 or manifest.mask_labels is not None or name in K_SPACE
    assert set(manifest.labels) <= set(range(-1, len(manifest.classes)))
    for row in range(min(3, len(manifest))):
        for location in manifest.locations(row):
            if name in K_SPACE:
                assert open_volume(location, manifest.root).read(1).kspace.shape == (2, 8, 6)
                continue
            image = read_image(location, manifest.root)
            assert image.ndim in (2, 3)
            mask = manifest.table["mask"].iloc[row]
            if isinstance(mask, str):
                assert read_mask(mask, manifest.root, image.shape).dtype == bool


@pytest.mark.parametrize("name", DATASETS.names())
def test_where_there_are_masks_their_values_have_a_meaning(name, tmp_path):
    manifest = opened(name, tmp_path)
    masked = np.flatnonzero(manifest.table["mask"].notna())
    if len(masked) == 0:
        pytest.skip(f"{name} has no masks here")
    assert manifest.mask_labels is not None
    case = read_case(manifest, int(masked[0]))
    assert case.mask.shape == case.image.shape[1:]
    assert case.mask.max() < len(manifest.mask_labels.names)


@pytest.mark.parametrize("name", DATASETS.names())
def test_a_dataset_is_the_same_table_every_time(name, tmp_path):
    first = opened(name, tmp_path)
    path = tmp_path / "mine.csv" if name == "table" else tmp_path if name in LAYOUTS else None
    second = DATASETS.get(name)(path, **OPTIONS.get(name, {}))
    pd.testing.assert_frame_equal(first.table, second.table)
    assert (first.classes, first.notes, first.mask_labels) == (second.classes, second.notes, second.mask_labels)


@pytest.mark.parametrize("name", DATASETS.names())
def test_a_dataset_says_what_it_is_and_every_option_has_a_default(name):
    import inspect

    assert DATASETS.summaries()[name].endswith(".")
    parameters = inspect.signature(DATASETS.get(name)).parameters
    assert next(iter(parameters)) == "path"
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters.values())


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_dataset_of_files_names_a_path_that_holds_nothing(name, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (None, tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(UserError) as error:
            DATASETS.get(name)(path, **OPTIONS.get(name, {}))
        assert path is None or str(path) in str(error.value)


def test_a_misspelt_dataset_gets_the_nearest_name():
    with pytest.raises(UserError, match="unknown dataset 'figshar': did you mean 'figshare'"):
        DATASETS.get("figshar")
