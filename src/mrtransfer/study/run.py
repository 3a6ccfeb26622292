"""A study from recipe to verdict: the one class that the command line and a notebook use."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import read_json, write_json, write_text
from mrtransfer.common.progress import progress
from mrtransfer.study.environment import Stopwatch, describe_machine
from mrtransfer.study.execute import execute
from mrtransfer.study.final import best_arm, train_final
from mrtransfer.study.gap import gap_closed
from mrtransfer.study.outcome import load_outcome, load_seconds
from mrtransfer.study.plan import Plan, make_plan
from mrtransfer.study.recipe import Recipe, load_recipe, parse_recipe
from mrtransfer.study.report import draw_report
from mrtransfer.study.shift import shift_of
from mrtransfer.study.statistics import analyse
from mrtransfer.study.tasks import open_workshop
from mrtransfer.study.transferability import transferability
from mrtransfer.study.workshop import AnyWorkshop


@dataclass(frozen=True)
class Finished:
    """What a study hands over."""

    folder: Path
    results: dict[str, Any]

    @property
    def verdict(self) -> str:
        """The answer, in one sentence or a few."""
        return str(self.results["verdict"]["sentence"])

    @property
    def report(self) -> Path:
        """The self-contained HTML report."""
        return self.folder / "report.html"

    @property
    def model(self) -> Path:
        """The folder of the best model, ready for ``mrtransfer predict``."""
        return self.folder / "model"


class Study:
    """A recipe and the folder in which it is carried out.

    ::

        finished = Study.from_recipe("demo").run("demo")
        print(finished.verdict)
    """

    def __init__(self, recipe: Recipe, folder: Path | None = None) -> None:
        self.recipe = recipe
        self.folder = folder

    @classmethod
    def from_recipe(
        cls,
        recipe: str | Path | dict[str, Any],
        overrides: list[str] | tuple[str, ...] = (),
        profile: str | None = None,
    ) -> "Study":
        """A study from a bundled recipe's name, a YAML file or a dictionary; see :func:`load_recipe`."""
        if isinstance(recipe, dict):
            return cls(parse_recipe(recipe, overrides, profile))
        return cls(load_recipe(recipe, overrides, profile))

    @classmethod
    def open(cls, folder: str | Path) -> "Study":
        """A study that was run, or begun, in ``folder``."""
        path = Path(folder) / "recipe.yaml"
        if not path.is_file():
            raise UserError(
                f"{folder} is no study folder: it has no recipe.yaml; give the folder of 'mrtransfer study'"
            )
        return cls(load_recipe(path), Path(folder))

    def run(
        self,
        folder: str | Path | None = None,
        device: str = "auto",
        *,
        devices: int = 1,
        trace: bool = False,
        answered: Callable[[Finished], None] = lambda _: None,
    ) -> Finished:
        """Carry the study out in ``folder``, or go on with it there; what is done already is not done again.

        ``devices``: processes that share every batch of a training (leave it out under ``torchrun`` or ``srun``).
        ``trace``: traces and tables of times of the first training of every arm go to ``traces`` in the folder.
        ``answered`` is called when verdict and report are there and only the model to hand over is still to be trained.
        """
        watch = Stopwatch()
        self.folder = Path(folder or self.folder or Path("studies") / self.recipe.name)
        if not (self.folder / "recipe.yaml").is_file():
            self._keep_recipe(self.folder)  # says at once where one may not write
        workshop, plan = self._prepare(self.folder, device, watch)
        workshop.devices, workshop.traces = devices, self.folder / "traces" if trace else None
        self._keep_recipe(self.folder)  # only now: one that is refused must not take the place of a finished study's
        write_json(self.folder / "plan.json", plan.to_json())
        with watch.measure("shift"):  # before hours are spent on domains that cannot be compared
            shift = shift_of(workshop, self.recipe)
        with watch.measure("runs"), progress(f"Study {self.recipe.name}", total=len(plan.runs)) as advance:
            execute(plan, workshop, advance)
        with watch.measure("statistics"):
            results = self._results(workshop, plan, shift)
        self._hand_over(workshop, plan, results, watch)
        answered(Finished(self.folder, results))
        with watch.measure("best model"), progress("Model on all labels"):
            results["model"] = train_final(best_arm(plan, workshop), plan, workshop, results)
        self._hand_over(workshop, plan, results, watch)
        return Finished(self.folder, results)

    def report(self) -> Path:
        """Draw the report of a finished study again; nothing is trained."""
        if self.folder is None or not (self.folder / "results.json").is_file():
            raise UserError(f"{self.folder} holds no finished study; run 'mrtransfer study' there first")
        workshop, plan = self._prepare(self.folder, "auto", Stopwatch())
        return self._draw(workshop, plan, read_json(self.folder / "results.json"))

    def _keep_recipe(self, folder: Path) -> None:
        text = yaml.safe_dump(
            self.recipe.model_dump(mode="json", exclude={"vary", "shared"}), sort_keys=False, allow_unicode=True
        )
        write_text(folder / "recipe.yaml", text)

    def _prepare(self, folder: Path, device: str, watch: "Stopwatch") -> tuple[AnyWorkshop, Plan]:
        with watch.measure("data"):
            workshop = open_workshop(self.recipe, folder, device)
        with watch.measure("precision probe"):
            for arm in self.recipe.arms.values():
                workshop.precision(arm)
        plan = make_plan(self.recipe, workshop.target, workshop.source, workshop)
        workshop.check_weights(plan)
        return workshop, plan

    def _results(self, workshop: AnyWorkshop, plan: Plan, shift: dict[str, Any] | None) -> dict[str, Any]:
        """Everything that was found; no times and no machine, so that the same recipe gives the same bytes."""
        recipe, target = self.recipe, workshop.target
        assert self.folder is not None
        found = analyse(
            [load_outcome(self.folder, run) for run in plan.runs],
            target.labels,
            target.units,
            measures=workshop.measures,
            main=recipe.metric,
            margin=recipe.margin,
            compare=recipe.comparisons,
            resamples=recipe.resamples,
            classes=target.manifest.classes,
            unit=workshop.unit,
            topic=recipe.topic,
        )
        source = workshop.source
        results = {
            "question": recipe.question,
            "task": recipe.task,
            "recipe": recipe.model_dump(mode="json", exclude={"vary", "shared"}),
            "data": {"target": target.describe(), "source": source.describe() if source else None},
            "audit": target.audit,
            "precision": {name: workshop.arithmetic(arm) for name, arm in recipe.arms.items()},
            **found,
            **workshop.findings(plan),
        }
        for part, value in (("gap", gap_closed(workshop, plan)), ("shift", shift)):
            if value is not None:
                results[part] = value
        foretold = transferability(workshop, plan, results)
        if foretold is not None:
            results["transferability"] = foretold
        return {**results, "runs": plan.to_json()["runs"]}

    def _hand_over(self, workshop: AnyWorkshop, plan: Plan, results: dict[str, Any], watch: "Stopwatch") -> None:
        """Write the results, what they were computed on, and the report."""
        assert self.folder is not None
        # in the order of the recipe and the metrics, so that the report can be drawn again as it was
        write_json(self.folder / "results.json", results, sort=False)
        self._keep_environment(plan, watch)
        self._draw(workshop, plan, results)

    def _draw(self, workshop: AnyWorkshop, plan: Plan, results: dict[str, Any]) -> Path:
        assert self.folder is not None
        environment = read_json(self.folder / "environment.json")
        context = workshop.context(plan)
        context.timings, context.environment = environment["seconds"], environment["machine"]
        return draw_report(self.folder, results, context)

    def _keep_environment(self, plan: Plan, watch: "Stopwatch") -> None:
        """What it ran on. Each run knows its own time, so that an interrupted study counts all of its sessions."""
        assert self.folder is not None
        seconds = {f"runs of {arm}": 0.0 for arm in self.recipe.arms}
        for run in {run.key: run for run in plan.runs}.values():
            seconds[f"runs of {run.arm}"] += load_seconds(self.folder, run.key)
        seconds = {
            name: round(value, 2) for name, value in (*watch.seconds.items(), *seconds.items()) if name != "runs"
        }
        finished = time.strftime("%Y-%m-%d %H:%M:%S")
        machine = describe_machine()
        write_json(self.folder / "environment.json", {"machine": machine, "seconds": seconds, "finished": finished})
