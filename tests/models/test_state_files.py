import pickle

import pytest
import torch
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.state_files import read_state, state_digest, write_state

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}


def test_safetensors_come_back_with_their_metadata(tmp_path):
    write_state(tmp_path / "w.safetensors", STATE, {"note": "mine", "provenance": {"subjects": ["a"]}})
    state, metadata = read_state(tmp_path / "w.safetensors")
    assert torch.equal(state["a.weight"], STATE["a.weight"])
    assert metadata == {"note": "mine", "provenance": '{"subjects": ["a"]}'}


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_pytorch_state_dicts_are_read_also_inside_a_checkpoint(tmp_path, key):
    torch.save(STATE if key is None else {key: STATE, "epoch": 3}, tmp_path / "w.pt")
    assert set(read_state(tmp_path / "w.pt")[0]) == set(STATE)


def test_the_suffix_does_not_matter(tmp_path):
    torch.save(STATE, tmp_path / "w.safetensors")
    assert set(read_state(tmp_path / "w.safetensors")[0]) == set(STATE)


class Trap:
    """What a malicious pickle looks like: opening it would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("save", ["torch", "torch_legacy", "pickle"])
def test_a_pickle_is_refused_in_one_sentence_and_its_code_never_runs(tmp_path, save):
    trap, file = Trap(tmp_path / "ran"), tmp_path / "w.pt"
    if save == "pickle":
        file.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, file, _use_new_zipfile_serialization=save == "torch")
    with pytest.raises(UserError, match="a pickle of Python objects") as caught:
        read_state(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_saved_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"save it again with safetensors"):
        read_state(tmp_path / "w.pt")


def damaged_safetensors(path):
    write_state(path, STATE)
    path.write_bytes(path.read_bytes()[:-4])


def damaged_torch(path):
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (damaged_safetensors, "damaged"),
        (damaged_torch, "damaged"),
        (lambda path: path.write_text("hello, these are no weights"), "neither safetensors nor"),
        (lambda path: path.write_bytes(b""), "neither safetensors nor"),
        (lambda path: torch.save({}, path), "no tensors"),
        (lambda path: torch.save({"epoch": 3}, path), "no state dict"),
        (lambda path: path.mkdir(), "folder without model.safetensors"),
        (lambda path: None, "does not exist"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path, make, said):
    make(tmp_path / "w.bin")
    with pytest.raises(UserError, match=said) as caught:
        read_state(tmp_path / "w.bin")
    assert "w.bin" in str(caught.value)


def test_the_digest_is_of_names_shapes_and_bytes():
    shuffled = dict(reversed(STATE.items()))
    assert state_digest(shuffled) == state_digest(STATE)
    last = {**STATE, "a.weight": STATE["a.weight"].clone(memory_format=torch.contiguous_format)}
    assert state_digest(last) == state_digest(STATE)
    renamed = {"b.weight": STATE["a.weight"], "a.count": STATE["a.count"]}
    reshaped = {**STATE, "a.weight": STATE["a.weight"].reshape(3, 2)}
    changed = {**STATE, "a.weight": STATE["a.weight"] + 1e-6}
    assert len({state_digest(s) for s in (STATE, renamed, reshaped, changed)}) == 4


def test_the_memory_layout_does_not_change_the_digest():
    weight = torch.rand(4, 3, 5, 5)
    assert state_digest({"w": weight}) == state_digest({"w": weight.contiguous(memory_format=torch.channels_last)})
