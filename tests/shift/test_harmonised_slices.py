"""Slices brought to a reference: sample by sample, kept, and nearer to it."""

import os

import numpy as np
import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.harmoniser import parse_harmoniser
from mrtransfer.shift.harmonised import fit_on_slices, harmonised_slices
from mrtransfer.shift.slices import Slices, open_slices

CURVES = ["histogram_matching", "nyul", "z_score"]


def slices_of(factor=1.0, subjects=4, channels=("flair",), seed=0, name="tiny"):
    """Three slices of each subject, with a frame of background; the third is empty."""
    count = 3 * subjects
    images = np.zeros((count, len(channels), 32, 32), np.float32)
    images[:, :, 6:26, 6:26] = np.random.default_rng(seed).gamma(5, 20 * factor, (count, len(channels), 20, 20))
    images[2::3] = 0
    names = np.repeat([f"{name}:{k}" for k in range(subjects)], 3)
    unknown = np.full(count, "")
    lengths = np.full((count, 2), np.nan)
    digests = np.array([f"{name}-{seed}-{row}" for row in range(count)])
    content = f"{name}-{factor}-{subjects}-{seed}-{channels}"
    return Slices(
        images, names, names, unknown, unknown, lengths, lengths[:, 0], tuple(channels), name, content, digests
    )


@pytest.mark.parametrize("name", CURVES)
def test_the_slices_of_a_sample_change_by_one_function_learned_of_the_reference(name, tmp_path):
    reference, slices = slices_of(), slices_of(7, seed=1)
    found = harmonised_slices(slices, parse_harmoniser(name), reference, tmp_path)
    assert isinstance(found, Slices)
    fitted = fit_on_slices(parse_harmoniser(name), reference)
    for rows in np.arange(len(slices)).reshape(-1, 3):
        expected = fitted(slices.images[rows].transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3)
        np.testing.assert_array_equal(found.images[rows], expected)
    assert not found.images[2::3].any()
    mean = [float(several.images[several.images != 0].mean()) for several in (reference, slices, found)]
    assert abs(mean[2] - mean[0]) < 0.05 * mean[0] < abs(mean[1] - mean[0])


def test_everything_but_the_pixels_stays(tmp_path):
    slices = slices_of(3)
    found = harmonised_slices(slices, parse_harmoniser("nyul"), slices_of(), tmp_path)
    for column in ("subjects", "samples", "labels", "scanners", "spacing", "pixel"):
        np.testing.assert_array_equal(getattr(found, column), getattr(slices, column))
    assert (found.name, found.channels) == (slices.name, slices.channels)
    assert found.content != slices.content
    assert not set(found.row_digests) & set(slices.row_digests)


def test_made_once_and_apart_from_others(tmp_path):
    slices, reference, nyul = slices_of(3), slices_of(), parse_harmoniser("nyul")
    first = harmonised_slices(slices, nyul, reference, tmp_path)
    (folder,) = tmp_path.iterdir()
    inode = os.stat(folder / "slices.bin").st_ino
    again = harmonised_slices(slices, fit_on_slices(nyul, reference), reference, tmp_path)
    assert again.content == first.content
    assert os.stat(folder / "slices.bin").st_ino == inode
    harmonised_slices(slices, parse_harmoniser("z_score"), reference, tmp_path)
    harmonised_slices(slices, nyul, slices_of(seed=4), tmp_path)
    harmonised_slices(reference, nyul, reference, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    expected = np.array(first.images)
    (folder / "slices.bin").write_bytes(b"cut")
    np.testing.assert_array_equal(harmonised_slices(slices, nyul, reference, tmp_path).images, expected)


def test_channels_are_matched_by_their_order_and_their_number_must_agree(tmp_path):
    reference = slices_of(channels=("flair", "t1ce"))
    found = harmonised_slices(slices_of(2, channels=("t1", "t2")), parse_harmoniser("nyul"), reference, tmp_path)
    assert found.channels == ("t1", "t2")
    with pytest.raises(UserError, match=r"tiny: has 1 channels \(flair\), and the reference tiny has 2"):
        harmonised_slices(slices_of(), parse_harmoniser("nyul"), reference, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["flair", "t1ce"])
def test_the_same_heads_on_another_scanner_look_more_alike(contrast, tmp_path):
    """Other heads on scanner a are the reference; the phantom's scanners differ in more than intensity."""
    phantom = DATASETS.get("phantom")

    def scanned(scanner, first=0):
        manifest = phantom(subjects=6, slices=3, size=64, contrast=contrast, scanner=scanner, first_subject=first)
        return open_slices(manifest, size=64, directory=tmp_path)

    reference, a = scanned("a", 100), scanned("a")
    head = np.asarray(a.images) > 0.15 * np.percentile(a.images, 99)

    def error(one, other):
        one, other = np.asarray(one.images)[head], np.asarray(other.images)[head]
        return float(np.sqrt(np.mean((one - other) ** 2)) / other.std())

    for scanner in "bc":
        b = scanned(scanner)
        for name in CURVES:
            harmoniser = parse_harmoniser(name)
            both = [harmonised_slices(slices, harmoniser, reference, tmp_path) for slices in (b, a)]
            assert error(*both) < 0.95 * error(b, a)
