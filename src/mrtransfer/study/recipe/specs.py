"""The parts that recipes of every task share: splits, domains, networks."""

import inspect
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializationInfo, field_validator, model_validator

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.strict import Strict, unknown_key
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.harmoniser import Harmoniser, parse_harmoniser
from mrtransfer.transfer.method import Method, parse_method

Budget = int | Literal["all"]
WAYS_TO_SPLIT = ("folds", "test", "published")


def parsed_method(value: Any) -> Method:
    """A method; a mistake in it becomes part of the sentence about the recipe."""
    try:
        return parse_method(value)
    except UserError as error:
        raise ValueError(str(error).removeprefix("method: ").removeprefix("method ")) from error


def parsed_harmoniser(value: Any) -> Harmoniser | None:
    """A harmoniser or none; a mistake in it becomes part of the sentence about the recipe."""
    try:
        return None if value is None else parse_harmoniser(value)
    except UserError as error:
        raise ValueError(str(error).removeprefix("harmonise: ").removeprefix("harmonise ")) from error


Harmonise = Annotated[Harmoniser | None, BeforeValidator(parsed_harmoniser)]
"""How scans are harmonised before a network sees them, as a recipe says it: a name, or a mapping with settings."""


def written_method(method: Method, info: SerializationInfo) -> dict[str, Any]:
    """All settings, but ``batch`` only where it was chosen: else it is the task's, also when this is read again."""
    settings = method.model_dump(mode=info.mode)
    return {key: value for key, value in settings.items() if key != "batch" or key in method.model_fields_set}


class SplitSpec(Strict):
    """How subjects are divided: cross-validation (``folds``), one held-out set (``test``), or as ``published``.

    ``test: 1`` tests everything, for arms that learn nothing of the target.
    """

    by: tuple[str, ...] = ("subject", "cluster")
    folds: int | None = Field(None, ge=2)
    test: float | None = Field(None, gt=0, le=1)
    published: Literal["refuse", "drop"] | None = None
    validation: float = Field(0.15, ge=0, lt=0.9)
    seed: int = 0

    @property
    def fold_count(self) -> int:
        """Folds of the cross-validation that is done where nothing else is asked for."""
        return self.folds or 5

    @model_validator(mode="after")
    def _one_way(self) -> "SplitSpec":
        given = [name for name in WAYS_TO_SPLIT if getattr(self, name) is not None]
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
    """The domain that is learned first, for ``weights: source``. A task adds its ``augment``."""

    method: Method = Field(default_factory=lambda: parse_method("scratch"))
    weights: str | dict[str, Any] = "random"
    validation: float = Field(0.15, gt=0, lt=0.9)
    seed: int = 0

    @field_validator("method", mode="before")
    @classmethod
    def _method(cls, value: Any) -> Method:
        method = parsed_method(value)
        if method.cached or not method.learns:
            raise ValueError(f"{method.name} changes no network; a source is learned with scratch or fine_tune")
        if not method.labels:
            raise ValueError(f"{method.name} adapts to a target; a source is learned with scratch or fine_tune")
        return method


class NetworkSpec(Strict):
    """A network by name, whole or up to a named stage, with whatever else its builder takes."""

    name: str
    until: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_alone_or_options_beside_it(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"name": data}
        if not isinstance(data, dict):
            return data
        own = {key: value for key, value in data.items() if key in ("name", "until")}
        beside = {key: value for key, value in data.items() if key not in cls.model_fields}
        return {**own, "options": {**(data.get("options") or {}), **beside}}
