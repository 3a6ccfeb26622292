"""A user's own table."""

import pandas as pd
import pytest

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.table import table

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
