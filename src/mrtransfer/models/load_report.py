"""What happened to every tensor when weights were given to a network."""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

Status = Literal["loaded", "adapted", "skipped", "fresh"]
_LONGEST_LIST = 20
STATUSES: tuple[Status, ...] = ("loaded", "adapted", "skipped", "fresh")


@dataclass(frozen=True)
class Row:
    """One tensor: of the network (loaded, adapted, fresh), or of the file alone (skipped)."""

    name: str
    status: Status
    shape: tuple[int, ...]
    detail: str = ""


@dataclass
class LoadReport:
    """The table of a load, where the weights came from, and the digest of the weights that the network now has."""

    source: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors were loaded, adapted, skipped and left fresh."""
        return {status: sum(row.status == status for row in self.rows) for status in STATUSES}

    def to_text(self, shown: int | None = None) -> str:
        """A table for people; ``shown`` limits the loaded rows, all others are always there."""
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.items())
        lines = [f"weights from {self.source}: {counts}", *self.notes]
        width = max((len(row.name) for row in self.rows), default=0)
        left = shown
        for row in self.rows:
            if row.status == "loaded" and left is not None:
                left -= 1
                if left < 0:
                    continue
            lines.append(f"  {row.status:8}{row.name:{width}}  {row.shape!s:20} {row.detail}".rstrip())
        if left is not None and left < 0:
            lines.append(f"  … and {-left} more loaded")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The same for machines; long lists of the provenance (digests of training images) only by their length."""
        return {
            "source": self.source,
            "counts": self.counts,
            "notes": self.notes,
            "provenance": _brief(self.provenance),
            "digest": self.digest,
            "tensors": [
                {"name": row.name, "status": row.status, "shape": list(row.shape), "detail": row.detail}
                for row in self.rows
            ],
        }


def _brief(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _brief(part) for key, part in value.items()}
    return f"{len(value)} entries" if isinstance(value, list) and len(value) > _LONGEST_LIST else value


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """A tensor's shape as plain numbers."""
    return tuple(int(size) for size in tensor.shape)
