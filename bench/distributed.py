"""(f) Data-parallel training: two processes of one thread each against one process of one thread.

    python -m bench.distributed [--network residual_unet] [--steps 4] [--repeats 3]

Both train the same network from the same weights on the same batches of patches of phantom volumes, alternately, with
the number format that the probe chooses. Throughput is that of all epochs but the first, validation and start apart.
Agreement: the largest difference between the two curves of the training loss.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bench.common import median
from mrtransfer.augment.volume import VolumeAugment
from mrtransfer.data.cases.fingerprint import fingerprint
from mrtransfer.data.cases.plan import make_plan
from mrtransfer.data.cases.store import open_cases
from mrtransfer.data.datasets import DATASETS
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.training.fit_segmentation import precision_for_segmentation, train_segmenter
from mrtransfer.transfer.method import parse_method

PROCESSES = 2
AUGMENT = VolumeAugment(flip=0.5, rotate=15, scale=0.1, probability=0.3)


def main() -> None:
    """Run both sides alternately, compare their curves, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="residual_unet")
    parser.add_argument("--subjects", type=int, default=6)
    parser.add_argument("--spacing", type=float, default=3.0, help="mm: smaller makes larger patches")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(options, Path(scratch)), indent=1))


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Patches per second of both sides, their ratio, and how far their curves are apart."""
    manifest = DATASETS.get("phantom")(
        subjects=options.subjects, task="segmentation", contrast=["flair", "t1ce"], spacing=options.spacing
    )
    rows = np.arange(options.subjects)
    plan = make_plan(fingerprint(manifest, rows), dims=3, overrides={"batch": options.batch})
    cases = open_cases(manifest, plan, scratch)
    method = parse_method(
        {"name": "scratch", "epochs": options.epochs, "steps": options.steps, "batch": options.batch,
         "optimizer": "sgd", "rate": 1e-2, "select": "last"}
    )  # fmt: skip

    def fresh():
        network = build_segmentation_network(
            options.network, in_channels=2, dims=3, features=plan.features, strides=plan.strides, seed=0
        )
        return network, pixel_head(network.features, len(manifest.mask_labels.names), seed=0)

    network, head = fresh()
    precision = precision_for_segmentation(network, head, cases, plan=plan, device="cpu")
    rates: dict[int, list[float]] = {1: [], PROCESSES: []}
    curves: dict[int, list[float]] = {}
    for _ in range(options.repeats):
        for devices in rates:
            times: list[float] = []
            result = train_segmenter(
                *fresh(), method, cases, rows, rows[:0], plan=plan, labels=manifest.mask_labels, augment=AUGMENT,
                precision=precision, device="cpu", devices=devices, advance=lambda _, at=times: at.append(time.time()),
            )  # fmt: skip
            counted = len(times) - options.steps
            rates[devices].append(counted * options.batch / (times[-1] - times[options.steps - 1]))
            curves[devices] = [row["train_loss"] for row in result.curves]
    one, several = median(rates[1]), median(rates[PROCESSES])
    return {
        "network": options.network,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "patch": list(plan.patch),
        "batch": options.batch,
        "precision": precision.name,
        "patches_per_second": {"1 process": round(one, 3), f"{PROCESSES} processes": round(several, 3)},
        "ratio": round(several / one, 3),
        "ratios": [round(b / a, 3) for a, b in zip(rates[1], rates[PROCESSES], strict=True)],
        "training_loss": curves[1],
        "largest_difference": float(np.abs(np.subtract(curves[1], curves[PROCESSES])).max()),
    }


if __name__ == "__main__":
    main()
