"""The recipe of any task: the question, the domains, the arms, how many labels, how often, what difference matters."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.strict import Strict
from mrtransfer.models.weights import parse_weights
from mrtransfer.shift.settings import ShiftSettings
from mrtransfer.study.recipe.specs import Budget, NetworkSpec, SourceSpec, TargetSpec, parsed_method
from mrtransfer.study.vary import crossed_arms
from mrtransfer.transfer.method import Method


class ArmSpec(Strict):
    """One way to do it: network, initial weights and method. A task adds what else an arm may choose."""

    CLASSICAL: ClassVar[bool] = False
    """Whether the task has networks without parameters."""

    network: NetworkSpec
    weights: str | dict[str, Any] = "random"
    method: Method

    @property
    def starts_from_source(self) -> bool:
        """Whether the initial weights come from a training on the source domain."""
        return self.weights == "source" or (isinstance(self.weights, dict) and self.weights.get("kind") == "source")

    @property
    def needs_source(self) -> bool:
        """Whether it starts from a training on the source domain, or learns from that domain's labels."""
        return self.starts_from_source or not self.method.labels

    @field_validator("method", mode="before")
    @classmethod
    def _method(cls, value: Any) -> Method:
        method = parsed_method(value)
        if not method.needs_weights and not cls.CLASSICAL:
            raise ValueError(f"{method.name} is for reconstructions without parameters, and this task has none")
        return method

    @model_validator(mode="after")
    def _adapts_a_whole_model(self) -> "ArmSpec":
        if self.method.labels:
            return self
        try:
            weights = parse_weights(self.weights)
        except UserError as error:
            raise ValueError(str(error)) from error
        if weights.kind not in ("source", "file") or weights.until or weights.partial:
            raise ValueError(
                f"weights: {self.method.name} adapts a whole model of the source, with its head; give source, or the "
                "folder of a model"
            )
        return self


class Recipe(Strict):
    """A whole study; each task has its own kind of recipe (:func:`~mrtransfer.study.recipe.load.parse_recipe`)."""

    METRICS: ClassVar[tuple[str, ...]] = ()

    question: str
    name: str = "study"
    topic: str = "Transfer"
    """What is being tried, as the verdict's sentence begins with it: "Transfer helps: …"."""
    task: str
    target: TargetSpec
    source: SourceSpec | None = None
    shared: dict[str, Any] = Field(default_factory=dict)
    arms: Mapping[str, ArmSpec]
    vary: dict[str, Any] | None = None
    budgets: tuple[Budget, ...] = ("all",)
    seeds: tuple[int, ...] = (0,)
    compare: tuple[tuple[str, str], ...] = ()
    metric: str
    margin: float = Field(0.01, ge=0)
    shift: ShiftSettings | None = None
    """How source and target are compared, where the study is to say how far apart they are; ``{}``: as by default."""
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

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value not in cls.METRICS:
            raise ValueError(str(unknown_name("metric", value, cls.METRICS)))
        return value

    @property
    def needs_source(self) -> bool:
        """Whether the source must be read: for an arm, or to be compared with the target."""
        return self.source is not None and (
            self.shift is not None or any(arm.needs_source for arm in self.arms.values())
        )

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        for pair in self.compare:
            for arm in pair:
                if arm not in self.arms:
                    raise ValueError(f"compare: {unknown_name('arm', arm, self.arms)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must be a positive number of seeds, or a list of distinct ones")
        if self.target.split.test == 1:
            self._check_that_none_learns()
        if self.shift is not None and self.source is None:
            raise ValueError("shift: compares the target with the source, but the recipe has no source")
        for name, spec in self.arms.items():
            if spec.needs_source and self.source is None:
                does = "starts from weights: source" if spec.starts_from_source else "learns from the source's labels"
                raise ValueError(f"arm {name!r} {does}, but the recipe has no source")
            self._check_that_one_harmoniser_is_enough(name, spec)
        return self

    def _check_that_one_harmoniser_is_enough(self, name: str, spec: ArmSpec) -> None:
        """An arm's scans are brought to the source's raw ones, which its model must then have seen."""
        own, theirs = (getattr(one, "harmonise", None) for one in (spec, self.source))
        if spec.needs_source and own is not None and theirs is not None and own != theirs:
            raise ValueError(
                f"arm {name!r}: harmonise is {own.name}, and that of the source, whose model it starts from, is "
                f"{theirs.name}; give both the same, or leave one of them out"
            )

    def _check_that_none_learns(self) -> None:
        for name, spec in self.arms.items():
            if spec.method.learns:
                raise ValueError(
                    f"target.split.test: 1 leaves nothing that arm {name!r} could learn from; choose a share below 1"
                )
        if self.budgets != ("all",):
            raise ValueError("budgets: with target.split.test: 1 nothing is labelled; leave budgets out")

    @property
    def comparisons(self) -> tuple[tuple[str, str], ...]:
        """The pairs as asked for; where none are, every other arm against the first."""
        first, *others = self.arms
        return self.compare or tuple((other, first) for other in others)
