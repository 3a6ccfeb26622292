"""What transferability scores may look at: rows that may be learned from, through a network as it starts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.data.cases.patches import PatchSampler
from mrtransfer.models.hub import imagenet_state
from mrtransfer.models.load_report import LoadReport
from mrtransfer.models.network import StagedNetwork, network_state
from mrtransfer.models.segmentation import SegmentationNetwork
from mrtransfer.models.state_files import read_state
from mrtransfer.shift.score import CaseVoxels, Evidence
from mrtransfer.study.execute import job_of
from mrtransfer.study.plan import Run
from mrtransfer.study.workshop import AnyWorkshop
from mrtransfer.training.precision import choose_device

if TYPE_CHECKING:
    from mrtransfer.study.tasks.classification import ClassificationWorkshop
    from mrtransfer.study.tasks.segmentation import SegmentationWorkshop

MOST_SAMPLES = 5000
"""Of which features are scored: beyond, rows are spread evenly over all. Scores take time with their square."""
MOST_CASES = 16
_PATCHES = 2  # of each case, centred on voxels of a class
_VOXELS = 64  # of each class of a case; twice as many of the whole


def evidence_of(workshop: Any, run: Run, rows: np.ndarray, network: Any, report: LoadReport) -> Evidence:
    """What is known of ``network``, which holds the initial weights of ``run``, on ``rows`` of the target.

    Classification: pooled features, labels, and what the source's own classifier says, where it has one.
    Segmentation: features of voxels. Reconstruction: the network alone. Nothing is trained.
    """
    provenance = report.provenance
    own = {
        "parameters": sum(value.numel() for value in network.parameters()),
        "imagenet": provenance.get("timm") or provenance.get("architecture"),
    }
    if workshop.recipe.task == "classification":
        own |= _of_images(workshop, run, rows, network)
    elif workshop.recipe.task == "segmentation":
        own |= {"cases": _of_volumes(workshop, run, rows, network)}
    return Evidence(**own)


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of ``rows``, evenly spread over them."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def _of_images(workshop: "ClassificationWorkshop", run: Run, rows: np.ndarray, network: Any) -> dict[str, Any]:
    rows = spread(rows, MOST_SAMPLES)
    store = workshop.seen(job_of(run, workshop), workshop.target)
    features = np.asarray(workshop.features(run.spec, network, store=store)[0][rows])
    return {
        "features": features,
        "labels": workshop.target.labels[rows],
        "subjects": workshop.target.units[rows],  # copies of an image have no vote either
        "source_probabilities": _source_probabilities(workshop, run, network, features),
    }


def _source_probabilities(
    workshop: AnyWorkshop, run: Run, network: StagedNetwork, features: np.ndarray
) -> np.ndarray | None:
    """(N, Z) softmax of the head that the weights were trained with, on their ``features`` (N, D); None without one."""
    if network.fresh or run.weights.until is not None or network.until is not None:
        return None  # the head was trained on other features than these
    model = workshop.pretrained(job_of(run, workshop))
    head: nn.Module | None = _published_head(run, network) if model is None else model.head
    if head is None or (model is not None and model.task != "classification"):
        return None
    with torch.inference_mode():
        logits = head.eval()(torch.from_numpy(features).float())
    return logits.double().softmax(1).numpy()


def _published_head(run: Run, network: StagedNetwork) -> nn.Linear | None:
    """The classifier that the file of published weights keeps beside the network."""
    if run.weights.kind == "imagenet":
        state = imagenet_state(network.name)[0]
    elif run.weights.kind == "file" and run.weights.file is not None:
        state = read_state(run.weights.file)[0]
    else:
        return None
    for name in network.classifier:
        weight = state.get(f"{name}.weight")
        if weight is not None and weight.ndim == 2 and weight.shape[1] == network.features:
            head = nn.Linear(weight.shape[1], weight.shape[0])
            bias = state.get(f"{name}.bias", torch.zeros(len(weight)))
            head.load_state_dict({"weight": weight.float(), "bias": bias.float()})
            return head
    return None


def _of_volumes(
    workshop: "SegmentationWorkshop", run: Run, rows: np.ndarray, network: SegmentationNetwork
) -> list[CaseVoxels]:
    """Voxels of patches with foreground, at the last stage whose weights are all transferred."""
    target = workshop.target
    store = workshop.seen(job_of(run, workshop), target)
    patch = workshop.plans.plan(target, run.fold, workshop.dims(run.spec)).patch
    device = choose_device(workshop.device)
    found = []
    rows = np.array([row for row in rows if store.classes_in[row]], dtype=np.int64)
    with _listening(network, device) as look:
        for row in spread(rows, MOST_CASES).tolist():
            sampler = PatchSampler(store, [row], patch=patch, batch=_PATCHES, foreground=1.0, seed=row)
            batch = sampler.batch(0, 0)
            maps = look(batch["images"].float().to(device))
            found.append(_voxels(str(target.units[row]), maps, batch["masks"].numpy(), row))
    store.release()
    return found


def _voxels(subject: str, maps: np.ndarray, masks: np.ndarray, seed: int) -> CaseVoxels:
    """Draw voxels of ``masks`` (B, X, Y, Z) and look up their features in ``maps`` (B, D, x, y, z)."""
    random = np.random.default_rng(seed)
    scale = np.array(maps.shape[2:]) / masks.shape[1:]

    def features(places: np.ndarray, number: int) -> np.ndarray:
        drawn = places[random.choice(len(places), min(number, len(places)), replace=False)]
        b, *at = np.stack(np.unravel_index(np.sort(drawn), masks.shape))
        x, y, z = (np.stack(at, 1) * scale).astype(int).T
        return maps[b, :, x, y, z]

    classes = {
        number: features(np.flatnonzero(masks == number), _VOXELS) for number in np.unique(masks).tolist() if number
    }
    return CaseVoxels(subject, features(np.arange(masks.size), 2 * _VOXELS), classes)


@contextmanager
def _listening(network: SegmentationNetwork, device: str) -> Iterator[Callable[[Tensor], np.ndarray]]:
    """A function from images (B, C, X, Y, Z) to the maps (B, D, x, y, z) of :func:`_last_transferred`."""
    heard: dict[str, Tensor] = {}

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim >= 4:
            heard["last"] = output  # a module is through after all that are in it

    def look(images: Tensor) -> np.ndarray:
        with torch.inference_mode():
            network(images)
        maps = heard["last"].float().cpu()
        return (maps if maps.ndim == 5 else maps.unsqueeze(4)).numpy()

    hooks = [module.register_forward_hook(keep) for module in _last_transferred(network)]
    training = {module: module.training for module in network.modules()}
    network.eval().to(device)
    try:
        yield look
    finally:
        network.cpu()
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode


def _last_transferred(network: SegmentationNetwork) -> list[nn.Module]:
    """The modules of the last stage that has weights and no fresh ones; the body, where that is the very last stage.

    What follows is random: of a U-Net with a published encoder all of the decoder, whose maps would say little.
    """
    names = list(network_state(network))
    for stage in reversed(network.stages):
        held = [name for name in names if stage.holds(name)]
        if held and network.fresh.isdisjoint(held):
            if stage is network.stages[-1]:
                break
            return [module for name, module in network.body.named_modules() if stage.holds(name)]
    return [network.body]
