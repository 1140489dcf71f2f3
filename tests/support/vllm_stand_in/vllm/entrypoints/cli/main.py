"""In vLLM's place where ``PYTHONPATH`` names this folder: ``vllm serve`` is the scripted team, with a log of its own.

What it does is told by ``STAND_IN`` in its environment, as JSON: ``log`` (a folder; in the file of this process, each
request is a line when it comes and a line when it ends), ``seconds`` (an answer takes), ``slow`` (so many times as long
on the first server that is started), ``faulty`` (share of the requests that come to grief), ``broken`` (it ends at
once). While a file ``held`` is in the folder, no request is answered.
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

TOLD = {"seconds": 0.05, "slow": 1, "faulty": 0.0, "broken": False} | json.loads(os.environ["STAND_IN"])
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
    """Whether no other server claimed to be it before."""
    try:
        (Path(TOLD["log"]) / "first").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def reply(body: Body, seconds: float, draw: random.Random) -> Script:
    texts = tuple(team.reply(body))
    chunks = sum(len(text.split()) for text in texts)
    fault = draw.choice(FAULTS) if draw.random() < TOLD["faulty"] else None
    return Script(texts, first_delay=seconds / 2, chunk_delay=seconds / 2 / chunks, fault=fault)


class StandIn(ScriptedServer):
    """The scripted team; each request stands in the log from its beginning."""

    def __init__(self, port: int) -> None:
        super().__init__(self._reply, key=os.environ["VLLM_API_KEY"], port=port, on_end=self._ended)
        self._log = Path(TOLD["log"]) / f"{os.getpid()}.jsonl"
        self._log.touch()
        self._seconds = TOLD["seconds"] * (TOLD["slow"] if TOLD["slow"] > 1 and is_first() else 1)
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
    if TOLD["broken"]:
        sys.exit("the stand-in was told to break")
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    given, _ = parser.parse_known_args()
    asyncio.run(serve(given.port))


if __name__ == "__main__":
    main()
