"""``mrtransfer demo``: a whole study on the phantom, without any download."""

from pathlib import Path
from typing import Annotated

import typer

from mrtransfer.cli.study import run_and_say
from mrtransfer.common.progress import be_quiet

RECIPE = "demo"


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the study.")] = Path("demo"),
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run a whole study on the built-in phantom: no download, ends with a verdict and a report."""
    if json:
        be_quiet()
    from mrtransfer.study.run import Study

    study = Study.from_recipe(RECIPE, [], None)
    if not json:
        typer.echo(study.recipe.question)
    run_and_say(study, out, json)
