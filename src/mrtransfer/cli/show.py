"""How commands write to the terminal: tables for people, JSON for machines."""

import json
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on standard output."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str))


def print_table(title: str, entries: dict[str, str], hint: str | None = None) -> None:
    """Print names and what they are, in two columns."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2, 0, 1)
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, about in entries.items():
        table.add_row(Text(name), Text(about))  # as it is: brackets are no markup here
    if not entries:
        table.add_row("none", "")
    console = Console(highlight=False)
    console.print(table)
    if hint:
        console.print(f" {hint}", style="dim", markup=False)
    console.print()
