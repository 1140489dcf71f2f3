"""Runs the ranks of a distributed ``tmas`` command as forks of one process.

``torchrun`` starts a new interpreter for each rank, and each of them imports torch, transformers and DeepSpeed, which
costs far more CPU than the few updates of a test. The process of :class:`Ranks` imports them once. It gets one line of
JSON for each launch, forks the ranks, and answers with their process ids and, when all have ended, their exit codes.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from tmas.cli.main import main
from tmas.engines.vllm import free_port

PRELOADED = ("deepspeed", "transformers.models.qwen3.modeling_qwen3", "tmas.training.sft.trainer")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
"""torch and DeepSpeed read these variables when they are imported."""


@dataclass
class Launch:
    """A started command. ``pids``: its ranks. ``log``: the file with the output of all ranks."""

    pids: list[int]
    log: Path
    _host: subprocess.Popen[str]

    @property
    def running(self) -> bool:
        """Whether any rank still runs."""
        return any(Path(f"/proc/{pid}").exists() for pid in self.pids)

    def kill(self) -> None:
        """Kill all ranks."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _answer(self._host)

    def output(self, code: int = 0) -> str:
        """Wait until all ranks have ended, and return what they printed. Fails unless all ended with ``code``."""
        codes = _answer(self._host)
        printed = self.log.read_text()
        assert codes == [code] * len(self.pids), printed
        return printed


class Ranks:
    """A process that forks the ranks of one command after another."""

    def __init__(self, host: subprocess.Popen[str]) -> None:
        self._host = host

    def launch(self, words: Sequence[str], processes: int, log: Path) -> Launch:
        """Run ``tmas WORDS ...`` on ``processes`` ranks of this machine. One process gets no rank, as in a shell."""
        assert self._host.stdin is not None
        order = {"words": list(words), "processes": processes, "port": free_port("127.0.0.1"), "log": str(log)}
        print(json.dumps(order), file=self._host.stdin, flush=True)
        return Launch(_answer(self._host), log, self._host)


@contextmanager
def forked_ranks() -> Iterator[Ranks]:
    """A host process for forks, which ends with the context."""
    command, environment = [sys.executable, "-m", __name__], {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as host:
        try:
            yield Ranks(host)
        finally:
            os.killpg(host.pid, signal.SIGKILL)  # with the ranks that a failed test has left


def _answer(host: subprocess.Popen[str]) -> list[int]:
    assert host.stdout is not None
    line = host.stdout.readline()
    assert line, "the process that forks the ranks has ended: see the error above"
    return json.loads(line)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    for module in PRELOADED:
        importlib.import_module(module)
    forks = multiprocessing.get_context("fork")
    for line in sys.stdin:
        order = json.loads(line)
        ranks = [forks.Process(target=_run, args=(rank, order)) for rank in range(order["processes"])]
        for rank in ranks:
            rank.start()
        print(json.dumps([rank.pid for rank in ranks]), file=answers, flush=True)
        while running := [rank for rank in ranks if rank.exitcode is None]:
            if any(rank.exitcode for rank in ranks):
                for rank in running:
                    rank.kill()  # as torchrun does: it would wait for the rank that has failed
            connection.wait([rank.sentinel for rank in running])
        print(json.dumps([rank.exitcode for rank in ranks]), file=answers, flush=True)


def _run(rank: int, order: dict[str, Any]) -> None:
    """Run the command as this rank, in its own process."""
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for output in (1, 2):
        os.dup2(log, output)
    if (size := order["processes"]) > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": order["port"]}
        os.environ.update({name: str(value) for name, value in (place | address).items()})
    sys.argv = ["tmas", *order["words"]]
    main()


if __name__ == "__main__":
    _serve()
