"""A classification study of arms that see no label of the target, on the phantom, that runs in seconds."""

TINY = {
    "name": "tiny",
    "question": "Does adaptation to unlabelled T2 help a network that knows T1 post-contrast?",
    "task": "classification",
    "source": {
        "dataset": "phantom", "contrast": "t1ce", "subjects": 16, "slices": 1, "first_subject": 8, "size": 32,
        "method": {"name": "scratch", "epochs": 1},
    },
    "target": {"dataset": "phantom", "contrast": "t2", "subjects": 16, "slices": 1, "size": 32, "split": {"folds": 2}},
    "input": {"size": 32, "channels": 1},
    "shared": {"network": "cbr_tiny", "normalise": "unit", "weights": "source"},
    "arms": {
        "source only": {"method": "zero_shot"},
        "matched": {"method": "zero_shot", "harmonise": "histogram_matching"},
        "AdaBN": {"method": {"name": "adaptive_batch_norm", "batch": 8}},
        "DANN": {"method": {"name": "dann", "epochs": 1, "batch": 8}},
        "oracle": {"method": {"name": "fine_tune", "epochs": 1}},
    },
    "budgets": [6, "all"],
    "seeds": 2,
    "resamples": 100,
    "precision": "float32",
}  # fmt: skip
"""Phantoms 0 to 15 are the target, 8 to 23 the source: half of them are the same people."""
