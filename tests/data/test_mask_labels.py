"""Mask labels: values to classes and back, regions, and what a mapping makes of them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.data.mask_labels import MaskLabels

REGIONS = {"whole": ["necrosis", "oedema", "enhancing"], "core": ["necrosis", "enhancing"], "active": ["enhancing"]}
BRATS = MaskLabels.create({"necrosis": 1, "oedema": 2, "enhancing": [4, 3]}, REGIONS)


def test_classes_are_in_order_behind_the_background():
    assert BRATS.names == ("background", "necrosis", "oedema", "enhancing")
    assert BRATS.region_names == ("whole", "core", "active")
    np.testing.assert_array_equal(BRATS.membership, [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]])


def test_without_regions_every_class_is_one():
    labels = MaskLabels.create({"anterior": 1, "posterior": 2})
    assert labels.regions == (("anterior", ("anterior",)), ("posterior", ("posterior",)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int64, np.float32, np.float64])
def test_values_become_classes_whatever_the_type(dtype):
    mask = np.array([[0, 1, 2], [4, 3, 0]], dtype=dtype)[..., None]
    classes = BRATS.to_classes(mask, "x")
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes[..., 0], [[0, 1, 2], [3, 3, 0]])


@given(
    st.lists(st.integers(1, 70_000), min_size=1, max_size=6, unique=True),
    st.lists(st.integers(0, 5), min_size=1, max_size=40),
    st.sampled_from([np.int32, np.int64, np.float64]),
)
def test_classes_survive_being_written_and_read(values, indices, dtype):
    labels = MaskLabels.create({f"class {v}": v for v in values})
    classes = np.array(indices, dtype=np.uint8) % (len(values) + 1)
    written = labels.to_values(classes)
    assert [int(v) for v in written] == [0 if c == 0 else values[c - 1] for c in classes]
    np.testing.assert_array_equal(labels.to_classes(written.astype(dtype), "x"), classes)


def test_a_class_of_several_values_is_written_as_its_first():
    np.testing.assert_array_equal(BRATS.to_values(np.array([3, 0, 1])), [4, 0, 1])
    assert BRATS.to_values(np.array([3])).dtype == np.uint8


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.array([0, 5], np.uint8), "holds 5, which is no known class; known are 0 (background), 1 (necrosis)"),
        (np.array([0, -1], np.int16), "holds -1,"),
        (np.array([0, 10**6]), "holds 1000000,"),
        (np.array([0, 2.0, 7.0]), "holds 7,"),
        (np.array([0, 1.5]), "holds 1.5;"),
        (np.array([0, np.nan], np.float32), "holds nan;"),
        (np.array([0, np.inf]), "holds inf;"),
        (np.array([1j]), "complex128"),
    ],
)
def test_what_is_no_class_is_named_with_the_file_and_the_known_values(mask, said):
    with pytest.raises(UserError) as error:
        BRATS.to_classes(mask, "masks/a.nii.gz")
    assert str(error.value).startswith("masks/a.nii.gz: ")
    assert said in str(error.value)


def test_in_a_mask_of_two_values_all_but_0_is_the_class():
    binary = MaskLabels.binary("lesion")
    for mask in ([0, 255], [0, 1], [0, -3], [False, True], [0.0, 7.0]):
        np.testing.assert_array_equal(binary.to_classes(np.array(mask), "x"), [0, 1])
    np.testing.assert_array_equal(binary.to_values(np.array([1, 0])), [1, 0])
    with pytest.raises(UserError, match="any other whole number"):
        binary.to_classes(np.array([0.5]), "x")


@pytest.mark.parametrize(
    ("classes", "regions", "said"),
    [
        ({}, None, "give one or more"),
        ({"background": 1}, None, "no background"),
        ({"a": 1, "b": [2, 1]}, None, "1 is a and b"),
        ({"a": [1, 1]}, None, "belongs to one class"),
        ({"a": 0}, None, "above 0"),
        ({"a": "1"}, None, "above 0"),
        ({"a": True}, None, "above 0"),
        ({"a": 1.5}, None, "above 0"),
        ({"a": []}, None, "above 0"),
        ({"a": None}, None, "above 0"),
        ({"lesion": 1}, {"all": ["leson"]}, "did you mean 'lesion'"),
        ({"lesion": 1}, {"all": []}, "holds no class"),
        ({"lesion": 1}, {}, "give one or more"),
    ],
)
def test_labels_that_cannot_be_are_refused(classes, regions, said):
    with pytest.raises(UserError, match=said):
        MaskLabels.create(classes, regions)


def test_merging_all_leaves_one_class_and_the_region_that_it_is():
    merged = BRATS.merged({"necrosis": "tumour", "*": "tumour"})
    assert merged.names == ("background", "tumour")
    assert merged.regions == (("whole", ("tumour",)),)  # the core can no longer be told from the rest
    np.testing.assert_array_equal(merged.to_classes(np.array([0, 1, 2, 4]), "x"), [0, 1, 1, 1])


def test_a_region_stays_where_the_new_classes_make_it_up():
    merged = BRATS.merged({"oedema": "oedema", "necrosis": "core", "enhancing": "core"})
    assert merged.names == ("background", "oedema", "core")
    assert dict(merged.regions) == {"whole": ("core", "oedema"), "core": ("core",)}


def test_a_dropped_class_is_background_and_leaves_its_regions():
    merged = BRATS.merged({"oedema": "background", "necrosis": "core", "enhancing": "rim"})
    np.testing.assert_array_equal(merged.to_classes(np.array([0, 1, 2, 4]), "x"), [0, 1, 0, 2])
    assert dict(merged.regions) == {
        "core": ("core", "rim"),
        "active": ("rim",),
    }  # whole became core, which lost nothing


def test_where_every_class_was_its_own_region_every_new_one_is():
    merged = MaskLabels.create({"a": 1, "b": 2, "c": 3}).merged({"c": "last", "*": "first"})
    assert merged.regions == (("last", ("last",)), ("first", ("first",)))
    assert MaskLabels.binary("tumour").merged({"*": "lesion"}) == MaskLabels.binary("lesion")


@given(st.lists(st.sampled_from(["background", "x", "y", "necrosis"]), min_size=3, max_size=3))
def test_merging_after_reading_is_reading_as_merged(targets):
    mapping = dict(zip(BRATS.names[1:], targets, strict=True))
    if set(targets) == {"background"}:
        with pytest.raises(UserError, match="every mask class becomes background"):
            BRATS.merged(mapping)
        return
    merged, mask = BRATS.merged(mapping), np.array([0, 1, 2, 3, 4])
    names = [BRATS.names[c] for c in BRATS.to_classes(mask, "x")]
    assert [merged.names[c] for c in merged.to_classes(mask, "x")] == [mapping.get(n, "background") for n in names]
    for region, members in merged.regions:  # a region that is kept is where it was, but for dropped classes
        old = dict(BRATS.regions).get(region)
        if old is not None:
            kept = {mapping[name] for name in old if mapping[name] != "background"}
            assert set(members) == kept


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"oedma": "x", "*": "y"}, "did you mean 'oedema'"),
        ({"oedema": "x"}, "necrosis, enhancing not mapped"),
        ({"background": "x", "*": "y"}, "unknown mask class 'background'"),
    ],
)
def test_a_mapping_that_leaves_questions_is_refused(mapping, said):
    with pytest.raises(UserError, match=said):
        BRATS.merged(mapping)


@pytest.mark.parametrize("labels", [BRATS, MaskLabels.binary(), BRATS.merged({"oedema": "background", "*": "x"})])
def test_json_keeps_all(labels):
    assert MaskLabels.from_json(json.loads(json.dumps(labels.to_json(), sort_keys=True))) == labels


@pytest.mark.parametrize("data", [None, {}, {"names": 3}, {"names": ["background"], "values": [], "regions": [1]}])
def test_other_json_is_refused_by_name(data):
    with pytest.raises(UserError, match=r"plan\.json"):
        MaskLabels.from_json(data, "plan.json")


def test_classes_fit_a_mask_of_bytes():
    labels = MaskLabels.create({f"c{v}": v for v in range(1, 255)})
    assert labels.to_classes(np.array([254]), "x") == [254]
    with pytest.raises(UserError, match="255 are given; at most 254"):
        MaskLabels.create({f"c{v}": v for v in range(1, 256)})
