"""Where a network's initial values come from: a recipe's ``weights``, and giving them to the network."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError, field_validator, model_validator
from torch import Tensor

from mrtransfer.common.errors import UserError, nearest, unknown_name
from mrtransfer.common.files import file_digest
from mrtransfer.common.strict import Strict, first_error
from mrtransfer.data.schema import SPLITS
from mrtransfer.models.adapt import Channels
from mrtransfer.models.hub import imagenet_state
from mrtransfer.models.load import load_into, plan_load
from mrtransfer.models.load_report import LoadReport, Row, shape_of
from mrtransfer.models.mean_var import draw_like
from mrtransfer.models.network import StagedNetwork, network_state
from mrtransfer.models.state_files import State, read_state, state_digest

Kind = Literal["random", "imagenet", "source", "mean_var", "file"]
KINDS: tuple[Kind, ...] = ("random", "imagenet", "source", "mean_var", "file")

SourceState = tuple[State, Mapping[str, Any]]
"""Tensors, and what they were trained on."""


class WeightsSpec(Strict):
    """A recipe's ``weights``; see :func:`parse_weights` for how it is written.

    ``file`` belongs to the kinds ``file`` and ``mean_var`` (whose statistics are otherwise those of the ImageNet
    weights). ``until``, ``channels``, ``partial``: as in :func:`~mrtransfer.models.load.load_into`. ``trained_on``:
    which published splits of the study's own data the file was trained on (train, val, test), where it does not say so
    itself; a score on samples of these would be void.
    """

    kind: Kind = "file"
    file: str | None = None
    until: str | None = None
    channels: Channels | None = None
    partial: bool = False
    trained_on: tuple[str, ...] = ()

    @field_validator("trained_on", mode="before")
    @classmethod
    def _as_tables_say(cls, value: Any) -> Any:
        return _splits([value] if isinstance(value, str) else value) if isinstance(value, str | list | tuple) else value

    @model_validator(mode="after")
    def _complete(self) -> "WeightsSpec":
        if self.kind == "file" and self.file is None:
            raise ValueError("file: missing; name a .safetensors or .pt file, or a model folder")
        if self.file is not None and self.kind not in ("file", "mean_var"):
            raise ValueError(f"file: {self.kind} weights take no file; leave out kind or file")
        if self.trained_on and self.file is None:
            raise ValueError(f"trained_on: is about a file, and {self.kind} weights have none; leave it out")
        if self.kind == "random" and (self.until or self.channels or self.partial):
            raise ValueError("random weights are not loaded, so until, channels and partial mean nothing")
        return self

    def file_digest(self) -> str | None:
        """The digest of the file's bytes, or None where no file is named; a missing file is a :class:`UserError`."""
        if self.file is None:
            return None
        path = Path(self.file)
        path = path / "model.safetensors" if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"weights {self.file}: the file does not exist; give a .safetensors or .pt file")
        return file_digest(path)

    @property
    def draws(self) -> bool:
        """Whether any value is certainly drawn at random, whatever the file: a seed then makes a difference."""
        return self.kind in ("random", "mean_var") or self.until is not None or self.partial

    def is_random(self, network: Any = None) -> bool:
        """Whether the backbone's initial weights depend on the seed.

        ``network``: anything with ``until``; a network that is cut at the very stage up to which weights are loaded
        has nothing left to draw.
        """
        cut_alike = self.until is not None and getattr(network, "until", None) == self.until
        loads = self.kind not in ("random", "mean_var") and not self.partial
        return self.draws and not (loads and cut_alike)


def parse_weights(value: "str | Mapping[str, Any] | WeightsSpec") -> WeightsSpec:
    """``random``, ``imagenet``, ``source``, ``mean_var``, a path, or a mapping.

    A mapping names a ``file`` (or a ``kind``) and may say ``until``, ``channels``, ``partial`` and ``trained_on``. A
    word that is neither a kind nor a path is refused with the nearest kind.
    """
    if isinstance(value, WeightsSpec):
        return value
    if isinstance(value, str):
        if value in KINDS and value != "file":
            return WeightsSpec(kind=value)
        path = Path(value).expanduser()
        if not path.exists() and not path.suffix and "/" not in value:
            if nearest(value, KINDS):
                raise unknown_name("weights", value, [kind for kind in KINDS if kind != "file"])
            raise UserError(f"weights: {value!r} is neither one of {', '.join(KINDS[:4])} nor a file that exists")
        return WeightsSpec(kind="file", file=str(path))
    try:
        return WeightsSpec(**value)
    except ValidationError as error:
        raise first_error(error, "weights") from error


def apply_weights(
    network: StagedNetwork,
    spec: "str | Mapping[str, Any] | WeightsSpec",
    *,
    seed: int = 0,
    resolve_source: Callable[[], SourceState] | None = None,
) -> LoadReport:
    """Give ``network`` its initial weights and report on every tensor.

    ``seed`` is used by ``mean_var``; what stays fresh keeps the values that the network was built with.
    ``resolve_source`` is called for the kind ``source`` and returns the state dict (published names) with its
    provenance. The report's ``provenance`` says what the weights were trained on, its ``digest`` names the values that
    the network now has.
    """
    spec = parse_weights(spec)
    report = _random(network) if spec.kind == "random" else _load(network, spec, seed, resolve_source)
    network.fresh = frozenset(row.name for row in report.rows if row.status == "fresh")
    return report


def _random(network: StagedNetwork) -> LoadReport:
    own = network_state(network)
    rows = [Row(name, "fresh", shape_of(value), "random") for name, value in own.items()]
    return LoadReport("random", rows, provenance={"kind": "random", "trained_on": {}}, digest=state_digest(own))


def _load(
    network: StagedNetwork, spec: WeightsSpec, seed: int, resolve_source: Callable[[], SourceState] | None
) -> LoadReport:
    state, provenance = _state_of(spec, network, resolve_source)
    source = f"weights {provenance['from']}"
    if spec.kind == "mean_var":
        report = _mean_var(network, state, spec, source, seed)
    else:
        report = load_into(
            network, state, until=spec.until, channels=spec.channels, partial=spec.partial, source=source
        )
    report.provenance = provenance
    if provenance.get("note"):
        report.notes.append(f"the file says: {provenance['note']}")
    return report


def _state_of(
    spec: WeightsSpec, network: StagedNetwork, resolve_source: Callable[[], SourceState] | None
) -> tuple[State, dict[str, Any]]:
    """The tensors that ``spec`` names, and their provenance with the keys ``kind``, ``from`` and ``trained_on``."""
    if spec.kind == "source":
        if resolve_source is None:
            raise UserError("weights source: there is no source dataset; add source: {dataset: ...} to the recipe")
        state, trained_on = resolve_source()
        return state, {"kind": spec.kind, "from": "source", "trained_on": dict(trained_on)}
    if spec.file is not None:
        state, metadata = read_state(spec.file)
        said = _said_in(metadata)
        if spec.trained_on:
            said["trained_on"] = {**said["trained_on"], "splits": [*spec.trained_on]}
        return state, {"kind": spec.kind, "from": spec.file, "digest": spec.file_digest(), **said}
    state, origin = imagenet_state(network.encoder.name if network.encoder else network.name)
    return state, {"kind": spec.kind, "from": "imagenet", "trained_on": {"datasets": ["ImageNet"]}, **origin}


def _said_in(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a file's metadata says about its training: JSON under ``provenance``, and words under ``note``."""
    said: dict[str, Any] = {"trained_on": {}}
    if "provenance" in metadata:
        try:
            said["trained_on"] = json.loads(metadata["provenance"])
        except json.JSONDecodeError:
            said["trained_on"] = {"note": metadata["provenance"]}
    said.update({key: metadata[key] for key in ("note", "architecture") if key in metadata})
    return said


def splits_in(trained_on: Mapping[str, Any], dataset: str) -> dict[str, list[str]]:
    """The published splits that weights were trained on, by dataset, as their ``trained_on`` says.

    There ``splits`` is such a mapping, or a list that is about the ``dataset`` named beside it, or else about the one
    given here. Raises :class:`UserError` for what is no split.
    """
    said = trained_on.get("splits") or {}
    if not isinstance(said, Mapping):
        said = {str(trained_on.get("dataset", dataset)): said}
    try:
        return {name: [*_splits([one] if isinstance(one, str) else one)] for name, one in said.items()}
    except ValueError as error:
        raise UserError(f"weights: what they were trained on: {error}") from error


def _splits(named: Iterable[Any]) -> tuple[str, ...]:
    """Each split once, by the name that tables have for it."""
    found = tuple(dict.fromkeys({"val": "validation"}.get(str(split), str(split)) for split in named))
    for split in found:
        if split not in SPLITS:
            raise ValueError(str(unknown_name("split", split, (*SPLITS, "val"))))
    return found


def _mean_var(
    network: StagedNetwork, state: Mapping[str, Tensor], spec: WeightsSpec, source: str, seed: int
) -> LoadReport:
    """Fresh values with each tensor's mean and variance in the file; running statistics stay as they were built."""
    channels = spec.channels or "mean"  # only decides whether the tensor counts as the network's; values are redrawn
    fitted, report = plan_load(network, state, until=spec.until, channels=channels, partial=spec.partial, source=source)
    own = network_state(network)
    parameters = {name for name, _ in network.body.named_parameters()}
    drawn: dict[str, str] = {}
    with torch.no_grad():
        for name in fitted.keys() & parameters:
            values, drawn[name] = draw_like(fitted[name], own[name], seed=seed, name=name)
            own[name].copy_(values)
    report.rows = [
        Row(row.name, "adapted", row.shape, drawn[row.name])
        if row.name in drawn
        else Row(row.name, "fresh" if row.name in own else "skipped", row.shape, row.detail or "as built")
        for row in report.rows
    ]
    report.digest = state_digest(own)
    return report
