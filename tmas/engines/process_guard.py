"""Runs a command as long as its standard input stays open: ``python -m tmas.engines.process_guard COMMAND ...``

A server must not outlive the run that started it, even if the run is killed with SIGKILL. The run holds the other end
of a pipe. When that closes, for whatever reason, the command's process group gets SIGTERM and, after ``GRACE`` seconds,
SIGKILL. If the guard itself is killed, its backup stops the process group in the same way. The backup is a forked
process that waits until the guard's end of a second pipe closes. A parent-death signal would not be enough: vLLM's
engine processes survive if its first process is killed, or gets SIGTERM while it starts.
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
    backup = _fork_backup(command.pid)
    threading.Thread(target=_stop_group_when_closed, args=(sys.stdin.fileno(), command.pid), daemon=True).start()
    code = command.wait()
    _signal_group(command.pid, signal.SIGKILL)
    os.kill(backup, signal.SIGKILL)
    os.waitpid(backup, 0)
    return code


def _fork_backup(group: int) -> int:
    """Fork a process that stops ``group`` when this process ends. Returns its process id."""
    watched, held = os.pipe()  # ``held`` stays open for as long as this process lives
    if backup := os.fork():
        os.close(watched)
        return backup
    os.close(held)
    _stop_group_when_closed(watched, group)
    os._exit(0)


def _stop_group_when_closed(pipe: int, group: int) -> None:
    """Wait until the other end of ``pipe`` is closed, then stop the process group."""
    while os.read(pipe, 1 << 16):  # sys.stdin.read() would hold a lock that the exit needs
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
