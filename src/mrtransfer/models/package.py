"""The model folder: weights as safetensors, everything else as readable JSON; opened without unpickling anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from mrtransfer.augment.prepare import resolve_normalise
from mrtransfer.common.errors import UserError
from mrtransfer.common.files import read_json, write_json
from mrtransfer.models.network import StagedNetwork, build_network, network_state
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.models.segmentation import build_segmentation_network
from mrtransfer.models.state_files import HEAD, read_tensors, state_digest, write_state

FORMAT = 1
REQUIRED = {
    "classification": ("task", "size", "fit", "input", "classes", "provenance"),
    "segmentation": ("task", "plan", "mask_labels", "loss", "channels", "postprocess", "provenance", "record"),
    "reconstruction": ("task", "sampling", "loss", "provenance", "record"),
}
_BUILDERS: dict[str, Callable[..., StagedNetwork]] = {
    "classification": build_network,
    "segmentation": build_segmentation_network,
    "reconstruction": build_reconstruction_network,
}


@dataclass(frozen=True)
class LoadedModel:
    """A network and its head in evaluation mode; ``spec`` is the content of ``model.json``."""

    network: StagedNetwork
    head: nn.Sequential
    spec: dict[str, Any]

    @property
    def task(self) -> str:
        """``classification``, ``segmentation`` or ``reconstruction``."""
        return str(self.spec["task"])


def save_model(folder: str | Path, network: StagedNetwork, head: nn.Module, spec: Mapping[str, Any]) -> Path:
    """Write ``model.safetensors`` and ``model.json`` to ``folder``.

    ``spec`` needs ``task`` and ``provenance`` (what it was trained on: ``row_digests``, ``subjects``, ``datasets``, …).
    For classification also ``size`` (pixels), ``fit``, ``input`` ({normalise, channels}) and ``classes`` (in the order
    of the logits). For segmentation ``plan`` and ``mask_labels`` (their JSON), ``loss`` (its name, which says what the
    logits mean), ``channels`` (in order), ``postprocess`` (how masks are cleaned, or None) and ``record`` (how it was
    trained). For reconstruction ``sampling`` (how k-space was undersampled), ``loss`` and ``record``; its head is
    empty. Anything else that JSON can write is kept too. The folder can be given as ``weights`` to other networks.
    """
    task = str(spec.get("task"))
    missing = [key for key in REQUIRED.get(task, ("task",)) if key not in spec]
    if missing or task not in REQUIRED:
        raise ValueError(f"spec of task {task} lacks {', '.join(missing) or 'a known task'}")
    if task == "classification":
        resolve_normalise(spec["input"]["normalise"])
    folder = Path(folder)
    state = {f"network.{name}": value for name, value in network_state(network).items()}
    state |= {f"{HEAD}{name}": value for name, value in head.state_dict().items()}
    description = {
        **spec,
        "format": FORMAT,
        "mrtransfer": version("mrtransfer"),
        "network": network.description,
        "head": describe_head(head),
        "digest": state_digest(state),
    }
    metadata = {"provenance": dict(spec["provenance"]), "architecture": network.name, "task": task}
    # The description comes last and names the weights, so two halves of different models are never taken for one.
    write_state(folder / "model.safetensors", state, metadata)
    write_json(folder / "model.json", description)
    return folder


def load_model(folder: str | Path) -> LoadedModel:
    """The model that :func:`save_model` wrote; :class:`UserError` where a file is missing, damaged or of another."""
    folder = Path(folder)
    for name in ("model.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}, so it is no model folder")
    spec = read_json(folder / "model.json")
    if not isinstance(spec, dict) or spec.get("format") != FORMAT or spec.get("task") not in REQUIRED:
        raise UserError(
            f"{folder / 'model.json'}: not a model description of format {FORMAT}; was it made by another version?"
        )
    state, _ = read_tensors(folder / "model.safetensors")
    if state_digest(state) != spec.get("digest"):
        raise UserError(f"{folder}: model.safetensors is not the file that model.json describes; copy the folder again")
    network, head = _BUILDERS[spec["task"]](**spec["network"]), build_described_head(spec["head"])
    for module, prefix in ((network.body, "network."), (head, HEAD)):
        part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        module.load_state_dict(part)
    return LoadedModel(network.eval(), head.eval(), spec)


def describe_head(head: nn.Module) -> list[dict[str, Any]]:
    """A head's layers as JSON: linear, ReLU, dropout, and convolutions of one voxel; others are a ``TypeError``."""
    layers: list[dict[str, Any]] = []
    if not isinstance(head, nn.Sequential):
        raise TypeError(f"a head must be an nn.Sequential to be saved, not {type(head).__name__}")
    for layer in head:
        if isinstance(layer, nn.Linear):
            layers.append({"linear": [layer.in_features, layer.out_features], "bias": layer.bias is not None})
        elif isinstance(layer, nn.Conv3d) and layer.kernel_size == (1, 1, 1):
            layers.append({"pixels": [layer.in_channels, layer.out_channels], "bias": layer.bias is not None})
        elif isinstance(layer, nn.ReLU):
            layers.append({"relu": True})
        elif isinstance(layer, nn.Dropout):
            layers.append({"dropout": layer.p})
        else:
            raise TypeError(
                f"a head of linear, ReLU, dropout and 1×1×1 layers can be saved, not {type(layer).__name__}"
            )
    return layers


def build_described_head(layers: list[dict[str, Any]]) -> nn.Sequential:
    """The head that :func:`describe_head` described, with values yet to be loaded."""
    built: list[nn.Module] = []
    for layer in layers:
        if "linear" in layer:
            inputs, outputs = layer["linear"]
            built.append(nn.Linear(inputs, outputs, bias=layer["bias"]))
        elif "pixels" in layer:
            inputs, outputs = layer["pixels"]
            built.append(nn.Conv3d(inputs, outputs, 1, bias=layer["bias"]))
        else:
            built.append(nn.Dropout(layer["dropout"]) if "dropout" in layer else nn.ReLU())
    return nn.Sequential(*built)
