"""A Ray cluster of several nodes on this machine's loopback interface, for tests that kill nodes.

The cluster runs in a separate process, because Ray reads the setting for loopback only when it is imported. For each
line on its standard input the process adds a node, and prints a line with the cluster's address.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from tmas.engines.ray_cluster import LOOPBACK, QUIET
from tmas.testing.processes import marked

MARK = "TMAS_TEST_NODE"


class RayNodes:
    """A running cluster. ``address``: its address. Node 0 is the head. Each node has one CPU."""

    def __init__(self) -> None:
        self._name, self._count = secrets.token_hex(8), 0
        self._host = subprocess.Popen(
            [sys.executable, "-m", __name__, self._name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **LOOPBACK, **QUIET, "RAY_worker_niceness": "0"},  # with 15, other work starves them
            text=True,
        )
        self._commands: IO[str] = self._host.stdin  # type: ignore[assignment]
        self._replies: IO[str] = self._host.stdout  # type: ignore[assignment]
        self.address = self.add()

    def add(self) -> str:
        """Add a node, wait until it has joined, and return the cluster's address."""
        print(self._count, file=self._commands, flush=True)
        self._count += 1
        while line := self._replies.readline():
            if line.startswith("joined "):
                return line.split()[1]
        raise AssertionError("the cluster's process ended")

    def kill(self, node: int) -> None:
        """Kill all processes of a node, as if the machine lost power."""
        for pid in self.processes("", node):
            _kill(pid)

    def processes(self, words: str, node: int | None = None) -> list[int]:
        """Ids of the processes of a node (None: of all nodes) whose command line contains ``words``."""
        mark = f"{MARK}={self._name}-{'' if node is None else node}"
        return [pid for pid, line in marked(mark).items() if words in line]

    def close(self) -> None:
        self._commands.close()
        self._host.wait()
        for pid in self.processes(""):
            _kill(pid)


@contextmanager
def ray_nodes(count: int) -> Iterator[RayNodes]:
    """A cluster of ``count`` nodes, which ends with the context."""
    nodes = RayNodes()
    try:
        for _ in range(count - 1):
            nodes.add()
        yield nodes
    finally:
        nodes.close()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _joined(cluster: Any) -> bool:
    """Start a node. False if it was too slow: Ray gives it 30 seconds, which no setting changes."""
    try:
        cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=10**8, include_dashboard=False)
    except Exception as error:
        if "timed out during startup" in str(error):
            return False
        raise
    return True


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for line in sys.stdin:
        mark = f"{sys.argv[1]}-{line.strip()}"
        os.environ[MARK] = mark  # inherited by the head's GCS, by every raylet, and by all processes that these start
        while not _joined(cluster):
            for pid in marked(f"{MARK}={mark}"):
                _kill(pid)
        print("joined", cluster.address, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
