"""The program as a user runs it, in this process."""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest

from mrtransfer.cli.main import main


class Ended(NamedTuple):
    """How a command ended; ``err`` holds warnings and log records too, which a terminal would show."""

    code: int
    out: str
    err: list[str]


@pytest.fixture
def mrtransfer(monkeypatch, capfd, caplog) -> Callable[..., Ended]:
    """The program itself, in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mrtransfer", *map(str, arguments)])
        capfd.readouterr()
        caplog.clear()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("default")
            for hidden in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", hidden)
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = capfd.readouterr()
        told = [str(warning.message) for warning in warned]
        told += [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        return Ended(ended.value.code or 0, out, [*err.splitlines(), *told])

    return run


@pytest.fixture
def refused(mrtransfer) -> Callable[..., str]:
    """The one sentence with which a command is refused."""

    def run(*arguments: object) -> str:
        ended = mrtransfer(*arguments)
        assert ended.code == 2, ended
        assert len(ended.err) == 1, ended.err
        assert "Traceback" not in ended.out
        return ended.err[0]

    return run
