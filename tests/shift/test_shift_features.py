"""Features: a contract over the registry, and what each is and is not moved by."""

import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.phantom import phantom
from mrtransfer.models.network import build_network, network_state
from mrtransfer.shift.feature import FEATURES, Feature, FittedFeature, parse_feature
from mrtransfer.shift.features.radiomics import FIRST_ORDER, TEXTURE, cooccurrence, haralick
from mrtransfer.shift.features.spectrum import radial_power
from mrtransfer.shift.slices import open_slices

SETTINGS = {"network": {"network": "cbr_tiny", "weights": "random"}}
NAMES = FEATURES.names()


def made(name, **settings):
    return parse_feature({"name": name, **SETTINGS.get(name, {}), **settings})


def changed(slices, images):
    """The same slices with other intensities."""
    return replace(slices, images=np.asarray(images, np.float32), content=f"{slices.content}-{np.sum(images)}")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Opens phantom domains of 8 subjects, two slices each."""
    directory, kept = tmp_path_factory.mktemp("domains"), {}

    def domain(**options):
        key = json.dumps(options, sort_keys=True)
        if key not in kept:
            given = {"subjects": 8, "slices": 2, "size": 96, **options}
            kept[key] = open_slices(phantom(**given), size=96, slices=2, directory=directory)
        return kept[key]

    return domain


@pytest.fixture(scope="module")
def domain(opened):
    return opened()


def moved(feature, one, other, yardstick):
    """How far the mean row moves from ``one`` to ``other``, in units of how far it moves to other people."""
    fitted = feature.fit(one, other, yardstick)
    centre = fitted(one).mean(axis=0)
    return float(
        np.linalg.norm(fitted(other).mean(axis=0) - centre) / np.linalg.norm(fitted(yardstick).mean(axis=0) - centre)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_feature_is_a_table_of_finite_numbers_one_row_a_slice(name, domain):
    feature = made(name)
    table = feature.fit(domain)(domain)
    assert table.dtype == np.float32
    assert table.shape[0] == len(domain)
    assert table.shape[1] > 1
    assert np.isfinite(table).all()
    assert (feature.name, feature.family in ("intensity", "content", "scanner")) == (name, True)
    assert feature.words


@pytest.mark.parametrize("name", NAMES)
def test_the_same_slices_give_the_same_numbers_and_another_domain_as_many(name, domain, opened):
    fitted = made(name).fit(domain)
    assert np.array_equal(fitted(domain), made(name).fit(domain)(domain))
    assert fitted(opened(contrast="t2")).shape == fitted(domain).shape


@pytest.mark.parametrize("name", NAMES)
def test_a_feature_travels_as_json(name, domain):
    fitted = made(name).fit(domain)
    travelled = FittedFeature.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert travelled.feature == fitted.feature
    assert np.array_equal(travelled(domain), fitted(domain))


@pytest.mark.parametrize("name", NAMES)
def test_one_new_scan_alone_has_the_row_that_it_has_among_others(name, domain):
    fitted = made(name).fit(domain)
    table = fitted(domain)
    alone = fitted(replace(domain.take([5]), directory=None))
    np.testing.assert_allclose(alone[0], table[5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_without_anything_in_them_are_harmless(name, domain):
    flat = changed(domain, np.asarray(domain.images) * 0 + np.arange(len(domain)).reshape(-1, 1, 1, 1))
    assert np.isfinite(made(name).fit(domain, flat)(flat)).all()
    assert np.isfinite(made(name).fit(domain)(flat)).all()


@pytest.mark.parametrize("name", NAMES)
def test_domains_of_unlike_channels_are_refused(name, domain, opened):
    two = opened(contrast=["t1", "t2"])
    fitted = made(name).fit(two)
    assert np.isfinite(fitted(two)).all()
    with pytest.raises(UserError, match="have 2 channels"):
        made(name).fit(domain, two)
    with pytest.raises(UserError, match="have 1 channels"):
        fitted(domain)


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_of_intensities_moves_intensity_alone(name, domain, opened):
    scaled = changed(domain, 3.0 * np.asarray(domain.images))
    shift = moved(made(name), domain, scaled, opened(first_subject=8))
    assert shift > 1 if made(name).family == "intensity" else shift < 1e-3


def test_a_gamma_curve_moves_histogram_and_radiomics_but_neither_pixels_nor_spectrum(domain, opened):
    images = np.asarray(domain.images, np.float64)
    curved = changed(domain, (images / images.max()) ** 1.5 * images.max())
    others = opened(first_subject=8)
    assert moved(made("histogram"), domain, curved, others) > 1
    assert moved(made("radiomics"), domain, curved, others) > 1
    assert moved(made("pixels"), domain, curved, others) < 0.1
    assert moved(made("spectrum"), domain, curved, others) < 0.3


@pytest.mark.parametrize("scanner", ["b", "c"])
def test_another_scanner_moves_the_spectrum_more_than_what_is_shown(domain, opened, scanner):
    others, other_scanner = opened(first_subject=8), opened(scanner=scanner)
    spectrum = moved(made("spectrum"), domain, other_scanner, others)
    assert spectrum > 1.5
    assert spectrum > 3 * moved(made("pixels"), domain, other_scanner, others)


def test_another_body_part_moves_pixels(opened):
    gliomas = opened(task="segmentation", spacing=5, size=None, subjects=3, slices=None)
    others = opened(task="segmentation", spacing=5, size=None, subjects=3, slices=None, first_subject=8)
    knees = opened(task="segmentation", spacing=5, size=None, subjects=3, slices=None, anatomy="knee", extracted=False)
    assert moved(made("pixels"), gliomas, knees, others) > 2


def test_the_same_people_with_another_lesion_are_moved_in_content(opened):
    kind = {"task": "detection", "slices": 4}
    glioma, meningioma = opened(lesions=["glioma"], **kind), opened(lesions=["meningioma"], **kind)
    scaled = changed(glioma, 3.0 * np.asarray(glioma.images))
    yardstick = opened(lesions=["glioma"], first_subject=8, **kind)
    assert moved(made("pixels"), glioma, meningioma, yardstick) > 0.1
    assert moved(made("pixels"), glioma, scaled, yardstick) < 1e-3


@given(st.integers(0, 2**16), st.floats(0.3, 3.0), st.floats(1e-3, 1e3))
@settings(max_examples=15, deadline=None)
def test_pixels_follow_only_the_order_of_intensities(seed, power, scale):
    draw = np.random.default_rng(seed)
    images = np.zeros((1, 1, 32, 32), np.float32)
    # Far enough apart to stay apart in float32: a tie would have another rank.
    images[0, 0, 6:26, 6:26] = 0.5 + draw.permutation(400).reshape(20, 20) / 800
    one, other = _plain_slices(images), _plain_slices(scale * images**power)
    fitted = made("pixels").fit(one)
    np.testing.assert_allclose(fitted(other), fitted(one), atol=1e-6)
    spectrum = made("spectrum").fit(one)
    np.testing.assert_allclose(spectrum(other), spectrum(one), atol=1e-5)


def _plain_slices(images, pixel=float("nan")):
    """Slices without a dataset."""
    from mrtransfer.shift.slices import Slices

    count = len(images)
    names = np.array([f"s{i}" for i in range(count)])
    empty = np.array([""] * count)
    sizes = np.full(count, float(pixel))
    about = (names, names, empty, empty, np.stack([sizes, sizes], 1), sizes)
    return Slices(np.asarray(images, np.float32), *about, ("image",), "plain", "none", names)


def test_a_histogram_counts_the_anatomy_over_one_range_for_all():
    images = np.zeros((2, 1, 32, 32), np.float32)
    images[0, 0, 4:28, 4:28] = np.linspace(50, 100, 24 * 24).reshape(24, 24)
    images[1, 0, 8:24, 8:24] = np.linspace(200, 300, 16 * 16).reshape(16, 16)
    slices = _plain_slices(images)
    feature = made("histogram", bins=10)
    fitted = feature.fit(slices.take([0]), slices.take([1]))
    table = fitted(slices)
    low, high = fitted.learned["low"][0], fitted.learned["high"][0]
    assert low < 50 < 300 < high
    assert table.shape == (2, 11)
    np.testing.assert_allclose(table[:, :-1].sum(axis=1), 1, rtol=1e-6)
    for row, image in zip(table, images[:, 0], strict=True):
        tissue = image[image > 0]
        np.testing.assert_allclose(
            row[:-1], np.histogram(tissue, 10, (low, high))[0] / tissue.size, atol=0.06
        )  # the corners of the silhouette are rounded
    assert table[1, -1] == pytest.approx(0.25, abs=0.02)
    far = fitted(changed(slices, images * 1e6))
    assert far[0, -2] == 1  # beyond the range: in the last bin


def test_radiomics_are_standardised_over_all_domains_and_constant_columns_are_left_out(domain, opened):
    other = opened(contrast="t2")
    fitted = made("radiomics").fit(domain, other)
    pooled = np.concatenate([fitted(domain), fitted(other)])
    np.testing.assert_allclose(pooled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(pooled.std(axis=0), 1, atol=1e-4)
    assert pooled.shape[1] == len(FIRST_ORDER) + len(TEXTURE) + 1
    same = domain.take([0, 0, 0])
    with pytest.raises(UserError, match="the same in all slices"):
        made("radiomics").fit(same)
    binary = np.asarray(domain.images) > np.median(domain.images)
    assert np.isfinite(made("radiomics").fit(changed(domain, binary))(changed(domain, binary))).all()


def test_cooccurrence_and_its_statistics_as_a_direct_count_gives_them():
    draw = np.random.default_rng(3)
    grey, inside = draw.integers(0, 4, (9, 7)), draw.random((9, 7)) > 0.2
    counts = np.zeros((4, 4))
    for row in range(9):
        for column in range(7):
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                r, c = row + down, column + right
                if r < 9 and 0 <= c < 7 and inside[row, column] and inside[r, c]:
                    counts[grey[row, column], grey[r, c]] += 1
                    counts[grey[r, c], grey[row, column]] += 1
    expected = counts / counts.sum()
    np.testing.assert_allclose(cooccurrence(grey, inside, 4), expected, atol=1e-12)
    pairs = draw.choice(16, 200_000, p=expected.ravel())
    i, j = pairs // 4, pairs % 4
    contrast, homogeneity, energy, correlation, entropy = haralick(expected)
    assert contrast == pytest.approx(((i - j) ** 2).mean(), abs=0.03)
    assert homogeneity == pytest.approx((1 / (1 + (i - j) ** 2)).mean(), abs=0.01)
    assert energy == pytest.approx((expected**2).sum())
    assert correlation == pytest.approx(np.corrcoef(i, j)[0, 1], abs=0.01)
    assert entropy == pytest.approx(-(expected[expected > 0] * np.log2(expected[expected > 0])).sum())


@pytest.mark.parametrize("shape", [(32, 32), (31, 33), (32, 31)])
def test_radial_power_as_a_direct_sum_gives_it(shape):
    image = np.random.default_rng(0).normal(size=shape)
    edges = np.linspace(0, 0.5, 9)
    power = np.abs(np.fft.fft2(image)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij"))
    means = []
    for number in range(8):
        last = (radius == edges[-1]) if number == 7 else False
        ring = (((radius >= edges[number]) & (radius < edges[number + 1])) | last) & (radius > 0)
        means.append(power[ring].mean())
    np.testing.assert_allclose(radial_power(image, 1.0, edges), np.array(means) / np.sum(means), rtol=1e-9)


def test_a_wave_is_found_at_its_frequency_in_cycles_per_millimetre():
    across = np.arange(64)
    image = np.broadcast_to(np.cos(2 * np.pi * across * 8 / 64), (64, 64))  # 8 waves over 64 pixels of 2 mm
    edges = np.linspace(0, 0.25, 26)
    rings = radial_power(image, 2.0, edges)
    found = edges[np.argmax(rings)]
    assert found <= 8 / 128 < found + 0.01
    assert radial_power(image, 4.0, edges)[edges[:-1] >= 0.125].max() == 0  # beyond its Nyquist frequency


def test_frequencies_are_physical_only_where_every_pixel_size_is_known():
    noise = np.random.default_rng(0).random((2, 1, 32, 32))
    known, unknown = _plain_slices(noise, 2.0), _plain_slices(noise)
    assert made("spectrum").fit(known).learned == {"unit": "mm", "highest": 0.25}
    assert made("spectrum").fit(known, unknown).learned["unit"] == "pixel"
    with pytest.raises(UserError, match="sample s0: the size of its pixels is not known"):
        made("spectrum", unit="mm").fit(known, unknown)
    with pytest.raises(UserError, match="unit: pixel"):
        made("spectrum").fit(known)(unknown)


def test_noise_is_measured_whatever_is_below_it():
    draw = np.random.default_rng(0)
    smooth = np.add.outer(np.linspace(100, 200, 64), np.linspace(0, 100, 64))
    quiet, noisy = (smooth + draw.normal(0, sd, (64, 64)) for sd in (2.0, 20.0))
    slices = _plain_slices(np.stack([quiet, noisy])[:, None])
    noise = made("spectrum").fit(slices)(slices)[:, -1]
    assert noise[1] - noise[0] == pytest.approx(1, abs=0.15)  # ten times, in powers of ten


def test_a_network_s_features_are_those_of_its_stage_and_stay_in_the_cache(domain, tmp_path):
    network = build_network("resnet18", until="layer1", seed=5)
    save_file({name: value.contiguous() for name, value in network_state(network).items()}, tmp_path / "w.safetensors")
    feature = made("network", network="resnet18", until="layer1", weights=str(tmp_path / "w.safetensors"), seed=9)
    here = replace(domain, directory=tmp_path / "kept")
    fitted = feature.fit(here)
    table = fitted(here)
    image = np.asarray(domain.images[3, 0])
    low, high = np.percentile(image, (0.5, 99.5))
    seen = torch.from_numpy(np.clip((image - low) / (high - low), 0, 1).astype(np.float32)).expand(1, 3, -1, -1)
    mean, std = (torch.tensor(network.normalise[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = network.eval()((seen - mean) / std)
    np.testing.assert_allclose(table[3], expected[0], rtol=1e-3, atol=1e-4)
    assert len(list((tmp_path / "kept" / "features").glob("*.npy"))) == 1
    assert np.array_equal(fitted(here), table)
    state = load_file(tmp_path / "w.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no longer those"):
        fitted(here)


def test_a_misspelt_feature_or_setting_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'histogram'"):
        parse_feature("histogramm")
    with pytest.raises(UserError, match=r"features pixels: .*did you mean 'size'"):
        parse_feature({"feature": "pixels", "sise": 3})
    with pytest.raises(UserError, match="give a name"):
        parse_feature(3)
    with pytest.raises(UserError, match="normalise"):
        parse_feature({"name": "network", "weights": "random", "normalise": 3})
    assert parse_feature({"feature": "spectrum", "bins": 8}) == made("spectrum", bins=8)


class Broken(Feature):
    """Its third number is none."""

    name: ClassVar[str] = "broken"

    def table(self, slices, learned):
        return np.where(np.arange(len(slices)) == 2, np.nan, 1.0)[:, None]


def test_numbers_that_are_not_finite_name_the_sample(domain):
    with pytest.raises(UserError, match=f"sample {domain.samples[2]}: the feature broken is NaN or infinite"):
        Broken().fit(domain)(domain)


@pytest.mark.parametrize("name", NAMES)
def test_huge_intensities_do_not_overflow(name, domain):
    huge = changed(domain, np.asarray(domain.images) / np.max(domain.images) * 1e30)
    assert np.isfinite(made(name).fit(domain, huge)(huge)).all()


@pytest.mark.real_data
@pytest.mark.parametrize("network", ["resnet18", "mobilenetv2_100"])
def test_published_weights_see_that_a_knee_is_no_head(opened, weights_folder, network):
    files = {
        "resnet18": {"weights": "resnet18.imagenet-through-layer3.safetensors", "until": "layer3"},
        "mobilenetv2_100": {
            "weights": "mobilenetv2_100.imagenet.safetensors",
            "until": "blocks.6",
            "normalise": "half",
        },
    }[network]
    files["weights"] = str(weights_folder / files["weights"])
    heads, others = (opened(task="segmentation", slices=None, size=None, spacing=5, subjects=3, first_subject=first)
                     for first in (0, 8))  # fmt: skip
    knees = opened(task="segmentation", spacing=5, size=None, subjects=3, slices=None, anatomy="knee", extracted=False)
    assert moved(made("network", network=network, **files), heads, knees, others) > 2
