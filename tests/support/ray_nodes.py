"""A Ray cluster of several nodes on this machine, on loopback, whose nodes can be killed.

A process of its own has the cluster: Ray's switch to bind loopback alone is read when Ray is imported. Each line that
it reads is a node to add, and answered by a line with the cluster's address.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from tmas.engines.ray_cluster import LOOPBACK, QUIET
from tmas.testing.processes import marked

MARK = "TMAS_TEST_NODE"


class Nodes:
    """``address``: of the cluster. Node 0 is the head; each has one CPU."""

    def __init__(self) -> None:
        self._name, self._count = secrets.token_hex(8), 0
        self._host = subprocess.Popen(
            [sys.executable, "-m", __name__, self._name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **LOOPBACK, **QUIET},
            text=True,
        )
        self._orders: IO[str] = self._host.stdin  # type: ignore[assignment]
        self._answers: IO[str] = self._host.stdout  # type: ignore[assignment]
        self.address = self.add()

    def add(self) -> str:
        """One more node, which has joined when this returns."""
        print(self._count, file=self._orders, flush=True)
        self._count += 1
        while line := self._answers.readline():
            if line.startswith("joined "):
                return line.split()[1]
        raise AssertionError("the cluster ended")

    def kill(self, node: int) -> None:
        """With all that runs on it, as when a machine loses its power."""
        for pid in self.processes("", node):
            _kill(pid)

    def processes(self, words: str, node: int | None = None) -> list[int]:
        """Process ids of the cluster's (or a node's) processes whose command line has ``words``."""
        mark = f"{MARK}={self._name}-{'' if node is None else node}"
        return [pid for pid, line in marked(mark).items() if words in line]

    def close(self) -> None:
        self._orders.close()
        self._host.wait()
        for pid in self.processes(""):
            _kill(pid)


@contextmanager
def ray_nodes(count: int) -> Iterator[Nodes]:
    nodes = Nodes()
    try:
        for _ in range(count - 1):
            nodes.add()
        yield nodes
    finally:
        nodes.close()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for line in sys.stdin:
        mark = {MARK: f"{sys.argv[1]}-{line.strip()}"}
        os.environ.update(mark)  # of the head's GCS and of every raylet, and so of all that they start
        cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=10**8, include_dashboard=False)
        print("joined", cluster.address, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
