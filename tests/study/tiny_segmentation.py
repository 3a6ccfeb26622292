"""A segmentation study of phantoms that runs in seconds, and what tests ask of such studies."""

from mrtransfer.study.plan import make_plan
from mrtransfer.study.tasks import open_workshop

PHANTOM = {"dataset": "phantom", "task": "segmentation", "spacing": 8.0, "subjects": 8}
TINY = {
    "name": "tiny",
    "question": "Does a network trained on FLAIR and T1 post-contrast help on T1 and T2?",
    "task": "segmentation",
    "source": {
        **PHANTOM, "contrast": ["flair", "t1ce"], "first_subject": 4, "method": {"name": "scratch", "epochs": 2},
    },
    "target": {**PHANTOM, "contrast": ["t1", "t2"], "split": {"folds": 2, "validation": 0.25}},
    "plan": {"features": [4, 8], "patch": [16, 16, 16], "batch": 2},
    "shared": {"network": "residual_unet"},
    "arms": {
        "scratch": {"method": {"name": "scratch", "epochs": 2}},
        "as is": {"weights": "source", "method": "zero_shot"},
        "frozen": {"weights": "source", "method": {"name": "fine_tune", "epochs": 1, "freeze": "encoder1"}},
    },
    "seeds": 2,
    "resamples": 200,
    "precision": "float32",
}  # fmt: skip
"""Phantoms 0 to 7 are the target, 4 to 11 the source: half of them are the same people."""


def laid_out(recipe, folder):
    workshop = open_workshop(recipe, folder)
    plan = make_plan(recipe, workshop.target, workshop.source, workshop)
    workshop.check_weights(plan)
    return plan, workshop


def changed(**fields):
    return {**TINY, **fields}


def one_run(plan, arm, fold=0):
    return next(run for run in plan.runs if (run.arm, run.fold) == (arm, fold))
