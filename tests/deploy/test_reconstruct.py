"""A reconstruction model on new k-space: right images in the right files, honest numbers, errors of one sentence."""

import importlib
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import uniform_filter
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.kspace import open_kspace, write_fastmri
from mrtransfer.data.phantom.kspace import render_kspace
from mrtransfer.data.phantom.kspace_scan import KspaceScan
from mrtransfer.deploy import reconstruct
from mrtransfer.deploy.contact_sheet import contact_sheet
from mrtransfer.deploy.kspace_summary import (
    NO_SIZE,
    OTHER_ACQUISITION,
    OTHER_SAMPLING,
    OWN_COLUMNS,
    SEEN_SPLIT,
    SIMULATED,
    WORSE,
)
from mrtransfer.deploy.reconstruct import reconstruct_scan, reconstruct_scans
from mrtransfer.deploy.reconstructor import TrainedReconstructor
from mrtransfer.deploy.scans import Scan
from mrtransfer.deploy.summary import SEEN, SEEN_SUBJECT
from mrtransfer.models.network import build_network
from mrtransfer.models.package import save_model
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.models.reconstructor import Reconstructor
from mrtransfer.models.reconstructors import RECONSTRUCTORS
from mrtransfer.physics.coils import rss
from mrtransfer.physics.fourier import ifft2c
from mrtransfer.physics.masks import Sampling, seed_of
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.precision import Precision

SHAPE = (3, 4, 40, 36)  # slices, coils, rows, columns
CROP = (32, 36)
SPACING = (1.5, 1.25, 4.0)
TINY = {"cascades": 1, "channels": 2, "pools": 2, "sens_channels": 2, "sens_pools": 2}
SAMPLING = {"mask": "equispaced_fraction", "acceleration": [4, 8], "centre_fraction": [0.16, 0.06]}
EVERY_THIRD = (np.arange(36) % 3 == 0) | (np.abs(np.arange(36) - 17.5) < 4)


class Scaled(nn.Module):
    """Zero-filled times a weight, so that what must come out is known."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight]))

    def forward(self, kspace, columns, centre=None):
        return self.weight * rss(ifft2c(kspace))


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The network is known while these tests run, and not to those that go through all reconstructions."""

    def scaled(*, weight: float = 0.9) -> Reconstructor:
        return Reconstructor(Scaled(weight), multicoil=False, smallest=16)

    RECONSTRUCTORS.register("scaled")(scaled)
    yield
    del RECONSTRUCTORS._loaded["scaled"]


def save(folder, name="scaled", *, options=None, sampling=SAMPLING, provenance=None, **described):
    network = build_reconstruction_network(name, options=options, seed=1)
    spec = {
        "task": "reconstruction", "sampling": sampling, "loss": "ssim", "provenance": provenance or {}, "record": {},
    }  # fmt: skip
    return save_model(folder, network, nn.Sequential(), spec | described)


@pytest.fixture(scope="module")
def kspace():
    """complex64 (S, C, H, W) of the phantom's brain."""
    _, coils, *matrix = SHAPE
    return render_kspace(KspaceScan(coils=coils, matrix=tuple(matrix), slices=SHAPE[0]).location)


@pytest.fixture
def here(tmp_path, monkeypatch, kspace):
    """A model, one fully sampled file, and one that was undersampled when it was measured."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    save("study/model")
    said = {"crop": CROP, "spacing": SPACING, "acquisition": "AXT1", "subject": "p1"}
    write_fastmri("in/full.h5", kspace, **said)
    write_fastmri("in/under.h5", kspace, mask=EVERY_THIRD, **said)
    return tmp_path


def zero_filled(kspace, columns=True, crop=CROP):
    """float64 (S, h, w): roots of sums of squares, by NumPy's shifts."""
    axes = (-2, -1)
    shifted = np.fft.ifftshift(kspace.astype(np.complex128) * columns, axes=axes)
    images = np.fft.fftshift(np.fft.ifft2(shifted, axes=axes, norm="ortho"), axes=axes)
    top, left = ((size - part) // 2 for size, part in zip(kspace.shape[-2:], crop, strict=True))
    return np.sqrt((np.abs(images) ** 2).sum(1))[:, top : top + crop[0], left : left + crop[1]]


def drawn(name, acceleration=4, centre_fraction=0.16, mask="equispaced_fraction"):
    sampling = Sampling(mask=mask, acceleration=acceleration, centre_fraction=centre_fraction)
    return sampling.draw(36, seed_of(name)).columns


def similarity(images, targets):
    """float64 mean SSIM of slices with the volume's range, by SciPy's windows."""
    c1, c2 = (0.01 * targets.max()) ** 2, (0.03 * targets.max()) ** 2

    def mean(values):
        return uniform_filter(values, (0, 7, 7))[:, 3:-3, 3:-3]

    mx, my, scale = mean(images), mean(targets), 49 / 48
    vx, vy = (scale * (mean(one**2) - middle**2) for one, middle in ((images, mx), (targets, my)))
    both = scale * (mean(images * targets) - mx * my)
    return ((2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


def only(finished):
    assert finished.problems == []
    (summary,) = finished.summaries
    return summary


def warnings_of(model, scan, **options):
    return only(reconstruct_scans(model, [scan], "out", **options))["warnings"]


class TestImages:
    def test_measured_columns_become_images_in_both_files(self, here, kspace):
        summary = only(reconstruct_scans("study", ["in/under.h5"], "out"))
        expected = 0.9 * zero_filled(kspace, EVERY_THIRD)
        image = nib.load("out/under_reconstruction.nii.gz")
        assert image.get_data_dtype() == np.float32
        np.testing.assert_allclose(np.moveaxis(np.asarray(image.dataobj), -1, 0), expected, rtol=1e-4)
        np.testing.assert_allclose(image.affine, np.diag([*SPACING, 1]))
        with h5py.File("out/under_reconstruction.h5") as file:
            assert list(file) == ["reconstruction"]
            assert file["reconstruction"].shape == (3, *CROP)
            np.testing.assert_allclose(file["reconstruction"][()], expected, rtol=1e-4)
        assert summary == json.loads(Path("out/under.json").read_text())
        assert summary["images"] == "out/under_reconstruction.nii.gz"
        assert summary["submission"] == "out/under_reconstruction.h5"
        assert sorted(path.name for path in Path("out").iterdir()) == [
            "under.json", "under.png", "under_reconstruction.h5", "under_reconstruction.nii.gz",
        ]  # fmt: skip

    def test_fully_sampled_k_space_is_undersampled_as_in_training(self, here, kspace):
        for acceleration, fraction in ((4, 0.16), (8, 0.06)):
            summary = only(reconstruct_scans("study", ["in/full.h5"], "out", acceleration=acceleration))
            columns = drawn("full.h5", acceleration, fraction)
            found = np.asarray(nib.load("out/full_reconstruction.nii.gz").dataobj)
            np.testing.assert_allclose(np.moveaxis(found, -1, 0), 0.9 * zero_filled(kspace, columns), rtol=1e-4)
            assert summary["sampling"] == {
                "columns": 36,
                "sampled": columns.sum(),
                "acceleration": 36 / columns.sum(),
                "mask": "equispaced_fraction",
                "asked_acceleration": acceleration,
                "centre_fraction": fraction,
            }

    def test_mask_and_centre_may_be_others(self, here, kspace):
        options = {"acceleration": 3, "mask": "random", "centre_fraction": 0.2}
        summary = only(reconstruct_scans("study", ["in/full.h5"], "out", **options))
        columns = drawn("full.h5", 3, 0.2, "random")
        found = np.asarray(nib.load("out/full_reconstruction.nii.gz").dataobj)
        np.testing.assert_allclose(np.moveaxis(found, -1, 0), 0.9 * zero_filled(kspace, columns), rtol=1e-4)
        said = OTHER_SAMPLING.format("equispaced_fraction at 4 and 8", "random at 3")
        assert said in summary["warnings"]

    def test_columns_that_a_scanner_fills_with_zeros_are_not_counted(self, here, kspace):
        write_fastmri("in/padded.h5", kspace * (np.arange(36) >= 4), crop=CROP, padding=(4, 36))
        summary = only(reconstruct_scans("study", ["in/padded.h5"], "out", acceleration=4))
        used = drawn("padded.h5")[4:].sum()
        assert (summary["sampling"]["columns"], summary["sampling"]["sampled"]) == (32, used)
        assert summary["sampling"]["acceleration"] == 32 / used

    def test_every_kind_of_file_gives_the_same_images(self, here, kspace, monkeypatch):
        monkeypatch.syspath_prepend(Path(__file__).parents[1] / "data")
        files = importlib.import_module("kspace_files")
        part = kspace * EVERY_THIRD
        np.save("in/array.npy", part)
        np.save("in/turned.npy", part.transpose(3, 2, 1, 0))
        files.write_cfl(here / "in/bart", part.transpose(2, 3, 1, 0).reshape(40, 36, 1, 4, *[1] * 9, 3))
        with h5py.File("in/under.h5") as file:
            header = file["ismrmrd_header"][()].decode()
        readouts = [files.readout(one[:, :, column], column, index) for index, one in enumerate(part)
                    for column in np.flatnonzero(EVERY_THIRD)]  # fmt: skip
        files.write_raw(here / "in/raw.h5", header, readouts)
        scans = ["in/array.npy", "in/turned.npy#axes=whcs", "in/bart", "in/raw.h5"]
        finished = reconstruct_scans("study", scans, "out")
        assert finished.problems == []
        assert [one["case"] for one in finished.summaries] == ["array", "turned", "bart", "raw"]
        for one, crop in zip(finished.summaries, [SHAPE[2:]] * 3 + [CROP], strict=True):
            expected = 0.9 * zero_filled(kspace, EVERY_THIRD, crop)
            found = np.moveaxis(np.asarray(nib.load(one["images"]).dataobj), -1, 0)
            np.testing.assert_allclose(found, expected, rtol=1e-4)

    def test_a_phantom_needs_no_file(self, here, kspace):
        scan = KspaceScan(coils=SHAPE[1], matrix=SHAPE[2:], slices=SHAPE[0])
        summary = only(reconstruct_scans("study", [scan.location], "out", acceleration=4))
        found = np.asarray(nib.load(summary["images"]).dataobj)
        expected = 0.9 * zero_filled(kspace, drawn("phantom"), SHAPE[2:])
        np.testing.assert_allclose(np.moveaxis(found, -1, 0), expected, rtol=1e-4)

    def test_the_same_scan_gives_the_same_bytes(self, here):
        for _ in range(2):
            before = {path: path.read_bytes() for path in here.glob("out/*")}
            reconstruct_scans("study", ["in"], "out", acceleration=4)
        assert len(before) == 8
        assert before == {path: path.read_bytes() for path in here.glob("out/*")}


class TestSummary:
    def test_scores_are_those_of_the_whole_volume(self, here, kspace):
        summary = only(reconstruct_scans("study", ["in/full.h5"], "out", acceleration=4))
        targets = zero_filled(kspace)
        without = zero_filled(kspace, drawn("full.h5"))
        for key, images in (("scores", 0.9 * without), ("zero_filled", without)):
            error = ((images - targets) ** 2).sum()
            assert summary[key] == pytest.approx(
                {
                    "ssim": similarity(images, targets),
                    "psnr": 10 * np.log10(targets.max() ** 2 * targets.size / error),
                    "nmse": error / (targets**2).sum(),
                },
                rel=1e-4,
            )

    def test_what_cannot_be_scored_is_not(self, here):
        summary = only(reconstruct_scans("study", ["in/under.h5"], "out"))
        assert summary["scores"] is None
        assert summary["zero_filled"] is None
        assert summary["sampling"]["mask"] == "measured"
        assert summary["warnings"] == []

    def test_an_undersampled_file_with_its_images_is_scored(self, here, kspace):
        targets = zero_filled(kspace).astype(np.float32)
        write_fastmri("in/under.h5", kspace, mask=EVERY_THIRD, targets=targets)
        summary = only(reconstruct_scans("study", ["in/under.h5"], "out"))
        error = ((0.9 * zero_filled(kspace, EVERY_THIRD) - targets) ** 2).sum()
        assert summary["scores"]["nmse"] == pytest.approx(error / (targets**2).sum(), rel=1e-4)

    def test_a_perfect_image_has_no_finite_psnr(self, here):
        save("exact", options={"weight": 1.0})
        options = {"acceleration": 1, "mask": "equispaced", "centre_fraction": 0.16}
        scores = only(reconstruct_scans("exact", ["in/full.h5"], "out", **options))["scores"]
        assert scores == {"ssim": pytest.approx(1), "psnr": None, "nmse": 0}

    def test_it_says_what_was_scanned_and_that_the_patient_is_nowhere(self, here):
        summary = only(reconstruct_scans("study", ["in/under.h5"], "out"))
        assert summary["kspace"] == {
            "slices": 3, "coils": 4, "rows": 40, "columns": 36, "acquisition": "AXT1", "simulated": False,
        }  # fmt: skip
        assert summary["grid"]["shape"] == [*CROP, 3]
        assert summary["grid"]["spacing_mm"] == pytest.approx(SPACING)
        assert summary["grid"]["orientation"].startswith("unknown: files of k-space hold no patient geometry")
        assert summary["network"] == "scaled"
        assert summary["model"] == json.loads(Path("study/model/model.json").read_text())["digest"]
        assert summary["precision"] == "float32"
        assert summary["file"] == "in/under.h5"


class TestWarnings:
    def test_training_data_are_known_whatever_they_are_called(self, here):
        manifest = DATASETS.get("fastmri")("in")
        digests = open_kspace(manifest, here / "store").row_digests.tolist()
        save("seen", provenance={"row_digests": digests, "subjects": ["p1"]})
        for name in ("full", "under"):
            Path(f"in/{name}.h5").rename(f"in/new-{name}.h5")
            assert warnings_of("seen", f"in/new-{name}.h5", acceleration=4)[0] == SEEN

    @pytest.mark.parametrize("subject", ["p1", "in/under", "in"])
    def test_a_subject_is_known_by_its_file_and_by_its_path(self, here, subject):
        save("seen", provenance={"subjects": ["other", subject]})
        assert warnings_of("seen", "in/under.h5") == [SEEN_SUBJECT.format(subject)]

    def test_published_splits_that_weights_were_trained_on_are_named_with_scores(self, here):
        save("seen", provenance={"splits": {"fastmri": ["train", "val"]}})
        assert warnings_of("seen", "in/under.h5") == []
        assert warnings_of("seen", "in/full.h5", acceleration=4)[0] == SEEN_SPLIT.format(
            "train and validation", "fastmri"
        )

    def test_another_protocol_is_pointed_out(self, here):
        save("knees", acquisitions=["CORPD_FBK", "CORPDFS_FBK"])
        assert warnings_of("knees", "in/under.h5") == [OTHER_ACQUISITION.format("CORPD_FBK, CORPDFS_FBK", "AXT1")]
        save("brains", acquisitions=["AXT1"])
        assert warnings_of("brains", "in/under.h5") == []

    def test_own_columns_go_before_those_asked_for(self, here):
        assert warnings_of("study", "in/under.h5", acceleration=4) == [OWN_COLUMNS]

    def test_unknown_sizes_and_simulated_k_space_are_said(self, here, kspace):
        np.save("in/image.npy", zero_filled(kspace).astype(np.complex64)[:, None])
        found = warnings_of("study", "in/image.npy#image=true", acceleration=4)
        assert found[:2] == [SIMULATED, NO_SIZE]
        np.testing.assert_allclose(nib.load("out/image_reconstruction.nii.gz").affine, np.eye(4))

    def test_images_worse_than_zero_filled_ones_are_pointed_out(self, here):
        save("wrong", options={"weight": 3.0})
        summary = only(reconstruct_scans("wrong", ["in/full.h5"], "out", acceleration=4))
        scores = summary["scores"]["psnr"], summary["zero_filled"]["psnr"]
        assert summary["warnings"] == [WORSE.format(*scores)]


class TestPicture:
    def test_with_the_full_data_errors_are_shown(self, here):
        reconstruct_scans("study", ["in/full.h5"], "out", acceleration=4)
        picture = np.asarray(Image.open("out/full.png")).astype(int)
        assert picture.shape[1] >= 3 * 180  # reference, zero-filled, reconstruction
        coloured = np.ptp(picture, axis=2) > 60
        assert coloured[picture.shape[0] // 3 : 2 * picture.shape[0] // 3].mean() > 0.05

    def test_without_them_both_images_are_shown_alike_and_grey(self, here):
        reconstructor = TrainedReconstructor.load(here / "study/model")
        result = reconstruct_scan(reconstructor, Scan("under", ("in/under.h5",)))
        picture = contact_sheet(result)
        assert picture.dtype == np.uint8
        assert (picture == picture[..., :1]).all()
        strip = picture[-8, :, 0] > 128
        assert strip.mean() == pytest.approx(EVERY_THIRD.mean(), abs=0.02)
        half = (picture.shape[1] - 6) // 2
        left, right = picture[22:-56, :half, 0].astype(float), picture[22:-56, -half:, 0].astype(float)
        white = np.percentile(result.images[1], 99.7)
        assert right.mean() / 255 == pytest.approx(np.clip(result.images[1] / white, 0, 1).mean(), rel=0.03)
        assert left.mean() > right.mean()  # zero-filled is brighter: the network multiplies it by 0.9

    def test_pixels_keep_their_proportions(self, here):
        result = reconstruct_scan(TrainedReconstructor.load(here / "study/model"), Scan("u", ("in/under.h5",)))
        height, width = (size * step for size, step in zip(CROP, SPACING[:2], strict=True))
        picture = contact_sheet(result)
        assert picture.shape[1] == pytest.approx(2 * 320 * min(width / height, 1) + 6, abs=2)


class TestBadInput:
    def test_a_fully_sampled_file_says_what_to_add(self, here):
        finished = reconstruct_scans("study", ["in"], "out")
        assert [one["case"] for one in finished.summaries] == ["under"]
        assert finished.problems == [
            "in/full.h5: is fully sampled, so there is nothing to reconstruct; add --acceleration 4 to leave out lines "
            "and see how near the model comes to the full data"
        ]
        assert not Path("out/full.json").exists()
        save("eightfold", sampling={"mask": "random", "acceleration": 8, "centre_fraction": 0.06})
        (problem,) = reconstruct_scans("eightfold", ["in/full.h5"], "out").problems
        assert "add --acceleration 8 to leave out lines" in problem

    def test_bad_files_cost_only_themselves(self, here, kspace):
        save("varnet", "varnet", options=TINY | {"pools": 4})
        part = kspace * EVERY_THIRD
        with_nan = part.copy()
        with_nan[2, 1, 5, 3] = np.nan
        write_fastmri("in/a-nan.h5", with_nan, mask=EVERY_THIRD)
        write_fastmri("in/b-single.h5", part[:, 0], mask=EVERY_THIRD)
        Path("in/c-cut.h5").write_bytes(Path("in/under.h5").read_bytes()[:-1000])
        write_fastmri("in/d-narrow.h5", kspace[..., :8], mask=EVERY_THIRD[:8])
        Path("in/full.h5").unlink()
        with h5py.File("in/e-other.h5", "w") as file:
            file["image"] = np.zeros(3)
        finished = reconstruct_scans("varnet", ["in"], "out")
        assert [one["case"] for one in finished.summaries] == ["under"]
        said = dict(zip("abcde", finished.problems, strict=True))
        assert said["a"].startswith("in/a-nan.h5: slice 2: k-space holds 2 NaN or infinite values")
        assert said["b"].startswith("in/b-single.h5: network varnet: it needs several coils, and this k-space has one")
        assert said["c"].startswith("in/c-cut.h5: is cut short")
        assert said["d"].startswith("in/d-narrow.h5: network varnet: a matrix of 40×8 is too small")
        assert said["e"].startswith("in/e-other.h5: holds no dataset 'kspace'")
        assert {path.name.split("_")[0].split(".")[0] for path in Path("out").iterdir()} == {"under"}

    def test_a_mask_that_the_width_does_not_allow(self, here, kspace):
        options = {"acceleration": 4, "centre_fraction": 0.01}
        (problem,) = reconstruct_scans("study", ["in/full.h5"], "out", **options).problems
        assert problem.startswith("in/full.h5: --centre-fraction: 0.01 leaves no centre line; a width of 36 needs")

    def test_images_that_are_not_numbers_are_not_written(self, here):
        save("broken", options={"weight": 3e38})
        with h5py.File("in/under.h5", "r+") as file:
            file["kspace"][:] *= 1e8
        (problem,) = reconstruct_scans("broken", ["in/under.h5"], "out").problems
        assert problem == "in/under.h5: the model makes NaN or infinite values of it, so it is of no use here"
        assert list(Path("out").iterdir()) == []

    def test_images_too_small_to_be_scored(self, here, kspace):
        write_fastmri("in/small.h5", kspace, crop=(6, 6))
        (problem,) = reconstruct_scans("study", ["in/small.h5"], "out", acceleration=4).problems
        assert problem.startswith("in/small.h5: SSIM: images are 6 × 6 pixels")

    def test_a_model_for_another_task(self, here):
        network = build_network("cbr_tiny", in_channels=1)
        spec = {"task": "classification", "size": 32, "fit": "pad", "classes": ["a", "b"], "provenance": {},
                "input": {"normalise": "unit", "channels": 1}}  # fmt: skip
        save_model("classes", network, build_head("linear", network.features, 2), spec)
        with pytest.raises(UserError, match="classes: is a model for classification, not for reconstruction"):
            reconstruct_scans("classes", ["in"], "out")

    def test_a_damaged_description(self, here):
        file = Path("study/model/model.json")
        file.write_text(file.read_text().replace('"equispaced_fraction"', '"equispacd"'))
        with pytest.raises(UserError, match=r"model\.json: sampling: unknown mask 'equispacd': did you mean"):
            reconstruct_scans("study", ["in"], "out")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"acceleration": 0.5}, "--acceleration: must be 1 (all lines) or more, not 0.5"),
            ({"acceleration": 4, "mask": "equispacd"}, "--mask: unknown mask 'equispacd': did you mean 'equispaced'?"),
            ({"acceleration": 4, "centre_fraction": 2.0}, "--centre-fraction: must be above 0 and at most 1, not 2"),
            ({"acceleration": 4.5, "mask": "magic", "centre_fraction": 0.1}, "--acceleration: magic takes every n-th"),
            ({"acceleration": 6}, "add --centre-fraction, such as --centre-fraction 0.11"),
            ({"mask": "random"}, "--mask random: says how fully sampled k-space is to be undersampled; add --acceler"),
            ({"centre_fraction": 0.08}, "such as --acceleration 4"),
        ],
    )
    def test_options_are_checked_before_anything_is_done(self, here, options, said):
        with pytest.raises(UserError) as raised:
            reconstruct_scans("study", ["in"], "out", **options)
        assert said in str(raised.value)
        assert not Path("out").exists()

    def test_images_are_not_written_among_the_scans(self, here):
        with pytest.raises(UserError, match="the scans lie in this folder"):
            reconstruct_scans("study", ["in"], "in")


class TestPrecision:
    def test_settings_are_measured_where_there_is_enough_to_do(self, here, monkeypatch):
        measured = []

        def measure(network, volumes, **_):
            measured.append(volumes.volume(0).matrix)
            return Precision("bfloat16", True)

        monkeypatch.setattr(reconstruct, "precision_for_reconstruction", measure)
        scans = ["in/full.h5", "in/under.h5"]
        found = reconstruct_scans("study", scans, "out", acceleration=4).summaries
        assert {one["precision"] for one in found} == {"float32"}
        monkeypatch.setattr(reconstruct, "_WORTH_MEASURING", 1)
        found = reconstruct_scans("study", scans, "out", acceleration=4).summaries
        assert {one["precision"] for one in found} == {"bfloat16 channels_last"}
        assert measured == [(40, 36)]  # on the first scan, for all

    def test_it_is_measured_on_the_scan_itself(self, here, monkeypatch):
        save("varnet", "varnet", options=TINY)
        monkeypatch.setattr(reconstruct, "_WORTH_MEASURING", 1)
        summary = only(reconstruct_scans("varnet", ["in/under.h5"], "out"))
        assert summary["precision"].startswith(("float32", "bfloat16"))


@pytest.mark.real_data
def test_a_real_slice_is_undersampled_reconstructed_and_scored(real_data, tmp_path):
    save(tmp_path / "model", "varnet", options=TINY)
    scan = real_data / "kspace/brain_8coil.cfl"
    summary = only(reconstruct_scans(tmp_path / "model", [scan], tmp_path / "out", acceleration=4))
    assert summary["grid"]["shape"] == [230, 180, 1]
    assert nib.load(summary["images"]).shape == (230, 180, 1)
    assert summary["scores"]["psnr"] < summary["zero_filled"]["psnr"] < 30  # the network is untrained
    assert summary["warnings"][0] == NO_SIZE
