"""A user's own table."""

import pandas as pd
import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.table import table
from mrtransfer.data.mask_labels import MaskLabels

ROWS = {
    "sample": ["a", "b"],
    "image": ["x/a.png", "b.png"],
    "label": ["yes", "no"],
    "subject": ["s", "s"],
    "age": [1, 2],
}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_paths_are_relative_to_the_table_and_further_columns_are_kept(tmp_path, suffix):
    path = tmp_path / f"mine.{suffix}"
    frame = pd.DataFrame(ROWS)
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    manifest = table(path)
    assert manifest.name == "mine"
    assert manifest.root / manifest.locations(0)[0] == tmp_path / "x" / "a.png"
    assert manifest.classes == ("no", "yes")
    assert manifest.table["age"].tolist() == [1, 2]
    assert table(path, classes=["yes", "no"]).labels.tolist() == [0, 1]


def test_mistakes_name_file_column_and_row(tmp_path):
    path = tmp_path / "mine.csv"
    pd.DataFrame(ROWS).rename(columns={"image": "imgae"}).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"mine.csv: the column 'image' is missing; rename 'imgae'\?"):
        table(path)
    pd.DataFrame({**ROWS, "split": ["train", "holdout"]}).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"mine.csv: row 3: split is 'holdout'"):
        table(path)


def test_two_labels_for_one_subject_can_be_forbidden(tmp_path):
    path = tmp_path / "mine.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    assert len(table(path)) == 2
    with pytest.raises(UserError, match="subject s is labelled no and yes"):
        table(path, one_label_per_subject=True)


def test_classes_that_leave_out_a_label_are_refused(tmp_path):
    path = tmp_path / "mine.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    with pytest.raises(UserError, match="unknown label 'no'"):
        table(path, classes=["yes"])


def test_the_meaning_of_masks_is_given_kept_or_said(tmp_path):
    rows = pd.DataFrame({"sample": ["a", "b"], "image": ["a.png", "b.png"], "mask": ["a_m.png", None]})
    rows.to_csv(tmp_path / "mine.csv", index=False)
    unknown = table(tmp_path / "mine.csv")
    assert unknown.mask_labels == MaskLabels.binary("foreground")
    assert "mask_classes" in unknown.notes[0]
    given = table(tmp_path / "mine.csv", mask_classes={"core": 1, "rim": [2, 3]}, mask_regions={"all": ["core", "rim"]})
    assert given.mask_labels.values == ((0,), (1,), (2, 3))
    assert given.mask_labels.region_names == ("all",)
    assert table(given.save(tmp_path / "saved.csv")).mask_labels == given.mask_labels
    with pytest.raises(UserError, match="mask_regions needs mask_classes"):
        table(tmp_path / "mine.csv", mask_regions={"all": ["core"]})
    rows.drop(columns="mask").to_csv(tmp_path / "none.csv", index=False)
    assert table(tmp_path / "none.csv").mask_labels is None
