"""Where the time goes: a trace of a few steps of each phase, and a table of seconds and memory.

Traces are JSON files for Perfetto (ui.perfetto.dev) or chrome://tracing. The table leaves out the steps that were
traced, as far as there are others, because tracing takes time itself. ``wait``: for the next batch, which is read in
the background (``read``). ``forward``: network and loss.
"""

import os
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler
from torch.profiler import ProfilerAction, ProfilerActivity, profile, record_function, schedule

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path, read_json, write_json
from mrtransfer.training.peak import Peak

TABLE = "profile.json"
AUGMENT = "augment"
"""The action during which training batches are augmented."""
_TRACED = 3  # training steps in the trace, where an epoch has as many
_PARTS = ("wait", "augment", "forward", "backward", "optimizer")
_SPANS = (*_PARTS, "validation")  # what is marked in traces
_COLUMNS = {
    "phase": "phase",
    "steps": "steps",
    "seconds": "s/step",
    "read": "read",
    "wait": "wait",
    "augment": "augment",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "other": "other",
    "wait_share": "waiting",
    "memory_mib": "memory MiB",
    "gpu_memory_mib": "GPU MiB",
}


class TrainingProfiler(Profiler):
    """Listens to Lightning, which says what it begins and ends; writes into ``folder``.

    ``steps``: in an epoch. ``read_seconds`` says how long reading batches has taken so far, in the background.
    """

    def __init__(self, folder: Path, device: str, steps: int, read_seconds: Callable[[], float]) -> None:
        super().__init__()
        self.folder, self.device, self.read_seconds = Path(folder), device, read_seconds
        skipped, warm_up = int(steps >= 6), int(steps >= 3)
        traced = min(_TRACED, steps - skipped - warm_up)
        self.steps_traced = skipped + warm_up + traced
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*warmup.*")  # an epoch of one or two steps has none for it
            self.schedule = schedule(wait=skipped, warmup=warm_up, active=traced, repeat=1)
        self.begun: dict[str, float] = {}
        self.spans: dict[str, record_function] = {}
        self.step: dict[str, float] = defaultdict(float)
        self.done: list[dict[str, float]] = []
        self.validations: list[float] = []
        self.memory = {"train": Peak(device), "validate": Peak(device)}
        self.trace: profile | None = None
        self.read_before = 0.0

    def start(self, action_name: str) -> None:
        """Lightning begins something."""
        part = _part(action_name)
        if part is None:
            return
        _wait_for(self.device)
        if part == "epoch":
            self.memory["train"].begin()
        elif part == "wait":
            self.begun["step"] = time.perf_counter()
            self.read_before = self.read_seconds()
            if not self.done and self.trace is None:
                self.trace = _started(self.device, self.folder / "train.trace.json", self.schedule)
        elif part == "validation":
            self.memory["train"].end()
            self.memory["validate"].begin()
            if not self.validations:
                self.trace = _started(self.device, self.folder / "validate.trace.json")
        if self.trace is not None and part in _SPANS:
            self.spans[part] = record_function(part)
            self.spans[part].__enter__()
        self.begun[part] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Lightning has ended something."""
        part = _part(action_name)
        if part is None or part not in self.begun:
            return
        _wait_for(self.device)
        seconds = time.perf_counter() - self.begun.pop(part)
        if part in self.spans:
            self.spans.pop(part).__exit__(None, None, None)
        if part == "epoch":
            self.memory["train"].end()
        elif part == "batch":
            self._end_step()
        elif part == "validation":
            self._end_trace()
            self.validations.append(seconds)
            self.memory["validate"].end()
            self.memory["train"].begin()
        else:
            self.step[part] += seconds

    def _end_step(self) -> None:
        step, self.step = self.step, defaultdict(float)
        step["seconds"] = time.perf_counter() - self.begun.pop("step")
        step["read"] = self.read_seconds() - self.read_before
        step["optimizer"] -= step["forward"] + step["backward"]  # it is called around them
        step["forward"] -= step["augment"]
        self.done.append(step)
        if self.trace is not None:
            self.trace.step()
            if len(self.done) == self.steps_traced:
                self._end_trace()

    def _end_trace(self) -> None:
        if self.trace is not None:
            self.trace.stop()
            self.trace = None

    def finish(self) -> None:
        """Write the table."""
        self._end_trace()
        steps = self.done[self.steps_traced :] or self.done
        if steps:
            mean = {key: sum(step[key] for step in steps) / len(steps) for key in ("seconds", "read", *_PARTS)}
            mean["other"] = max(mean["seconds"] - sum(mean[part] for part in _PARTS), 0.0)
            mean["wait_share"] = mean["wait"] / mean["seconds"]
            _note(self.folder, {"phase": "train", "steps": len(steps), **mean, **self.memory["train"].to_json()})
        if self.validations:
            cases = self.validations[1:] or self.validations
            mean = {"seconds": sum(cases) / len(cases)}
            _note(self.folder, {"phase": "validate", "steps": len(cases), **mean, **self.memory["validate"].to_json()})


@contextmanager
def profiled(folder: Path | None, phase: str, device: str = "cpu") -> Iterator[None]:
    """Trace the block as ``PHASE.trace.json`` in ``folder``, and add its row to the table; nothing where it is None."""
    if folder is None:
        yield
        return
    memory = Peak(device)
    memory.begin()
    trace = _started(device, Path(folder) / f"{phase}.trace.json")
    started = time.perf_counter()
    try:
        yield
        _wait_for(device)
    finally:
        seconds = time.perf_counter() - started
        trace.stop()
    memory.end()
    _note(Path(folder), {"phase": phase, "steps": 1, "seconds": seconds, **memory.to_json()})


def read_profile(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of the table in ``folder``: times in seconds per step (validation and prediction: per case)."""
    path = Path(folder) / TABLE
    if not path.is_file():
        raise UserError(f"{path}: there is no profile; train with a profile folder first")
    rows: list[dict[str, Any]] = read_json(path)
    return rows


def profile_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text for a terminal: a line per phase, times in ms."""
    columns = [key for key in _COLUMNS if any(row.get(key) is not None for row in rows)]
    lines = [[_COLUMNS[key] for key in columns]]
    lines += [[_cell(key, row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def _cell(key: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if key in ("steps", "memory_mib", "gpu_memory_mib"):
        return f"{value:.0f}"
    if key == "wait_share":
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if key == "seconds" else f"{1000 * value:.1f} ms"


def _part(action: str) -> str | None:
    """What Lightning's name of an action means for the table."""
    if action == "run_training_epoch":
        return "epoch"
    if action == "run_training_batch":
        return "batch"
    if action == AUGMENT:
        return "augment"
    name = action.rpartition(".")[2]
    known = {
        "train_dataloader_next": "wait",
        "training_step": "forward",
        "backward": "backward",
        "optimizer_step": "optimizer",
        "validation_step": "validation",
    }
    strategy = action.startswith("[Strategy]")
    if name == "optimizer_step":
        return None if strategy else known[name]  # the module's own goes around it
    return known.get(name) if strategy or name == "train_dataloader_next" else None


def _started(device: str, path: Path, steps: Callable[[int], ProfilerAction] | None = None) -> profile:
    """A trace that is written to ``path`` when the steps of interest are over, or it is stopped."""
    activities = [ProfilerActivity.CPU]
    if torch.device(device).type == "cuda":
        activities.append(ProfilerActivity.CUDA)

    def write(found: profile) -> None:
        with atomic_path(path) as temporary:
            found.export_chrome_trace(str(temporary))

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it writes to the terminal when it begins and ends
    trace = profile(activities=activities, schedule=steps, on_trace_ready=write)
    trace.start()
    return trace


def _note(folder: Path, row: dict[str, Any]) -> None:
    """Put ``row`` into the table in the place of its phase's former one."""
    path = folder / TABLE
    rows = [other for other in (read_json(path) if path.is_file() else []) if other["phase"] != row["phase"]]
    rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
    write_json(path, [*rows, rounded])


def _wait_for(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(torch.device(device))
