"""engines/process_guard.py, as real processes: a command never outlives the run that it was started for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import LIMIT, wait_until

PYTHON = [sys.executable, "-c"]
GRACE = 300.0
"""Seconds; far more than a command that heeds SIGTERM needs on a busy machine."""
REPORTING = "import os, sys, time; print(os.getpid(), flush=True); {then}"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + REPORTING.format(then="time.sleep(3600)")
PATIENT = REPORTING.format(then="time.sleep(3600)")
CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {code!r}]).wait()"


def guard(code: str, grace: float = GRACE) -> list[str]:
    """A command line: a guard with its grace, over Python code."""
    main = f"import sys; from tmas.engines import process_guard as guard; guard.GRACE = {grace}; sys.exit(guard.main())"
    return [*PYTHON, main, *PYTHON, code]


class Guarded:
    """A guard with its command; the command's process id is the first line that it prints."""

    def __init__(self, code: str, grace: float = GRACE) -> None:
        self.guard = subprocess.Popen(
            guard(code, grace), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.command = int(self.guard.stdout.readline())  # type: ignore[union-attr]

    def close_input(self) -> float:
        """Seconds that it took to end after that."""
        started = time.monotonic()
        self.guard.stdin.close()  # type: ignore[union-attr]
        self.guard.wait(LIMIT)
        return time.monotonic() - started


@pytest.fixture
def guarded() -> Iterator[type[Guarded]]:
    """Starts guards, and ends what is left of them."""
    begun: list[Guarded] = []

    class Begun(Guarded):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            begun.append(self)

    yield Begun
    for one in begun:
        if alive(one.command):
            os.kill(one.command, signal.SIGKILL)
        one.guard.kill()
        with one.guard:  # waits, and closes the pipes
            pass


def alive(process: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def spare_of(one: Guarded) -> int:
    """The child of the guard that is a fork of it, by its command line."""
    command_line = Path(f"/proc/{one.guard.pid}/cmdline").read_bytes()

    def spares() -> list[int]:
        children = Path(f"/proc/{one.guard.pid}/task/{one.guard.pid}/children").read_text().split()
        return [int(child) for child in children if Path(f"/proc/{child}/cmdline").read_bytes() == command_line]

    wait_until(spares)
    [spare] = spares()
    return spare


def gone(process: int, within: float = LIMIT) -> bool:
    deadline = time.monotonic() + within
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(process)


@pytest.mark.parametrize("code", [0, 7])
def test_the_exit_code_is_passed_on_while_the_input_stays_open(guarded: type[Guarded], code: int):
    one = guarded(REPORTING.format(then=f"sys.exit({code})"))
    assert one.guard.wait(LIMIT) == code
    assert one.guard.stderr.read() == b""  # type: ignore[union-attr]


def test_the_command_ends_when_the_input_is_closed(guarded: type[Guarded]):
    one = guarded(PATIENT)
    assert alive(one.command)
    assert one.close_input() < GRACE
    assert gone(one.command)


def test_what_is_written_to_the_input_changes_nothing(guarded: type[Guarded]):
    one = guarded(PATIENT)
    one.guard.stdin.write(b"anything\n" * 10_000)  # type: ignore[union-attr]
    one.guard.stdin.flush()  # type: ignore[union-attr]
    time.sleep(0.1)
    assert alive(one.command)


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(guarded: type[Guarded]):
    one = guarded(STUBBORN, 0.5)
    assert 0.5 <= one.close_input() < GRACE
    assert gone(one.command)


def test_what_the_command_started_ends_with_it(guarded: type[Guarded]):
    one = guarded(CHILD.format(code=STUBBORN))  # the first line is printed by the grandchild
    one.close_input()
    assert gone(one.command)


@pytest.mark.parametrize(
    ("code", "grace"),
    [(PATIENT, GRACE), (STUBBORN, 0.5), (CHILD.format(code=STUBBORN), 0.5)],
    ids=["patient", "ignores SIGTERM", "started by the command"],
)
def test_the_command_ends_when_the_guard_itself_is_killed(guarded: type[Guarded], code: str, grace: float):
    one = guarded(code, grace)
    spare = spare_of(one)
    one.guard.kill()
    assert gone(one.command)
    assert gone(spare)


def test_a_killed_spare_changes_nothing(guarded: type[Guarded]):
    one = guarded(PATIENT)
    os.kill(spare_of(one), signal.SIGKILL)
    time.sleep(0.1)
    assert alive(one.command)
    one.close_input()
    assert gone(one.command)


def test_a_guard_that_ends_takes_its_spare_along(guarded: type[Guarded]):
    one = guarded(PATIENT)
    spare = spare_of(one)
    one.close_input()
    assert not alive(spare)


def test_the_command_ends_when_the_run_is_killed():
    start = f"guard = subprocess.Popen({guard(PATIENT)!r}, stdin=subprocess.PIPE, start_new_session=True)"
    run = f"import subprocess, time; {start}; time.sleep(3600)"
    with subprocess.Popen([*PYTHON, run], stdout=subprocess.PIPE) as parent:
        command = int(parent.stdout.readline())  # type: ignore[union-attr]
        assert alive(command)
        parent.kill()
        assert gone(command)
