"""Factorial experiments: cross the levels of any fields into named arms."""

from itertools import product
from typing import Any


def crossed_arms(factors: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All combinations of the factors' levels, as arms named by their levels.

    A factor is an arm's field with a list of values, or a mapping of level names to values::

        {"network": ["resnet18", "resnet50"], "augment": {"flip": {"hflip": 0.5}, "no flip": {}}}

    gives the arms ``resnet18 · flip``, ``resnet18 · no flip``, ``resnet50 · flip`` and ``resnet50 · no flip``.
    """
    if not isinstance(factors, dict) or not factors:
        raise ValueError("vary: give fields with their levels, for example {network: [resnet18, resnet50]}")
    levels = [[(field, name, value) for name, value in _levels(field, given)] for field, given in factors.items()]
    return {
        " · ".join(name for _, name, _ in combination): {field: value for field, _, value in combination}
        for combination in product(*levels)
    }


def _levels(field: str, given: Any) -> list[tuple[str, Any]]:
    if isinstance(given, dict) and given:
        return [(str(name), value) for name, value in given.items()]
    if isinstance(given, list) and given:
        return [(value if isinstance(value, str) else f"{field} {value}", value) for value in given]
    raise ValueError(f"vary.{field}: give a list of values, or a mapping of level names to values")
