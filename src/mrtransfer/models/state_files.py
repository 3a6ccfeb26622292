"""Weights on disk: safetensors or PyTorch state dicts, read without ever running a pickle's code."""

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path

State = dict[str, Tensor]

HEAD = "head."
"""Before the names of a head's tensors in a model folder."""

_NESTED = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")
_HOW_TO_SAVE = "save it again with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


def read_state(path: str | Path) -> tuple[State, dict[str, str]]:
    """Tensors by name and the file's metadata, from a safetensors file, a PyTorch state dict, or a model folder.

    What the file is, is told from its bytes, not from its suffix. Of a model folder the network is read, and a
    segmentation model's head under names that start with ``head.``. Raises :class:`UserError` for a missing or damaged
    file, and for a pickle of anything but tensors.
    """
    path = Path(path)
    if path.is_dir() and (path / "model.safetensors").is_file():
        return _read_model_folder(path)
    if not path.is_file():
        kind = "is a folder without model.safetensors" if path.is_dir() else "does not exist"
        raise UserError(f"weights {path}: the file {kind}; give a .safetensors or .pt file, or a model folder")
    with _readable(path) as file:
        start = file.read(9)
    if len(start) == 9 and start[8:] == b"{":
        state, metadata = read_tensors(path)
    elif start[:2] == b"PK" or start[:1] == b"\x80":
        state, metadata = _read_torch(path), {}
    else:
        raise UserError(f"weights {path}: neither safetensors nor a PyTorch file; {_HOW_TO_SAVE}")
    if not state:
        raise UserError(f"weights {path}: the file holds no tensors; {_HOW_TO_SAVE}")
    return state, metadata


def write_state(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write safetensors, whole or not at all; metadata values that are not text are written as JSON."""
    words = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in (metadata or {}).items()
    }
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors would let nobody but its writer read the file
        try:
            save_file(tensors, temporary, words)
        except SafetensorError as error:
            raise _as_os_error(error) from error
        temporary.chmod(mode)


def _as_os_error(error: SafetensorError) -> Exception:
    """Safetensors hides the operating system's error number in its text; `atomic_path` explains it from there."""
    text = str(error)
    number = text.rpartition("os error ")[2].partition(")")[0]
    return OSError(int(number), text) if number.isdigit() else error


def state_digest(state: Mapping[str, Tensor], length: int = 16) -> str:
    """SHA-256 over the sorted names, types, shapes and bytes: the same weights have the same name everywhere."""
    sha = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        sha.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:length]


def read_tensors(path: Path) -> tuple[State, dict[str, str]]:
    """Tensors and metadata of a safetensors file; a damaged one is a :class:`UserError`."""
    _readable(path).close()
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"weights {path}: the safetensors file is damaged ({error}); fetch it again") from error


def _readable(path: Path) -> IO[bytes]:
    try:
        return open(path, "rb")
    except PermissionError as error:
        raise UserError(f"weights {path}: no permission to read the file; ask its owner for it, or copy it") from error


def _read_torch(path: Path) -> State:
    try:
        # An open file, because by its name torch would take a file for what its suffix says.
        with open(path, "rb") as file, warnings.catch_warnings(action="ignore"):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {path}: a pickle of Python objects, which could run any code when opened, so it is refused; "
            + _HOW_TO_SAVE
        ) from error
    except Exception as error:  # a damaged zip raises whatever part of it is met first
        raise UserError(f"weights {path}: the PyTorch file is damaged; fetch it again") from error
    return _only_tensors(found, path)


def _only_tensors(found: Any, path: Path) -> State:
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    state = {str(key): value for key, value in found.items()} if isinstance(found, Mapping) else {}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights {path}: the file holds no state dict (names and tensors); {_HOW_TO_SAVE}")
    return state


def _read_model_folder(folder: Path) -> tuple[State, dict[str, str]]:
    state, metadata = read_tensors(folder / "model.safetensors")
    network = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    if metadata.get("task") == "segmentation":
        # In classification a head is always that of its own classes, and backbones have parts of the same name.
        network |= {name: value for name, value in state.items() if name.startswith(HEAD)}
    return network, metadata
