"""What the values in a mask mean: classes that exclude each other, and the regions that are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name

BACKGROUND = "background"
_TABLE = 1 << 16  # masks of whole numbers below it are translated by a table
_NONE = 255


@dataclass(frozen=True)
class MaskLabels:
    """The classes of a dataset's masks; class 0 is the background.

    ``names`` are the classes in order, so that class index = position. ``values[i]`` are the mask values that are read
    as class i. ``regions`` are what is scored, (name, its classes); they may overlap, as BraTS' whole tumour holds the
    tumour core. ``anything_else``: every value but 0 is class 1, as in 2-D masks of 0 and 255.
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    regions: tuple[tuple[str, tuple[str, ...]], ...]
    anything_else: bool = False

    def __post_init__(self) -> None:
        if len(self.names) < 2 or self.names[0] != BACKGROUND or len(set(self.names)) < len(self.names):
            raise UserError(
                f"mask classes {', '.join(self.names)}: give one or more names, each once, and no background"
            )
        if len(self.names) > _NONE:
            raise UserError(f"mask classes: {len(self.names) - 1} are given; at most {_NONE - 1} fit a mask")
        if len(self.values) != len(self.names) or (self.anything_else and len(self.names) != 2):
            raise UserError(f"mask classes {', '.join(self.names)}: every class needs its mask value")
        owner: dict[int, str] = {}
        for name, values in zip(self.names, self.values, strict=True):
            for value in values:
                if owner.setdefault(value, name) != name or values.count(value) > 1:
                    raise UserError(f"mask value {value} is {owner[value]} and {name}; a value belongs to one class")
        for region, members in self.regions:
            if not members:
                raise UserError(
                    f"mask region {region!r} holds no class; give one or more of {', '.join(self.names[1:])}"
                )
            for member in members:
                if member not in self.names[1:]:
                    raise UserError(f"mask region {region!r}: {unknown_name('mask class', member, self.names[1:])}")
        if not self.regions or len(set(self.region_names)) < len(self.regions):
            raise UserError(f"mask regions {', '.join(self.region_names)}: give one or more, each name once")

    @classmethod
    def create(
        cls, classes: Mapping[str, int | Sequence[int]], regions: Mapping[str, Sequence[str]] | None = None
    ) -> Self:
        """Labels from ``{"oedema": 2, "enhancing": [3, 4]}``; the background is 0 and not named.

        Without ``regions``, every class is a region of its own. Raises :class:`UserError` for a class without value, a
        value that two classes claim, a value that is no whole number above 0, and a region of unknown classes.
        """
        names: list[str] = [BACKGROUND]
        values: list[tuple[int, ...]] = [(0,)]
        for name, given in classes.items():
            listed = [given] if isinstance(given, int | str | float) or given is None else list(given)
            if not listed or any(isinstance(v, bool) or not isinstance(v, int | np.integer) or v <= 0 for v in listed):
                raise UserError(
                    f"mask class {name!r} is {given!r}; it must be the mask's value, a whole number above 0, or a list"
                )
            names.append(str(name))
            values.append(tuple(int(v) for v in listed))
        wanted = {name: [name] for name in names[1:]} if regions is None else regions
        listed_regions = tuple(
            (str(region), (members,) if isinstance(members, str) else tuple(members))
            for region, members in wanted.items()
        )
        return cls(tuple(names), tuple(values), listed_regions)

    @classmethod
    def binary(cls, name: str = "tumour") -> Self:
        """One class, ``name``: every value but 0."""
        return cls((BACKGROUND, name), ((0,), ()), ((name, (name,)),), anything_else=True)

    @property
    def region_names(self) -> tuple[str, ...]:
        """The names of the scored regions, in order."""
        return tuple(name for name, _ in self.regions)

    @cached_property
    def membership(self) -> np.ndarray:
        """(R, K) bool: region r holds class k."""
        return np.array([[name in members for name in self.names] for _, members in self.regions], dtype=bool)

    def to_classes(self, mask: np.ndarray, where: str) -> np.ndarray:
        """Class indices, uint8 of ``mask``'s shape.

        Raises :class:`UserError` that names ``where``, the first value that is NaN, no whole number or of no class, and
        the values that are known.
        """
        whole = self._whole_numbers(np.asarray(mask), where)
        if self.anything_else:
            return (whole != 0).astype(np.uint8)
        known = np.array([value for values in self.values for value in values])
        owner = np.array([index for index, values in enumerate(self.values) for _ in values], dtype=np.uint8)
        low, high = (int(whole.min()), int(whole.max())) if whole.size else (0, 0)
        if low < 0 or high >= _TABLE:  # rare; a table would be large
            order = np.argsort(known)
            place = order[np.searchsorted(known[order], whole).clip(max=len(known) - 1)]
            classes = np.where(known[place] == whole, owner[place], _NONE).astype(np.uint8)
        else:
            table = np.full(high + 1, _NONE, dtype=np.uint8)
            table[known[known <= high]] = owner[known <= high]
            classes = table[whole.astype(np.int64) if whole.dtype.kind == "f" else whole]
        if (classes == _NONE).any():
            raise self._unknown(where, int(whole[classes == _NONE].flat[0]))
        return classes

    def to_values(self, classes: np.ndarray) -> np.ndarray:
        """Mask values for class indices, the first value of each class; uint8 where the values fit, or else int32."""
        first = [values[0] if values else 1 for values in self.values]
        return np.array(first, dtype=np.uint8 if max(first) < 256 else np.int32)[classes]

    def merged(self, mapping: Mapping[str, str]) -> Self:
        """Rename, merge or drop classes: ``{"necrosis": "core", "enhancing": "core", "oedema": "background"}``.

        ``*`` stands for all classes not named, ``background`` as a target drops a class. The new classes are in order
        of first appearance in ``mapping``. A region is kept where the new classes still make it up exactly (apart from
        dropped ones); without any such region, and where every class was its own region, every new class is one.
        Raises :class:`UserError` where ``mapping`` names an unknown class, leaves one out without ``*``, or drops all.
        """
        target = self._targets(mapping)
        kept = [str(new) for new in dict.fromkeys(mapping.values()) if new != BACKGROUND]
        kept = [new for new in kept if new in target.values()]
        if not kept:
            raise UserError("labels: every mask class becomes background; at least one must stay")
        names = (BACKGROUND, *kept)
        if self.anything_else:
            return type(self)(names, ((0,), ()), ((kept[0], (kept[0],)),), anything_else=True)
        values = tuple(
            tuple(v for name, own in zip(self.names, self.values, strict=True) for v in own if target[name] == new)
            for new in names
        )
        single = tuple((new, (new,)) for new in kept)
        default = tuple((name, (name,)) for name in self.names[1:])
        regions = single if self.regions == default else self._regions_after(target) or single
        return type(self)(names, values, regions)

    def _targets(self, mapping: Mapping[str, str]) -> dict[str, str]:
        """Old class to new class, background to itself."""
        for old in mapping:
            if old not in (*self.names[1:], "*"):
                raise UserError(f"labels: {unknown_name('mask class', old, [*self.names[1:], '*'])}")
        left_out = [old for old in self.names[1:] if old not in mapping]
        if left_out and "*" not in mapping:
            raise UserError(
                f"labels: {', '.join(left_out)} not mapped; name all of {', '.join(self.names[1:])}, "
                "or add '*' for the rest"
            )
        renamed = {old: str(mapping.get(old, mapping.get("*"))) for old in self.names[1:]}
        return {BACKGROUND: BACKGROUND, **renamed}

    def _regions_after(self, target: Mapping[str, str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The regions that the new classes make up exactly; of two that became the same, the one that lost nothing."""
        found: dict[tuple[str, ...], tuple[int, str]] = {}
        for region, members in self.regions:
            stays = [name for name in members if target[name] != BACKGROUND]
            new = tuple(dict.fromkeys(target[name] for name in stays))
            made_of = {name for name in self.names if target[name] in new}
            lost = len(members) - len(stays)
            if new and made_of == set(stays) and lost < found.get(key := tuple(sorted(new)), (lost + 1, ""))[0]:
                found[key] = (lost, region)
        order = {name: target for target, (_, name) in found.items()}
        return tuple((region, order[region]) for region in self.region_names if region in order)

    def to_json(self) -> dict[str, Any]:
        """The labels as JSON can write them; lists keep the order of classes and regions."""
        return {
            "names": list(self.names),
            "values": [list(values) for values in self.values],
            "regions": [[name, list(members)] for name, members in self.regions],
            "anything_else": self.anything_else,
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "mask_labels") -> Self:
        """Labels as :meth:`to_json` wrote them; raises :class:`UserError` that names ``where`` for anything else."""
        try:
            return cls(
                tuple(str(name) for name in data["names"]),
                tuple(tuple(int(v) for v in values) for values in data["values"]),
                tuple((str(name), tuple(str(m) for m in members)) for name, members in data["regions"]),
                bool(data.get("anything_else", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}: is not the description of mask classes (names, values, regions)") from error

    def _whole_numbers(self, mask: np.ndarray, where: str) -> np.ndarray:
        if mask.dtype.kind in "biu":
            return mask.view(np.uint8) if mask.dtype == bool else mask
        if mask.dtype.kind != "f":
            raise UserError(f"{where}: the mask holds {mask.dtype} values; it must hold whole numbers")
        wrong = ~np.isfinite(mask) | (mask != np.rint(mask))
        if wrong.any():
            value = float(mask[wrong].flat[0])
            raise UserError(f"{where}: the mask holds {value:g}; {self._known()}, and nothing between them")
        return mask

    def _known(self) -> str:
        if self.anything_else:
            return f"known are 0 ({BACKGROUND}) and any other whole number ({self.names[1]})"
        pairs = [f"{v} ({n})" for n, values in zip(self.names, self.values, strict=True) for v in values]
        return f"known are {', '.join(pairs)}"

    def _unknown(self, where: str, value: int) -> UserError:
        return UserError(f"{where}: the mask holds {value}, which is no known class; {self._known()}")
