"""The command line's front door: all commands, and what the user sees when something goes wrong."""

from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from mrtransfer import __version__
from mrtransfer.cli import data, demo, doctor, list_, predict, report, shift, study
from mrtransfer.common.errors import UserError

STOPPED = "stopped; run the same command to continue"


class Commands(TyperGroup):
    """The group of all commands: a user's mistake ends in one sentence and exit code 2, Ctrl-C in exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command; errors that are not the user's keep their traceback."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            _say(str(error))
            raise typer.Exit(2) from error
        except PermissionError as error:
            if error.filename is None:
                raise
            _say(f"{error.filename}: no permission to open it; ask its owner for it, or choose another place")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            _say(STOPPED)
            raise typer.Exit(130) from error


def _say(sentence: str) -> None:
    Console(stderr=True, emoji=False).print(sentence, markup=False, highlight=False, soft_wrap=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mrtransfer {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    help="Does transferring knowledge help on your MR images, by how much, and how many labels does it save?",
    epilog="Start with: mrtransfer demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


app.command("demo")(demo.command)
app.command("study")(study.command)
app.command("shift")(shift.command)
app.command("report")(report.command)
app.command("predict")(predict.command)
app.add_typer(data.app, name="data")
app.command("list")(list_.command)
app.command("doctor")(doctor.command)


def main() -> None:
    """Entry point of the ``mrtransfer`` program."""
    app()


if __name__ == "__main__":
    main()
