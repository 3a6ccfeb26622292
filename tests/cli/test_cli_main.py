"""The front door: fast help, one sentence for mistakes, exit codes."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mrtransfer import __version__
from mrtransfer.cli.main import STOPPED, app
from mrtransfer.common.errors import UserError

HEAVY = {"torch", "torchvision", "timm", "lightning", "pandas", "matplotlib", "scipy", "sklearn", "pyarrow"}
LIGHT_COMMANDS = [
    ["--help"],
    ["list"],
    ["doctor"],
    ["list", "recipes", "--json"],
    ["study", "--help"],
    ["data", "--help"],
]


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("arguments", LIGHT_COMMANDS, ids=" ".join)
def test_light_commands_import_nothing_heavy(arguments):
    code = (
        "import sys; sys.argv = ['mrtransfer', *sys.argv[1:]]\n"
        "from mrtransfer.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(done.stdout.splitlines()[-1].split())


def test_version():
    assert run("--version").output.strip() == f"mrtransfer {__version__}"


def test_a_misspelt_command_is_answered_with_the_nearest_one():
    result = run("stduy")
    assert result.exit_code == 2
    assert "'study'" in result.output


def test_a_misspelt_option_is_answered_with_the_nearest_one():
    result = run("study", "demo", "--dryrun")
    assert result.exit_code == 2
    assert "--dry-run" in result.output


def test_a_users_mistake_is_one_sentence_on_standard_error_and_exit_code_2(monkeypatch):
    monkeypatch.setattr("mrtransfer.cli.doctor.machine", _raising(UserError("scan [1].png: is empty; copy it again")))
    result = run("doctor")
    assert result.exit_code == 2
    assert result.stderr == "scan [1].png: is empty; copy it again\n"
    assert result.stdout == ""


def test_ctrl_c_says_how_to_go_on_and_exits_with_130(monkeypatch):
    monkeypatch.setattr("mrtransfer.cli.doctor.machine", _raising(KeyboardInterrupt()))
    result = run("doctor")
    assert result.exit_code == 130
    assert result.stderr.strip() == STOPPED


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("mrtransfer.cli.doctor.machine", _raising(ZeroDivisionError("a bug")))
    assert isinstance(run("doctor").exception, ZeroDivisionError)


def test_an_unknown_recipe_is_one_sentence():
    result = run("study", "dmeo")
    assert result.exit_code == 2
    assert "did you mean 'demo'?" in result.stderr


def test_a_dry_run_prints_the_whole_recipe_and_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("study", "demo", "--dry-run", "--json", "--set", "seeds=2", "--set", "margin=0.05")
    assert result.exit_code == 0, result.stderr
    resolved = json.loads(result.stdout)
    assert resolved["seeds"] == [0, 1]
    assert resolved["margin"] == 0.05
    assert not list(tmp_path.iterdir())


def test_a_misspelt_key_of_a_recipe_is_one_sentence_with_the_nearest_key():
    result = run("study", "demo", "--dry-run", "--set", "margn=0.05")
    assert result.exit_code == 2
    assert "'margin'" in result.stderr


def _raising(error: BaseException):
    def raises(*_: object) -> None:
        raise error

    return raises
