"""One feature of two domains, and one distance between them: the cells of which a comparison is made."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path, digest, file_digest
from mrtransfer.common.strict import Strict
from mrtransfer.shift.distance import Distance, measure
from mrtransfer.shift.feature import Feature, FittedFeature
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


def with_settings(words: str, chosen: Strict) -> str:
    """``words`` and the settings that are not what they are by default: ``mmd (kernel linear)``."""
    fields = type(chosen).model_fields
    told = [
        f"{key} {value}"
        for key, value in chosen
        if isinstance(value, str | int | float) and value != fields[key].get_default()
    ]
    return f"{words} ({', '.join(told)})" if told else words


def tables_of(fitted: FittedFeature, source: Slices, target: Slices, directory: Path) -> Tables:
    """The feature's tables (n, d) and (m, d).

    They are kept in ``directory``, named by what defines them: what was learned, the pixels, the code of the feature.
    """
    return _table(fitted, source, directory), _table(fitted, target, directory)


def _table(fitted: FittedFeature, domain: Slices, directory: Path) -> np.ndarray:
    code = [file_digest(file) for file in _files_of(fitted.feature)]
    sizes = [repr(millimetres) for millimetres in domain.pixel.tolist()]
    file = directory / f"{fitted.feature.name}-{digest([fitted.to_json(), domain.content, sizes, code])}.npy"
    found = _kept(file, len(domain))
    if found is None:
        found = fitted(domain)
        with atomic_path(file) as temporary, open(temporary, "wb") as out:
            np.save(out, found, allow_pickle=False)
    return found


def _files_of(feature: Feature) -> list[Path]:
    """The feature's own code, and that of what it takes from elsewhere in the package."""
    own = type(feature).__module__
    used = {str(getattr(value, "__module__", "")) for value in vars(sys.modules[own]).values()}
    modules = [sys.modules[name] for name in sorted({own, *used}) if name.startswith(f"{__package__.split('.')[0]}.")]
    return [Path(str(module.__file__)) for module in modules]


def _kept(file: Path, rows: int) -> np.ndarray | None:
    """The table in ``file``; None where it is missing or damaged."""
    try:
        found: np.ndarray = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and len(found) == rows else None


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
