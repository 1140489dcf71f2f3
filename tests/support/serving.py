"""Runs ``tmas serve`` in the event loop of a test, and sends requests to it over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tmas.methods.base import MethodSettings
from tmas.serve.server import bind_port, http_server
from tmas.serve.service import Service, open_service
from tmas.serve.settings import ServeSettings
from tmas.testing import team

QUESTION = "What is 1 + 1?"


@dataclass(frozen=True)
class Reply:
    """A response of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]

    @property
    def text(self) -> str:
        return self.json["choices"][0]["message"]["content"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a stream. Fails unless the stream ended with ``[DONE]``."""
        *data, end = [line for line in self.body.decode().split("\n\n") if line.startswith("data: ")]
        assert end == "data: [DONE]"
        return [orjson.loads(line.removeprefix("data: ")) for line in data]

    @property
    def progress(self) -> list[str]:
        """The progress lines of a stream."""
        deltas = [choice["delta"] for event in self.events for choice in event.get("choices", ())]
        return [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta]


@dataclass
class RunningServer:
    """A running server with an HTTP client. ``model``: the name that requests ask for."""

    base_url: str
    service: Service
    http: aiohttp.ClientSession
    model: str

    async def ask(self, question: Any = QUESTION, *, headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
        body = {"model": self.model, "messages": [{"role": "user", "content": question}]} | fields
        return await self.send("POST", "/chat/completions", headers=headers, json=body)

    async def send(self, verb: str, path: str, **given: Any) -> Reply:
        async with self.http.request(verb, self.base_url + path, **given) as response:
            return Reply(response.status, dict(response.headers), await response.read())


@asynccontextmanager
async def served(
    folder: Path,
    engine: str,
    *,
    method: MethodSettings | None = None,
    model: Mapping[str, Any] | None = None,
    concurrency: int = 800,
    prompts: Path | None = None,
    **serve: Any,
) -> AsyncIterator[RunningServer]:
    """A running server. ``engine``: base URL of its model. ``serve``: settings of the server itself."""
    settings = ServeSettings.model_validate(
        {
            "model": team.model(engine, **(model or {})),
            "method": method or team.method(),
            "concurrency": concurrency,
            "prompts": prompts,
            "serve": {"output_dir": folder, "port": 0, **serve},
        }
    )
    with closing(bind_port(settings.serve)) as port:
        key = settings.serve.read_key()
        async with (
            open_service(settings) as service,
            http_server(port, service, settings.served_models, key) as base_url,
            aiohttp.ClientSession() as http,
        ):
            yield RunningServer(base_url, service, http, settings.method.name)


def runs_in(folder: Path) -> list[Path]:
    """The run directories that the server wrote to ``folder``."""
    return sorted(path for path in folder.iterdir() if path.is_dir())
