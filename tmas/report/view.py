"""``tmas view``: serves the report of a live or finished run over HTTP, and the page follows the run.

Every address begins with a random token, so that other users of the machine, and pages of other sites that a browser
has open, cannot read the run.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from pydantic import Field

from tmas.errors import UserError
from tmas.files import text_digest
from tmas.report.growing import GrowingReport
from tmas.report.page import page_parts
from tmas.report.status import status_section
from tmas.settings import Settings

MEGABYTE = 10**6
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HEADERS = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class ViewSettings(Settings):
    """All settings of ``tmas view``."""

    run: Path = Field(description="Run directory of tmas solve. tmas view DIR sets it.")
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. If it is not 127.0.0.1, anybody who can reach it and knows the printed URL"
        " can read the run; the connection is not encrypted.",
    )
    port: int = Field(default=0, ge=0, le=65535, description="Port to listen on. 0: any free port, which is printed.")
    every: float = Field(
        default=10.0, gt=0, description="Seconds between two checks of the run's files for newly finished problems."
    )
    max_mb: float = Field(
        default=10.0,
        gt=0,
        description="Maximum size, in megabytes, of the prompts, replies and reasoning of each problem that is opened.",
    )


@asynccontextmanager
async def view_server(settings: ViewSettings) -> AsyncIterator[str]:
    """Serve the report while the block runs. Yields the URL of the page.

    Raises ``UserError`` if ``settings.run`` is not a run directory, or the port cannot be bound.
    """
    if not (settings.run / "manifest.json").is_file():
        remedy = "Give the output_dir of tmas solve."
        raise UserError("not a run directory: manifest.json is missing", where=settings.run, remedy=remedy)
    token = secrets.token_urlsafe(16)
    viewer = _Viewer(GrowingReport(settings.run, round(settings.max_mb * MEGABYTE)), settings.every)
    app = web.Application(middlewares=[_with_token(token)])
    app.add_routes(
        [
            web.get("/{token}/", viewer.page),
            web.get("/{token}/status", viewer.status),
            web.get("/{token}/report", viewer.report),
            web.get("/{token}/block/{block}", viewer.block),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        try:
            await site.start()
        except OSError as error:
            raise UserError(str(error.strerror), where=f"host={settings.host} port={settings.port}") from None
        host, port, *_ = runner.addresses[0]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/{token}/"
    finally:
        await runner.cleanup()


class _Viewer:
    """Answers the requests of the page. One request at a time reads files, in another thread."""

    def __init__(self, report: GrowingReport, every: float) -> None:
        self._report, self._every = report, every
        self._reading = asyncio.Lock()
        self._data: tuple[str, bytes] = ("", b"")

    async def page(self, _: web.Request) -> web.Response:
        name = self._report.path.resolve().name
        data = {"growing": True, "every": self._every, "sections": [], "runs": []}
        text = "".join(page_parts(f"TMAS: {name}", data, connects=True))
        return web.Response(text=text, content_type="text/html", headers=HEADERS)

    async def status(self, request: web.Request) -> web.StreamResponse:
        """The first tab. It does not wait for the report, which may take long to make."""
        try:
            section = status_section(await asyncio.to_thread(self._report.status))
        except UserError as error:  # a damaged file
            return web.Response(status=500, text=str(error), headers=HEADERS)
        body = orjson.dumps(section)
        return _response_if_changed(request, text_digest(body), body)

    async def report(self, request: web.Request) -> web.StreamResponse:
        async with self._reading:
            version = await asyncio.to_thread(self._report.version)
            if version != self._data[0]:
                self._data = version, await asyncio.to_thread(self._report.data)
        return _response_if_changed(request, *self._data)

    async def block(self, request: web.Request) -> web.StreamResponse:
        async with self._reading:
            text = await asyncio.to_thread(self._report.block, request.match_info["block"])
        if text is None:
            raise web.HTTPNotFound(text="no such problem")
        return web.Response(text=text, content_type="text/plain", headers=HEADERS)


def _response_if_changed(request: web.Request, version: str, body: bytes) -> web.StreamResponse:
    """The JSON ``body``, or 304 if the page has this version already."""
    headers = {**HEADERS, "ETag": f'"{version}"'}
    if request.headers.get("If-None-Match") == f'"{version}"':
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/json", headers=headers)


def _with_token(token: str) -> Any:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.match_info.get("token", "")
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode()):
            raise web.HTTPNotFound
        return await handler(request)

    return check
