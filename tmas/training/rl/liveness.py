"""Ends a training when an actor that it depends on has died.

verl does not notice this everywhere. If Ray kills a vLLM server because the machine is out of memory, the actor that
sends the new weights waits for the server forever, and the trainer waits for the actor.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayActorError


class ActorDied(RuntimeError):
    """An actor of the training has died."""


@contextmanager
def watch_actors(actors: Mapping[str, Sequence[Any]], interval: float = 10.0) -> Iterator[None]:
    """Raise :class:`ActorDied` in the block when one of ``actors`` (lists of Ray handles by name) has died.

    A thread asks each actor every ``interval`` seconds whether it runs. A busy actor replies later. A signal interrupts
    the block, even while it waits in ``ray.get``, so the block must run in the main thread.
    """
    died: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        pending = {actor.__ray_ready__.remote(): (name, actor) for name, group in actors.items() for actor in group}
        while pending and not stop.wait(interval):
            replied, _ = ray.wait([*pending], num_returns=len(pending), timeout=0)
            for reply in replied:
                name, actor = pending.pop(reply)
                try:
                    ray.get(reply)
                except RayActorError as error:
                    died.append(f"{name}: {error}")
                    os.kill(os.getpid(), signal.SIGUSR1)
                    return
                pending[actor.__ray_ready__.remote()] = name, actor

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt  # the only exception of a signal handler that ends ray.get

    previous_handler = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=watch, name="liveness", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if not died:
            raise
        advice = "Run the same command again to resume from the last checkpoint."
        raise ActorDied(f"A part of the training has died: {died[0]}\n{advice}") from None
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR1, previous_handler)
