"""A network as a row of named stages in forward order: what can be cut, frozen and given weights as one piece."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

_CONTAINERS = {"blocks", "stages", "layers", "features"}
_BLOCK = re.compile(r"((layer|block|stage|level)s?|^s)_?\d+$")


@dataclass(frozen=True)
class Stage:
    """``members`` are the paths, inside the network's body, of the stage's modules and direct parameters."""

    name: str
    members: tuple[str, ...]

    def holds(self, tensor: str) -> bool:
        """Whether the parameter or buffer called ``tensor`` belongs to this stage."""
        return any(tensor == member or tensor.startswith(f"{member}.") for member in self.members)


def find_stages(body: nn.Module) -> tuple[Stage, ...]:
    """The stages of ``body``; together they hold every parameter and buffer exactly once.

    Children called ``blocks``, ``stages``, ``layers`` or ``features`` count part by part (``blocks.0``, ``blocks.1``,
    …). What comes before the first block is the ``stem``, what comes after the last is the ``head``; without any
    blocks, every child is a stage. Modules without parameters, and norms between two blocks, join what they follow.
    """
    units = list(_units(body))
    blocks = [number for number, (path, module) in enumerate(units) if _is_block(path, module)]
    first, last = (blocks[0], blocks[-1]) if blocks else (0, len(units) - 1)
    direct = [name for name, _ in (*body.named_parameters(recurse=False), *body.named_buffers(recurse=False))]
    members: dict[str, list[str]] = {"stem": direct} if direct else {}
    for number, (path, module) in enumerate(units):
        joins = not _has_tensors(module) or (_is_norm(module) and first < number <= last)
        if number < first:
            name = "stem"
        elif members and joins:
            name = next(reversed(members))
        elif number > last:
            name = "head"
        else:
            name = path
        members.setdefault(name, []).append(path)
    return tuple(Stage(name, tuple(paths)) for name, paths in members.items())


def _units(body: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in body.named_children():
        if name in _CONTAINERS and isinstance(child, nn.Sequential | nn.ModuleList):
            yield from ((f"{name}.{part}", module) for part, module in child.named_children())
        else:
            yield name, child


def _is_block(path: str, module: nn.Module) -> bool:
    container, _, part = path.rpartition(".")
    numbered_part = bool(container) and part.isdigit() and _has_tensors(module)
    return numbered_part or bool(_BLOCK.search(part))


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in (*module.parameters(), *module.buffers()))


def _is_norm(module: nn.Module) -> bool:
    weighted = any(isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d) for part in module.modules())
    return "Norm" in type(module).__name__ and not weighted


def remove_after(body: nn.Module, stages: tuple[Stage, ...], until: str) -> tuple[Stage, ...]:
    """Replace everything after the stage ``until`` by identities, in place; returns the stages that are gone."""
    kept = [stage.name for stage in stages].index(until) + 1
    for stage in stages[kept:]:
        for member in stage.members:
            parent, _, name = member.rpartition(".")
            setattr(body.get_submodule(parent), name, nn.Identity())
    return stages[kept:]


def pool_maps(maps: Tensor, *, channels_last: bool = False, prefix_tokens: int = 0) -> Tensor:
    """Average (N, C, H, W), (N, H, W, C) where ``channels_last``, or tokens (N, L, C) over place, to (N, C)."""
    if maps.ndim == 3:
        return maps[:, prefix_tokens:].mean(dim=1)
    if maps.ndim != 4:
        return maps.flatten(1)
    return maps.mean(dim=(1, 2) if channels_last else (2, 3))
