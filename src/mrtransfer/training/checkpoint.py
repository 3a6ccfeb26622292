"""Checkpoints: whole or absent, read without unpickling, and refused where they belong to another training."""

import pickle
from pathlib import Path
from typing import Any

import torch

from mrtransfer.common.files import atomic_path


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, texts, lists and dictionaries; a full disk or a missing permission is a clear error."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # PyTorch hides the operating system's error behind one of its own; `atomic_path` explains it from there.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """What was saved under the same ``key``; None where there is nothing, or nothing usable: then one starts anew."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        return None
    return content if isinstance(content, dict) and content.get("key") == key else None
