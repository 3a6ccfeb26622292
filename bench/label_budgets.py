"""(a) A label-budget study of linear probes against a plain loop: 5 budgets × 10 seeds × 4 regularisations.

    python -m bench.label_budgets [--path CLASS_FOLDERS] [--network resnet18] [--repeats 3]

Ours: one pass of the frozen backbone over all images, then all 200 heads from the kept features. Reference: timm and a
DataLoader, the frozen backbone in every step, the 200 heads trained one after another for 30 epochs each; it is timed
on ``--timed-batches`` batches and scaled to all of them. Both read the same decoded pixels. Agreement: the chosen
heads' test accuracy against scikit-learn's on the same features.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, TensorDataset

from bench.common import images, median, seconds
from mrtransfer.augment.prepare import to_input
from mrtransfer.data.split import draw, holdout, units
from mrtransfer.models.features import feature_matrix
from mrtransfer.models.network import build_network
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.linear_probes import fit_linear_probes
from mrtransfer.training.precision import precision_for_training
from mrtransfer.training.problems import Problem

L2 = (1e-3, 1e-2, 1e-1, 1.0)
SEEDS, EPOCHS = range(10), 30


def main() -> None:
    """Run both sides alternately, check that they agree, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--subjects", type=int, default=400)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timed-batches", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(options, Path(scratch)), indent=1))


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Median seconds of each part and the two ratios."""
    manifest, store = images(options.path, options.subjects, options.size, scratch)
    labels, belong = manifest.labels, units(manifest)
    fold = holdout(labels, belong, test=0.2, seed=0)[0]
    every = len(np.unique(belong[fold.development]))
    budgets = [round(every * share) for share in (0.03, 0.1, 0.3, 0.6)] + ["all"]
    drawn = [draw(labels, belong, fold.development, budget=b, seed=s) for b in budgets for s in SEEDS]
    problems = [Problem(d.train, d.validation, 0) for d in drawn]
    network = build_network(options.network)
    head = build_head("linear", network.features, len(manifest.classes))
    seen = {"channels": 3, "normalise": "imagenet"}
    precision = precision_for_training(network, head, store.images, input=seen, batch=32)
    passes, heads, batches = [], [], []
    for repeat in range(options.repeats):
        kept = {}

        def one_pass(repeat: int = repeat, kept: dict = kept) -> None:
            kept["features"] = feature_matrix(
                network, store, precision=precision.dtype, channels_last=precision.channels_last,
                cache=scratch / f"features-{repeat}",
            )  # fmt: skip

        passes.append(seconds(one_pass))
        features = np.array(kept["features"])
        heads.append(seconds(lambda f=features: fit_linear_probes(f, labels, problems, L2, len(manifest.classes))))
        batches.append(plain_batch_seconds(options, store.images, labels))
    fitted = fit_linear_probes(features, labels, problems, L2, len(manifest.classes))
    plain_images = sum(len(d.train) for d in drawn) * len(L2) * EPOCHS
    plain = median(batches) / 32 * plain_images
    ours = median(passes) + median(heads)
    return {
        "images": len(store),
        "network": options.network,
        "heads": len(problems) * len(L2),
        "precision": precision.name,
        "backbone_pass_s": round(median(passes), 2),
        "all_heads_s": round(median(heads), 2),
        "ours_over_one_pass": round(ours / median(passes), 3),
        "ours_over_one_plain_float32_pass": round(ours / (median(batches) / 32 * len(store)), 3),
        "plain_loop_s_scaled": round(plain),
        "plain_loop_timed_on": f"{options.timed_batches} batches of 32, {options.repeats} times",
        "plain_over_ours": round(plain / ours),
        "largest_accuracy_gap_to_scikit_learn": largest_gap(features[0], labels, drawn[::10], fitted[::10], fold.test),
    }


def plain_batch_seconds(options: argparse.Namespace, pixels: np.ndarray, labels: np.ndarray) -> float:
    """Seconds per batch of a plain loop: frozen timm backbone in float32, linear head, AdamW."""
    backbone = timm.create_model(options.network, pretrained=False, num_classes=0).eval()
    head = torch.nn.Linear(backbone.num_features, int(labels.max()) + 1)
    optimizer = torch.optim.AdamW(head.parameters(), 1e-3)
    count = 32 * (options.timed_batches + 1)
    data = TensorDataset(torch.from_numpy(np.array(pixels[:count])), torch.from_numpy(labels[:count].astype(np.int64)))
    times = []
    batches = iter(DataLoader(data, batch_size=32, shuffle=True))

    def step() -> None:
        x, y = next(batches)
        x = to_input(x, channels=3, normalise="imagenet")
        with torch.no_grad():
            pooled = backbone(x)
        loss = torch.nn.functional.cross_entropy(head(pooled), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    for _ in range(min(options.timed_batches, len(data) // 32 - 1)):
        times.append(seconds(step))
    return median(times)


def largest_gap(features: np.ndarray, labels: np.ndarray, drawn: list, fitted: list, test: np.ndarray) -> float:
    """Largest difference of test accuracy between our head and scikit-learn's at the same regularisation."""
    gaps = []
    for d, head in zip(drawn, fitted, strict=True):
        mean, deviation = features[d.train].mean(0), features[d.train].std(0)
        deviation[deviation == 0] = 1
        x = (features - mean) / deviation
        model = LogisticRegression(C=1 / (head.l2 * len(d.train)), max_iter=2000, tol=1e-6)
        theirs = model.fit(x[d.train], labels[d.train]).score(x[test], labels[test])
        ours = (head.probabilities(features[test]).argmax(1) == labels[test]).mean()
        gaps.append(abs(theirs - ours))
    return round(float(max(gaps)), 4)


if __name__ == "__main__":
    main()
