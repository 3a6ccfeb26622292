"""Harmonisers: learned of the source alone, monotone, and near independent references."""

import json
import sys

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.harmonise import HARMONISERS
from mrtransfer.data.harmonise._curve import quantiles, without_ties
from mrtransfer.data.harmoniser import FittedHarmoniser, Harmoniser, parse_harmoniser
from mrtransfer.data.volume import read_case

NAMES = HARMONISERS.names()
CURVES = ["histogram_matching", "nyul", "z_score"]


def head(seed=0, shape=(40, 36), scale=100.0, channels=1, background=0.0, whole=False):
    """Positive foreground in a frame of background, float32 (C, *shape); ``whole``: with many equal values."""
    image = np.full((channels, *shape), background, np.float32)
    inner = (slice(None), *(slice(n // 5, n - n // 5) for n in shape))
    draw = np.random.default_rng([seed, channels]).gamma(4, 25, image[inner].shape)
    image[inner] = (np.rint(draw) + 1 if whole else draw) * (scale / 100)
    return image


def fitted(name, images, **given):
    if name == "n4":
        pytest.importorskip("SimpleITK")
        given.setdefault("iterations", [5, 5])
    return parse_harmoniser({"name": name, **given}).fit(images)


@pytest.mark.parametrize("name", NAMES)
class TestEveryHarmoniser:
    def test_is_known_by_its_own_name(self, name):
        harmoniser = parse_harmoniser(name)
        assert isinstance(harmoniser, Harmoniser)
        assert harmoniser.name == name == harmoniser.model_dump()["name"]
        assert harmoniser.words
        assert HARMONISERS.summaries()[name].endswith(".")
        assert parse_harmoniser(harmoniser.model_dump(mode="json")) == harmoniser

    @pytest.mark.parametrize("shape", [(40, 36), (24, 20, 18), (40, 36, 1)])
    def test_gives_a_new_image_of_the_same_shape_with_the_same_background(self, name, shape):
        source = [head(seed, shape, 100, channels=2) for seed in range(3)]
        image = head(9, shape, 300, channels=2)
        kept = image.copy()
        found = fitted(name, source)(image)
        assert found.shape == image.shape
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(image, kept)
        np.testing.assert_array_equal(found[image == 0], 0)
        assert (found[image != 0] != image[image != 0]).mean() > 0.9

    def test_channels_are_harmonised_each_by_itself(self, name):
        source = [np.concatenate([head(seed, scale=100), head(seed + 10, scale=900)]) for seed in range(2)]
        image = np.concatenate([head(7, scale=10), head(8, scale=50)])
        both = fitted(name, source)(image)
        for c in range(2):
            alone = fitted(name, [one[c : c + 1] for one in source])(image[c : c + 1])
            np.testing.assert_array_equal(both[c : c + 1], alone)

    def test_goes_through_json_without_loss(self, name):
        first = fitted(name, [head(seed, channels=2) for seed in range(3)])
        again = FittedHarmoniser.from_json(json.loads(json.dumps(first.to_json())))
        assert again.to_json() == first.to_json()
        assert again.key == first.key
        image = head(5, scale=333, channels=2)
        assert again(image).tobytes() == first(image).tobytes()

    @pytest.mark.parametrize("value", [0.0, 7.0, -0.5])
    def test_what_shows_nothing_comes_back_unchanged(self, name, value):
        empty = np.full((1, 20, 20), value, np.float32)
        one_value = np.zeros((1, 20, 20), np.float32)
        one_value[0, 5:15, 5:15] = 50
        harmonise = fitted(name, [head()])
        np.testing.assert_array_equal(harmonise(empty), empty)
        np.testing.assert_array_equal(harmonise(one_value), one_value)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_refuses_what_is_not_finite(self, name, bad):
        image = head()
        image[0, 3, 3] = bad
        with pytest.raises(UserError, match=r"1 of its 1,440 values are NaN or infinite.*replace them"):
            fitted(name, [head()])(image)

    def test_slices_of_one_scan_are_changed_alike_unless_neighbours_matter(self, name):
        harmonise = fitted(name, [head(seed) for seed in range(3)])
        slices = np.stack([head(11, scale=50), head(12, scale=80), np.zeros_like(head())])
        found = harmonise.stack(slices)
        if harmonise.harmoniser.neighbours:
            expected = np.stack([harmonise(image) for image in slices])
        else:
            expected = harmonise(slices.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", CURVES)
class TestCurves:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 1.0, 4000.0]), whole=st.booleans())
    @pytest.mark.parametrize("foreground", ["nonzero", "silhouette", "above_mean"])
    def test_ranks_never_change(self, name, foreground, seed, scale, whole):
        source = [head(seed + k, scale=100, whole=whole) for k in range(1, 4)]
        image = head(seed, scale=scale, whole=whole)
        found = fitted(name, source, foreground=foreground)(image)
        inside = image[image != 0]
        order = np.argsort(inside, kind="stable")
        steps = np.diff(found[image != 0][order].astype(np.float64))
        assert steps.min() >= -1e-6 * np.abs(found).max()
        same = np.diff(inside[order]) == 0
        assert not steps[same].any()

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 1.0, 4000.0]), whole=st.booleans())
    @pytest.mark.parametrize("foreground", ["nonzero", "silhouette", "above_mean"])
    def test_the_only_image_of_the_reference_stays_as_it_is(self, name, foreground, seed, scale, whole):
        image = head(seed, scale=scale, whole=whole)
        np.testing.assert_allclose(fitted(name, [image], foreground=foreground)(image), image, rtol=2e-6, atol=1e-6)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
    def test_units_of_a_scan_make_no_difference(self, name, seed, factor):
        harmonise = fitted(name, [head(seed + k) for k in range(1, 4)])
        image = head(seed)
        np.testing.assert_allclose(harmonise(image * np.float32(factor)), harmonise(image), rtol=1e-3, atol=1e-3)

    def test_twice_is_as_good_as_once(self, name):
        harmonise = fitted(name, [head(seed, (90, 80)) for seed in range(4)])
        once = harmonise(head(9, (90, 80), scale=700))
        # Percentiles lie between two pixels, and the curve may bend there: exact only for z-scores.
        tolerance = {"z_score": 1e-5}.get(name, 2e-2)
        np.testing.assert_allclose(harmonise(once), once, rtol=tolerance, atol=tolerance)

    def test_depends_on_the_order_of_training_images_no_more_than_rounding(self, name):
        images = [head(seed, scale=100 + 20 * seed) for seed in range(5)]
        image = head(8, scale=30)
        forwards, backwards = fitted(name, images)(image), fitted(name, images[::-1])(image)
        np.testing.assert_allclose(forwards, backwards, rtol=1e-5)

    def test_background_takes_the_value_it_has_in_the_reference(self, name):
        """So that cropping and z-scores of the foreground still find it."""
        source = [head(seed, background=-3.0) for seed in range(3)]
        image = head(5, background=0.0)
        np.testing.assert_array_equal(fitted(name, source)(image)[image == 0], -3)

    def test_a_constant_channel_of_one_training_image_is_left_out(self, name):
        images = [head(0), np.zeros_like(head()), head(1)]
        image = head(3)
        np.testing.assert_array_equal(fitted(name, images)(image), fitted(name, [images[0], images[2]])(image))

    def test_refuses_a_reference_that_shows_nothing(self, name):
        dull = np.concatenate([head(0), np.full_like(head(0), 5)])
        with pytest.raises(UserError, match=rf"harmonise {name}: channel 2 is constant in all 2 images"):
            fitted(name, [dull, dull])
        with pytest.raises(UserError, match="there are no images"):
            fitted(name, [])

    def test_refuses_other_numbers_of_channels(self, name):
        with pytest.raises(UserError, match="image 2 of the reference has 2 channels, and those before it have 1"):
            fitted(name, [head(), head(channels=2)])
        with pytest.raises(UserError, match=r"has 2 channels, .* fitted on images of 1"):
            fitted(name, [head()])(head(channels=2))

    def test_noisy_air_stays_air(self, name):
        """Where nothing is exactly 0, the silhouette of the head counts, and air hardly moves."""

        def in_air(seed, scale):
            image = head(seed, (60, 60), scale) + scale
            air = image == scale
            image[air] = np.random.default_rng(seed).rayleigh(0.03 * scale, air.sum())
            return image, air

        harmonise = fitted(name, [in_air(seed, 100)[0] for seed in range(3)])
        assert harmonise.learned.foreground == "silhouette"
        image, air = in_air(7, 400)
        found = harmonise(image)
        assert abs(found[~air].mean() - in_air(7, 100)[0][~air].mean()) < 10
        assert found[air].min() >= 0
        assert found[air].mean() < 10
        assert fitted(name, [head(0)]).learned.foreground == "nonzero"


class TestAgainstIndependentReferences:
    def test_histogram_matching_as_scikit_image_does_it(self):
        exposure = pytest.importorskip("skimage.exposure")
        source, image = head(2, (60, 50)), head(3, (60, 50), scale=700)
        inside = image != 0
        for one in (source, image):  # equal values get their last rank there, and the average rank here
            assert len(np.unique(one)) == inside.sum() + 1
        theirs = exposure.match_histograms(image[inside], source[source != 0])
        every = fitted("histogram_matching", [source], points=int(inside.sum()))(image)
        np.testing.assert_allclose(every[inside], theirs, rtol=1e-5)
        coarse = fitted("histogram_matching", [source])(image)
        assert np.abs(coarse[inside] - theirs).mean() < 0.002 * theirs.std()

    def test_histogram_matching_gives_the_average_of_quantile_functions(self):
        images = [head(seed, (90, 90), scale=50 * (seed + 1)) for seed in range(4)]
        shares = np.linspace(0, 1, 101)
        expected = np.mean([np.quantile(image[image != 0], shares) for image in images], axis=0)
        found = fitted("histogram_matching", images)(images[0])
        np.testing.assert_allclose(np.quantile(found[found != 0], shares), expected, rtol=5e-3)

    def test_z_score_has_the_average_mean_and_deviation(self):
        images = [head(seed, scale=50 * (seed + 1)) for seed in range(4)]
        inside = [image[image != 0].astype(np.float64) for image in images]
        found = fitted("z_score", images)(images[2])
        found = found[images[2] != 0]
        assert found.mean() == pytest.approx(np.mean([values.mean() for values in inside]), rel=1e-5)
        assert found.std() == pytest.approx(np.mean([values.std() for values in inside]), rel=1e-5)

    @pytest.mark.parametrize("scale", [None, (0.0, 100.0)])
    def test_nyul_by_a_slow_loop(self, scale):
        percentiles = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
        images = [head(seed, (30, 30), scale=50 * (seed + 1)) for seed in range(4)]
        landmarks = [[float(np.percentile(i[i != 0].astype(float), p)) for p in percentiles] for i in images]
        low, high = scale or (np.mean([row[0] for row in landmarks]), np.mean([row[-1] for row in landmarks]))
        standard = [
            np.mean([low + (row[k] - row[0]) / (row[-1] - row[0]) * (high - low) for row in landmarks])
            for k in range(len(percentiles))
        ]

        def standardised(value, own):
            piece = 0
            while piece < len(own) - 2 and value > own[piece + 1]:
                piece += 1
            slope = (standard[piece + 1] - standard[piece]) / (own[piece + 1] - own[piece])
            return standard[piece] + slope * (value - own[piece])

        image = head(9, (30, 30), scale=900)
        own = [float(np.percentile(image[image != 0].astype(float), p)) for p in percentiles]
        expected = [standardised(float(value), own) if value else 0.0 for value in image.ravel()]
        found = fitted("nyul", images, scale=scale)(image)
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-5, atol=1e-4)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), st.integers(2, 200))
    def test_quantiles_as_numpy_has_them(self, values, count):
        shares = np.linspace(0, 1, count)
        expected = np.quantile(np.array(values, np.float64), shares)
        found = quantiles(np.array(values, np.float32), shares)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)

    def test_equal_knots_become_one_with_their_average(self):
        x, y = without_ties(np.array([0.0, 1, 1, 1, 2]), np.array([0.0, 3, 4, 8, 9]))
        assert x.tolist() == [0, 1, 2]
        assert y.tolist() == [0, 5, 9]


@pytest.mark.parametrize("name", CURVES)
class TestScansMadeUnlike:
    """Phantom scans whose intensities were changed are brought back near what they were."""

    @pytest.fixture(scope="class")
    def scans(self):
        manifest = DATASETS.get("phantom")(subjects=6, task="segmentation", size=48, extracted=True)
        return [read_case(manifest, row, with_mask=False).image for row in range(6)]

    @pytest.mark.parametrize("gamma", [1.0, 0.6, 1.6])
    def test_scaled_and_bent_by_a_gamma(self, name, scans, gamma):
        top = max(float(image.max()) for image in scans)
        harmonise = fitted(name, scans[:4])
        deviation = scans[5][scans[5] != 0].std()
        error = {}
        for key, image in (("raw", scans[5]), ("changed", 3 * top * (scans[5] / top) ** np.float32(gamma))):
            difference = harmonise(image.astype(np.float32)) - harmonise(scans[5])
            error[key] = float(np.sqrt(np.mean(difference[scans[5] != 0] ** 2)) / deviation)
        bent = {"histogram_matching": 0.02, "nyul": 0.06, "z_score": 0.5}[name]
        assert error["raw"] == 0
        assert error["changed"] < (0.01 if gamma == 1 else bent)


class TestN4:
    @pytest.fixture(autouse=True)
    def _needs_simple_itk(self):
        pytest.importorskip("SimpleITK")

    @pytest.fixture(scope="class")
    def biased(self):
        """A head of two tissues with little noise, its field, and a mask of the inner tissue."""
        axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in (56, 60, 40)], indexing="ij")
        radius = np.sqrt(sum(axis**2 for axis in axes))
        truth = np.where(radius < 0.9, np.where(np.sin(9 * axes[0]) * np.sin(8 * axes[1]) > 0, 200.0, 120.0), 0)
        truth *= 1 + 0.02 * np.random.default_rng(0).standard_normal(truth.shape)
        field = np.exp(0.4 * axes[0] - 0.3 * axes[1] ** 2 + 0.2 * axes[2])
        return (truth * field).astype(np.float32), field, truth > 160

    @pytest.mark.slow
    def test_takes_most_of_a_bias_field_away(self, biased):
        image, field, tissue = biased
        corrected = parse_harmoniser("n4").fit([])(image[None])[0]

        def variation(values):
            return values.std() / values.mean()

        before, after = variation(image[tissue]), variation(corrected[tissue])
        assert before > 0.15
        assert after < 0.05  # the noise alone is 0.02
        gain = image[tissue] / corrected[tissue] / field[tissue]
        assert variation(gain) < 0.03

    def test_keeps_the_mean_of_the_foreground_and_gives_the_same_bytes(self):
        image = head(0, (64, 60)) * np.linspace(0.7, 1.4, 64, dtype=np.float32)[:, None]
        harmonise = fitted("n4", [])
        first = harmonise(image)
        assert first.tobytes() == harmonise(image).tobytes()
        assert first[image != 0].mean() == pytest.approx(image[image != 0].mean(), rel=1e-5)

    def test_a_slice_is_the_same_with_and_without_a_third_axis(self):
        image = head(0, (64, 60)) * np.linspace(0.7, 1.4, 64, dtype=np.float32)[:, None]
        harmonise = fitted("n4", [])
        np.testing.assert_array_equal(harmonise(image[..., None])[..., 0], harmonise(image))

    def test_reads_no_image_to_learn_from(self):
        def never():
            raise AssertionError("N4 learns nothing")
            yield

        assert parse_harmoniser("n4").fit(never()).to_json()["learned"] == {}

    def test_refuses_scans_that_were_normalised(self):
        image = head(0)
        image[image != 0] -= 100
        with pytest.raises(UserError, match=r"of its foreground is negative.*logarithm"):
            fitted("n4", [])(image)

    def test_a_few_negative_values_of_an_interpolation_are_borne(self):
        image = head(0, (64, 60))
        image[0, 32, 30:33] = -2
        found = fitted("n4", [])(image)
        assert np.isfinite(found).all()
        assert (found[0, 32, 30:33] < 0).all()


def test_n4_without_its_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(UserError, match=r"needs SimpleITK.*pip install 'mrtransfer\[n4\]'"):
        parse_harmoniser("n4").fit([])


class TestParsing:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("nyull", "unknown harmoniser 'nyull': did you mean 'nyul'"),
            ({"name": "nyul", "landmark": [1, 99]}, "arms.a.harmonise nyul: unknown key 'landmark': did you mean"),
            ({"name": "nyul", "landmarks": [10, 5]}, "percentiles from 0 to 100 in ascending order"),
            ({"name": "nyul", "landmarks": [1, 101]}, "percentiles from 0 to 100 in ascending order"),
            ({"name": "nyul", "scale": [5, 5]}, "two numbers, the lower first"),
            ({"name": "histogram_matching", "points": 1}, "greater than or equal to 2"),
            ({"name": "z_score", "foreground": "otsu"}, "foreground"),
            (3, "arms.a.harmonise: give a name"),
            ({"points": 9}, "arms.a.harmonise: give a name"),
        ],
    )
    def test_mistakes_are_named(self, value, message):
        with pytest.raises(UserError, match=message):
            parse_harmoniser(value, "arms.a.harmonise")

    def test_a_harmoniser_is_taken_as_it_is(self):
        harmoniser = parse_harmoniser({"name": "nyul", "landmarks": [2, 50, 98]})
        assert parse_harmoniser(harmoniser) is harmoniser

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data.pop("learned"), "keys harmoniser, learned"),
            (lambda data: data["harmoniser"].update(name="nil"), "unknown harmoniser 'nil'"),
            (lambda data: data["learned"].pop("values"), "model.json: learned: values: Field required"),
            (lambda data: data["learned"].update(foreground="dark"), "model.json: learned: foreground"),
        ],
    )
    def test_damaged_json_is_named(self, change, message):
        data = json.loads(json.dumps(fitted("nyul", [head()]).to_json()))
        change(data)
        with pytest.raises(UserError, match=message):
            FittedHarmoniser.from_json(data, "model.json")


@pytest.mark.real_data
def test_real_flair_of_two_hospitals_comes_closer(real_data):
    """Intensities of the brain, as quantile functions: mean difference in deviations of the reference."""

    def brain(path):
        return nib.load(path).get_fdata(dtype=np.float32)[None, ::3, ::3, ::3]

    reference = brain(real_data / "brats2021/BraTS2021_00006/BraTS2021_00006_flair.nii.gz")
    others = [brain(next(real_data.glob(f"open_ms/patient{number}/FLAIR*"))) for number in ("07", "19")]
    shares = np.linspace(0, 1, 501)

    def apart(image):
        inside, theirs = image[image != 0], reference[reference != 0]
        difference = np.abs(np.quantile(inside, shares) - np.quantile(theirs, shares))
        return difference.mean() / theirs.std()

    for image in others:
        found = [apart(image)] + [apart(fitted(name, [reference])(image)) for name in ("z_score", "nyul")]
        assert found[0] > 1.5
        assert found[1] < 0.6
        assert found[2] < 0.15
        assert apart(fitted("histogram_matching", [reference])(image)) < 0.01
