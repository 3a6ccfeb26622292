"""Reconstruction on the real command line: what is printed and written, and one sentence for what cannot be done."""

import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from torch import nn

from mrtransfer.data.kspace import write_fastmri
from mrtransfer.data.phantom.kspace import render_kspace
from mrtransfer.data.phantom.kspace_scan import KspaceScan
from mrtransfer.models.network import build_network
from mrtransfer.models.package import save_model
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.tasks.classification.heads import build_head

TINY = {"cascades": 1, "channels": 2, "pools": 2, "sens_channels": 2, "sens_pools": 2}
SAMPLING = {"mask": "random", "acceleration": [4], "centre_fraction": [0.16]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two knees of the phantom, one of them undersampled, and models for two tasks."""
    folder = tmp_path_factory.mktemp("cli")
    columns = np.random.default_rng(0).random(40) < 0.4
    columns[16:24] = True
    for subject, mask in ((1, None), (2, columns)):
        scan = KspaceScan("knee", subject=subject, contrast="pd", coils=3, matrix=(40, 40), slices=2)
        (folder / "scans").mkdir(exist_ok=True)
        write_fastmri(folder / f"scans/knee{subject}.h5", render_kspace(scan.location), mask=mask, spacing=scan.spacing)
    network = build_reconstruction_network("varnet", options=TINY, seed=1)
    spec = {"task": "reconstruction", "sampling": SAMPLING, "loss": "ssim", "provenance": {}, "record": {}}
    save_model(folder / "study/model", network, nn.Sequential(), spec)
    classifier = build_network("cbr_tiny", in_channels=1)
    head = build_head("linear", classifier.features, 2)
    spec = {"task": "classification", "size": 32, "fit": "pad", "classes": ["a", "b"], "provenance": {},
            "input": {"normalise": "unit", "channels": 1}}  # fmt: skip
    save_model(folder / "classes", classifier, head, spec)
    return folder


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A folder of its own beside what all tests share."""
    monkeypatch.chdir(tmp_path)
    for name in ("scans", "study", "classes"):
        Path(name).symlink_to(place / name)
    return tmp_path


def test_a_table_says_how_k_space_was_sampled_and_how_near_the_images_are(here, mrtransfer):
    ended = mrtransfer("predict", "study", "scans", "-o", "out", "--acceleration", 4)
    assert (ended.code, ended.err) == (0, [])
    summaries = [json.loads((here / f"out/knee{n}.json").read_text()) for n in (1, 2)]
    for one in summaries:
        sampling = one["sampling"]
        assert f"{sampling['sampled']} of {sampling['columns']} ({sampling['acceleration']:.1f}×)" in ended.out
    scores = summaries[0]["scores"]
    line = next(line for line in ended.out.splitlines() if line.startswith("knee1 "))
    assert f"{scores['ssim']:.3f}" in line
    assert f"{scores['psnr']:.1f}" in line
    assert "knee2: was undersampled when it was measured" in ended.out
    assert ended.out.splitlines()[-1] == "2 images with summary and picture in out"
    assert max(map(len, ended.out.splitlines()[:3])) <= 80


def test_json_is_what_the_files_hold(here, mrtransfer):
    ended = mrtransfer("predict", "study", "scans/knee2.h5", "-o", "out", "--json")
    assert (ended.code, ended.err) == (0, [])
    (summary,) = json.loads(ended.out)
    assert summary == json.loads((here / "out/knee2.json").read_text())
    images = np.asarray(nib.load(summary["images"]).dataobj)
    with h5py.File(summary["submission"]) as file:
        np.testing.assert_array_equal(np.moveaxis(images, -1, 0), file["reconstruction"][()])
    assert (here / "out/knee2.png").read_bytes()[1:4] == b"PNG"


def test_what_was_done_stays_where_another_file_cannot_be_used(here, mrtransfer):
    ended = mrtransfer("predict", "study", "scans/knee1.h5", "scans/knee2.h5", "-o", "out", "--json")
    assert ended.code == 2
    assert ended.err == [
        "1 of the scans could not be reconstructed: scans/knee1.h5: is fully sampled, so there is nothing to "
        "reconstruct; add --acceleration 4 to leave out lines and see how near the model comes to the full data"
    ]
    assert [one["case"] for one in json.loads(ended.out)] == ["knee2"]
    assert (here / "out/knee2_reconstruction.nii.gz").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("study", "scans"), "--out is missing: this model reconstructs; name the folder for its images, such as -o"),
        (("study", "nowhere", "-o", "out"), "nowhere: no such file or folder"),
        (("study", "scans", "-o", "out", "--acceleration", 0.5), "--acceleration: must be 1 (all lines) or more"),
        (("study", "scans", "-o", "out", "--acceleration", 8), "the model was trained at 4, which does not say how"),
        (("study", "scans", "-o", "out", "--mask", "magic"), "--mask magic: says how fully sampled k-space is to be"),
        (("study", "scans", "-o", "out", "--acceleration", 4, "--mask", "majic"), "did you mean 'magic'?"),
        (("study", "scans", "-o", "scans"), "--out scans: the scans lie in this folder; choose another"),
        (("classes", "scans", "--acceleration", 4), "--acceleration 4.0: is for models that reconstruct, and classes"),
        (("classes", "scans", "--mask", "random"), "is for classification; leave it out"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(here, refused, arguments, said):
    assert said in refused("predict", *arguments)
    assert not (here / "out").exists()
    assert sorted(path.name for path in (here / "scans").iterdir()) == ["knee1.h5", "knee2.h5"]


def test_a_single_file_that_cannot_be_used_is_told_without_counting(here, refused):
    (here / "cut.h5").write_bytes((here / "scans/knee2.h5").read_bytes()[:-500])
    told = refused("predict", "study", "cut.h5", "-o", "out")
    assert told.startswith("cut.h5: is cut short")
