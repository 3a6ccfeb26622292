"""A reconstruction study of phantoms that runs in seconds: knees are learned first, brains are asked about."""

PHANTOM = {"dataset": "phantom", "task": "reconstruction", "coils": 3, "matrix": 40, "slices": 2}
VARNET = {"name": "varnet", "cascades": 2, "channels": 2, "pools": 2, "sens_channels": 2, "sens_pools": 2}
TINY = {
    "name": "tiny",
    "question": "Does augmentation make a network that was trained on knees transfer to brains?",
    "task": "reconstruction",
    "source": {
        **PHANTOM, "anatomy": "knee", "subjects": 4, "validation": 0.25, "method": {"name": "scratch", "epochs": 1},
    },
    "target": {**PHANTOM, "subjects": 7, "split": {"test": 0.57, "validation": 0.34}},
    "sampling": {"mask": "equispaced_fraction", "acceleration": [3, 5], "centre_fraction": [0.15, 0.1]},
    "shared": {"network": VARNET},
    "arms": {
        "zero-filled": {"network": "zero_filled"},
        "L1-wavelet": {"network": {"name": "l1_wavelet", "iterations": 3}},
        "scratch": {"method": {"name": "scratch", "epochs": 2}},
        "as it is": {"weights": "source", "method": "zero_shot"},
        "as it is + MRA": {"weights": "source", "method": "zero_shot", "augment": "mraugment"},
        "frozen": {"weights": "source", "method": {"name": "fine_tune", "epochs": 1, "freeze": "cascades.0"}},
    },
    "seeds": 2,
    "compare": [["as it is + MRA", "as it is"], ["frozen", "scratch"]],
    "resamples": 200,
    "precision": "float32",
}  # fmt: skip


def changed(**fields):
    return {**TINY, **fields}
