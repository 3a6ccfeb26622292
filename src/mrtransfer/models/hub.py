"""ImageNet weights through timm and the hub's cache; without a connection, one clear sentence within seconds."""

from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from timm.models import get_pretrained_cfg

from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import progress
from mrtransfer.models.networks import NETWORKS
from mrtransfer.models.state_files import State

_SECONDS_TO_ANSWER = 5.0
_FILES = ("model.safetensors", "pytorch_model.bin")


def imagenet_state(name: str) -> tuple[State, dict[str, Any]]:
    """The state dict of timm's default (or tagged: ``resnet18.a1_in1k``) weights, and where it comes from.

    Classifier included, three input channels. Raises :class:`UserError` where there are none for this network, and
    where they are neither in the hub's cache nor to be fetched.
    """
    config = None if name in NETWORKS else get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise UserError(f"weights imagenet: there are none for {name}; use random, or give a local file")
    overlay: dict[str, Any] = {}
    if config.hf_hub_id:
        with progress(f"Fetching {config.hf_hub_id}"):
            overlay["file"] = str(_fetch(name, config.hf_hub_id, config.hf_hub_filename))
    try:
        with torch.random.fork_rng(devices=[]):  # building the network draws from the global generator
            body = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # whatever timm's loaders and the network's own checkpoint filter meet
        raise UserError(
            f"weights imagenet: timm cannot load those of {name} ({type(error).__name__}: {error})"
        ) from error
    origin = {
        "timm": f"{config.architecture}.{config.tag}" if config.tag else config.architecture,
        "hub": config.hf_hub_id or config.url,
        "licence": config.license,
    }
    return body.state_dict(), origin


def _fetch(name: str, repository: str, filename: str | None) -> Path:
    """The cached file, or a fetched one. Asks once, briefly, before the hub's own patient retries begin."""
    files = (filename,) if filename else _FILES
    for file in files:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    for file in files:
        try:
            get_hf_file_metadata(hf_hub_url(repository, file), timeout=_SECONDS_TO_ANSWER)
            return Path(hf_hub_download(repository, file))
        except EntryNotFoundError:
            continue
        except Exception as error:  # offline mode, no route, no name, proxy, time-out: all mean the same to the user
            raise UserError(
                f"weights imagenet: those of {name} are not on this machine and cannot be fetched from the Hugging "
                f"Face hub ({type(error).__name__}); connect once, or give a local file instead: weights: path/to/file"
            ) from error
    raise UserError(f"weights imagenet: {repository} has no weights file for {name}; give a local file instead")
