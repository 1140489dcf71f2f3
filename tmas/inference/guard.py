"""Runs a command for as long as its standard input stays open: ``python -m tmas.inference.guard COMMAND ...``

A server must not outlive the run that started it, even if the run is killed with SIGKILL. The run holds the other end
of a pipe; when that closes, for whatever reason, the command's process group gets SIGTERM and, after a grace, SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE = 15.0
"""Seconds between SIGTERM and SIGKILL: vLLM may ignore SIGTERM while it starts."""


def main() -> int:
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, process_group=0)
    threading.Thread(target=_stop_at_end_of_input, args=(command,), daemon=True).start()
    code = command.wait()
    _signal_group(command.pid, signal.SIGKILL)
    return code


def _stop_at_end_of_input(command: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 1 << 16):  # not sys.stdin.read(): it holds a lock that the exit needs
        pass
    _signal_group(command.pid, signal.SIGTERM)
    try:
        command.wait(GRACE)
    except subprocess.TimeoutExpired:
        _signal_group(command.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main())
