"""Weights that were trained on a published split are not scored on it, whether their file says so or the recipe."""

import numpy as np
import pytest
import torch
from tiny_reconstruction import VARNET
from tiny_segmentation import laid_out, one_run

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import write_fastmri
from mrtransfer.models.network import network_state
from mrtransfer.models.package import load_model
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.models.state_files import write_state
from mrtransfer.models.weights import parse_weights, splits_in
from mrtransfer.study.execute import job_of
from mrtransfer.study.recipe import parse_recipe


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Fully sampled volumes in fastMRI's folders, and the weights of a network as fastMRI publishes them."""
    root = tmp_path_factory.mktemp("fastmri")
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(2):
            kspace = generator.normal(size=(1, 3, 40, 40)) + 1j * generator.normal(size=(1, 3, 40, 40))
            path = root / f"multicoil_{split}" / f"file{split}{number}.h5"
            path.parent.mkdir(exist_ok=True)
            write_fastmri(path, kspace.astype(np.complex64), acquisition="AXT2")
    network = build_reconstruction_network("varnet", options={k: v for k, v in VARNET.items() if k != "name"})
    torch.save(network_state(network), root / "leaderboard.pt")
    return root


def study_of(root, weights, split, method="zero_shot"):
    data = {
        "question": "?",
        "task": "reconstruction",
        "target": {"dataset": "fastmri", "path": str(root), "split": split},
        "sampling": {"mask": "random", "acceleration": 3, "centre_fraction": 0.1},
        "arms": {"it": {"network": VARNET, "weights": weights, "method": method}},
        "precision": "float32",
    }
    return parse_recipe(data)


def test_weights_of_train_and_val_are_refused_where_val_is_tested(published, tmp_path):
    weights = {"file": str(published / "leaderboard.pt"), "trained_on": ["train", "val"]}
    with pytest.raises(UserError) as caught:
        laid_out(study_of(published, weights, {"test": 0.5}), tmp_path)
    assert str(caught.value).startswith(
        "arms.it.weights: these weights were trained on the published split (train, validation) that "
    )
    assert "so a score on them would be void" in str(caught.value)


def test_they_may_be_scored_on_the_published_test_set(published, tmp_path):
    weights = {"file": str(published / "leaderboard.pt"), "trained_on": ["train", "val"]}
    plan, _ = laid_out(study_of(published, weights, {"published": "refuse"}), tmp_path)
    assert len(plan.runs[0].test) == 2
    with pytest.raises(UserError, match=r"published split \(test\) that 2 of the 2 test samples"):
        laid_out(study_of(published, {**weights, "trained_on": "test"}, {"published": "refuse"}), tmp_path)


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"splits": ["test"]}, True),
        ({"splits": ["test"], "dataset": "fastmri"}, True),
        ({"splits": {"fastmri": ["test"]}}, True),
        ({"splits": ["test"], "dataset": "ours"}, False),
        ({"splits": {"ours": ["test"]}}, False),
        ({"splits": ["train"]}, False),
    ],
)
def test_a_file_that_says_so_itself_is_believed(published, tmp_path, said, refused):
    network = build_reconstruction_network("varnet", options={k: v for k, v in VARNET.items() if k != "name"})
    write_state(tmp_path / "it.safetensors", network_state(network), {"provenance": said})
    recipe = study_of(published, str(tmp_path / "it.safetensors"), {"published": "refuse"})
    if refused:
        with pytest.raises(UserError, match="a score on them would be void"):
            laid_out(recipe, tmp_path / "study")
    else:
        laid_out(recipe, tmp_path / "study")


def test_a_model_that_was_tuned_from_them_knows_it_too(published, tmp_path):
    weights = {"file": str(published / "leaderboard.pt"), "trained_on": ["train"]}
    method = {"name": "fine_tune", "epochs": 1}
    plan, workshop = laid_out(study_of(published, weights, {"published": "refuse"}, method), tmp_path / "study")
    run = one_run(plan, "it")
    workshop.make_model(run, job_of(run, workshop), tmp_path / "model", {})
    assert load_model(tmp_path / "model").spec["provenance"]["splits"] == {"fastmri": ["train"]}


def test_the_source_may_not_start_from_what_is_tested(published, tmp_path):
    data = study_of(published, str(published / "leaderboard.pt"), {"published": "refuse"}).model_dump(mode="json")
    data["arms"]["it"]["weights"] = "source"
    source = {"dataset": "phantom", "task": "reconstruction", "subjects": 4, "coils": 3, "matrix": 40, "slices": 1}
    source["weights"] = {"file": str(published / "leaderboard.pt"), "trained_on": ["test"]}
    with pytest.raises(UserError, match=r"^source\.weights: these weights were trained on the published split"):
        laid_out(parse_recipe({**data, "source": source}), tmp_path)


def test_data_without_their_split_cannot_be_told_apart(published, tmp_path):
    weights = {"file": str(published / "leaderboard.pt"), "trained_on": ["train", "val"]}
    recipe = study_of(published, weights, {"test": 0.5})
    elsewhere = {"dataset": "kspace", "path": str(published), "split": {"test": 0.5}}
    data = {**recipe.model_dump(mode="json"), "target": elsewhere}
    with pytest.raises(UserError, match="these data come without theirs"):
        laid_out(parse_recipe(data), tmp_path)


def test_what_it_was_trained_on_changes_no_result(published, tmp_path):
    file = str(published / "leaderboard.pt")
    keys = {
        laid_out(study_of(published, weights, {"published": "refuse"}), tmp_path)[0].runs[0].key
        for weights in (file, {"file": file}, {"file": file, "trained_on": ["train"]})
    }
    assert len(keys) == 1


def test_splits_have_one_name_each():
    assert parse_weights({"file": "a.pt", "trained_on": ["val", "validation", "train"]}).trained_on == (
        "validation", "train",
    )  # fmt: skip
    assert parse_weights({"file": "a.pt", "trained_on": "val"}).trained_on == ("validation",)
    assert splits_in({"splits": ["val"]}, "ours") == {"ours": ["validation"]}
    assert splits_in({}, "ours") == {}
    with pytest.raises(UserError, match="what they were trained on: unknown split 'holdout'"):
        splits_in({"splits": ["holdout"]}, "ours")
