"""The recipe: a YAML file that describes a study, checked in full before anything runs."""

import inspect
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from mrtransfer.augment.image import Augment
from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.strict import Strict, first_error, unknown_key
from mrtransfer.data.datasets import DATASETS
from mrtransfer.study.vary import crossed_arms
from mrtransfer.transfer.method import Method, parse_method

Budget = int | Literal["all"]
BUNDLED = Path(__file__).parents[1] / "recipes"


def _parsed_method(value: Any) -> Method:
    """A method; a mistake in it becomes part of the sentence about the recipe."""
    try:
        return parse_method(value)
    except UserError as error:
        raise ValueError(str(error).removeprefix("method: ").removeprefix("method ")) from error


class SplitSpec(Strict):
    """How subjects are divided: cross-validation (``folds``), one held-out set (``test``), or as ``published``."""

    by: tuple[str, ...] = ("subject", "cluster")
    folds: int | None = Field(None, ge=2)
    test: float | None = Field(None, gt=0, lt=1)
    published: Literal["refuse", "drop"] | None = None
    validation: float = Field(0.15, ge=0, lt=0.9)
    seed: int = 0

    @property
    def fold_count(self) -> int:
        """Folds of the cross-validation that is done where nothing else is asked for."""
        return self.folds or 5

    @model_validator(mode="after")
    def _one_way(self) -> "SplitSpec":
        given = [name for name in ("folds", "test", "published") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of folds, test and published, not {' and '.join(given)}")
        return self


class DatasetSpec(Strict):
    """A domain: a registered dataset, where it lies, its own options, and how its labels are read."""

    dataset: str
    path: str | None = None
    labels: dict[str, str] | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        """Keys beside our own are the dataset's options, and must be parameters of its function."""
        if not isinstance(data, dict) or "dataset" not in data:
            return data
        if data["dataset"] not in DATASETS:
            raise ValueError(str(unknown_name("dataset", data["dataset"], DATASETS.names())))
        accepted = [name for name in inspect.signature(DATASETS.get(data["dataset"])).parameters if name != "path"]
        own = {key: value for key, value in data.items() if key in cls.model_fields and key != "options"}
        options = {**data.get("options", {}), **{k: v for k, v in data.items() if k not in cls.model_fields}}
        for key in options:
            if key not in accepted:
                raise ValueError(unknown_key(key, [*(f for f in cls.model_fields if f != "options"), *accepted]))
        return {**own, "options": options}


class TargetSpec(DatasetSpec):
    """The domain in which the question is asked."""

    split: SplitSpec = SplitSpec()


class SourceSpec(DatasetSpec):
    """The domain that is learned first, for ``weights: source``."""

    method: Method = Field(default_factory=lambda: parse_method("scratch"))
    weights: str | dict[str, Any] = "random"
    augment: Augment = Augment()
    validation: float = Field(0.15, gt=0, lt=0.9)
    seed: int = 0

    @field_validator("method", mode="before")
    @classmethod
    def _method(cls, value: Any) -> Method:
        method = _parsed_method(value)
        if method.cached:
            raise ValueError(f"{method.name} changes no network; a source is learned with scratch or fine_tune")
        return method


class InputSpec(Strict):
    """What every network of the study sees."""

    size: int = Field(224, ge=16, le=1024)
    fit: Literal["stretch", "pad"] = "stretch"
    channels: int = Field(3, ge=1)


class NetworkSpec(Strict):
    """A network of our own or any timm model, whole or up to a named stage."""

    name: str
    until: str | None = None


class ArmSpec(Strict):
    """One way to do it: network, initial weights, method, and what the network is shown."""

    network: NetworkSpec
    weights: str | dict[str, Any] = "random"
    method: Method
    normalise: Literal["imagenet", "half", "unit", "instance"] = "imagenet"
    augment: Augment = Augment()

    @property
    def starts_from_source(self) -> bool:
        """Whether the initial weights come from a training on the source domain."""
        return self.weights == "source" or (isinstance(self.weights, dict) and self.weights.get("kind") == "source")

    @field_validator("network", mode="before")
    @classmethod
    def _network(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("method", mode="before")
    @classmethod
    def _method(cls, value: Any) -> Method:
        return _parsed_method(value)

    @model_validator(mode="after")
    def _flips_only_where_features_are_kept(self) -> "ArmSpec":
        moved = [name for name, value in self.augment.model_dump().items() if value and name != "hflip"]
        if self.method.cached and moved:
            raise ValueError(
                f"augment.{moved[0]} cannot be used with a method on frozen features, which are computed once "
                "per image; only hflip can (both views are kept)"
            )
        return self


class Recipe(Strict):
    """A whole study: the question, the domains, the arms, how many labels, how often, and what difference matters."""

    question: str
    name: str = "study"
    topic: str = "Transfer"
    """What is being tried, as the verdict's sentence begins with it: "Transfer helps: …"."""
    task: Literal["classification"] = "classification"
    target: TargetSpec
    source: SourceSpec | None = None
    input: InputSpec = InputSpec()
    shared: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, ArmSpec]
    vary: dict[str, Any] | None = None
    budgets: tuple[Budget, ...] = ("all",)
    seeds: tuple[int, ...] = (0,)
    compare: tuple[tuple[str, str], ...] = ()
    metric: str = "accuracy"
    margin: float = Field(0.01, ge=0)
    resamples: int = Field(2000, ge=100)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _arms_from_vary(cls, data: Any) -> Any:
        """``shared`` fills what an arm leaves out; ``vary`` crosses fields into arms."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        shared = data.get("shared") or {}
        if data.get("vary"):
            if data.get("arms"):
                raise ValueError("give arms or vary, not both")
            data["arms"] = crossed_arms(data["vary"])
        arms = data.get("arms")
        if not isinstance(arms, dict) or not arms:
            raise ValueError(
                "arms: at least one is needed, for example {scratch: {network: resnet18, method: scratch}}"
            )
        data["arms"] = {str(name): {**shared, **arm} if isinstance(arm, dict) else arm for name, arm in arms.items()}
        return data

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, value: Any) -> Any:
        return tuple(range(value)) if isinstance(value, int) else value

    @field_validator("budgets")
    @classmethod
    def _sensible_budgets(cls, value: tuple[Budget, ...]) -> tuple[Budget, ...]:
        if not value or any(budget != "all" and budget < 1 for budget in value) or len(set(value)) < len(value):
            raise ValueError("budgets must be distinct numbers of labelled subjects, at least 1, or 'all'")
        return tuple(sorted((b for b in value if b != "all"), key=int)) + (("all",) if "all" in value else ())

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        for pair in self.compare:
            for arm in pair:
                if arm not in self.arms:
                    raise ValueError(f"compare: {unknown_name('arm', arm, self.arms)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must be a positive number of seeds, or a list of distinct ones")
        for name, spec in self.arms.items():
            if spec.starts_from_source and self.source is None:
                raise ValueError(f"arm {name!r} starts from weights: source, but the recipe has no source")
        return self

    @property
    def comparisons(self) -> tuple[tuple[str, str], ...]:
        """The pairs as asked for; where none are, every other arm against the first."""
        first, *others = self.arms
        return self.compare or tuple((other, first) for other in others)


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
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise first_error(error, where) from error


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

    Naming another method, network or dataset drops the settings of the former one, which the new one would refuse.
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
        return {key: old[key] for key in ("split",) if key in old}
    return old
