"""vLLM on a Ray cluster: each replica is an actor that owns a server on its node, and is started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from tmas.concurrency import first_cause
from tmas.engines.vllm import ServerFailed, free_port, log_tail, vllm_server
from tmas.errors import UserError
from tmas.settings import ModelSettings, ServingSettings

log = logging.getLogger(__name__)

STARTS = 3
"""Failures in a row after which a replica is given up."""
STOP_TIMEOUT = 30.0
"""Seconds for a server to end before its actor is killed."""


class Replica:
    """A vLLM server on the node where this actor lies; it ends with the actor, however that ends."""

    def __init__(self, model: ModelSettings, serving: ServingSettings, key: str, log_file: Path) -> None:
        self._model, self._serving, self._key, self._log_file = model, serving, key, log_file
        self._stack = AsyncExitStack()

    async def start(self) -> str:
        """The base URL, at the node's address in the cluster, once it is healthy; raises :class:`ServerFailed`."""
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        serving = self._serving.model_copy(update={"host": ray.util.get_node_ip_address()})
        port = free_port(serving.host)
        server = vllm_server(self._model, serving, port, self._log_file, self._key)
        self._guard = await self._stack.enter_async_context(server)
        return serving.base_url(port)

    async def ended(self) -> str:
        """Waits until the server has ended; its last words."""
        await asyncio.to_thread(self._guard.wait)
        return log_tail(self._log_file)

    async def stop(self) -> None:
        await self._stack.aclose()


@dataclass
class Placement:
    """What a replica takes of a node: its GPUs, or one of the CPUs where the cluster has no GPU."""

    options: dict[str, Any]
    room: int

    @staticmethod
    def of(tensor_parallel_size: int) -> Placement:
        """For replicas of so many GPUs, with how many the nodes have room for in all."""
        gpus = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
        if sum(gpus):
            return Placement({"num_gpus": tensor_parallel_size}, sum(n // tensor_parallel_size for n in gpus))
        return Placement({"num_cpus": 1}, int(ray.cluster_resources().get("CPU", 0)))


@asynccontextmanager
async def replicas(
    model: ModelSettings, serving: ServingSettings, key: str, directory: Path, tell: Callable[[tuple[str, ...]], None]
) -> AsyncIterator[None]:
    """``serving.replicas`` servers while the block runs, which begins with the first that is ready.

    ``tell`` hears the base URLs of those that are ready whenever they change. Logs are ``vllm-I.log`` in ``directory``,
    on the replica's node. Raises :class:`ServerFailed` when none is left that starts.
    """
    placement = Placement.of(serving.tensor_parallel_size)
    if placement.room < serving.replicas:
        raise UserError(
            f"serving.replicas={serving.replicas}: the Ray cluster has room for {placement.room} replicas "
            f"with serving.tensor_parallel_size={serving.tensor_parallel_size}"
        )
    fleet = _Fleet(ray.remote(**placement.options)(Replica), tell)
    try:
        async with asyncio.TaskGroup() as group:
            logs = _log_files(directory, serving.replicas)
            keepers = [group.create_task(fleet.keep(model, serving, key, log_file)) for log_file in logs]
            watch = group.create_task(_until_all_gave_up(keepers))
            await fleet.ready.wait()
            yield
            for task in (watch, *keepers):
                task.cancel()
    except BaseExceptionGroup as raised:
        raise first_cause(raised) from None


def _log_files(directory: Path, count: int) -> list[Path]:
    """One for each replica, wherever its process is started."""
    return [directory.resolve() / f"vllm-{i}.log" for i in range(count)]


class _Fleet:
    """The replicas that are ready, and how each is kept running."""

    def __init__(self, actor: Any, tell: Callable[[tuple[str, ...]], None]) -> None:
        self._actor, self._tell = actor, tell
        self._base_urls: list[str] = []
        self.ready = asyncio.Event()

    async def keep(self, *given: Any) -> str:
        """Start a replica whenever there is none; why it was given up in the end."""
        failed = 0
        while True:
            replica = self._actor.remote(*given)
            try:
                base_url = await replica.start.remote()
                failed = 0
                reason = await self._while_ready(replica, base_url)
            except (RayActorError, ServerFailed) as error:
                reason = str(getattr(error, "cause", error))
            finally:
                await _stopped(replica)
            log.warning("a vLLM replica ended and is started again: %s", reason)
            failed += 1
            if failed == STARTS:
                return reason

    async def _while_ready(self, replica: Any, base_url: str) -> str:
        """Tell of the replica until it has ended."""
        self._change([*self._base_urls, base_url])
        self.ready.set()
        try:
            return await replica.ended.remote()
        finally:
            self._change([other for other in self._base_urls if other != base_url])

    def _change(self, base_urls: list[str]) -> None:
        self._base_urls = base_urls
        self._tell(tuple(base_urls))


async def _stopped(replica: Any) -> None:
    with contextlib.suppress(RayActorError, TimeoutError):
        await asyncio.wait_for(replica.stop.remote(), STOP_TIMEOUT)
    ray.kill(replica)


async def _until_all_gave_up(keepers: list[asyncio.Task[str]]) -> None:
    reasons = await asyncio.gather(*keepers)
    raise ServerFailed(reasons[0])
