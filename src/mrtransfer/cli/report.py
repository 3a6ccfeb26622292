"""``mrtransfer report``: draw a study's report again."""

from pathlib import Path
from typing import Annotated

import typer

from mrtransfer.cli.show import print_json
from mrtransfer.common.progress import be_quiet


def command(
    study: Annotated[Path, typer.Argument(metavar="STUDY_FOLDER", help="The folder of a study that was run.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw the report of a finished study again, without computing anything twice."""
    if json:
        be_quiet()
    from mrtransfer.study.run import Study

    path = Study.open(study).report()
    if json:
        print_json({"report": str(path)})
    else:
        typer.echo(f"report   {path}")
