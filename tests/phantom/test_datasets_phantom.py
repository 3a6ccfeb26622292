"""The phantom as a dataset."""

import numpy as np
import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.phantom import lesion_of, phantom
from mrtransfer.data.phantom.render import parse, render, render_mask
from mrtransfer.data.phantom.tumours import CLASSES
from mrtransfer.data.readers import read_image, read_mask


def test_every_class_has_as_many_subjects_and_every_slice_shows_its_tumour():
    manifest = phantom(subjects=24, slices=2, size=64)
    assert manifest.classes == CLASSES
    assert manifest.table.groupby("label")["subject"].nunique().tolist() == [6] * 4
    assert manifest.table.groupby("subject")["label"].nunique().max() == 1
    for row in manifest.table.itertuples():
        assert (row.label != "no_tumour") == isinstance(row.mask, str)
        assert row.label == "no_tumour" or render_mask(row.mask + "&region=core").any()


def test_heights_do_not_give_the_class_no_tumour_away():
    table = phantom(subjects=400, slices=1).table
    low = table["z"] < -15
    assert low[table["label"] == "no_tumour"].mean() == pytest.approx(
        low[table["label"] != "no_tumour"].mean(), abs=0.12
    )


def test_detection_labels_are_the_masks():
    manifest = phantom(subjects=6, slices=8, task="detection", size=64)
    assert manifest.classes == ("no_tumour", "tumour")
    for image, label, mask in manifest.table[["image", "label", "mask"]].itertuples(index=False):
        assert render_mask(image).any() == (label == "tumour") == isinstance(mask, str)
    assert manifest.table.groupby("subject")["label"].nunique().max() == 2
    assert 0.25 < (manifest.labels == 1).mean() < 0.75


def test_a_list_of_contrasts_makes_channels_of_the_same_slice():
    manifest = phantom(subjects=2, contrast=["flair", "t1ce"], size=32)
    assert manifest.channels == ("flair", "t1ce")
    one, other = map(parse, manifest.locations(0))
    assert (one.contrast, other.contrast) == ("flair", "t1ce")
    assert (one.subject, one.z, one.lesion) == (other.subject, other.z, other.lesion)


def test_the_same_subject_is_the_same_head_in_every_contrast_and_on_every_scanner():
    one, other = phantom(subjects=5, contrast="t1ce"), phantom(subjects=5, contrast="t2", scanner="c")
    assert one.table["subject"].tolist() == other.table["subject"].tolist()
    assert one.table["z"].tolist() == other.table["z"].tolist()


def test_cohorts_with_other_numbers_or_seeds_are_other_people():
    cohorts = [phantom(subjects=8), phantom(subjects=8, first_subject=8), phantom(subjects=8, seed=1)]
    names = [set(cohort.table["subject"]) for cohort in cohorts]
    assert "phantom-0003" in names[0]
    assert not names[0] & names[1]
    assert not names[0] & names[2]


def test_a_cohort_does_not_depend_on_where_its_neighbours_begin():
    whole, part = phantom(subjects=10).table, phantom(subjects=4, first_subject=6).table
    assert whole.tail(len(part))["image"].tolist() == part["image"].tolist()


def test_scanners_are_dealt_out_and_independent_of_the_class():
    table = phantom(subjects=160, slices=1, scanner=["a", "b"]).table
    counts = table.groupby(["label", "scanner"]).size()
    assert table["scanner"].value_counts().tolist() == [80, 80]
    assert counts.min() >= 10


def test_readers_read_what_is_rendered():
    manifest = phantom(subjects=4, slices=1, size=48)
    for row in range(len(manifest)):
        location = manifest.locations(row)[0]
        np.testing.assert_array_equal(read_image(location, manifest.root), render(location))
    mask = manifest.table["mask"].dropna().iloc[0]
    assert read_mask(mask, manifest.root).any()
    assert manifest.table["spacing_x"].iloc[0] == pytest.approx(236 / 48)


def test_classes_are_not_told_apart_by_global_brightness():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    manifest = phantom(subjects=120, slices=1, contrast="t1ce", size=64)
    images = np.stack([render(manifest.locations(row)[0]) for row in range(len(manifest))]).reshape(len(manifest), -1)
    means = images.mean(1, keepdims=True, dtype=float)
    assert cross_val_score(LogisticRegression(), (means - means.mean()) / means.std(), manifest.labels).mean() < 0.5


def test_the_class_is_a_function_of_seed_and_number():
    assert [lesion_of(0, s, CLASSES) for s in range(8)] == [lesion_of(0, s, CLASSES) for s in range(8)]
    assert sorted(lesion_of(0, s, CLASSES) for s in range(4, 8)) == sorted(CLASSES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "somewhere"}, "reads no files"),
        ({"contrast": "t3"}, "contrast"),
        ({"contrast": []}, "contrast is empty"),
        ({"contrast": ["t1", "t1"]}, "once"),
        ({"scanner": "q"}, "scanner"),
        ({"task": "detect"}, "'detection'"),
        ({"lesions": ["glioma", "no_tumour"], "task": "detection"}, "lesion"),
        ({"subjects": 0}, "subjects is 0"),
        ({"slices": 0}, "slices is 0"),
        ({"first_subject": -1}, "first_subject is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"size": 3}, "size is 3"),
        ({"lesions": ["glioma"]}, "two or more"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(UserError, match=said):
        phantom(**options)
