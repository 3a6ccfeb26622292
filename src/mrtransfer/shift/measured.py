"""One feature of two domains, and one distance between them: the cells of which a comparison is made."""

import inspect
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path, digest, file_digest
from mrtransfer.shift.distance import Distance, measure
from mrtransfer.shift.feature import Feature
from mrtransfer.shift.settings import ShiftSettings
from mrtransfer.shift.slices import Slices

Tables = tuple[np.ndarray, np.ndarray]
EXACTLY_THE_SAME = "the feature is exactly the same in both domains"


def feature_names(features: Sequence[Feature]) -> list[str]:
    """A name for each: the feature's own, numbered where the same one is there with several settings."""
    own = [feature.name for feature in features]
    return [
        name if own.count(name) == 1 else f"{name}-{own[: place + 1].count(name)}" for place, name in enumerate(own)
    ]


def tables_of(feature: Feature, source: Slices, target: Slices, directory: Path) -> Tables:
    """The feature's tables (n, d) and (m, d), learned where need be of both domains together.

    They are kept in ``directory``, named by what defines them: settings, pixels, and the code of the feature.
    """
    code = [file_digest(file) for file in _files_of(feature)]
    domains = [[domain.content, [repr(mm) for mm in domain.pixel.tolist()]] for domain in (source, target)]
    file = directory / f"{feature.name}-{digest([feature.model_dump(mode='json'), domains, code])}.npz"
    found = _kept(file)
    if found is None:
        fitted = feature.fit(source, target)
        found = fitted(source), fitted(target)
        with atomic_path(file) as temporary, open(temporary, "wb") as out:
            np.savez(out, x=found[0], y=found[1])
    return found


def _files_of(feature: Feature) -> list[Path]:
    """The feature's own code, and that of what all features share."""
    own = Path(inspect.getfile(type(feature)))
    here = Path(__file__).parent
    return [own, here / "feature.py", here / "foreground.py"]


def _kept(file: Path) -> Tables | None:
    """The tables in ``file``; None where it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as found:
            return found["x"], found["y"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def measured(
    name: str, distance: Distance, tables: Tables, source: Slices, target: Slices, settings: ShiftSettings
) -> dict[str, Any]:
    """What :func:`~mrtransfer.shift.distance.measure` finds, by name.

    Tables that hold the same rows are no mistake here: ranks, for one, do not change with gamma. The distance is then
    0 and p is 1. Raises :class:`UserError` that names the feature.
    """
    if same_rows(*tables):
        return _nothing(distance)
    try:
        found = measure(
            distance,
            *tables,
            source.subjects,
            target.subjects,
            permutations=settings.permutations,
            resamples=settings.resamples,
            seed=settings.seed,
        )
    except UserError as error:
        raise UserError(f"feature {name} (X: source, Y: target): {error}") from error
    return asdict(found)


def same_rows(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether both tables hold the same rows in some order: the feature does not see what was changed."""
    return x.shape == y.shape and sorted(row.tobytes() for row in x) == sorted(row.tobytes() for row in y)


def _nothing(distance: Distance) -> dict[str, Any]:
    found: dict[str, Any] = {"distance": distance.model_dump(mode="json"), "words": distance.words}
    found |= dict.fromkeys(("value", "low", "high"), 0.0) | {"p": 1.0, "normalised": None}
    return found | {"details": {"note": EXACTLY_THE_SAME}}
