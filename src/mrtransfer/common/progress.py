"""Progress bars for work that takes over two seconds, on the terminal only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_DELAY_SECONDS = 2.0
_settings = {"quiet": False}
_nested = {"depth": 0}


def be_quiet(quiet: bool = True) -> None:
    """Switch all bars off (``--json``, tests) or on again."""
    _settings["quiet"] = quiet


def _ignore(n: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yield ``advance(n)``; a bar appears on standard error once the work has lasted two seconds.

    A bar inside another bar's work is not drawn: the outer one tells the user how far things are.
    """
    console = Console(stderr=True)
    if _settings["quiet"] or _nested["depth"] > 0 or not console.is_terminal:
        yield _ignore
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, transient=not sys.stderr.isatty())
    task = bar.add_task(description, total=total)
    started = time.monotonic()
    shown = False

    def advance(n: int) -> None:
        nonlocal shown
        bar.update(task, advance=n)
        if not shown and time.monotonic() - started > _DELAY_SECONDS:
            bar.start()
            shown = True

    _nested["depth"] += 1
    try:
        yield advance
    finally:
        _nested["depth"] -= 1
        if shown:
            bar.stop()
