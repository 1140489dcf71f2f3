"""Only the user's mistakes are shown without a traceback: a bug must look like a bug."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tmas.cli.main import main
from tmas.errors import UserError
from tmas.llm.endpoint import EndpointDown
from tmas.run.directory import RunRefused

CLI = Path(__file__).parents[2] / "tmas/cli"
ARGUMENTS = ("report", "runs=[runs/x]")
BROAD = {"ValueError", "KeyError", "TypeError", "AttributeError", "Exception", "BaseException"}
RAISING = """
import sys
import tmas.cli.report
from tmas.cli.main import main
from tmas.errors import UserError

def command(config, console):
    {code}

tmas.cli.report.print_report = command
main({arguments!r})
"""


def ended(code: str) -> subprocess.CompletedProcess[str]:
    """A process of ``tmas report`` in which the command does ``code``."""
    script = RAISING.format(code=code, arguments=ARGUMENTS)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("bug", "shown"),
    [
        ("list(zip([1], [], strict=True))", "ValueError: zip() argument 2 is shorter than argument 1"),
        ("{}['a key']", "KeyError: 'a key'"),
    ],
)
def test_a_bug_in_a_command_shows_its_traceback_and_exits_with_1(bug: str, shown: str):
    done = ended(bug)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "in command\n" in done.stderr
    assert done.stderr.endswith(f"{shown}\n")


def test_a_mistake_of_the_user_shows_no_traceback_and_exits_with_2():
    done = ended("raise UserError('is empty', where='p.jsonl', remedy='Give another file.')")
    assert (done.returncode, done.stderr) == (2, "tmas: p.jsonl: is empty. Give another file.\n")


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (UserError("is empty", where="p.jsonl"), 2, "tmas: p.jsonl: is empty\n"),
        (RunRefused("runs/x is in use by another run"), 2, "tmas: runs/x is in use by another run\n"),
        (FileNotFoundError(2, "No such file or directory", "runs/x"), 2, "tmas: No such file or directory: runs/x\n"),
        (KeyboardInterrupt(), 130, "tmas: Interrupted. Run the same command again to resume.\n"),
    ],
)
def test_what_is_no_bug_ends_with_its_own_code(
    raised: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def command(config: dict[str, Any], console: object) -> None:
        raise raised

    monkeypatch.setattr("tmas.cli.report.print_report", command)
    with pytest.raises(SystemExit) as end:
        main(ARGUMENTS)
    assert (end.value.code, capsys.readouterr().err) == (code, message)


def test_a_server_s_failure_is_neither():
    assert not issubclass(EndpointDown, UserError)


def test_the_commands_catch_no_bug():
    """Only where Hydra alone runs may a ``ValueError`` be caught: Hydra raises some about arguments."""
    caught = {
        f"{file.name}: {node.id}"
        for file in CLI.glob("*.py")
        for handler in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(handler, ast.ExceptHandler)
        for node in ast.walk(handler.type or ast.Name("BaseException"))
        if isinstance(node, ast.Name) and node.id in BROAD
    }
    assert caught == {"composing.py: ValueError"}
