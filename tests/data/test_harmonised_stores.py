"""Stores of harmonised pixels: fitted on the rows that are given, applied to all, made once."""

import os

import numpy as np
import pytest
from case_files import blob, manifest_of, scan
from test_cases_store import plan_of

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.normalise import normalised
from mrtransfer.data.cases.prepare import prepare_case
from mrtransfer.data.cases.store import open_cases
from mrtransfer.data.harmonised import fit_on_cases, fit_on_images, harmonised_images
from mrtransfer.data.harmoniser import parse_harmoniser
from mrtransfer.data.store import Store
from mrtransfer.data.volume import read_case

CURVES = ["histogram_matching", "nyul", "z_score"]


def store_of(images, content="raw"):
    digests = np.array([f"{content}-{row}" for row in range(len(images))])
    return Store(np.asarray(images, np.uint8), content, digests, None)


def pictures(count=6, channels=1, seed=0, factor=1.0):
    """(count, channels, 30, 30) uint8 with a frame of 0."""
    images = np.zeros((count, channels, 30, 30))
    images[:, :, 4:26, 4:26] = np.random.default_rng(seed).gamma(5, 12 * factor, (count, channels, 22, 22)) + 1
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", CURVES)
class TestImages:
    def test_every_image_is_harmonised_rounded_and_cut_off_at_the_ends(self, name, tmp_path):
        images = np.concatenate([pictures(4, factor=0.4), pictures(3, seed=1, factor=1.5)])
        store = store_of(images)
        fitted = fit_on_images(parse_harmoniser(name), store, range(4, 7))
        found = harmonised_images(store, fitted, tmp_path)
        assert found.images.dtype == np.uint8
        assert found.images.shape == images.shape
        for image, changed in zip(images, found.images, strict=True):
            exact = fitted(image)
            assert exact.max() > 100
            np.testing.assert_array_equal(changed, np.clip(np.rint(exact), 0, 255))
        assert not found.images[images == 0].any()

    def test_only_the_given_rows_are_learned_from(self, name):
        images = pictures(6)
        changed = images.copy()
        changed[3:] //= 2
        first, again = (fit_on_images(parse_harmoniser(name), store_of(x), [0, 1, 2]) for x in (images, changed))
        assert first.key == again.key
        assert first.key != fit_on_images(parse_harmoniser(name), store_of(changed), [0, 1, 2, 3]).key


class TestStore:
    def fitted(self, store, name="nyul"):
        return fit_on_images(parse_harmoniser(name), store, [0, 1])

    def test_is_made_once_and_named_by_what_defines_it(self, tmp_path):
        store = store_of(pictures())
        fitted = self.fitted(store)
        first = harmonised_images(store, fitted, tmp_path)
        inode = os.stat(first.folder / "images.npy").st_ino
        again = harmonised_images(store, fitted, tmp_path)
        assert again.folder == first.folder
        assert os.stat(again.folder / "images.npy").st_ino == inode
        others = [
            harmonised_images(store, self.fitted(store, "z_score"), tmp_path),
            harmonised_images(store, fitted, tmp_path, groups=list("aabbcc")),
            harmonised_images(store_of(pictures(seed=5), "other"), fitted, tmp_path),
        ]
        assert len({first.folder, *(other.folder for other in others)}) == 4
        assert all(folder.is_dir() for folder in (first.folder, others[0].folder))
        assert len({first.content, *(other.content for other in others)}) == 4

    def test_a_damaged_one_is_made_again(self, tmp_path):
        store = store_of(pictures())
        fitted = self.fitted(store)
        first = harmonised_images(store, fitted, tmp_path)
        expected = np.array(first.images)
        whole = (first.folder / "images.npy").read_bytes()
        (first.folder / "images.npy").write_bytes(whole[:-100])
        np.testing.assert_array_equal(harmonised_images(store, fitted, tmp_path).images, expected)

    def test_row_digests_are_those_of_the_pixels(self, tmp_path):
        images = pictures()
        images[4] = images[2]
        digests = harmonised_images(store_of(images), self.fitted(store_of(images)), tmp_path).row_digests
        assert digests[4] == digests[2]
        assert len(set(digests.tolist())) == 5

    def test_slices_of_one_subject_change_by_one_function(self, tmp_path):
        images = pictures()
        images[1] = images[1] // 3  # a dark slice of the same scan stays darker
        store, subjects = store_of(images), ["x", "y", "x", "", "", "y"]
        subjects[1], images_of_x = "x", images[[0, 1, 2]]
        fitted = fit_on_images(parse_harmoniser("histogram_matching"), store, [3, 4, 5])
        together = harmonised_images(store, fitted, tmp_path, groups=subjects)
        expected = fitted(images_of_x.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3)
        np.testing.assert_array_equal(together.images[[0, 1, 2]], np.clip(np.rint(expected), 0, 255))
        np.testing.assert_array_equal(together.images[3], np.clip(np.rint(fitted(images[3])), 0, 255))
        alone = harmonised_images(store, fitted, tmp_path)
        assert together.images[1].mean() < 0.6 * alone.images[1].mean()

    def test_other_channels_are_refused_by_the_row_that_has_them(self, tmp_path):
        fitted = self.fitted(store_of(pictures()))
        with pytest.raises(UserError, match="row 1: has 3 channels, and the harmoniser was fitted on images of 1"):
            harmonised_images(store_of(pictures(channels=3)), fitted, tmp_path)
        assert not list(tmp_path.iterdir())


class TestCases:
    def scans(self, folder, factors=(1, 1, 40, 40)):
        images = [scan(seed=seed) * np.float32(factor) for seed, factor in enumerate(factors)]
        for image in images:
            image[:3] = 0  # background
        return manifest_of(folder, images, [blob()] * len(images))

    def test_without_a_harmoniser_nothing_changes(self, tmp_path):
        manifest = self.scans(tmp_path / "scans")
        plain = open_cases(manifest, plan_of(), tmp_path / "cases")
        assert open_cases(manifest, plan_of(), tmp_path / "cases", harmonise=None).folder == plain.folder
        assert "harmonise" not in plain.meta

    def test_raw_cases_are_harmonised_before_the_plan_normalises_them(self, tmp_path):
        manifest, plan = self.scans(tmp_path / "scans"), plan_of(normalise=("uint8",), crop="nonzero")
        fitted = fit_on_cases(parse_harmoniser("nyul"), manifest, [0, 1])
        plain = open_cases(manifest, plan, tmp_path / "cases")
        store = open_cases(manifest, plan, tmp_path / "cases", harmonise=fitted)
        assert store.folder != plain.folder
        assert store.meta["harmonise"] == fitted.to_json()
        for row in range(4):
            case = read_case(manifest, row)
            expected = normalised(fitted(case.image), plan.normalise)[:, 3:]
            np.testing.assert_array_equal(store.image(row), expected.astype(np.float16))
            np.testing.assert_array_equal(store.mask(row), plain.mask(row))
            np.testing.assert_array_equal(prepare_case(case, plan, fitted).image.astype(np.float16), store.image(row))
        assert abs(float(store.image(3).mean()) - float(store.image(0).mean())) < 0.1
        assert abs(float(plain.image(3).mean()) - float(plain.image(0).mean())) > 10

    def test_only_the_given_cases_are_learned_from_and_it_is_kept(self, tmp_path):
        manifest, harmoniser = self.scans(tmp_path / "scans"), parse_harmoniser("z_score")
        first = fit_on_cases(harmoniser, manifest, [0, 1], cache=tmp_path / "kept")
        (file,) = (tmp_path / "kept").iterdir()
        (tmp_path / "scans/case2/flair.nii").unlink()
        written = file.stat().st_mtime_ns
        again = fit_on_cases(harmoniser, manifest, [0, 1], cache=tmp_path / "kept")
        assert again.to_json() == first.to_json() == fit_on_cases(harmoniser, manifest, [0, 1]).to_json()
        assert file.stat().st_mtime_ns == written
        os.utime(tmp_path / "scans/case1/flair.nii", ns=(1, 1))
        fit_on_cases(harmoniser, manifest, [0, 1], cache=tmp_path / "kept")
        assert len(list((tmp_path / "kept").iterdir())) == 2

    def test_a_case_that_cannot_be_harmonised_is_named(self, tmp_path):
        manifest = self.scans(tmp_path / "scans")
        pairs = [np.stack([scan(seed=seed)] * 2) for seed in range(2)]
        fitted = fit_on_cases(
            parse_harmoniser("nyul"), manifest_of(tmp_path / "pairs", pairs, channels=("t1", "t2")), [0, 1]
        )
        with pytest.raises(UserError, match=r"4 of 4 cases cannot be used: sample case0: has 1 channels"):
            open_cases(manifest, plan_of(), tmp_path / "cases", harmonise=fitted)
