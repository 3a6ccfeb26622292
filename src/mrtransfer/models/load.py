"""Giving a state dict to a network: strict unless told otherwise, and never a silent guess."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.adapt import Channels, fit_tensor, strip_prefix
from mrtransfer.models.load_report import LoadReport, Row, shape_of
from mrtransfer.models.network import StagedNetwork, first_convolution, network_state
from mrtransfer.models.state_files import state_digest


@dataclass
class _Plan:
    """Which tensor of the file goes where, and what does not fit."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    """Names of the network that the file should have and does not."""
    misfits: list[str] = field(default_factory=list)
    """Names in both, of shapes that no rule makes fit."""
    unknown: list[str] = field(default_factory=list)
    """Names of the file that the network does not know."""


def load_into(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    until: str | None = None,
    channels: Channels | None = None,
    partial: bool = False,
    source: str = "a state dict",
    dry_run: bool = False,
) -> LoadReport:
    """Copy the tensors of ``state`` into ``network`` and say what happened to each.

    Parameters
    ----------
    until:
        Load only up to and with this stage; what follows stays fresh ("weight transfusion", Raghu et al. 2019).
    channels:
        How a first convolution for another number of channels is adapted; without it, that is an error.
    partial:
        Load what fits by name and shape; the rest stays fresh.
    dry_run:
        Only report; the network is left as it is.

    The classifier of the file, and the stages that a cut network no longer has, are skipped. A file of the published
    network that is a segmentation network's encoder goes there, and the decoder stays fresh. Any other difference
    raises :class:`UserError` (unless ``partial``) that says how many tensors do not fit and what the first one is; the
    network is then unchanged.
    """
    own = network_state(network)
    tensors, report = plan_load(network, state, until=until, channels=channels, partial=partial, source=source)
    if not dry_run:
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)
        report.digest = state_digest(own)
    return report


def plan_load(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    until: str | None = None,
    channels: Channels | None = None,
    partial: bool = False,
    source: str = "a state dict",
) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors that :func:`load_into` would copy, by the network's names, and its report; nothing is changed."""
    own = network_state(network)
    found, notes, beyond = _by_own_names(network, own, state)
    if until is not None:
        beyond |= dict.fromkeys(_names_after(network, own, until), f"after {until}")
    plan = _compare(network, own, found, beyond, channels)
    if not plan.tensors:
        raise _another(source, own, found, plan)
    if not partial:
        _refuse_differences(source, network, own, found, plan, until)
    damaged = next((name for name, value in plan.tensors.items() if not torch.isfinite(value).all()), None)
    if damaged is not None:
        raise UserError(f"{source}: {damaged} holds values that are not finite; the weights are damaged or diverged")
    return plan.tensors, LoadReport(source, plan.rows, notes)


def _by_own_names(
    network: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str], dict[str, str]]:
    """``state`` under the network's names; notes; and what need not be in it, with the reason.

    A file with the plain names of a published network belongs into the encoder of a network that has one.
    """
    encoder = network.encoder if isinstance(network, StagedNetwork) else None
    if encoder is None:
        return *strip_prefix(state, own), {}
    found, notes = strip_prefix(state, {*own, *encoder.names})
    if sum(name in own for name in found) >= sum(name in encoder.names for name in found):
        return found, notes, {}
    found = {encoder.names.get(name) or name: value for name, value in found.items()}
    inside = set(encoder.names.values())
    notes.append(f"the file is one of {encoder.name}, which is this network's encoder; the rest stays as it was built")
    return found, notes, {name: "outside the encoder" for name in own if name not in inside}


def _compare(
    network: nn.Module,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    beyond: Mapping[str, str],
    channels: Channels | None,
) -> _Plan:
    plan = _Plan()
    first = network.first_conv if isinstance(network, StagedNetwork) else first_convolution(network)
    for name, tensor in own.items():
        shape, module = shape_of(tensor), name.rpartition(".")[0]
        if name in beyond:
            plan.rows.append(Row(name, "fresh", shape, beyond[name]))
        elif name not in found:
            # Older PyTorch files lack this counter, which only matters to batch norm without momentum.
            if not name.endswith("num_batches_tracked"):
                plan.lacking.append(name)
            plan.rows.append(Row(name, "fresh", shape, "not in the file"))
        elif (fitted := fit_tensor(found[name], shape, module in first, channels, _stride(network, module))) is None:
            plan.misfits.append(name)
            plan.rows.append(Row(name, "fresh", shape, f"the file has {shape_of(found[name])}"))
        else:
            plan.tensors[name] = fitted[0]
            plan.rows.append(Row(name, "adapted" if fitted[1] else "loaded", shape, fitted[1]))
    for name, tensor in found.items():
        if name not in own:
            reason = _why_skipped(network, name)
            plan.rows.append(Row(name, "skipped", shape_of(tensor), reason or "not in the network"))
            if reason is None:
                plan.unknown.append(name)
        elif name in beyond:
            plan.rows.append(Row(name, "skipped", shape_of(tensor), beyond[name]))
    return plan


def _stride(network: nn.Module, module: str) -> int:
    """Along Z, where the module is a transposed convolution; else 1."""
    layer = (network.body if isinstance(network, StagedNetwork) else network).get_submodule(module)
    return layer.stride[2] if isinstance(layer, nn.ConvTranspose3d) else 1


def _names_after(network: nn.Module, own: Mapping[str, Tensor], until: str) -> list[str]:
    if not isinstance(network, StagedNetwork):
        raise UserError("until: this network has no named stages; use partial: true")
    kept = network.stages[: network.stage_names.index(network.stage(until).name) + 1]
    return [name for name in own if not any(stage.holds(name) for stage in kept)]


def _why_skipped(network: nn.Module, name: str) -> str | None:
    if not isinstance(network, StagedNetwork):
        return None
    if any(name.startswith(f"{classifier}.") for classifier in network.classifier):
        return "head"
    if any(stage.holds(name) for stage in network.removed):
        return f"after {network.until}, where the network ends"
    if network.encoder is not None and name in network.encoder.names:
        return "after the encoder's last feature maps"
    return None


def _refuse_differences(
    source: str,
    network: nn.Module,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    plan: _Plan,
    until: str | None,
) -> None:
    """Raise the one sentence that helps most, or return where everything fits."""
    wrong = len(plan.lacking) + len(plan.misfits) + len(plan.unknown)
    if not wrong:
        return
    first = network.first_conv if isinstance(network, StagedNetwork) else first_convolution(network)
    if plan.misfits and wrong == len(plan.misfits) and all(name.rpartition(".")[0] in first for name in plan.misfits):
        raise UserError(
            f"{source}: {_misfit(plan.misfits[0], own, found)}: set channels: mean|sum|repeat|zero_pad, "
            f"or give the network {found[plan.misfits[0]].shape[1]} channels"
        )
    if plan.lacking and wrong == len(plan.lacking):
        raise UserError(
            f"{source}: the file lacks {len(plan.lacking)} of the network's {len(own)} tensors, "
            f"first {plan.lacking[0]}: {_how_to_take_a_part(network, plan, until)}"
        )
    raise _another(source, own, found, plan)


def _another(source: str, own: Mapping[str, Tensor], found: Mapping[str, Tensor], plan: _Plan) -> UserError:
    wrong = len(plan.lacking) + len(plan.misfits) + len(plan.unknown)
    if plan.misfits:
        example = _misfit(plan.misfits[0], own, found)
    elif plan.unknown:
        example = f"the file has {plan.unknown[0]}, which the network does not"
    else:
        example = f"the network has {plan.lacking[0]}, which the file does not" if plan.lacking else "nothing in common"
    return UserError(
        f"{source}: {len(plan.tensors)} tensors fit and {wrong} do not (first: {example}): is this a file of another "
        "network?" + (" If not, partial: true loads what fits" if plan.tensors else "")
    )


def _misfit(name: str, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    return f"file has {name} {shape_of(found[name])}, network wants {shape_of(own[name])}"


def _how_to_take_a_part(network: nn.Module, plan: _Plan, until: str | None) -> str:
    """``until`` with the last stage up to which the file is complete, or ``partial``."""
    whole: list[str] = []
    if isinstance(network, StagedNetwork):
        for stage in network.stages:
            if any(stage.holds(name) for name in plan.lacking):
                break
            whole.append(stage.name)
    if whole and whole[-1] != until:
        return f"set until: {whole[-1]} (the last stage that is complete in the file), or partial: true"
    return "set partial: true to load what is there"
