"""Runs a command as long as its standard input stays open: ``python -m tmas.engines.process_guard COMMAND ...``

A server must not outlive the run that started it, even if the run is killed with SIGKILL. The run holds the other end
of a pipe. When that closes, for whatever reason, the command's process group gets SIGTERM and, after ``GRACE`` seconds,
SIGKILL. If the guard itself is killed, a forked spare that waits on a pipe from the guard does the same. A parent-death
signal would not be enough: vLLM's engine processes survive if its first process is killed, or gets SIGTERM while it
starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 15.0
"""Seconds between SIGTERM and SIGKILL: vLLM may ignore SIGTERM while it starts."""


def main() -> int:
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, process_group=0)
    spare = _fork_spare(command.pid)
    threading.Thread(target=_stop_at_end_of, args=(sys.stdin.fileno(), command.pid), daemon=True).start()
    code = command.wait()
    _signal_group(command.pid, signal.SIGKILL)
    os.kill(spare, signal.SIGKILL)
    os.waitpid(spare, 0)
    return code


def _fork_spare(group: int) -> int:
    """Fork a process that stops ``group`` when this process ends. Returns its process id."""
    watched, held = os.pipe()  # ``held`` stays open for as long as this process lives
    if spare := os.fork():
        os.close(watched)
        return spare
    os.close(held)
    _stop_at_end_of(watched, group)
    os._exit(0)


def _stop_at_end_of(file: int, group: int) -> None:
    while os.read(file, 1 << 16):  # sys.stdin.read() would hold a lock that the exit needs
        pass
    deadline = time.monotonic() + GRACE
    _signal_group(group, signal.SIGTERM)
    while _signal_group(group, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: int) -> bool:
    """Signal the process group. Returns whether it still existed."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
