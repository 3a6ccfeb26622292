"""Sliding windows: the same volume as from slow and from independent code, whatever the batch, in bounded memory."""

import itertools
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mrtransfer.training.precision import Precision
from mrtransfer.training.sliding import _probe_patch, precision_for_prediction, predict_case
from mrtransfer.training.windows import content_box, grid, importance, window_starts

LOSS = "dice_ce"


def modules(channels=2, classes=3, seed=0):
    """A small network whose answers depend on the place in the window (zero padding), and its head."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv3d(channels, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 4, 3, padding=1), nn.Tanh())
    return body, nn.Sequential(nn.Conv3d(4, classes, 1))


def volume(*shape, channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32)


def plan(*patch, channels=2, normalise="zscore"):
    return SimpleNamespace(patch=patch, normalise=(normalise,) * channels)


def predicted(image, patch, *, network=None, **options):
    return predict_case(
        *(network or modules(len(image))), image, plan=plan(*patch, channels=len(image)), loss=LOSS, **options
    )


def slow(image, patch, overlap, network, *, mirror=()):
    """The same in float64, window by window and voxel by voxel, with nothing shared with the code under test."""
    body, head = (module.double() for module in network)
    pad = [max(p - n, 0) for p, n in zip(patch, image.shape[1:], strict=True)]
    least = image.reshape(len(image), -1).min(axis=1)
    padded = np.stack(
        [
            np.pad(c, [(p // 2, p - p // 2) for p in pad], constant_values=v)
            for c, v in zip(image.astype(float), least, strict=True)
        ]
    )
    axes = []
    for size, length in zip(padded.shape[1:], patch, strict=True):
        step = max(int(length * (1 - overlap)), 1)
        starts = [0]
        while starts[-1] + length < size:
            starts.append(min(starts[-1] + step, size - length))
        axes.append(starts)
    sums, weights = np.zeros((head[0].out_channels, *padded.shape[1:])), np.zeros(padded.shape[1:])
    gauss = np.zeros(patch)
    for place in itertools.product(*map(range, patch)):
        gauss[place] = np.exp(-sum(((i - (n - 1) / 2) / (n / 8)) ** 2 for i, n in zip(place, patch, strict=True)) / 2)
    gauss = np.maximum(gauss, max(gauss.min(), 1e-3))
    spatial = [axis for axis in (2, 3, 4) if patch[axis - 2] > 1 and "xyz"[axis - 2] in mirror]
    flips = [f for n in range(len(spatial) + 1) for f in itertools.combinations(spatial, n)]
    for start in itertools.product(*axes):
        at = (slice(None), *(slice(s, s + n) for s, n in zip(start, patch, strict=True)))
        window = torch.from_numpy(padded[at][None].copy())
        with torch.no_grad():
            answers = [head(body(window.flip(f))).flip(f)[0].numpy() for f in flips]
        sums[at] += gauss * np.mean(answers, axis=0)
        weights[at[1:]] += gauss
    inner = tuple(slice(p // 2, p // 2 + n) for p, n in zip(pad, image.shape[1:], strict=True))
    odds = np.exp(sums / weights)
    return (odds / odds.sum(axis=0))[(slice(None), *inner)]


@pytest.mark.parametrize(
    ("shape", "patch", "overlap", "mirror"),
    [
        ((20, 13, 17), (8, 8, 8), 0.5, ()),
        ((9, 30, 8), (8, 6, 8), 0.25, ("y",)),
        ((12, 11, 10), (8, 8, 8), 0.0, ("x", "y", "z")),
        ((5, 20, 6), (8, 8, 8), 0.5, ()),  # two axes smaller than a window
        ((5, 4, 3), (8, 8, 8), 0.5, ("z", "x")),
        ((21, 18, 1), (8, 8, 1), 0.5, ("x", "y", "z")),
        ((12, 9, 4), (8, 8, 1), 0.5, ()),  # slice by slice
    ],
)
def test_it_is_the_gaussian_mean_over_all_windows(shape, patch, overlap, mirror):
    image = volume(*shape)
    found = predicted(image, patch, overlap=overlap, mirror=mirror)
    expected = slow(image, patch, overlap, modules(), mirror=mirror)
    assert found.shape == (3, *shape)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_small_volume_is_surrounded_by_its_background():
    """As patches are in training: 0 where the background was made 0, else the channel's least value."""
    image = volume(5, 6, 7)
    small = predict_case(*modules(), image, plan=plan(8, 8, 8, normalise="zscore_nonzero"), loss=LOSS)
    network, head = modules()
    with torch.no_grad():
        padded = torch.from_numpy(np.pad(image, ((0, 0), (1, 2), (1, 1), (0, 1)))[None])
        expected = head(network(padded)).softmax(1)[0, :, 1:6, 1:7, :7].numpy()
    np.testing.assert_allclose(small, expected, atol=1e-6)


@pytest.mark.parametrize("blending", ["gaussian", "constant"])
@pytest.mark.parametrize(
    ("shape", "patch", "overlap"),
    [((30, 26, 19), (12, 12, 12), 0.5), ((16, 40, 9), (16, 12, 9), 0.25), ((10, 30, 7), (12, 12, 12), 0.5)],
)
def test_it_agrees_with_monai(shape, patch, overlap, blending):
    from monai.inferers import sliding_window_inference

    image = volume(*shape, channels=1)
    network, head = modules(1)
    with torch.no_grad():
        theirs = sliding_window_inference(
            torch.from_numpy(image[None]), patch, 3, lambda x: head(network(x)), overlap=overlap,
            mode=blending, cval=float(image.min()),
        ).softmax(1)[0].numpy()  # fmt: skip
    found = predicted(image, patch, overlap=overlap, blending=blending)
    np.testing.assert_allclose(found, theirs, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    patch=st.tuples(*[st.sampled_from((1, 4, 6, 9))] * 3),
    overlap=st.sampled_from((0, 0.25, 0.5, 0.8)),
    batch=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_probabilities_stay_probabilities_whatever_the_sizes_and_the_batch(shape, patch, overlap, batch, seed):
    image = volume(*shape, seed=seed)
    found = predicted(image, patch, overlap=overlap, batch=batch)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, predicted(image, patch, overlap=overlap, batch=1), atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 300), patch=st.integers(1, 130), overlap=st.floats(0, 0.95))
def test_windows_along_an_axis_leave_no_gap_and_end_at_the_border(size, patch, overlap):
    starts = window_starts(size, patch, overlap)
    if size <= patch:
        assert len(starts) == 1
        assert starts[0] <= 0
        assert starts[0] + patch >= size
        return
    assert starts[0] == 0
    assert starts[-1] == size - patch
    assert all(0 < second - first <= patch for first, second in itertools.pairwise(starts))


def test_the_importance_map_is_that_of_monai():
    from monai.data.utils import compute_importance_map

    theirs = compute_importance_map((12, 20, 9), mode="gaussian", dtype=torch.float32).numpy()
    np.testing.assert_allclose(importance((12, 20, 9)), theirs, atol=1e-6)


def head_in_air(shape=(40, 44, 36), channels=2):
    image = np.full((channels, *shape), -1.5, np.float32)
    image[:, 12:26, 14:30, 10:24] = np.abs(volume(14, 16, 14, channels=channels))
    return image


class TestBackground:
    def test_constant_windows_are_computed_once_and_change_nothing(self):
        image = head_in_air((40, 44, 36))
        image[:, 1, 1, 1] = 3  # the content is everywhere, so the grid is the usual one
        image[:, -2, -2, -2] = 3
        network, head = modules()
        seen = []
        network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        full = predicted(image, (8, 8, 8), network=(network, head), skip_background=False)
        all_windows = sum(seen)
        seen.clear()
        np.testing.assert_allclose(predicted(image, (8, 8, 8), network=(network, head)), full, atol=1e-6)
        assert sum(seen) < all_windows / 2

    def test_windows_cover_the_content_and_the_rest_is_what_a_window_of_background_is(self):
        image = head_in_air()
        found = predicted(image, (16, 16, 16))
        low, high = content_box(image, np.array([-1.5, -1.5]))
        assert (low, high) == ((4, 6, 2), (34, 38, 32))
        inside = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
        np.testing.assert_allclose(
            found[inside], predicted(image[inside], (16, 16, 16), skip_background=False), atol=1e-6
        )
        network, head = modules()
        with torch.no_grad():
            empty = head(network(torch.full((1, 2, 16, 16, 16), -1.5))).softmax(1)[0, :, 8, 8, 8].numpy()
        found[inside] = empty[:, None, None, None]
        np.testing.assert_allclose(found, np.broadcast_to(empty[:, None, None, None], found.shape), atol=1e-6)

    def test_a_box_smaller_than_a_window_is_seen_with_what_is_around_it(self):
        starts = grid(((1, 50, 20), (9, 60, 40)), (64, 60, 30), (32, 32, 32), 0.5)
        assert starts == [[0], [28], [-1]]

    def test_a_volume_of_one_value_is_answered_by_one_window(self):
        network, head = modules()
        seen = []
        network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        predicted(np.zeros((2, 30, 30, 30), np.float32), (8, 8, 8), network=(network, head))
        assert seen == [1]


def test_bfloat16_and_channels_last_are_near_float32():
    image = volume(20, 20, 20)
    found = predicted(image, (12, 12, 12), precision=Precision("bfloat16", True))
    np.testing.assert_allclose(found, predicted(image, (12, 12, 12)), atol=0.02)


def test_a_memory_map_of_float16_gives_what_its_values_give(tmp_path):
    image = volume(14, 15, 16).astype(np.float16)
    np.save(tmp_path / "image.npy", image)
    found = predicted(np.load(tmp_path / "image.npy", mmap_mode="r"), (8, 8, 8))
    np.testing.assert_array_equal(found, predicted(image.astype(np.float32), (8, 8, 8)))


def test_a_large_result_is_a_temporary_file_that_holds_the_same():
    image = volume(14, 15, 16)
    mapped = predicted(image, (8, 8, 8), memory=1000)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, predicted(image, (8, 8, 8)))


def test_sums_are_kept_for_one_slab_only(monkeypatch):
    allocated = []
    zeros = torch.zeros

    def counted(*sizes, **options):
        made = zeros(*sizes, **options)
        allocated.append(made.nbytes)
        return made

    monkeypatch.setattr(torch, "zeros", counted)
    predicted(volume(200, 10, 12), (8, 8, 8))
    assert sum(allocated) == 4 * (3 + 1) * 8 * 10 * 12


def test_nothing_grows_with_the_number_of_windows():
    """What is held beside input and output is a few windows, however long the volume is."""
    peaks = []
    for length in (40, 400):
        image = volume(length, 10, 10)
        network = modules()
        predicted(image[:, :20], (8, 8, 8), network=network)
        tracemalloc.start()
        predicted(image, (8, 8, 8), network=network, batch=4)
        peaks.append(tracemalloc.get_traced_memory()[1] - 4 * 3 * length * 100)  # without the result itself
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000


def test_modules_end_in_the_mode_they_were_in():
    network, head = modules()
    network.train()
    network[0].eval()
    predicted(volume(8, 8, 8), (8, 8, 8), network=(network, head))
    assert [part.training for part in network.modules()] == [True, False, True, True, True]


def test_sigmoid_losses_give_sigmoids():
    image = volume(10, 10, 10)
    network, head = modules()
    found = predict_case(network, head, image, plan=plan(10, 10, 10), loss="region")
    with torch.no_grad():
        expected = head(network(torch.from_numpy(image[None]))).sigmoid()[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_image_without_channels_is_refused():
    with pytest.raises(ValueError, match="an image"):
        predict_case(*modules(), volume(8, 8, 8)[0], plan=plan(8, 8, 8), loss=LOSS)


class TestPrecision:
    def test_the_measured_window_fits_the_network(self):
        assert _probe_patch((128, 128, 128), (16, 16, 16)) == (64, 64, 128)
        assert _probe_patch((320, 256, 1), (32, 32, 1)) == (320, 256, 1)
        assert _probe_patch((96, 96, 96), (32, 32, 32)) == (96, 96, 96)  # halves are no multiples of 32

    @pytest.mark.parametrize("shape", [(20, 24, 18), (6, 5, 4)])
    def test_a_setting_is_chosen_by_measurement_and_the_modules_are_left_alone(self, shape):
        network, head = modules()
        network.train()
        before = [value.clone() for value in network.state_dict().values()]
        chosen = precision_for_prediction(network, head, volume(*shape), plan=plan(8, 8, 8), device="cpu")
        assert set(chosen.measured["seconds_per_step"]) >= {"float32", "float32 channels_last"}
        assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))
        assert network.training

    def test_a_setting_asked_for_is_taken(self):
        assert (
            precision_for_prediction(*modules(), volume(8, 8, 8), plan=plan(8, 8, 8), requested="float32").name
            == "float32"
        )
