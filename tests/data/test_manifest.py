"""The manifest: a checked table that survives being written and read."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels


def small(**columns):
    table = {"sample": ["a", "b", "c"], "image": ["a.png", "b.png", "c.png"], "label": ["no", "yes", None], **columns}
    return pd.DataFrame({name: values for name, values in table.items() if values is not None})


def test_fills_in_what_a_table_lacks_and_keeps_what_it_adds():
    manifest = Manifest.create(small(age=[60, 61, 62]), "scans", "mine")
    assert len(manifest) == 3
    assert manifest.classes == ("no", "yes")
    assert manifest.labels.tolist() == [0, 1, -1]
    assert manifest.channels == ("image",)
    assert manifest.locations(1) == ["b.png"]
    assert manifest.table["subject"].isna().all()
    assert manifest.table["age"].tolist() == [60, 61, 62]


def test_one_column_per_channel():
    table = small(image=None).assign(**{"image:flair": ["f1", "f2", "f3"], "image:t1": ["t1", "t2", "t3"]})
    manifest = Manifest.create(table, ".", "mine")
    assert manifest.channels == ("flair", "t1")
    assert manifest.locations(2) == ["f3", "t3"]


def test_whole_numbers_stay_what_was_written():
    manifest = Manifest.create(small(subject=[7, None, 12]), ".", "mine")
    assert manifest.table["subject"].fillna("").tolist() == ["7", "", "12"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": None, "smaple": [1, 2, 3]}, "mine: the column 'sample' is missing; rename 'smaple'"),
        ({"image": None}, "the column 'image' is missing"),
        ({"sample": ["a", "a", "b"]}, "row 3: sample 'a' is there twice"),
        ({"image": ["a.png", None, "c.png"]}, "row 3: 'image' is empty"),
        ({"split": ["train", "trian", "test"]}, "row 3: split is 'trian'; it must be train, validation, test"),
        ({"spacing_x": [1.0, "wide", 1.0]}, "row 3: spacing_x is 'wide'"),
        ({"spacing_y": [1.0, 1.0, -1.0]}, "row 4: spacing_y is '-1.0'"),
        ({"image:t1": ["a", "b", "c"]}, "give either the column 'image' or image:t1"),
    ],
)
def test_every_mistake_names_its_column_and_row(change, message):
    with pytest.raises(UserError) as error:
        Manifest.create(small(**change), ".", "mine")
    assert message in str(error.value)


def test_a_label_that_is_no_class_is_named():
    with pytest.raises(UserError, match="row 3: unknown label 'yes': did you mean 'yess'"):
        Manifest.create(small(), ".", "mine", classes=["no", "yess"])


def test_mapping_merges_labels_in_the_order_of_the_mapping():
    manifest = Manifest.create(small(label=["glioma", "no_tumor", "pituitary"]), ".", "mine")
    mapped = manifest.map_labels({"no_tumor": "no", "*": "tumour"})
    assert mapped.classes == ("no", "tumour")
    assert mapped.labels.tolist() == [1, 0, 1]


def test_mapping_names_what_it_does_not_know_or_leaves_out():
    manifest = Manifest.create(small(), ".", "mine")
    with pytest.raises(UserError, match="unknown label 'yess': did you mean 'yes'"):
        manifest.map_labels({"yess": "tumour", "*": "no"})
    with pytest.raises(UserError, match="no of mine not mapped"):
        manifest.map_labels({"yes": "tumour"})


def test_take_and_groups():
    manifest = Manifest.create(small(), ".", "mine").with_groups(["", "g", "g"])
    assert manifest.table["group"].isna().tolist() == [True, False, False]
    taken = manifest.take([2, 0])
    assert taken.table["sample"].tolist() == ["c", "a"]
    assert taken.labels.tolist() == [-1, 0]
    assert manifest.take(np.array([True, False, True])).table["sample"].tolist() == ["a", "c"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_saved_and_loaded_it_is_the_same(tmp_path, suffix):
    table = small(subject=["007", None, "NA"], label=["yes", "None", "yes"], spacing_x=[0.5, None, 1], extra=[1, 2, 3])
    manifest = Manifest.create(table, tmp_path / "scans", "mine", classes=["yes", "None"])
    loaded = Manifest.load(manifest.save(tmp_path / "tables" / f"mine.{suffix}"))
    assert loaded.name == "mine"
    assert loaded.classes == ("yes", "None")  # not sorted: the order says which class is which
    moved = pd.array([f"../scans/{name}.png" for name in "abc"], dtype="string")
    expected = manifest.table.assign(image=moved)
    pd.testing.assert_frame_equal(loaded.table, expected)
    assert (loaded.root / loaded.locations(0)[0]).resolve() == tmp_path / "scans" / "a.png"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_meaning_of_masks_is_kept(tmp_path, suffix):
    labels = MaskLabels.create({"ödem": 2, "kern": [1, 4]}, {"alles": ["ödem", "kern"]})
    manifest = Manifest.create(small(mask=["a", "b", None]), tmp_path, "mine", mask_labels=labels)
    assert manifest.take([1]).mask_labels == labels
    assert manifest.with_groups(["", "", ""]).mask_labels == labels
    assert manifest.map_labels({"*": "all"}).mask_labels == labels
    loaded = Manifest.load(manifest.save(tmp_path / f"mine.{suffix}"))
    assert loaded.mask_labels == labels
    pd.testing.assert_frame_equal(loaded.table, manifest.table)
    described = loaded.describe()
    assert described["mask_classes"] == ["background", "ödem", "kern"]
    assert described["mask_regions"] == ["alles"]
    assert described["channels"] == ["image"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["{}", "{}", "{}"], "description of mask classes"),
        (["{", "{", "{"], "not valid JSON"),
        (["{}", "[]", "{}"], "same text in every row"),
    ],
)
def test_a_column_mask_labels_that_says_nothing_is_refused(tmp_path, texts, said):
    small(mask_labels=texts).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(UserError, match=said) as error:
        Manifest.load(tmp_path / "mine.csv")
    assert "mine.csv" in str(error.value)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*"xyz", None]), min_size=1, max_size=8),
    st.lists(st.one_of(st.none(), st.text("aZ07 ,\"'#é", min_size=1).filter(str.strip)), min_size=8, max_size=8),
)
def test_any_text_survives_a_csv(tmp_path_factory, labels, subjects):
    table = pd.DataFrame(
        {
            "sample": range(len(labels)),
            "image": [f"{i}.nii#index={i}" for i in range(len(labels))],
            "label": labels,
            "subject": subjects[: len(labels)],
        }
    )
    manifest = Manifest.create(table, folder := tmp_path_factory.mktemp("csv"), "mine")
    loaded = Manifest.load(manifest.save(folder / "mine.csv"))
    pd.testing.assert_frame_equal(loaded.table, manifest.table)
    assert loaded.classes == manifest.classes


def test_describe_counts_classes_splits_and_subjects():
    table = small(subject=["s", "s", "t"], split=["train", "test", "test"], label=["no", "yes", "yes"])
    described = Manifest.create(table, ".", "mine", notes=["a note"]).describe()
    assert described["samples"] == 3
    assert described["subjects"] == 2
    assert described["splits"] == {"train": 1, "test": 2}
    assert described["classes"]["yes"] == {"samples": 2, "subjects": 2, "splits": {"test": 2}}
    assert described["notes"] == ["a note"]


def test_a_table_that_is_none_is_refused(tmp_path):
    (tmp_path / "empty.csv").write_text("sample,image\n")
    (tmp_path / "damaged.parquet").write_text("not a table")
    for name, message in [
        ("empty.csv", "no rows"),
        ("damaged.parquet", "cannot be read"),
        ("none.csv", "no such file"),
        ("table.xlsx", "must end in"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            Manifest.load(tmp_path / name)
        assert name in str(error.value)
