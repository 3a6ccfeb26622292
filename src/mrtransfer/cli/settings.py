"""Names with settings on the command line: ``dataset:path?option=value&option=value``, ``mmd?kernel=linear``."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrtransfer.common.errors import UserError, unknown_name

if TYPE_CHECKING:
    from mrtransfer.data.manifest import Manifest

_FORM = "dataset:path?option=value&option=value"
_WORDS = {"true": True, "false": False, "null": None}


def read_domain(text: str, argument: str) -> "Manifest":
    """The dataset that ``text`` names: a path, ``dataset:path``, or either with ``?option=value&option=value``.

    A path alone is a table (.csv, .parquet) or else a folder with a subfolder per class. ``labels.<old>=<new>`` renames
    labels, as in a recipe. Raises :class:`UserError` that begins with ``argument``.
    """
    from pydantic import ValidationError

    from mrtransfer.common.strict import first_error
    from mrtransfer.study.domain import read_dataset
    from mrtransfer.study.recipe import DatasetSpec

    where, mark, options = text.partition("?")
    dataset, path = _dataset_and_path(where, argument)
    given = read_settings(options, argument) if mark else {}
    for key in ("dataset", "path"):
        if key in given:
            raise UserError(f"{argument}: {key} is said before the question mark: {_FORM}")
    try:
        spec = DatasetSpec.model_validate({"dataset": dataset, "path": path, **given})
    except ValidationError as error:
        raise first_error(error, argument) from error
    try:
        manifest = read_dataset(spec)
        return manifest.map_labels(spec.labels) if spec.labels else manifest
    except UserError as error:
        raise UserError(f"{argument}: {error}") from error


def _dataset_and_path(where: str, argument: str) -> tuple[str, str | None]:
    from mrtransfer.data.datasets import DATASETS

    dataset, colon, path = where.partition(":")
    if colon and dataset in DATASETS:
        return dataset, path or None
    if not where:
        raise UserError(f"{argument}: is empty; give a path, or {_FORM}")
    if Path(where).exists() or not colon:
        if not Path(where).exists() and where in DATASETS:
            raise UserError(f"{argument}: there is no file or folder {where}; a dataset's name takes a colon, {where}:")
        return "table" if Path(where).suffix in (".csv", ".parquet") else "folder", where
    raise UserError(f"{argument}: {unknown_name('dataset', dataset, DATASETS.names())}")


def read_named(texts: list[str], argument: str) -> list[dict[str, Any]]:
    """Names with their settings; each of ``texts`` is ``name,name`` or ``name?key=value&key=value``."""
    found: list[dict[str, Any]] = []
    for text in texts:
        name, mark, settings = text.partition("?")
        if mark:
            found.append({**read_settings(settings, argument), "name": name.strip()})
        else:
            found += [{"name": one.strip()} for one in name.split(",") if one.strip()]
    return found


def read_settings(text: str, argument: str) -> dict[str, Any]:
    """``key=value&key=a,b&outer.inner=value`` as a mapping: numbers, true, false and null are read, commas separate."""
    found: dict[str, Any] = {}
    for part in text.split("&"):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{argument}: {part!r} is no option=value; write {_FORM}")
        *outer, last = key.strip().split(".")
        inner = found
        for name in outer:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise UserError(f"{argument}: {key} is given both as a value and as a mapping")
        if last in inner:
            raise UserError(f"{argument}: {key} is given twice; for a list, separate values by commas")
        inner[last] = [_value(one) for one in value.split(",")] if "," in value else _value(value)
    return found


def _value(text: str) -> Any:
    """A number, true, false, null, or the text as it is: a pattern such as ``*/FLAIR.nii.gz`` is no YAML."""
    if text in _WORDS:
        return _WORDS[text]
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d*\.?\d+([eE][-+]?\d+)?", text) else text
