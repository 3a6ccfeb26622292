"""The figshare set: MATLAB structs of both versions, patients, folds."""

import h5py
import numpy as np
import pytest
import scipy.io

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.figshare import figshare
from mrtransfer.data.readers import read_image, read_mask

IMAGE = np.arange(48, dtype=np.int16).reshape(8, 6)


def write(path, label, patient, version="7.3"):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = (IMAGE > 40).astype(np.uint8)
    if version == "5":
        struct = {"image": IMAGE, "label": float(label), "PID": patient, "tumorMask": mask, "tumorBorder": [1.0, 2.0]}
        scipy.io.savemat(path, {"cjdata": struct})
        return
    with h5py.File(path, "w") as file:
        file["cjdata/image"], file["cjdata/tumorMask"] = IMAGE.T, mask.T
        file["cjdata/label"] = np.array([[float(label)]])
        file["cjdata/PID"] = np.array([[ord(letter)] for letter in patient], np.uint16)
        file["cjdata/PID"].attrs["MATLAB_class"] = np.bytes_("char")


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_labels_patients_images_and_masks(tmp_path, version):
    for number, label, patient in [(10, 3, "MR01"), (2, 1, "100360"), (9, 2, "7")]:
        write(tmp_path / "brainTumorDataPublic_1-766" / f"{number}.mat", label, patient, version)
    manifest = figshare(tmp_path)
    assert manifest.table["sample"].tolist() == ["2", "9", "10"]
    assert manifest.table["subject"].tolist() == ["100360", "7", "MR01"]
    assert manifest.table["label"].tolist() == ["meningioma", "glioma", "pituitary"]
    assert manifest.classes == ("meningioma", "glioma", "pituitary")
    np.testing.assert_array_equal(read_image(manifest.locations(0)[0], tmp_path), IMAGE)
    np.testing.assert_array_equal(read_mask(manifest.table["mask"].iloc[0], tmp_path, IMAGE.shape), IMAGE > 40)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_published_folds(tmp_path, version):
    write(tmp_path / "1.mat", 1, "a")
    write(tmp_path / "3.mat", 2, "b")
    folds = np.array([[5.0], [1.0], [4.0]])
    if version == "5":
        scipy.io.savemat(tmp_path / "cvind.mat", {"cvind": folds})
    else:
        with h5py.File(tmp_path / "cvind.mat", "w") as file:
            file["cvind"] = folds.T
    assert figshare(tmp_path).table["fold"].tolist() == [5, 4]
    write(tmp_path / "4.mat", 2, "b")
    with pytest.raises(UserError, match=r"cvind.mat: has 3 entries, but there is a 4.mat"):
        figshare(tmp_path)


def test_two_labels_for_one_patient(tmp_path):
    write(tmp_path / "1.mat", 1, "a")
    write(tmp_path / "2.mat", 2, "a")
    with pytest.raises(UserError, match="subject a is labelled glioma and meningioma"):
        figshare(tmp_path)
    assert len(figshare(tmp_path, one_label_per_subject=False)) == 2


def test_mistakes_name_the_file(tmp_path):
    write(tmp_path / "1.mat", 1, "a")
    with pytest.raises(UserError, match=r"only one class \(meningioma\)"):
        figshare(tmp_path)
    write(tmp_path / "2.mat", 4, "b")
    with pytest.raises(UserError, match=r"2.mat: its label is .*; it must be 1 \(meningioma\), 2"):
        figshare(tmp_path)
    (tmp_path / "2.mat").write_bytes((tmp_path / "1.mat").read_bytes()[:700])
    with pytest.raises(UserError, match=r"2.mat: "):
        figshare(tmp_path)
