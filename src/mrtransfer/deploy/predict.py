"""Apply a study's model to new images, prepared exactly as those it was trained on."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import read_json
from mrtransfer.data.harmonised import harmonised_images
from mrtransfer.data.harmoniser import FittedHarmoniser
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.store import open_store
from mrtransfer.deploy.locate import find_images
from mrtransfer.models.package import load_model
from mrtransfer.training.fit import predict

SEEN = "this image was part of the training data"


def model_folder(path: str | Path) -> Path:
    """The model folder at ``path``: itself, or the best model of the study folder ``path``."""
    path = Path(path)
    for folder in (path, path / "model"):
        if (folder / "model.json").is_file():
            return folder
    if not path.exists():
        raise UserError(f"{path}: no such model; give a model folder or the folder of a study")
    raise UserError(
        f"{path}: holds no model.json, so it is no model; give a model folder or the folder of a finished study"
    )


def model_task(path: str | Path) -> str:
    """What the model at ``path`` (see :func:`model_folder`) was trained for: ``classification``, …"""
    spec = read_json(model_folder(path) / "model.json")
    return str(spec.get("task", "classification")) if isinstance(spec, dict) else "classification"


def harmoniser_of(spec: Mapping[str, Any], folder: Path) -> FittedHarmoniser | None:
    """What scans pass through before the model that ``spec`` describes sees them; None where they stay as they are."""
    if spec.get("harmonise") is None:
        return None
    return FittedHarmoniser.from_json(spec["harmonise"], f"{folder / 'model.json'}: harmonise")


def predict_images(
    model: str | Path, images: Iterable[str | Path], *, device: str = "auto", batch: int = 64
) -> list[dict[str, Any]]:
    """Class probabilities for every image that ``images`` mean (see :func:`~mrtransfer.deploy.locate.find_images`).

    One dictionary per image: ``image`` (location), ``predicted`` (class), ``probabilities`` (class → value, they add up
    to 1) and ``warning`` (a sentence, or None). ``model`` is a model folder or a study folder. Raises
    :class:`UserError` that names whatever cannot be read.
    """
    loaded = load_model(model_folder(model))
    locations = find_images(images)
    if not locations:
        raise UserError("no images given; name files, folders or patterns")
    manifest = Manifest.create(pd.DataFrame({"sample": locations, "image": locations}), Path.cwd(), "images")
    spec = loaded.spec
    with TemporaryDirectory(prefix="mrtransfer-") as scratch:
        store = open_store(manifest, size=spec["size"], fit=spec["fit"], directory=scratch)
        digests = store.row_digests  # the training data are known by their pixels before they are harmonised
        fitted = harmoniser_of(spec, model_folder(model))
        store = store if fitted is None else harmonised_images(store, fitted, scratch)
        probabilities = predict(
            loaded.network, loaded.head, store, np.arange(len(store)), input=spec["input"], device=device, batch=batch
        )
    seen = set(spec["provenance"].get("row_digests", ()))
    return [
        {
            "image": location,
            "predicted": spec["classes"][int(row.argmax())],
            "probabilities": {name: float(p) for name, p in zip(spec["classes"], row, strict=True)},
            "warning": SEEN if digest in seen else None,
        }
        for location, row, digest in zip(locations, probabilities, digests, strict=True)
    ]
