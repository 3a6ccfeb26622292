"""What a run leaves behind: one folder, named by the run's key, written whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path, read_json, write_json
from mrtransfer.study.plan import Run
from mrtransfer.study.statistics import Outcome


def run_folder(study: Path, key: str) -> Path:
    """Where the run named ``key`` keeps its results."""
    return study / "runs" / key


def is_done(study: Path, key: str) -> bool:
    """True where the run's folder is there: it appears only once it is whole."""
    return (run_folder(study, key) / "record.json").is_file()


def save_run(
    study: Path,
    run: Run,
    *,
    test: np.ndarray,
    validation: np.ndarray,
    record: dict[str, Any],
    seconds: float,
) -> None:
    """Keep a run's probabilities on its test and validation rows ((n, classes) float32) and its record."""
    with atomic_path(run_folder(study, run.key)) as folder:
        folder.mkdir()
        np.savez(
            folder / "outcome.npz",
            test_rows=run.test,
            test=test.astype(np.float32),
            validation_rows=run.drawn.validation,
            validation=validation.astype(np.float32),
        )
        write_json(folder / "timing.json", {"seconds": round(seconds, 3)})
        write_json(folder / "record.json", record)


def load_record(study: Path, key: str) -> dict[str, Any]:
    """What the run found out beside its probabilities: curves, chosen settings, load report."""
    return read_json(run_folder(study, key) / "record.json")


def load_seconds(study: Path, key: str) -> float:
    """How long the run took; runs that were computed together share their time equally."""
    return float(read_json(run_folder(study, key) / "timing.json")["seconds"])


def load_probabilities(study: Path, key: str) -> dict[str, np.ndarray]:
    """The arrays of ``outcome.npz``; a damaged file is named."""
    path = run_folder(study, key) / "outcome.npz"
    try:
        with np.load(path) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged; delete its folder and run the study again") from error


def load_outcome(study: Path, run: Run) -> Outcome:
    """The run's test probabilities, as the statistics want them."""
    data = load_probabilities(study, run.key)
    return Outcome(
        arm=run.arm,
        budget=run.budget,
        labelled=run.labelled,
        seed=run.seed,
        fold=run.fold,
        rows=data["test_rows"],
        probabilities=data["test"],
    )
