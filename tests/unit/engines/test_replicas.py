"""A replica's server is started with its key, on its node, and its address is reported; without Ray and vLLM."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the cpu or gpu extra")

from ray.exceptions import RayActorError

from tmas.engines import replicas
from tmas.engines.vllm import ServerFailed
from tmas.settings import ModelSettings, ServingSettings

KEY = "sk-canary-5142"
MODEL = ModelSettings(name="m", base_url="http://127.0.0.1:9/v1")
NODE = "192.0.2.7"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The servers that were started, with what they were given, and whether they have been stopped."""
    found: list[dict[str, Any]] = []

    @asynccontextmanager
    async def server(
        model: ModelSettings, serving: ServingSettings, port: int, log_file: Path, key: str
    ) -> AsyncIterator[Any]:
        found.append({"host": serving.host, "port": port, "log": log_file, "key": key, "stopped": False})

        def wait() -> None:
            with log_file.open("a") as log:
                log.write("CUDA is out of memory\n")

        yield SimpleNamespace(wait=wait)
        found[-1]["stopped"] = True

    monkeypatch.setattr(replicas, "vllm_server", server)
    monkeypatch.setattr(replicas, "free_port", lambda host: 4242)
    monkeypatch.setattr(replicas.ray.util, "get_node_ip_address", lambda: NODE)
    return found


async def test_start_gives_the_key_to_a_server_on_the_replica_s_node(tmp_path: Path, started: list[dict[str, Any]]):
    log_file = tmp_path / "run" / "vllm-0.log"
    replica = replicas.Replica(MODEL, ServingSettings(), log_file)
    assert await replica.start(KEY) == f"http://{NODE}:4242/v1"
    assert started == [{"host": NODE, "port": 4242, "log": log_file, "key": KEY, "stopped": False}]
    assert (await replica.ended()).startswith("CUDA is out of memory\n")
    await replica.stop()
    assert started[0]["stopped"]


async def test_a_restarted_replica_reports_only_what_its_own_server_wrote(
    tmp_path: Path, started: list[dict[str, Any]]
):
    log_file = tmp_path / "vllm-0.log"
    log_file.write_text("ValueError: an earlier start.\n")
    replica = replicas.Replica(MODEL, ServingSettings(), log_file)
    await replica.start(KEY)
    assert await replica.ended() == f"CUDA is out of memory\n(whole log: {log_file})"
    await replica.stop()


def test_the_key_is_no_argument_of_the_constructor():
    """Ray keeps the arguments of a constructor in its control store."""
    assert "key" not in inspect.signature(replicas.Replica.__init__).parameters


class Actor:
    """A replica's actor: its first ``start`` raises ``error``, its second one succeeds."""

    def __init__(self, error: Exception, constructed: list[tuple[Any, ...]], keys: list[str]) -> None:
        self.error, self.constructed, self.keys = error, constructed, keys

    def remote(self, *given: Any) -> SimpleNamespace:
        self.constructed.append(given)
        methods = {"start": self._start, "ended": self._ended, "stop": self._stop}
        return SimpleNamespace(**{name: SimpleNamespace(remote=method) for name, method in methods.items()})

    async def _start(self, key: str) -> str:
        self.keys.append(key)
        if len(self.keys) == 1:
            raise self.error
        return "http://replica/v1"

    async def _ended(self) -> str:
        return await asyncio.Future()

    async def _stop(self) -> None:
        raise RayActorError


@pytest.mark.parametrize("error", [ServerFailed("no memory"), RayActorError()])
async def test_a_replica_that_failed_is_started_again_with_the_key(monkeypatch: pytest.MonkeyPatch, error: Exception):
    killed: list[Any] = []
    monkeypatch.setattr(replicas.ray, "kill", killed.append)
    constructed: list[tuple[Any, ...]] = []
    keys: list[str] = []
    told: list[tuple[str, ...]] = []
    fleet = replicas._Fleet(Actor(error, constructed, keys), told.append)
    keeper = asyncio.create_task(fleet.keep(KEY, MODEL, "log"))
    await fleet.ready.wait()
    assert keys == [KEY, KEY]
    assert constructed == [(MODEL, "log")] * 2
    assert told == [("http://replica/v1",)]
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    assert told[-1] == ()
    assert len(killed) == 2
