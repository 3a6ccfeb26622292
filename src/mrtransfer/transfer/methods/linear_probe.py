"""A linear classifier on frozen features."""

from typing import ClassVar

from pydantic import field_validator

from mrtransfer.transfer.method import Method
from mrtransfer.transfer.methods import METHODS


@METHODS.register("linear_probe")
class LinearProbe(Method):
    """Multinomial logistic regression on frozen features, solved to convergence."""

    name: ClassVar[str] = "linear_probe"
    cached: ClassVar[bool] = True

    l2: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)
    """Regularisations to choose from by validation loss: mean cross-entropy + l2/2 · ‖W‖² on standardised features."""

    @field_validator("l2", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("l2")
    @classmethod
    def _positive_and_sorted(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or min(value) <= 0 or len(set(value)) < len(value):
            raise ValueError("give one or several distinct positive numbers, for example [0.01, 0.1]")
        return tuple(sorted(value))
