"""Patches: a pure function of seed, epoch and step; every case as often as every other; image and mask together."""

from collections import Counter

import numpy as np
import pytest
import torch
from case_files import manifest_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.patches import PatchSampler
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.data.cases.store import open_cases


class Coded:
    """Cases whose voxels say where they are: channels are x, y, z, case; the mask is a cube of class 1 and one of 2."""

    channels = ("x", "y", "z", "case")

    def __init__(self, shapes, empty=()):
        self.images, self.masks = [], []
        for row, shape in enumerate(shapes):
            grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
            self.images.append(np.stack([*grid, np.full(shape, row)]).astype(np.float16))
            mask = np.zeros(shape, np.uint8)
            if row not in empty:
                mask[tuple(slice(n // 2, n // 2 + 2) for n in shape)] = 1
                mask[0, 0, 0] = 2
            self.masks.append(mask)
        self.classes_in = [tuple(np.unique(mask[mask > 0]).tolist()) for mask in self.masks]

    def image(self, row):
        return self.images[row]

    def mask(self, row):
        return self.masks[row]

    def foreground(self, row, cls):
        return np.argwhere(self.masks[row] == cls).astype(np.int32)

    def padding(self, row):
        return np.array([-1, -2, -3, -4], np.float16)

    def release(self):
        pass


def sampler(shapes=((9, 8, 7),) * 5, rows=None, empty=(), **settings):
    store = Coded(shapes, empty)
    rows = range(len(shapes)) if rows is None else rows
    return PatchSampler(store, rows, **{"patch": (4, 4, 4), "batch": 2, "foreground": 0.3, "seed": 1, **settings})


def same(a, b):
    return torch.equal(a["images"], b["images"]) and torch.equal(a["masks"], b["masks"]) and a["number"] == b["number"]


shapes = st.lists(st.tuples(*[st.integers(1, 12)] * 3), min_size=1, max_size=5)
patches = st.tuples(*[st.integers(1, 9)] * 3)


@given(shapes, patches, st.integers(1, 4), st.integers(0, 2**62), st.integers(0, 50), st.integers(0, 7))
@settings(deadline=None)
def test_voxels_are_those_of_one_place_in_one_case_and_padding_surrounds_them(shapes, patch, batch, seed, epoch, step):
    found = sampler(shapes, patch=patch, batch=batch, seed=seed)
    drawn = found.batch(epoch, step)
    assert drawn["number"] == step
    assert drawn["images"].dtype == torch.float16
    assert drawn["masks"].dtype == torch.uint8
    assert drawn["images"].shape == (batch, 4, *patch)
    assert drawn["masks"].shape == (batch, *patch)
    for index, (image, mask) in enumerate(zip(drawn["images"].numpy(), drawn["masks"].numpy(), strict=True)):
        row = found.row(epoch, step, index)
        volume, classes = found.store.image(row), found.store.mask(row)
        real = image[3] >= 0
        assert real.sum() == np.prod(np.minimum(patch, volume.shape[1:]))
        assert (image[3][real] == row).all()
        x, y, z = image[:3, real].astype(int)
        np.testing.assert_array_equal(mask[real], classes[x, y, z])
        for axis, own in enumerate((x, y, z)):  # one step in the patch is one step in the volume
            np.testing.assert_array_equal(
                own - own.min(), np.argwhere(real)[:, axis] - np.argwhere(real)[:, axis].min()
            )
        assert (image[:, ~real] == np.array([-1, -2, -3, -4])[:, None]).all()
        assert not mask[~real].any()


@given(st.integers(0, 2**40), st.integers(0, 30), st.integers(0, 9))
@settings(deadline=None)
def test_a_batch_depends_on_seed_epoch_and_step_alone(seed, epoch, step):
    one, other = sampler(seed=seed), sampler(seed=seed)
    other.batch(epoch + 3, 2)  # whatever was drawn before
    assert same(one.batch(epoch, step), other.batch(epoch, step))
    assert same(one.batch(epoch, step), one.batch(epoch, step))
    assert not same(one.batch(epoch, step), sampler(seed=seed + 1, batch=2).batch(epoch, step))
    assert not same(one.batch(epoch, step), one.batch(epoch + 1, step))


@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 6), st.integers(0, 2**32), st.none() | st.integers(1, 5))
@settings(deadline=None)
def test_no_case_is_visited_more_than_once_more_than_another(cases, batch, epochs, seed, steps):
    rows = np.arange(cases) * 2 + 1
    found = sampler(((3, 3, 3),) * 20, rows=rows, batch=batch, seed=seed, steps=steps)
    assert found.steps == (steps or -(-cases // batch))
    visited = Counter(dict.fromkeys(rows.tolist(), 0))
    for epoch in range(epochs):
        for step in range(found.steps):
            visited.update(found.row(epoch, step, index) for index in range(batch))
    assert set(visited) == set(rows.tolist())
    assert max(visited.values()) - min(visited.values()) <= 1


def test_the_order_of_cases_has_no_bias():
    first = Counter(sampler(seed=seed).row(0, 0, 0) for seed in range(2000))
    assert all(abs(first[row] - 400) < 4 * np.sqrt(2000 * 0.2 * 0.8) for row in range(5))


@given(st.sampled_from([(1, 4), (2, 4), (4, 4), (3, 6), (2, 2)]), st.integers(0, 9), st.integers(0, 4))
@settings(deadline=None)
def test_the_parts_of_all_ranks_are_the_batch(split, epoch, step):
    world, batch = split
    whole = sampler(batch=batch)
    parts = [whole.part(rank, world).batch(epoch, step) for rank in range(world)]
    for key in ("images", "masks"):
        assert torch.equal(torch.cat([part[key] for part in parts]), whole.batch(epoch, step)[key])
    assert {part["number"] for part in parts} == {step}
    assert {whole.part(rank, world).steps for rank in range(world)} == {whole.steps}


def test_ranks_that_cannot_share_a_batch_are_told_so():
    with pytest.raises(
        UserError, match=r"batch: is 2 patches, to be shared by 3 processes; .* multiple of 3, such as 3"
    ):
        sampler(batch=2).part(0, 3)


class TestForeground:
    def centres(self, share, draws=1500, **settings):
        found = sampler(((31, 29, 27),), patch=(5, 5, 5), batch=4, foreground=share, **settings)
        masks = [found.batch(0, step)["masks"].numpy() for step in range(draws // 4)]
        return np.concatenate(masks)[:, 2, 2, 2]

    @pytest.mark.parametrize("share", [0, 1 / 3, 0.8, 1])
    def test_the_share_of_centred_patches_is_within_binomial_bounds(self, share):
        centres = self.centres(share)
        # Class 1 has half of the centred patches; class 2 lies in a corner, where a patch cannot be centred.
        wide = 4 * np.sqrt(max(share * (2 - share) / 4, 1e-3) / len(centres))
        assert (centres == 1).mean() == pytest.approx(share / 2, abs=wide + 8 / (27 * 25 * 23))

    def test_a_rare_class_is_as_likely_as_a_common_one(self):
        found = sampler(((31, 29, 27),), patch=(5, 5, 5), batch=4, foreground=1)
        drawn = np.concatenate([found.batch(0, step)["masks"].numpy() for step in range(300)])
        rare, common = ((drawn == k).any((1, 2, 3)).mean() for k in (2, 1))
        assert rare == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 1200))
        assert rare + common == pytest.approx(1)

    def test_a_case_without_any_class_is_seen_anywhere(self):
        found = sampler(((20, 20, 20),), empty=(0,), patch=(4, 4, 4), foreground=1)
        corners = np.concatenate([found.batch(epoch, 0)["images"].numpy()[:, :3, 0, 0, 0] for epoch in range(600)])
        assert corners.min() == 0
        assert corners.max() == 16
        np.testing.assert_allclose(corners.mean(0), 8, atol=4 * 4.9 / np.sqrt(len(corners)))


def test_all_places_are_equally_likely():
    found = sampler(((6, 1, 1),), patch=(4, 1, 1), batch=4, foreground=0)
    places = Counter(int(p) for step in range(750) for p in found.batch(0, step)["images"][:, 0, 0, 0, 0])
    assert set(places) == {0, 1, 2}
    assert all(abs(count - 1000) < 4 * np.sqrt(3000 * 2 / 9) for count in places.values())


def test_a_small_volume_moves_inside_the_patch():
    found = sampler(((2, 2, 1),), patch=(4, 2, 1), batch=4, foreground=0.5)
    first = {
        int(np.argmax(image[3, :, 0, 0] >= 0)) for step in range(40) for image in found.batch(0, step)["images"].numpy()
    }
    assert first == {0, 1, 2}


def test_2d_patches_of_volumes_show_every_slice():
    found = sampler(((6, 6, 5),), patch=(4, 4, 1), batch=4, foreground=0.3)
    seen = {int(z) for step in range(60) for z in found.batch(0, step)["images"][:, 2, 0, 0, 0]}
    assert seen == set(range(5))


def test_cases_without_a_mask_cannot_train():
    store = Coded([(4, 4, 4)] * 3)
    store.masks[1] = None
    with pytest.raises(UserError, match=r"1 of 2 training cases have no mask \(the first is case 1 of its table\)"):
        PatchSampler(store, [0, 1], patch=(2, 2, 2), batch=1)
    assert PatchSampler(store, [0, 2], patch=(2, 2, 2), batch=1).steps == 2


def test_what_was_read_is_let_go_of(monkeypatch):
    found = sampler(((9, 8, 7),) * 5, patch=(4, 4, 4), batch=2)
    held_by_one_batch = 2 * 4 * 8 * 7 * (4 * 2 + 1)
    monkeypatch.setattr("mrtransfer.data.cases.patches.HELD", 3 * held_by_one_batch - 1)
    released = []
    monkeypatch.setattr(found.store, "release", lambda: released.append(1), raising=False)
    for step in range(7):
        found.batch(0, step)
    assert len(released) == 2


def test_patches_of_a_store_are_cut_from_its_files(tmp_path):
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (12, 10, 9)), indexing="ij")).astype(np.float32)
    mask = (grid.sum(0) > 20).astype(np.uint8)
    manifest = manifest_of(tmp_path, [grid, grid], [mask, mask], channels=("x", "y", "z"))
    plan = SegmentationPlan(
        dims=3, spacing=(1, 1, 1), crop="none", normalise=("zscore",) * 3, patch=(6, 6, 12), batch=2, features=(8,),
        strides=(), class_frequencies={},
    )  # fmt: skip
    store = open_cases(manifest, plan, tmp_path / "cases")
    found = PatchSampler(store, [0, 1], patch=plan.patch, batch=plan.batch, foreground=1, seed=3)
    scale = grid.reshape(3, -1).std(1), grid.reshape(3, -1).mean(1)
    for step in range(5):
        drawn = found.batch(0, step)
        images = (
            drawn["images"].numpy().astype(np.float64) * scale[0][:, None, None, None] + scale[1][:, None, None, None]
        )
        images, masks = np.rint(images).astype(int), drawn["masks"].numpy()
        inside = np.zeros(masks.shape, bool)
        for image, inner in zip(images, inside, strict=True):
            first = int(np.argmax(image[2].max((0, 1)) > 0)) - 1
            inner[:, :, first : first + 9] = True
        x, y, z = images.transpose(1, 0, 2, 3, 4)[:, inside]
        np.testing.assert_array_equal(masks[inside], mask[x, y, z])
        assert not masks[~inside].any()
        np.testing.assert_array_equal(images.transpose(1, 0, 2, 3, 4)[:, ~inside], 0)
