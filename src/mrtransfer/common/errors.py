"""A user's mistake is one clear sentence, never a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend: names the file or key, what is wrong, and what would be right.

    The command line prints the message and exits with code 2; the Python API raises it.
    """


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that looks most like ``name``, or None where none does."""
    options = {option.lower(): option for option in valid}
    found = get_close_matches(str(name).lower(), options, n=1, cutoff=0.5)
    return options[found[0]] if found else None


def unknown_name(kind: str, name: str, valid: Iterable[str], shown: int = 12) -> UserError:
    """The error for a misspelt ``name``: says the nearest valid one and lists some of the rest."""
    valid = sorted(valid)
    close = nearest(name, valid)
    hint = f"did you mean {close!r}? " if close else ""
    listed = ", ".join(valid[:shown]) + (f", … ({len(valid)} in all)" if len(valid) > shown else "")
    return UserError(f"unknown {kind} {name!r}: {hint}known: {listed or 'none'}")
