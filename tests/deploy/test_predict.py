"""Prediction prepares images as training did, and says what it should about them."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mrtransfer.augment.prepare import to_input
from mrtransfer.cli.main import app
from mrtransfer.common.errors import UserError
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.pixels import prepare
from mrtransfer.data.store import open_store
from mrtransfer.deploy.predict import SEEN, model_folder, predict_images
from mrtransfer.models.network import build_network
from mrtransfer.models.package import save_model
from mrtransfer.tasks.classification.heads import build_head

CLASSES = ["glioma", "meningioma", "no [tumour]"]
SIZE, FIT, INPUT = 32, "pad", {"channels": 3, "normalise": "imagenet"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of several formats, and a model that was trained on the first of them."""
    folder = tmp_path_factory.mktemp("predict")
    generator = np.random.default_rng(0)
    (folder / "scans").mkdir()
    for name, shape in (("a.png", (40, 30)), ("b.jpg", (50, 64)), ("c [1].png", (30, 30, 3))):
        Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8)).save(folder / "scans" / name)
    deep = Image.fromarray(generator.integers(0, 4000, (30, 30)).astype(np.uint16))
    deep.save(folder / "deep.png")
    volume = generator.normal(size=(20, 24, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / "volume.nii.gz")
    manifest = Manifest.create(pd.DataFrame({"sample": ["a"], "image": ["scans/a.png"]}), folder, "x")
    seen = open_store(manifest, size=SIZE, fit=FIT, directory=folder / "store").row_digests.tolist()
    network = build_network("cbr_tiny", in_channels=3, seed=1)
    save_model(
        folder / "study" / "model",
        network,
        build_head("linear", network.features, len(CLASSES), seed=2),
        {
            "task": "classification",
            "size": SIZE,
            "fit": FIT,
            "input": INPUT,
            "classes": CLASSES,
            "provenance": {"row_digests": seen},
        },
    )
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def by_hand(place, image: np.ndarray) -> np.ndarray:
    """Probabilities of one image without store, batches or precision."""
    from mrtransfer.models.package import load_model

    model = load_model(place / "study" / "model")
    pixels = torch.from_numpy(prepare([image], size=SIZE, fit=FIT)[None])
    with torch.no_grad():
        return model.head(model.network(to_input(pixels, **INPUT)))[0].softmax(0).numpy()


def test_probabilities_are_those_of_the_network_on_the_prepared_image(here):
    found = {row["image"]: row for row in predict_images("study", ["scans", "deep.png"])}
    assert list(found) == ["scans/a.png", "scans/b.jpg", "scans/c [1].png", "deep.png"]
    for name, row in found.items():
        expected = by_hand(here, np.asarray(Image.open(here / name)))
        assert list(row["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        assert row["predicted"] == CLASSES[int(expected.argmax())]


def test_an_image_does_not_depend_on_its_company(here):
    alone = predict_images("study", ["scans/a.png"])[0]
    together = predict_images("study", ["deep.png", "scans/c [1].png", "scans/a.png"])[2]
    assert together["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-6)


def test_only_an_image_of_the_training_data_is_pointed_out(here):
    Image.open("scans/a.png").save("copy.bmp")
    warned = {
        row["image"]: row["warning"] for row in predict_images("study", ["copy.bmp", "scans/a.png", "scans/b.jpg"])
    }
    assert warned == {"copy.bmp": SEEN, "scans/a.png": SEEN, "scans/b.jpg": None}


def test_every_slice_of_a_volume_is_a_row(here):
    rows = predict_images("study", ["volume.nii.gz"])
    assert [row["image"] for row in rows] == [f"volume.nii.gz#axis=2&index={k}" for k in range(3)]
    one = predict_images("study", ["volume.nii.gz#axis=2&index=1"])[0]
    assert one["probabilities"] == pytest.approx(rows[1]["probabilities"], abs=1e-6)


def test_a_dicom_image_is_predicted(here):
    pydicom = pytest.importorskip("pydicom")
    row = predict_images("study", [pydicom.examples.get_path("mr")])[0]
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_a_model_folder_and_its_study_folder_mean_the_same(here):
    assert model_folder("study") == model_folder("study/model")


@pytest.mark.parametrize(("name", "said"), [("nowhere", "no such model"), ("scans", "holds no model.json")])
def test_a_folder_without_a_model_is_refused(here, name, said):
    with pytest.raises(UserError, match=said):
        predict_images(name, ["deep.png"])


def test_a_damaged_image_is_named(here, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("hello")
    with pytest.raises(UserError, match=r"broken\.png"):
        predict_images("study", ["deep.png", broken])


def test_the_command_prints_a_table_with_warnings_below(here):
    result = CliRunner().invoke(app, ["predict", "study", "scans"], env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    assert "c [1].png" in result.stdout  # without the folder that all images share
    assert "no [tumour]" in result.stdout
    assert f"scans/a.png: {SEEN}" in result.stdout


def test_the_command_writes_what_it_prints_as_json(here, tmp_path):
    result = CliRunner().invoke(app, ["predict", "study", "scans", "--json", "-o", str(tmp_path / "out.json")])
    assert json.loads(result.stdout) == json.loads((tmp_path / "out.json").read_text())


def test_the_command_writes_csv_with_a_column_per_class(here, tmp_path):
    result = CliRunner().invoke(app, ["predict", "study", "deep.png", "-o", str(tmp_path / "out.csv")])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table.columns) == ["image", "predicted", *CLASSES, "warning"]
    assert table[CLASSES].sum(axis=1).tolist() == pytest.approx([1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study", "deep.png", "-o", "out.xlsx"], "must end in .csv or .json"),
        (["study", "nothing.png"], "nothing.png"),
        (["nowhere", "deep.png"], "no such model"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(here, arguments, said):
    result = CliRunner().invoke(app, ["predict", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
