"""(b) Fine-tuning throughput: our training against a plain float32 PyTorch loop, from the same weights and rows.

    python -m bench.fine_tuning [--path CLASS_FOLDERS] [--weights FILE --until layer3] [--size 224] [--repeats 3]

Both train the whole network with AdamW on batches of 32 of the same decoded pixels, alternately in one process.
Agreement: test accuracy of the two after training, with a paired bootstrap interval over subjects of the difference.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.common import images, median, seconds
from mrtransfer.augment.prepare import to_input
from mrtransfer.data.split import holdout, units
from mrtransfer.models.network import Backbone, build_network
from mrtransfer.models.weights import apply_weights
from mrtransfer.study.statistics import Outcome, analyse
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.fit import predict, train
from mrtransfer.training.precision import precision_for_training
from mrtransfer.transfer.method import parse_method

SEEN = {"channels": 3, "normalise": "imagenet"}


def main() -> None:
    """Run both sides alternately, compare their accuracy, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--until")
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(options, Path(scratch)), indent=1))


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Images per second of both sides, their ratio, and the difference of accuracy."""
    manifest, store = images(options.path, options.subjects, options.size, scratch)
    labels, belong = manifest.labels, units(manifest)
    fold = holdout(labels, belong, test=0.3, seed=0)[0]
    method = parse_method(
        {"name": "fine_tune", "epochs": options.epochs, "rate": 1e-3, "backbone_rate": 1e-4, "weight_decay": 0.01,
         "schedule": "constant", "head_start": "random", "select": "last"}
    )  # fmt: skip
    network, head = fresh(options, len(manifest.classes), 0)
    precision = precision_for_training(network, head, store.images, input=SEEN, batch=32)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    outcomes = []
    for seed in range(options.repeats):
        network, head = fresh(options, len(manifest.classes), seed)

        def ours(network: Backbone = network, head: torch.nn.Sequential = head, seed: int = seed) -> None:
            train(network, head, method, store, labels, fold.development, np.zeros(0, int), input=SEEN, seed=seed,
                  precision=precision)  # fmt: skip

        rates["ours"].append(options.epochs * len(fold.development) / seconds(ours))
        found = predict(network, head, store, fold.test, input=SEEN, precision=precision)
        outcomes.append(Outcome("ours", "all", seed, 0, fold.test, found, len(fold.development)))
        network, head = fresh(options, len(manifest.classes), seed)

        def plain(network: Backbone = network, head: torch.nn.Sequential = head, seed: int = seed) -> None:
            plain_loop(network, head, store.images, labels, fold.development, options.epochs, seed)

        rates["plain"].append(options.epochs * len(fold.development) / seconds(plain))
        found = predict(network, head, store, fold.test, input=SEEN)
        outcomes.append(Outcome("plain", "all", seed, 0, fold.test, found, len(fold.development)))
    found = analyse(outcomes, labels, belong, margin=0.02, compare=[("ours", "plain")])
    accuracy = next(entry for entry in found["comparisons"] if entry["metric"] == "accuracy")
    pairs = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
    return {
        "network": options.network,
        "until": options.until,
        "size": options.size,
        "precision": precision.to_json(),
        "ours_images_per_s": round(median(rates["ours"]), 1),
        "plain_images_per_s": round(median(rates["plain"]), 1),
        "ratio": round(median(pairs), 2),
        "ratios": [round(pair, 2) for pair in pairs],
        "accuracy": {e["arm"]: e["metrics"]["accuracy"]["mean"] for e in found["arms"]},
        "accuracy_difference": {key: accuracy[key] for key in ("difference", "low", "high")},
    }


def fresh(options: argparse.Namespace, classes: int, seed: int) -> tuple[Backbone, torch.nn.Sequential]:
    """The same initial network for both sides."""
    network = build_network(options.network, until=options.until, seed=seed)
    apply_weights(network, options.weights, seed=seed)
    return network, build_head("linear", network.features, classes, seed=seed)


def plain_loop(
    network: Backbone, head: torch.nn.Module, pixels: np.ndarray, labels: np.ndarray, rows: np.ndarray, epochs: int,
    seed: int,
) -> None:  # fmt: skip
    """What one would write by hand; batch norm keeps its statistics, as in our method."""
    model = torch.nn.Sequential(network, head)
    groups = [{"params": network.parameters(), "lr": 1e-4}, {"params": head.parameters(), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    data = torch.utils.data.TensorDataset(
        torch.from_numpy(np.array(pixels[rows])), torch.from_numpy(labels[rows].astype(np.int64))
    )
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, generator=generator)
    model.train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    for _ in range(epochs):
        for x, y in loader:
            loss = torch.nn.functional.cross_entropy(model(to_input(x, **SEEN)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
