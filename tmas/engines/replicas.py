"""vLLM on a Ray cluster. Each replica is an actor that owns a server on its node, and is restarted when it dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from tmas.concurrency import first_cause
from tmas.engines.vllm import ServerFailed, free_port, log_size, log_tail, vllm_server
from tmas.errors import UserError
from tmas.redaction import clean_logger, log_to_stderr
from tmas.settings import ModelSettings, ServingSettings

log = clean_logger(__name__)

MAX_FAILURES = 3
"""Give up on a replica after this many consecutive failures."""
STOP_TIMEOUT = 30.0
"""Seconds for a server to stop before its actor is killed."""


class Replica:
    """A vLLM server on the node of this actor. The server ends with the actor, even if that is killed."""

    def __init__(self, model: ModelSettings, serving: ServingSettings, log_file: Path) -> None:
        self._model, self._serving, self._log_file = model, serving, log_file
        self._stack = AsyncExitStack()
        log_to_stderr()

    async def start(self, key: str) -> str:
        """Start the server. Clients must send ``key``.

        Returns its base URL in the cluster once it is healthy. Raises :class:`ServerFailed`. The key is not an argument
        of the constructor, because Ray would keep it in its control store.
        """
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        serving = self._serving.model_copy(update={"host": ray.util.get_node_ip_address()})
        port = free_port(serving.host)
        self._log_start = log_size(self._log_file)
        server = vllm_server(self._model, serving, port, self._log_file, key)
        self._guard = await self._stack.enter_async_context(server)
        return serving.base_url(port)

    async def ended(self) -> str:
        """Wait until the server has ended. Returns the last lines of its log."""
        await asyncio.to_thread(self._guard.wait)
        return log_tail(self._log_file, self._log_start)

    async def stop(self) -> None:
        await self._stack.aclose()


@dataclass
class Placement:
    """Resources of one replica, as options of its actor: GPUs, or one CPU if the cluster has no GPU.

    ``room``: number of replicas that fit on the cluster.
    """

    options: dict[str, Any]
    room: int

    @staticmethod
    def of(tensor_parallel_size: int) -> Placement:
        """Compute the placement of replicas with ``tensor_parallel_size`` GPUs each."""
        gpus = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
        if sum(gpus):
            return Placement({"num_gpus": tensor_parallel_size}, sum(n // tensor_parallel_size for n in gpus))
        return Placement({"num_cpus": 1}, int(ray.cluster_resources().get("CPU", 0)))


@asynccontextmanager
async def replicas(
    model: ModelSettings,
    serving: ServingSettings,
    key: str,
    directory: Path,
    on_change: Callable[[tuple[str, ...]], None],
) -> AsyncIterator[None]:
    """Run ``serving.replicas`` servers. The block starts when the first one is ready.

    ``on_change`` is called with the base URLs of the ready servers whenever they change. Logs are ``vllm-I.log`` in
    ``directory``, on the replica's node. Raises :class:`ServerFailed` when no replica can be started any more.
    """
    placement = Placement.of(serving.tensor_parallel_size)
    if placement.room < serving.replicas:
        raise UserError(
            f"serving.replicas={serving.replicas}: the Ray cluster has room for {placement.room} replicas "
            f"with serving.tensor_parallel_size={serving.tensor_parallel_size}"
        )
    fleet = _Fleet(ray.remote(**placement.options)(Replica), on_change)
    try:
        async with asyncio.TaskGroup() as group:
            logs = _log_files(directory, serving.replicas)
            keepers = [group.create_task(fleet.keep(key, model, serving, log_file)) for log_file in logs]
            watch = group.create_task(_until_all_gave_up(keepers))
            await fleet.ready.wait()
            yield
            for task in (watch, *keepers):
                task.cancel()
    except BaseExceptionGroup as raised:
        raise first_cause(raised) from None


def _log_files(directory: Path, count: int) -> list[Path]:
    """The path of each replica's log file. It does not depend on the replica's node."""
    return [directory.resolve() / f"vllm-{i}.log" for i in range(count)]


class _Fleet:
    """The ready replicas, and the loop that keeps each one running."""

    def __init__(self, actor: Any, on_change: Callable[[tuple[str, ...]], None]) -> None:
        self._actor, self._on_change = actor, on_change
        self._base_urls: list[str] = []
        self.ready = asyncio.Event()

    async def keep(self, key: str, *arguments: Any) -> str:
        """Start a replica with these constructor arguments, and restart it whenever it ends.

        Returns the last reason after :data:`MAX_FAILURES` consecutive failures.
        """
        failed = 0
        while True:
            replica = self._actor.remote(*arguments)
            try:
                base_url = await replica.start.remote(key)
                failed = 0
                reason = await self._report_until_ended(replica, base_url)
            except (RayActorError, ServerFailed) as error:
                reason = str(getattr(error, "cause", error))
            finally:
                await _stop(replica)
            failed += 1
            is_given_up = failed == MAX_FAILURES
            log.warning("a vLLM replica ended and is %s: %s", "given up" if is_given_up else "being restarted", reason)
            if is_given_up:
                return reason

    async def _report_until_ended(self, replica: Any, base_url: str) -> str:
        """Report the replica as ready until it has ended. Returns the last lines of its log."""
        self._change([*self._base_urls, base_url])
        self.ready.set()
        try:
            return await replica.ended.remote()
        finally:
            self._change([other for other in self._base_urls if other != base_url])

    def _change(self, base_urls: list[str]) -> None:
        self._base_urls = base_urls
        self._on_change(tuple(base_urls))


async def _stop(replica: Any) -> None:
    with contextlib.suppress(RayActorError, TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT):
            await replica.stop.remote()
    ray.kill(replica)


async def _until_all_gave_up(keepers: list[asyncio.Task[str]]) -> None:
    reasons = await asyncio.gather(*keepers)
    raise ServerFailed(reasons[0])
