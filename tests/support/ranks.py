"""Runs the ranks of a distributed ``tmas`` command as forks of one process.

``torchrun`` starts a new interpreter for each rank, and each of them imports torch, transformers and DeepSpeed, which
costs far more CPU than the few updates of a test. The process of :class:`Ranks` imports them once. It gets one line of
JSON for each launch, forks the ranks, and answers with their process ids and, when all have ended, their exit codes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
    for line in sys.stdin:
        order = json.loads(line)
        pids = [_fork(rank, order) for rank in range(order["processes"])]
        print(json.dumps(pids), file=answers, flush=True)
        print(json.dumps(_exit_codes(pids)), file=answers, flush=True)


def _fork(rank: int, order: dict[str, Any]) -> int:
    """Start a rank and return its process id. The rank itself never returns."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        with open(order["log"], "ab") as log, open(os.devnull, "rb") as nothing:
            for target, file in ((0, nothing), (1, log), (2, log)):
                os.dup2(file.fileno(), target)
        if (size := order["processes"]) > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": order["port"]}
            os.environ.update({name: str(value) for name, value in (place | address).items()})
        sys.argv = ["tmas", *order["words"]]
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_codes(pids: list[int]) -> list[int]:
    """Wait for all ranks. Like ``torchrun``, kill the others when one has failed: they would wait for it."""
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid]:
            for other in set(pids) - codes.keys():
                os.kill(other, signal.SIGKILL)
    return [codes[pid] for pid in pids]


if __name__ == "__main__":
    _serve()
