"""``mrtransfer list``: what a recipe may name."""

import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer

from mrtransfer.cli.show import print_json, print_table
from mrtransfer.common.errors import UserError, nearest, unknown_name
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.harmonise import HARMONISERS
from mrtransfer.models.networks import NETWORKS
from mrtransfer.models.reconstructors import RECONSTRUCTORS
from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.shift.distances import DISTANCES
from mrtransfer.shift.features import FEATURES
from mrtransfer.shift.scores import SCORES
from mrtransfer.transfer.methods import METHODS

RECIPES = Path(__file__).parents[1] / "recipes"
WEIGHTS = {
    "random": "The network's own initialisation, seeded",
    "imagenet": "timm's ImageNet weights of the network, from its hub or cache",
    "source": "Trained first on the recipe's source dataset, once for all arms that want it",
    "mean_var": "Random, with mean and variance of every tensor as in ImageNet weights (Raghu et al. 2019)",
    "FILE": "A local .safetensors or .pt file or a model folder; or {file: ..., until: STAGE, channels: mean}",
}
MODELS_HINT = (
    "any timm model by its name, for classification or as the encoder of unet and resunet; "
    "'mrtransfer list models PATTERN' searches them"
)


def command(
    kind: Annotated[
        str | None, typer.Argument(help="methods, models, datasets, features and so on; all kinds when left out")
    ] = None,
    pattern: Annotated[
        str | None, typer.Argument(help="only names that contain this, or match it as in 'resnet*d'")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: {kind: {name: what it is}}.")] = False,
) -> None:
    """List methods, models, datasets, weights, recipes, and what domains are compared by."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of thing to list", kind, KINDS)
    listed = {name: KINDS[name]() for name in ([kind] if kind else KINDS)}
    if kind and pattern:
        listed = {kind: matching(kind, listed[kind], pattern)}
    if json:
        print_json(listed)
        return
    for name, entries in listed.items():
        print_table(name, entries, MODELS_HINT if name == "models" and not pattern else None)


def matching(kind: str, entries: dict[str, str], pattern: str) -> dict[str, str]:
    """The entries whose name fits ``pattern``; for models, timm's are searched too (this imports timm)."""
    if kind == "models":
        entries = {**_timm_models(), **entries}
    wildcard = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = {name: about for name, about in entries.items() if fnmatch(name.lower(), wildcard.lower())}
    if not found:
        close = nearest(pattern, entries)
        raise UserError(f"list {kind}: nothing matches {pattern!r}" + (f"; did you mean {close!r}?" if close else ""))
    return found


def models() -> dict[str, str]:
    """Networks of our own: those for classification, then those for segmentation and reconstruction, which say so."""
    found = NETWORKS.summaries()
    for task, registry in (("Segmentation", SEGMENTERS), ("Reconstruction", RECONSTRUCTORS)):
        for name, about in registry.summaries().items():
            found[name] = f"{found[name]} {task}: {about}" if name in found else f"{task}: {about}"
    return found


def recipes() -> dict[str, str]:
    """Name to question of the recipes that ship with the package, without a YAML parser."""
    return {path.stem: _question(path) for path in sorted(RECIPES.glob("*.yaml"))}


def _question(path: Path) -> str:
    """The recipe's ``question:``, which may go on over indented lines."""
    found = re.search(
        r"^question:[ \t]*[>|]?-?[ \t]*((?:.*)(?:\n[ \t]+\S.*)*)", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    return " ".join(found[1].split()).strip("\"'") if found else ""


def _timm_models() -> dict[str, str]:
    import timm

    pretrained = set(timm.list_models(pretrained=True))
    has_weights = {name.partition(".")[0] for name in pretrained}
    return {name: "timm, ImageNet weights" if name in has_weights else "timm" for name in timm.list_models()}


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "methods": METHODS.summaries,
    "models": models,
    "datasets": DATASETS.summaries,
    "weights": lambda: dict(WEIGHTS),
    "recipes": recipes,
    "features": FEATURES.summaries,
    "distances": DISTANCES.summaries,
    "scores": SCORES.summaries,
    "harmonisers": HARMONISERS.summaries,
}
