"""Where the arms of a study start from, tried out before hours are spent on what will not fit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import StagedNetwork, network_state
from mrtransfer.models.segmentation import SegmentationNetwork
from mrtransfer.models.weights import WeightsSpec, apply_weights, parse_weights
from mrtransfer.study.recipe.segmentation import SegmentationArm
from mrtransfer.study.workshop import AnyWorkshop, Job
from mrtransfer.transfer.freeze import frozen_stages
from mrtransfer.transfer.method import Method, NetworkMethod

if TYPE_CHECKING:
    from mrtransfer.study.tasks.segmentation import SegmentationWorkshop


def check_adaptation(workshop: AnyWorkshop, name: str, arm: Any, fold: int) -> None:
    """See that an arm without target labels has a whole model of the target's classes to adapt, and can adapt it.

    Raises :class:`UserError` where the source has other classes or channels than the target, where a file of weights
    is no model of them, and where the method asks for layers that the network does not have.
    """
    if arm.method.labels:
        return
    source, seed = workshop.source, workshop.recipe.seeds[0]
    assert source is not None
    network = workshop.build(arm, source, fold, seed)
    try:
        arm.method.check(network)
    except UserError as error:
        raise UserError(f"arms.{name}.method: {error}") from error
    check_channels(workshop, arm, fold, f"arms.{name}.method")
    learned, own = (
        {"task": workshop.recipe.task, **workshop.described(one, domain, fold, {})}
        for one, domain in ((workshop.source_arm(arm), source), (arm, workshop.target))
    )
    if not workshop.same_outputs(arm, learned):
        theirs, wanted = (", ".join(_classes(spec)) for spec in (learned, own))
        raise UserError(
            f"arms.{name}.method: {arm.method.name} learns the source's classes ({theirs}), which are not the target's "
            f"({wanted}); bring both to the same with labels"
        )
    weights, nobody = parse_weights(arm.weights), np.zeros(0, dtype=np.int64)
    if weights.kind == "file":
        workshop.head_as_it_is(
            Job(arm, weights, None, source, nobody, nobody, fold, seed, workshop.folder / "unfinished", nobody)
        )


def check_channels(workshop: AnyWorkshop, arm: Any, fold: int, where: str) -> None:
    """Raise :class:`UserError` that begins with ``where`` unless both domains have as many channels.

    They are compared channel by channel, in their order. Images of a classification study all have the same ones.
    """
    theirs, own = (
        workshop.described(arm, domain, fold, {}).get("channels", ()) for domain in (workshop.source, workshop.target)
    )
    if len(theirs) != len(own):
        raise UserError(
            f"{where}: the source has {len(theirs)} channels and the target {len(own)}; both must have as many, in "
            "the order in which they take each other's place"
        )


def _classes(spec: Mapping[str, Any]) -> list[str]:
    """The names of what a model that ``spec`` describes can say."""
    return list(spec["classes"] if "classes" in spec else spec["mask_labels"]["names"][1:])


def check_starts(workshop: "SegmentationWorkshop", fold: int) -> None:
    """See that every arm's stages exist, and that it can start from a network as the source will have it.

    Raises :class:`UserError` for a frozen stage that the network does not have, for weights of the source that do not
    fit (other channels, say), and where a method without training would predict other classes than the target's.
    """
    done = set()
    for name, arm in workshop.recipe.arms.items():
        check_adaptation(workshop, name, arm, fold)
        same = (arm.network, arm.weights, arm.loss, arm.harmonise is None, arm.method.learns)
        about = repr([*same, getattr(arm.method, "freeze", None)])
        if about not in done:
            _check(workshop, name, arm, fold)
        done.add(about)


def _check(workshop: "SegmentationWorkshop", name: str, arm: SegmentationArm, fold: int) -> None:
    seed = workshop.recipe.seeds[0]
    network = workshop.build(arm, workshop.target, fold, seed)
    check_stages(network, arm.method, f"arms.{name}")
    weights = parse_weights(arm.weights)
    if weights.kind == "source":
        _check_source(workshop, name, arm, network, weights, fold)
    elif not arm.method.learns:
        nobody = np.zeros(0, dtype=np.int64)
        workshop.head_as_it_is(
            Job(arm, weights, None, workshop.target, nobody, nobody, fold, seed, workshop.folder / "unfinished")
        )


def check_stages(network: StagedNetwork, method: Method, where: str) -> None:
    """Raise :class:`UserError` that begins with ``where`` for a frozen stage that ``network`` does not have."""
    if isinstance(method, NetworkMethod):
        try:
            frozen_stages(method, 0, network.stage_names)
        except UserError as error:
            raise UserError(f"{where}.method: {error}") from error


def check_takes_source(network: StagedNetwork, untrained: StagedNetwork, weights: Any, where: str) -> None:
    """Raise :class:`UserError` that begins with ``where`` if ``network`` cannot start from one like ``untrained``.

    ``weights``: what the arm says of them, where they come from the source. The network is given those weights.
    """
    state: dict[str, Any] = dict(network_state(untrained))
    try:
        apply_weights(network, weights, resolve_source=lambda: (state, {}))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_source(
    workshop: "SegmentationWorkshop",
    name: str,
    arm: SegmentationArm,
    network: SegmentationNetwork,
    weights: WeightsSpec,
    fold: int,
) -> None:
    """With an untrained network in the place of the source's."""
    assert workshop.source is not None
    learned, seed = workshop.source_arm(arm), workshop.recipe.seeds[0]
    untrained = workshop.build(learned, workshop.source, fold, seed)
    check_stages(untrained, learned.method, "source")
    check_takes_source(network, untrained, weights, f"arms.{name}")
    if arm.harmonise is not None:
        check_channels(workshop, arm, fold, f"arms.{name}.harmonise")
    spec = {"task": workshop.recipe.task, **workshop.described(learned, workshop.source, fold, {})}
    if not arm.method.learns and not workshop.same_outputs(arm, spec):
        own, theirs = (", ".join(domain.mask_labels.names[1:]) for domain in (workshop.target, workshop.source))
        raise UserError(
            f"arms.{name}.method: {arm.method.name} predicts the source's classes ({theirs}), which are not the "
            f"target's ({own}); bring both to the same with labels, or tune it"
        )
