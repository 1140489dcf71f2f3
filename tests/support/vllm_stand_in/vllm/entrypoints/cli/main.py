"""Takes the place of vLLM if ``PYTHONPATH`` has this folder: ``vllm serve`` starts the scripted team.

The environment variable ``STAND_IN`` has its options as JSON:

- ``log``: a folder. Each server process writes a file there, with one line when a request begins and one when it ends.
  While the folder contains a file ``held``, no request is answered.
- ``seconds``: duration of a reply.
- ``slow``: factor by which the server that starts first is slower.
- ``faulty``: share of the requests that get a fault.
- ``broken``: whether the server exits at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from pathlib import Path

from aiohttp import web

from tmas.testing import team
from tmas.testing.chat_server import Body, Exchange, Fault, Script, ScriptedServer

OPTIONS = {"seconds": 0.05, "slow": 1, "faulty": 0.0, "broken": False} | json.loads(os.environ["STAND_IN"])
FAULTS = [
    Fault("status", status=429, headers={"Retry-After": "0.1"}),
    Fault("status", status=500),
    Fault("reset", after=None),
    Fault("reset", after=3),
    Fault("hang", after=2),
    Fault("truncate", after=3),
    Fault("malformed", after=2),
]


def is_first() -> bool:
    """Whether this is the first server that asks. The server creates a file so that all later ones get False."""
    try:
        (Path(OPTIONS["log"]) / "first").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def reply(body: Body, seconds: float, draw: random.Random) -> Script:
    """The team's reply, spread over ``seconds``, with a random fault if ``draw`` says so."""
    texts = tuple(team.reply(body))
    chunks = sum(len(text.split()) for text in texts)
    fault = draw.choice(FAULTS) if draw.random() < OPTIONS["faulty"] else None
    return Script(texts, first_delay=seconds / 2, chunk_delay=seconds / 2 / chunks, fault=fault)


class StandIn(ScriptedServer):
    """The scripted team, which logs the begin and the end of each request."""

    def __init__(self, port: int) -> None:
        super().__init__(self._reply, key=os.environ["VLLM_API_KEY"], port=port, on_end=self._ended)
        self._log = Path(OPTIONS["log"]) / f"{os.getpid()}.jsonl"
        self._log.touch()
        self._seconds = OPTIONS["seconds"] * (OPTIONS["slow"] if OPTIONS["slow"] > 1 and is_first() else 1)
        self._draw = random.Random(port)

    def _reply(self, body: Body) -> Script:
        return reply(body, self._seconds, self._draw)

    async def _respond(self, request: web.Request, body: Body, fault: Fault | None) -> web.StreamResponse:
        self._note("begun", body)
        while self._log.with_name("held").exists():  # noqa: ASYNC110 - made and removed by another process
            await asyncio.sleep(0.05)
        return await super()._respond(request, body, fault)

    def _ended(self, exchange: Exchange) -> None:
        self._note(exchange.state, exchange.body)

    def _note(self, state: str, body: Body) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps({"state": state, "seed": body["seed"], "priority": body.get("priority")}) + "\n")


async def serve(port: int) -> None:
    async with StandIn(port):
        await asyncio.Event().wait()


def main() -> None:
    if OPTIONS["broken"]:
        sys.exit("STAND_IN has broken=true")
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    given, _ = parser.parse_known_args()
    asyncio.run(serve(given.port))


if __name__ == "__main__":
    main()
