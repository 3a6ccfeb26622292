"""How unusual a scan is: calibrated on subjects, whatever the number of slices."""

import json

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.folder import folder
from mrtransfer.data.datasets.lgg import lgg
from mrtransfer.data.datasets.phantom import phantom
from mrtransfer.shift.feature import parse_feature
from mrtransfer.shift.slices import open_slices
from mrtransfer.shift.typicality import Typicality


def subjects_table(seed, subjects, slices, width):
    """(subjects, slices, width): slices of one subject are alike; later features vary less."""
    draw = np.random.default_rng([seed, subjects, slices, width])
    scale = np.exp(-6 * np.arange(width) / width)
    people = draw.standard_normal((subjects, 1, width))
    return scale * (people + 0.5 * draw.standard_normal((subjects, slices, width)))


def fitted(table, seed=0):
    count, slices, width = table.shape
    return Typicality.fit(table.reshape(-1, width), np.repeat(np.arange(count), slices).astype(str), seed=seed)


@pytest.mark.parametrize(("subjects", "slices", "width"), [(19, 3, 12), (19, 1, 30)])
def test_p_values_of_new_subjects_are_uniform(subjects, slices, width):
    found = []
    for seed in range(200):
        table = subjects_table(seed, subjects + 1, slices, width)
        found.append(fitted(table[:-1], seed).p_value(table[-1]))
    places = np.round(np.array(found) * (subjects + 1)).astype(int)
    assert places.min() >= 1
    assert np.allclose(places / (subjects + 1), found)
    counts = np.histogram(places, 5, (0.5, subjects + 1.5))[0]
    assert ((counts - 40) ** 2 / 40).sum() < 18.5  # chi-square of 4 degrees of freedom, p = 0.001
    assert np.mean(found) == pytest.approx((subjects + 2) / (2 * (subjects + 1)), abs=4 * 0.29 / np.sqrt(200))


def test_a_scan_with_fewer_slices_is_compared_with_as_few():
    found = []
    for seed in range(150):
        table = subjects_table(seed, 20, 6, 10)
        found.append(fitted(table[:-1], seed).p_value(table[-1, :1]))
    assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=4 * 0.3 / np.sqrt(150))


def test_what_is_far_away_has_the_smallest_p_that_so_many_subjects_can_show():
    table = subjects_table(0, 24, 4, 20)
    typicality = fitted(table)
    assert typicality.subjects == 24
    assert typicality.smallest_p == 1 / 25
    assert typicality.p_value(table[3] + 5) == 1 / 25
    assert typicality.p_value(np.tile(table.mean(axis=(0, 1)), (4, 1))) > 0.9
    # Only along a direction in which the training domain hardly varies.
    aside = table[3].copy()
    aside[:, -1] += 1
    assert typicality.p_value(aside) == 1 / 25


def test_a_scan_is_judged_as_a_whole():
    table = subjects_table(1, 20, 4, 10)
    typicality = fitted(table)
    new = subjects_table(2, 3, 4, 10)
    together = typicality.p_values(new.reshape(12, 10), np.repeat(["a", "b", "c"], 4))
    for scan, values in zip(new, together.reshape(3, 4), strict=True):
        assert set(values) == {typicality.p_value(scan)}
    alone = typicality.p_values(new.reshape(12, 10))
    assert alone.tolist() == [typicality.p_value(row[None]) for row in new.reshape(12, 10)]


def test_the_distance_is_mahalanobis_with_the_covariance_of_ledoit_and_wolf():
    table = subjects_table(3, 30, 2, 8)
    rows = subjects_table(4, 5, 1, 8)[:, 0]
    flat = table.reshape(-1, 8)
    covariance, _ = ledoit_wolf(flat)
    centred = rows - flat.mean(axis=0)
    expected = np.sqrt((centred @ np.linalg.inv(covariance) * centred).sum(axis=1) / 8)
    np.testing.assert_allclose(fitted(table).score(rows), expected, rtol=1e-5)


@pytest.mark.parametrize(("subjects", "slices", "width"), [(40, 3, 30), (6, 2, 60)])
def test_beyond_the_axes_that_are_kept_all_directions_have_one_variance(subjects, slices, width):
    table = subjects_table(5, subjects, slices, width)
    flat = table.reshape(-1, width)
    covariance, _ = ledoit_wolf(flat)
    values, vectors = np.linalg.eigh(covariance)
    kept = min(16, len(flat) - 1)
    values[:-kept] = values[:-kept].mean()
    rows = flat[:7] + 0.1
    centred = (rows - flat.mean(axis=0)) @ vectors
    expected = np.sqrt((centred**2 / values).sum(axis=1) / width)
    np.testing.assert_allclose(fitted(table).score(rows), expected, rtol=1e-4)


def test_calibration_leaves_the_subject_out():
    table = subjects_table(6, 5, 3, 4)
    typicality = fitted(table)
    for number, own in enumerate(typicality.calibration):
        others = fitted(np.delete(table, number, axis=0))
        np.testing.assert_allclose(np.sort(own), np.sort(others.score(table[number])), rtol=1e-4)


def test_it_travels_as_small_json():
    table = subjects_table(7, 60, 10, 300)
    typicality = fitted(table)
    text = json.dumps(typicality.to_json(), allow_nan=False)
    assert len(text) < 100_000
    travelled = Typicality.from_json(json.loads(text))
    new = subjects_table(8, 4, 3, 300)
    assert np.array_equal(travelled.score(new[0]), typicality.score(new[0]))
    assert [travelled.p_value(scan) for scan in new] == [typicality.p_value(scan) for scan in new]


def test_the_same_seed_gives_the_same_and_units_may_come_in_any_order():
    table = subjects_table(9, 60, 2, 10).reshape(-1, 10)
    units = np.repeat([f"s{number:02d}" for number in range(60)], 2)
    one, again = (Typicality.fit(table, units, seed=3) for _ in range(2))
    assert one.to_json() == again.to_json()
    order = np.random.default_rng(0).permutation(120)
    other = Typicality.fit(table[order], units[order], seed=3)
    np.testing.assert_allclose(other.score(table), one.score(table), rtol=1e-5)
    assert other.subjects == one.subjects == 60


@pytest.mark.parametrize(
    ("table", "units", "said"),
    [
        (np.ones((4, 3)), list("abcd"), "every feature is constant"),
        (np.eye(4), list("aabb"), "calibrated on 2 subjects: at least 3"),
        (np.eye(4), list("abc"), "4 rows and 3 subjects"),
        (np.where(np.eye(4) > 0, np.nan, 1), list("abcd"), "NaN or infinite values in row 0"),
        (np.ones(4), list("abcd"), "table of numbers"),
        (np.empty((0, 3)), [], "table of numbers"),
    ],
)
def test_bad_tables_are_refused(table, units, said):
    with pytest.raises(UserError, match=said):
        Typicality.fit(table, units)


def test_new_scans_need_the_same_features():
    typicality = fitted(subjects_table(0, 5, 2, 6))
    with pytest.raises(UserError, match="5 features, and the training domain has 6"):
        typicality.p_value(np.ones((1, 5)))
    with pytest.raises(UserError, match="2 rows and 1 scans"):
        typicality.p_values(np.ones((2, 6)), ["a"])


def test_phantom_heads_know_their_own_and_notice_another_contrast(tmp_path):
    heads, others = (
        open_slices(phantom(slices=2, size=64, **options), size=64, directory=tmp_path)
        for options in ({"subjects": 28}, {"subjects": 6, "first_subject": 28, "contrast": "flair"})
    )
    trained = heads.subjects < "phantom:phantom-0020"
    fit = parse_feature("radiomics").fit(heads.take(trained))
    typicality = Typicality.fit(fit(heads.take(trained)), heads.subjects[trained])
    usual = typicality.p_values(fit(heads.take(~trained)), heads.subjects[~trained])
    assert np.median(usual) > 0.2
    assert np.median(typicality.p_values(fit(others), others.subjects)) == typicality.smallest_p == 1 / 21


@pytest.mark.real_data
@pytest.mark.slow
def test_real_subjects_know_their_own_and_notice_other_pictures(real_data, weights_folder, tmp_path):
    tumours = open_slices(lgg(real_data / "lgg_segmentation"), size=96, directory=tmp_path)
    tumours = tumours.with_channels(["blue"])  # post-contrast, as most of the others
    held_out = np.isin(tumours.subjects, np.unique(tumours.subjects)[::5])
    four = open_slices(folder(real_data / "brain_tumour_4class" / "Testing"), size=96, directory=tmp_path)
    knees = phantom(task="segmentation", anatomy="knee", subjects=2, spacing=5)
    knees = open_slices(knees, size=96, directory=tmp_path)
    weights = str(weights_folder / "resnet18.imagenet-through-layer3.safetensors")
    feature = parse_feature({"name": "network", "weights": weights, "until": "layer3"})
    fit = feature.fit(tumours.take(~held_out))
    typicality = Typicality.fit(fit(tumours.take(~held_out)), tumours.subjects[~held_out])
    usual = typicality.p_values(fit(tumours.take(held_out)), tumours.subjects[held_out])
    assert np.median(usual) > 0.2
    assert (typicality.p_values(fit(four)) <= 0.1).mean() > 0.5  # heads too, but other tumours, views and hospitals
    assert typicality.p_values(fit(knees), knees.subjects).max() == typicality.smallest_p == 1 / 29
