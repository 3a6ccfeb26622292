"""A registry whose entries are files: one new file with one registered function or class, and nothing else to edit.

Names and summaries are read from the source text, so listing them imports nothing: ``mrtransfer list`` stays fast and
needs no torch. An entry's module is imported when the entry is first asked for.
"""

import ast
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mrtransfer.common.errors import unknown_name

T = TypeVar("T")


class Entry(NamedTuple):
    """Where a registered name lives, and the first line of its docstring."""

    module: str
    summary: str


class Registry:
    """Named functions or classes of one ``kind``, one per file of ``package``.

    In a file of the package::

        @DATASETS.register("folder")
        def folder(...):
            '''Class folders, the commonest layout.'''

    A user's own code may register further names at run time in the same way.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._loaded: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the function or class known as ``name``."""

        def keep(item: T) -> T:
            self._loaded[name] = item
            return item

        return keep

    @cached_property
    def _found(self) -> dict[str, Entry]:
        spec = find_spec(self.package)
        if spec is None or spec.submodule_search_locations is None:
            return {}
        folder = Path(spec.submodule_search_locations[0])
        found: dict[str, Entry] = {}
        for path in sorted(folder.glob("*.py")):
            if path.stem == "__init__":
                continue
            for name, summary in _registered_in(path):
                found[name] = Entry(f"{self.package}.{path.stem}", summary)
        return found

    def names(self) -> list[str]:
        """All known names, without importing any entry."""
        return sorted({*self._found, *self._loaded})

    def summaries(self) -> dict[str, str]:
        """Name to the first line of its docstring, without importing any entry."""
        described = {name: entry.summary for name, entry in self._found.items()}
        for name, item in self._loaded.items():
            described.setdefault(name, _first_line(item.__doc__))
        return dict(sorted(described.items()))

    def get(self, name: str) -> Any:
        """The registered item; raises :class:`UserError` with the nearest valid name where there is none."""
        if name not in self._loaded and name in self._found:
            import_module(self._found[name].module)
        if name not in self._loaded:
            raise unknown_name(self.kind, name, self.names())
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._loaded or name in self._found


def _registered_in(path: Path) -> list[tuple[str, str]]:
    """(name, summary) of every top-level definition decorated with ``@SOMETHING.register("name")``."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == "register":
                argument = mark.args[0] if mark.args else None
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    found.append((argument.value, _first_line(ast.get_docstring(node))))
    return found


def _first_line(text: str | None) -> str:
    return text.strip().splitlines()[0] if text and text.strip() else ""
