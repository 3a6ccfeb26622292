"""Reading a recipe: a bundled name, a YAML file or a dictionary, with profile, phantom and overrides laid over it."""

from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.strict import first_error
from mrtransfer.study.recipe.base import Recipe
from mrtransfer.study.recipe.specs import WAYS_TO_SPLIT

BUNDLED = Path(__file__).parents[2] / "recipes"
TASKS = MappingProxyType(
    {
        "classification": "ClassificationRecipe",
        "segmentation": "SegmentationRecipe",
        "reconstruction": "ReconstructionRecipe",
    }
)
"""Task to the class of its recipes, which lies in the module of the task's name beside this one."""


def bundled_recipes() -> dict[str, Path]:
    """Name to file of the recipes that ship with the package."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.yaml"))}


def load_recipe(recipe: str | Path, overrides: list[str] | tuple[str, ...] = (), profile: str | None = None) -> Recipe:
    """Read a recipe (a bundled name or a YAML file), then one of its profiles, then ``key.path=value`` overrides.

    Raises :class:`UserError` that names the file and key of the first problem.
    """
    path = bundled_recipes().get(str(recipe), Path(recipe))
    if not path.is_file():
        if path.suffix in (".yaml", ".yml"):
            raise UserError(f"{path}: no such recipe file; bundled recipes: {', '.join(bundled_recipes())}")
        raise unknown_name("recipe", str(recipe), bundled_recipes())
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: a recipe is a mapping with keys such as question, target and arms")
    return parse_recipe({"name": path.stem, **data}, overrides, profile, where=path.name)


def parse_recipe(
    data: dict[str, Any], overrides: list[str] | tuple[str, ...] = (), profile: str | None = None, where: str = "recipe"
) -> Recipe:
    """Check a recipe given as a dictionary (see :func:`load_recipe`).

    The block ``phantom`` is laid over the recipe where no ``target.path`` is given: the built-in phantom then stands in
    for the data, and for pretrained weights that would have to be downloaded.
    """
    data = dict(data)
    profiles = data.pop("profiles", None) or {}
    if profile is not None and profile not in profiles:
        raise unknown_name(f"profile of {where}", profile, profiles)
    if profiles:
        data = _merged(data, profiles[profile or next(iter(profiles))])
    given = _given(overrides)
    phantom = data.pop("phantom", None)
    if phantom and not (data.get("target", {}).get("path") or given.get("target", {}).get("path")):
        data = _merged(data, phantom)
    data = _merged(data, given)
    try:
        return _kind_of(data, where).model_validate(data)
    except ValidationError as error:
        raise first_error(error, where) from error


def _kind_of(data: dict[str, Any], where: str) -> type[Recipe]:
    """The class of recipes of the task that ``data`` names."""
    task = str(data.get("task", "classification"))
    if task not in TASKS:
        raise UserError(f"{where}: {unknown_name('task', task, TASKS)}")
    kind: type[Recipe] = getattr(import_module(f"mrtransfer.study.recipe.{task}"), TASKS[task])
    return kind


def _given(overrides: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """All ``key.path=value`` together, so that their order does not matter."""
    given: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {override}: write key.path=value, for example --set target.path=scans")
        try:
            given = _merged(given, _nested(key.strip().split("."), yaml.safe_load(value)))
        except yaml.YAMLError as error:
            raise UserError(f"--set {override}: the value is not valid YAML") from error
    return given


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: _nested(keys[1:], value) if len(keys) > 1 else value}


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` laid over it, mapping by mapping.

    Naming another method, network or dataset drops the settings of the former one, which the new one would refuse; and
    another way to split takes the place of the former.
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, str) and isinstance(value, dict) and key in ("method", "network"):
            old = {"name": old}
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merged(_kept(old, value), value)
        else:
            merged[key] = value
    return merged


def _kept(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    if "name" in new and new["name"] != old.get("name", new["name"]):
        return {}
    if "dataset" in new and new["dataset"] != old.get("dataset", new["dataset"]):
        return {key: old[key] for key in ("split", "method", "weights", "augment") if key in old}
    if any(way in new for way in WAYS_TO_SPLIT):
        return {key: value for key, value in old.items() if key not in WAYS_TO_SPLIT}
    return old
