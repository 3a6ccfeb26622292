"""What a run leaves behind, in a folder named by its key: scores, a record, and the time it took."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path, read_json, write_json
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.statistics import Outcome
from mrtransfer.study.workshop import AnyWorkshop, Scores

_DAMAGES = (OSError, ValueError, KeyError, EOFError, BadZipFile)  # what NumPy makes of a file that is not whole


def run_folder(study: Path, key: str) -> Path:
    """Where a run's results lie."""
    return study / "runs" / key


def is_done(study: Path, key: str) -> bool:
    """True where the run's folder is there: it appears only once it is whole."""
    return (run_folder(study, key) / "record.json").is_file()


def save_run(study: Path, run: Run, parts: Mapping[str, Scores], *, record: dict[str, Any], seconds: float) -> None:
    """Keep a run's scores on its ``test`` and ``validation`` rows, and its record."""
    with atomic_path(run_folder(study, run.key)) as folder:
        folder.mkdir()
        arrays: dict[str, np.ndarray] = {}
        for name, scores in parts.items():
            arrays |= {f"{name}_rows": scores.rows, name: scores.values}
            if scores.kept:
                np.savez_compressed(folder / f"{name}_kept.npz", **scores.kept)  # type: ignore[arg-type]
        np.savez(folder / "outcome.npz", **arrays)  # type: ignore[arg-type]  # NumPy's own signature
        write_json(folder / "timing.json", {"seconds": round(seconds, 3)})
        write_json(folder / "record.json", record)


def load_record(study: Path, key: str) -> dict[str, Any]:
    """What the run found out beside its scores: curves, chosen settings, load report."""
    return read_json(run_folder(study, key) / "record.json")


def load_seconds(study: Path, key: str) -> float:
    """How long the run took; runs that were computed together share their time equally."""
    return float(read_json(run_folder(study, key) / "timing.json")["seconds"])


def load_scores(study: Path, key: str, part: str) -> Scores:
    """The scores on the ``test`` or ``validation`` rows; a missing or damaged file is named."""
    path = run_folder(study, key) / "outcome.npz"
    if not path.is_file():
        raise UserError(
            f"{path} is not there: this run is still to be done, or was done from other data, settings or code; "
            f"run 'mrtransfer study {study / 'recipe.yaml'} --out {study}'"
        )
    try:
        with np.load(path) as data:
            return Scores(data[f"{part}_rows"], data[part])
    except _DAMAGES as error:
        raise _damaged(path) from error


def load_kept(study: Path, key: str, *names: str) -> dict[str, np.ndarray]:
    """Further arrays that the run kept of its test rows, for the report: all, or those of ``names`` that there are."""
    path = run_folder(study, key) / "test_kept.npz"
    if not path.is_file():
        return {}
    try:
        with np.load(path) as data:
            return {name: data[name] for name in data.files if name in names or not names}
    except _DAMAGES as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged; delete its folder and run the study again")


def load_outcome(study: Path, run: Run) -> Outcome:
    """The run's test scores, as the statistics want them."""
    scores = load_scores(study, run.key, "test")
    return Outcome(
        arm=run.arm,
        budget=run.budget,
        labelled=run.labelled,
        seed=run.seed,
        fold=run.fold,
        rows=scores.rows,
        values=scores.values,
    )


def curves_of(plan: Plan, workshop: AnyWorkshop) -> dict[str, list[list[dict[str, Any]]]]:
    """Per arm, the epochs of each of its runs at the largest budget; arms without epochs are left out."""
    curves: dict[str, list[list[dict[str, Any]]]] = {}
    for run in plan.runs:
        if run.budget == workshop.recipe.budgets[-1]:
            curves.setdefault(run.arm, []).append(load_record(workshop.folder, run.key)["curves"])
    return {arm: runs for arm, runs in curves.items() if any(runs)}
