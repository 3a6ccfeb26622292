"""``mrtransfer study``: run a recipe, or continue it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mrtransfer.cli.show import print_json
from mrtransfer.common.progress import be_quiet

if TYPE_CHECKING:
    from mrtransfer.study.run import Finished, Study


def command(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe ('mrtransfer list recipes') or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one field, e.g. target.path=scans; repeatable."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="One of the recipe's profiles, e.g. quick or full; its first when left out.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Study folder; studies/NAME when left out.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe, show what it resolves to, run nothing.")
    ] = False,
    devices: Annotated[
        int, typer.Option(min=1, help="Processes that share every batch: GPUs of this machine, or CPU processes.")
    ] = 1,
    trace: Annotated[
        bool, typer.Option("--trace", help="Profile: write Chrome/Perfetto traces, and print where the time went.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run a study, or continue it: the same command picks up where it stopped."""
    if json:
        be_quiet()
    from mrtransfer.study.recipe import load_recipe

    checked = load_recipe(recipe, overrides or [], profile)
    if dry_run:
        # vary and shared have become arms by now
        show_recipe(checked.model_dump(mode="json", exclude_none=True, exclude={"vary", "shared"}), json)
        return
    from mrtransfer.study.run import Study
    from mrtransfer.training.distributed import serve

    if serve():  # one of several processes that were started together: the first one leads
        return
    run_and_say(Study(checked), out or Path("studies") / checked.name, json, devices=devices, trace=trace)


def run_and_say(study: "Study", out: Path, json: bool, *, devices: int = 1, trace: bool = False) -> None:
    """Run the study into ``out`` and print its verdict, or all its results as JSON."""

    def answered(finished: "Finished") -> None:
        if not json:
            sentence = f"answered, see {finished.report}; now the model that is handed over learns from all labels"
            Console(stderr=True, highlight=False).print(sentence, markup=False, soft_wrap=True, style="dim")

    finished = study.run(out, devices=devices, trace=trace, answered=answered)
    if json:
        print_json({**finished.results, "folder": str(finished.folder), "report": str(finished.report)})
        return
    console = Console(highlight=False)
    if trace:
        show_traces(out / "traces", console)
    console.print(f"\n{finished.verdict}\n", style="bold", markup=False)
    console.print(f"report   {finished.report}", markup=False, soft_wrap=True)
    console.print(f"model    {finished.model}", markup=False, soft_wrap=True)


def show_traces(folder: Path, console: Console) -> None:
    """Print the tables of times that lie in ``folder``, each with the place of its traces."""
    from mrtransfer.training.profile import TABLE, profile_table, read_profile

    tables = sorted(folder.glob(f"*/{TABLE}"))
    for table in tables:
        console.print(f"\n{table.parent}", style="bold", markup=False, soft_wrap=True)
        console.print(profile_table(read_profile(table.parent)), markup=False, soft_wrap=True)
    if not tables:
        console.print("nothing was trained this time, so there is no trace; give a new folder with --out")


def show_recipe(resolved: dict[str, Any], json: bool) -> None:
    """Print a recipe with all its defaults filled in."""
    if json:
        print_json(resolved)
        return
    import yaml

    typer.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=100).rstrip())
