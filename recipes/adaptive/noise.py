"""Run a command with a proxy that flips grades of verifications. It changes no other replies.

``python -m recipes.adaptive.noise COMMAND ...`` serves the proxy for the model at ``MODEL_URL`` while the command runs,
and sets ``NOISE_URL`` for it. The verifier's base URL for a rate of 20 % is ``$NOISE_URL/0.2/v1``
(``model.roles.verification.base_url``). In each choice of a reply the proxy replaces the grade with the probability of
the rate: 1 by 0, and 0 or 0.5 by 1. The draw depends only on the request's seed, the number of the choice and the
text, so the same request and reply always give the same result. Without ``MODEL_URL``, the rule-based teacher of the
miniature is served as the model.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from recipes.miniature.server import application as teacher
from recipes.miniature.task import Task

CLIENT = web.AppKey("client", ClientSession)
GRADE = re.compile(r"\\boxed\{(0\.5|[01])\}")


def with_flipped_grade(text: str, seed: object, choice: int, rate: float) -> str:
    """``text``, with its last boxed grade flipped with the probability ``rate``."""
    digest = hashlib.sha256(f"{seed}/{choice}/{text}".encode()).digest()
    grades = [*GRADE.finditer(text)]
    if not grades or int.from_bytes(digest[:7]) / 2**56 >= rate:
        return text
    last = grades[-1]
    return f"{text[: last.start(1)]}{0 if last[1] == '1' else 1}{text[last.end(1) :]}"


def application(upstream: str) -> web.Application:
    """The proxy of the server at ``upstream``. It answers a streamed request with a single chunk."""

    async def client(app: web.Application) -> AsyncIterator[None]:
        # Connections are not reused: the server might close an idle one just when a request is sent on it.
        connector = TCPConnector(limit=0, force_close=True)
        async with ClientSession(connector=connector, timeout=ClientTimeout(total=None)) as app[CLIENT]:
            yield

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        streams, _ = body.pop("stream", False), body.pop("stream_options", None)
        async with request.app[CLIENT].post(f"{upstream}/chat/completions", json=body) as response:
            if response.status != 200:
                return web.Response(body=await response.read(), status=response.status)
            reply = await response.json()
        for choice in reply["choices"]:
            message = choice["message"]
            message["content"] = with_flipped_grade(
                message["content"], body.get("seed"), choice["index"], _rate(request)
            )
        if not streams:
            return web.json_response(reply)
        choices = [{**choice, "delta": choice.pop("message")} for choice in reply["choices"]]
        chunk = {**reply, "object": "chat.completion.chunk", "choices": choices}
        return web.Response(text=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", content_type="text/event-stream")

    async def models(request: web.Request) -> web.Response:
        async with request.app[CLIENT].get(f"{upstream}/models") as response:
            return web.json_response(await response.json(), status=response.status)

    app = web.Application(client_max_size=64 << 20)
    app.cleanup_ctx.append(client)
    app.add_routes([web.post("/{rate}/v1/chat/completions", chat), web.get("/{rate}/v1/models", models)])
    return app


def _rate(request: web.Request) -> float:
    return float(request.match_info["rate"])


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """The address of ``app`` on the loopback interface while the block runs."""
    runner = web.AppRunner(app, shutdown_timeout=1)  # the command has ended: no connection is used any more
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def run(command: list[str]) -> int:
    """Run ``command`` while the proxy serves, and return its exit code."""
    async with AsyncExitStack() as stack:
        environment = dict(os.environ)
        if "MODEL_URL" not in environment:
            address = await stack.enter_async_context(served(teacher(Task())))
            environment |= {"MODEL_URL": f"{address}/v1", "MODEL_NAME": "rules"}
        address = await stack.enter_async_context(served(application(environment["MODEL_URL"])))
        process = await asyncio.create_subprocess_exec(*command, env={**environment, "NOISE_URL": address})
        return await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(run(sys.argv[1:])))
