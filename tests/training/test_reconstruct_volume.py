"""Volumes are reconstructed slice by slice as they would be by hand, with the columns that really were sampled."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from kspace_volumes import kspace_of, store_of

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import open_volume, write_fastmri
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.physics.masks import SampledColumns, Sampling, seed_of
from mrtransfer.training.precision import Precision
from mrtransfer.training.reconstruct import columns_by_name, reconstruct_volume

SAMPLING = Sampling(mask="random", acceleration=(4, 8), centre_fraction=(0.16, 0.1))
SMALL = {"cascades": 1, "channels": 2, "pools": 2, "sens_channels": 2, "sens_pools": 2}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("one"), [{"slices": 5}]).volume(0)


def by_hand(kspace, columns, crop):
    """float64 (S, h, w): zero-filled root sum of squares of k-space (S, C, H, W), by NumPy's shifts."""
    axes = (-2, -1)
    shifted = np.fft.ifftshift(kspace * columns, axes=axes)
    images = np.fft.fftshift(np.fft.ifft2(shifted, axes=axes, norm="ortho"), axes=axes)
    top, left = ((size - part) // 2 for size, part in zip(kspace.shape[-2:], crop, strict=True))
    return np.sqrt((np.abs(images) ** 2).sum(1))[:, top : top + crop[0], left : left + crop[1]]


class Spy(torch.nn.Module):
    """Zero-filled, which notes what it was given."""

    def __init__(self):
        super().__init__()
        self.network = build_reconstruction_network("zero_filled")
        self.check = self.network.check
        self.seen = []

    def forward(self, kspace, columns, centre):
        self.seen.append((kspace.clone(), columns.clone(), centre.clone()))
        return self.network(kspace, columns, centre)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_images_are_those_computed_by_hand_however_many_slices_go_together(volume, batch):
    drawn = columns_by_name(SAMPLING, volume)
    counted = []
    images = reconstruct_volume(
        build_reconstruction_network("zero_filled"), volume, columns_of=lambda _: drawn, batch=batch,
        advance=counted.append,
    )  # fmt: skip
    assert (images.dtype, images.shape) == (np.float32, (5, 28, 28))
    np.testing.assert_allclose(images, by_hand(kspace_of(0, slices=5), drawn.columns, (28, 28)), atol=1e-9)
    assert sum(counted) == 5
    assert max(counted) == min(batch, 5)


def test_all_columns_give_the_targets(volume):
    images = reconstruct_volume(build_reconstruction_network("zero_filled"), volume)
    targets = np.stack([volume.read(index).target for index in range(5)])
    np.testing.assert_allclose(images, targets, rtol=1e-5)


def test_every_slice_may_have_columns_of_its_own(volume):
    draws = [SAMPLING.draw(32, (index,)) for index in range(5)]
    spy = Spy()
    reconstruct_volume(spy, volume, columns_of=draws.__getitem__, batch=2)
    kspace, columns, centre = (torch.cat(parts) for parts in zip(*spy.seen, strict=True))
    np.testing.assert_array_equal(columns, np.stack([one.columns for one in draws]))
    assert centre.tolist() == [one.centre for one in draws]
    assert (kspace.abs().sum((1, 2)) > 0).equal(columns)


def test_what_was_never_acquired_does_not_count_as_sampled(tmp_path):
    kspace = kspace_of(0)
    kspace[..., :5] = kspace[..., 28:] = 0
    padded = open_volume(str(write_fastmri(tmp_path / "padded.h5", kspace, padding=(5, 28))), tmp_path)
    everything = SampledColumns(np.ones(32, dtype=bool), 0, 1.0)
    for given in (None, lambda _: everything):
        spy = Spy()
        reconstruct_volume(spy, padded, columns_of=given)
        assert all(
            torch.equal(columns[0], (torch.arange(32) >= 5) & (torch.arange(32) < 28)) for _, columns, _ in spy.seen
        )


def test_a_file_that_is_undersampled_keeps_its_own_columns(tmp_path):
    mask = SAMPLING.draw(32, 3).columns
    kspace = kspace_of(1)
    sampled = open_volume(str(write_fastmri(tmp_path / "test.h5", kspace, mask=mask, crop=(28, 28))), tmp_path)
    spy = Spy()
    images = reconstruct_volume(spy, sampled, columns_of=lambda _: SAMPLING.draw(32, 4), batch=2)
    _, columns, centre = spy.seen[0]
    np.testing.assert_array_equal(columns, np.stack([mask, mask]))
    assert centre.tolist() == [0, 0]  # the network looks for it
    np.testing.assert_allclose(images, by_hand(kspace, mask, (28, 28)), atol=1e-9)


def test_the_columns_of_a_volume_are_fixed_by_its_name_as_in_fastmri(volume):
    for choice in (None, 0, 1):
        drawn, expected = columns_by_name(SAMPLING, volume, choice), SAMPLING.draw(32, seed_of("v0.h5"), choice=choice)
        np.testing.assert_array_equal(drawn.columns, expected.columns)
        assert (drawn.centre, drawn.acceleration) == (expected.centre, expected.acceleration)


def test_slices_are_read_in_the_background_one_batch_ahead(volume):
    main, read, ahead = threading.get_ident(), [], []
    source = volume.source

    def slow(index, target):
        assert threading.get_ident() != main
        assert not target  # neither read nor computed
        read.append(index)
        return source(index, target)

    class Counting(Spy):
        def forward(self, *given):
            ahead.append(len(read) - 2 * len(ahead))
            return super().forward(*given)

    reconstruct_volume(Counting(), replace(volume, source=slow), batch=2)
    assert read == [0, 1, 2, 3, 4]
    assert max(ahead) <= 4  # those being worked on, and the next


@pytest.mark.parametrize("precision", [Precision("float32", True), Precision("bfloat16", True)])
def test_other_formats_give_much_the_same_and_leave_the_network_as_it_was(volume, precision):
    network = build_reconstruction_network("varnet", options=SMALL)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain = reconstruct_volume(network, volume)
    images = reconstruct_volume(network, volume, precision=precision)
    assert np.linalg.norm(images - plain) < 0.02 * np.linalg.norm(plain)
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert tensor.is_contiguous()
        assert torch.equal(tensor, before[name])


def test_a_volume_that_the_network_cannot_take_is_refused_by_name(tmp_path):
    network = build_reconstruction_network("varnet", options=SMALL)
    one = open_volume(str(write_fastmri(tmp_path / "one.h5", kspace_of()[:, 0])), tmp_path)
    with pytest.raises(UserError, match=r"one\.h5: network varnet: it needs several coils, and this k-space has one"):
        reconstruct_volume(network, one)
    tiny = open_volume(str(write_fastmri(tmp_path / "tiny.h5", kspace_of(height=8))), tmp_path)
    with pytest.raises(UserError, match=r"tiny\.h5: network unet: a matrix of 8×32 is too small"):
        reconstruct_volume(build_reconstruction_network("unet", options={"channels": 2}), tiny)
    assert reconstruct_volume(build_reconstruction_network("zero_filled"), one).shape == (2, 36, 32)


def test_a_slice_that_holds_nan_ends_it_with_the_name_of_the_file(tmp_path):
    kspace = kspace_of()
    kspace[1, 0, 3, 4] = np.nan
    broken = open_volume(str(write_fastmri(tmp_path / "broken.h5", kspace)), tmp_path)
    with pytest.raises(UserError, match=r"broken\.h5: slice 1: k-space holds 1 NaN"):
        reconstruct_volume(build_reconstruction_network("zero_filled"), broken)


def test_a_mask_of_another_width_is_refused(volume):
    with pytest.raises(UserError, match="the mask has 30 columns, but the k-space has 32"):
        reconstruct_volume(
            build_reconstruction_network("zero_filled"), volume, columns_of=lambda _: SAMPLING.draw(30, 1)
        )
