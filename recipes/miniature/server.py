"""An OpenAI-compatible server for the rule-based teacher and judge, so that the project can use them as a model.

``python -m recipes.miniature.server --ready FILE`` serves on the loopback interface until the process ends. It writes
its URL into FILE when it accepts requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from recipes.miniature.judge import verdict
from recipes.miniature.task import Task
from recipes.miniature.teacher import Teacher

MODEL = "rules"


def application(task: Task, error_rate: float = 0.0, spread: float = 0.0) -> web.Application:
    """The web application. A reply depends only on the messages and the request's seed, so it can be reproduced.

    ``error_rate`` and ``spread``: see :class:`~recipes.miniature.teacher.Teacher`.
    """

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        replies = [
            _reply(body, index, partial(Teacher, task, error_rate=error_rate, spread=spread))
            for index in range(body.get("n", 1))
        ]
        usage = _usage(body, replies)
        if not body.get("stream"):
            choices = [
                {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                for i, text in enumerate(replies)
            ]
            return web.json_response({"object": "chat.completion", "model": MODEL, "choices": choices, "usage": usage})
        choices = [
            {"index": i, "delta": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate(replies)
        ]
        chunk = {"object": "chat.completion.chunk", "model": MODEL, "choices": choices, "usage": usage}
        return web.Response(text=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", content_type="text/event-stream")

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
    return app


def _reply(body: dict[str, Any], index: int, teacher: Callable[[random.Random], Teacher]) -> str:
    prompt = "\n\n".join(message["content"] for message in body["messages"])
    if "# Your verdict" in prompt:
        return verdict(prompt)
    draw = random.Random(f"{body.get('seed')}/{index}/{prompt}")
    return teacher(draw).reply(prompt)


def _usage(body: dict[str, Any], replies: list[str]) -> dict[str, int]:
    """Token counts for the response. They count words, because the teacher has no tokenizer."""
    prompt = sum(len(message["content"].split()) for message in body["messages"])
    completion = sum(len(text.split()) for text in replies)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def serve(app: web.Application, port: int, ready: Path | None) -> None:
    """Serve ``app`` on the loopback interface until cancelled. Writes the URL to ``ready`` once it listens."""
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    print(url, flush=True)
    if ready:
        await asyncio.to_thread(ready.write_text, url)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: any free port (%(default)s)")
    parser.add_argument("--error-rate", type=float, default=0.0, help="share of wrong findings in verifications")
    parser.add_argument("--spread", type=float, default=0.0, help="share of guesses that are drawn uniformly")
    parser.add_argument("--ready", type=Path, help="file to write the server's URL to")
    options = parser.parse_args()
    asyncio.run(serve(application(Task(), options.error_rate, options.spread), options.port, options.ready))


if __name__ == "__main__":
    main()
