"""tmas/serve: clients that open connections and send nothing, slowly, or no HTTP cannot keep others out."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.serving import RunningServer, served
from tests.support.waiting import until
from tests.unit.serve.test_load import leave, stuck
from tmas.serve.connections import ClientConnection, most_connections
from tmas.serve.settings import ServerSettings
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")
ROOT = Path(__file__).parents[3]
HEADER = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
FEW_DESCRIPTORS = """
import asyncio, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
from tests.support.serving import served
async def main():
    async with served(Path(sys.argv[1]), "http://127.0.0.1:9/v1", header_seconds=3600) as server:
        print(server.base_url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


class Client:
    """A raw connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, base_url: str) -> Client:
        host, port = base_url.removeprefix("http://").removesuffix("/v1").rsplit(":", 1)
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> bytes:
        """Send ``data``, and return what the server sends until it closes the connection."""
        self.writer.write(data)
        return await self.rest()

    async def rest(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def close(self) -> None:
        self.writer.close()


async def health(base_url: str) -> bytes:
    client = await Client.open(base_url)
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        return await client.send(request)
    finally:
        client.close()


async def is_healthy(base_url: str) -> None:
    """Wait until the server answers. On a busy machine, a short ``header_seconds`` may close a connection too early."""
    while b'"status":"ok"' not in await health(base_url):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def idle_server(folder: Path, **limits: object) -> AsyncIterator[RunningServer]:
    async with ScriptedServer(team.reply) as engine, served(folder, engine.base_url, **limits) as server:  # type: ignore[arg-type]
        yield server


async def test_more_half_open_connections_than_descriptors_do_not_keep_others_out(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert program.stdin
    assert program.stdout
    try:
        base_url = (await program.stdout.readline()).decode().strip()
        clients = [await Client.open(base_url) for _ in range(260)]
        for client in clients:
            client.writer.write(b"GET /health HTT")
        async with asyncio.timeout(60):
            assert b'"status":"ok"' in await health(base_url)
        for client in clients:
            client.close()
    finally:
        program.stdin.close()
        await program.wait()


async def test_at_the_limit_the_oldest_connection_without_a_request_in_work_is_replaced(tmp_path: Path):
    async with stuck(tmp_path, max_running=1, max_waiting=0, max_connections=3) as (server, engine, gate):
        solving = asyncio.create_task(server.ask())
        await until(lambda: bool(engine.requests))
        first, second = await Client.open(server.base_url), await Client.open(server.base_url)
        assert b'"status":"ok"' in await health(server.base_url)
        assert await first.rest() == b""
        third = await Client.open(server.base_url)
        assert b'"status":"ok"' in await health(server.base_url)
        assert await second.rest() == b""
        assert not solving.done()
        third.close()
        gate.seconds = 0.0
        await leave(solving)


async def test_a_header_that_does_not_end_closes_the_connection(tmp_path: Path):
    async with idle_server(tmp_path, header_seconds=0.05) as server:
        for start in (b"", b"GET /health HTT", HEADER):
            client = await Client.open(server.base_url)
            assert await client.send(start) == b""
        await is_healthy(server.base_url)


async def test_a_connection_without_a_further_request_is_closed(tmp_path: Path):
    async with idle_server(tmp_path, idle_seconds=0.05) as server:
        client = await Client.open(server.base_url)
        found = await client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health")
    assert found.count(b'"status":"ok"') == 1


async def test_a_body_that_does_not_end_is_refused_with_its_reason(tmp_path: Path):
    async with idle_server(tmp_path, body_seconds=0.05) as server:
        client = await Client.open(server.base_url)
        found = await client.send(HEADER + b"Content-Length: 1000\r\n\r\n{")
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b'"request_timeout"' in found


async def test_a_request_that_is_being_solved_is_under_no_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[ClientConnection] = []
    begin = ClientConnection.connection_made

    def made(self: ClientConnection, transport: asyncio.BaseTransport) -> None:
        opened.append(self)
        begin(self, transport)

    monkeypatch.setattr(ClientConnection, "connection_made", made)
    async with stuck(tmp_path) as (server, engine, gate):
        solving = asyncio.create_task(server.ask(stream=True))
        await until(lambda: bool(engine.requests))
        [connection] = opened
        assert connection._header_timer.cancelled()
        connection._process_keepalive()  # what aiohttp calls after idle_seconds
        assert connection.connected
        gate.seconds = 0.0
        await leave(solving)


MALFORMED = [
    b"\r\n\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"GET\r\n\r\n",
    b"GET /health\r\n\r\n",
    b"GET /health HTTP/9.9\r\n\r\n",
    b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET //[::/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"G\x00T /health HTTP/1.1\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    b"GET /health HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\ngarbage",
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    HEADER + b"Content-Length: x\r\n\r\n{}",
    HEADER + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    HEADER + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    HEADER + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
    HEADER + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
    HEADER + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}no end",
    HEADER + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nno zip",
    HEADER + b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nno br",
    HEADER + b"Expect: the impossible\r\nContent-Length: 2\r\n\r\n{}",
    HEADER + b"Content-Length: 9\r\n\r\n{}",
]


def said(log: pytest.LogCaptureFixture) -> list[str]:
    """What is logged at warnings and above, or with a traceback."""
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING or record.exc_info]


@pytest.mark.parametrize("key", [None, "secret"])
async def test_no_malformed_request_writes_a_traceback(
    tmp_path: Path, key: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MY_KEY", "secret")
    limits = {"api_key_env": key and "MY_KEY", "header_seconds": 0.2, "idle_seconds": 0.2, "body_seconds": 0.2}
    async with idle_server(tmp_path, **limits) as server:

        async def send(data: bytes) -> None:
            client = await Client.open(server.base_url)
            answer = await client.send(data)
            status = answer.partition(b"\r\n")[0]
            assert status == b"" or status.startswith(b"HTTP/"), data
            assert b" 500 " not in status, data
            assert b"Traceback" not in answer

        await asyncio.gather(*map(send, MALFORMED))
        for data in MALFORMED:  # and those that leave at once
            client = await Client.open(server.base_url)
            client.writer.write(data)
            client.writer.transport.abort()
        await is_healthy(server.base_url)
    assert said(caplog) == []


async def test_a_connection_that_is_closed_as_its_request_begins_writes_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Its timer, or a newer connection, may close it between its header and its body."""
    monkeypatch.setattr(ClientConnection, "header_received", ClientConnection.force_close)
    async with idle_server(tmp_path) as server:
        client = await Client.open(server.base_url)
        assert await client.send(HEADER + b"Content-Length: 1000\r\n\r\n{") == b""
    assert said(caplog) == []


async def test_no_changed_request_writes_a_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Bytes of the requests above are replaced at random, by bytes that matter to a parser."""
    draw = random.Random(7)
    pieces = [b"", b"\r\n", b"\x00", b"\xff", b":", b" ", b"chunked", b"gzip", b"99999999999999999999", b"HTTP/1.0"]

    async def send(base_url: str) -> None:
        data, piece = draw.choice(MALFORMED), draw.choice(pieces)
        at = draw.randrange(len(data[:300]))
        client = await Client.open(base_url)
        answer = await client.send(data[:at] + piece + data[at + draw.randrange(1 + len(piece)) :])
        assert b" 500 " not in answer.partition(b"\r\n")[0]

    limits = {"header_seconds": 0.1, "idle_seconds": 0.1, "body_seconds": 0.1}
    async with idle_server(tmp_path, **limits) as server:
        for _ in range(10):
            await asyncio.gather(*(send(server.base_url) for _ in range(40)))
    assert said(caplog) == []


async def test_compressed_bodies_are_refused_and_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also before the key is checked: 60 kB would unpack to 60 MB, and keep the server busy."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the body was unpacked")

    monkeypatch.setattr("aiohttp.compression_utils.ZLibDecompressor.decompress_sync", refuse)
    monkeypatch.setenv("MY_KEY", "the key of the server")
    body = gzip.compress(b"0" * 2**20)
    lines = f"Connection: close\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n".encode()
    async with idle_server(tmp_path, api_key_env="MY_KEY") as server:
        for key, status in ((b"", b"401"), (b"Authorization: Bearer the key of the server\r\n", b"415")):
            client = await Client.open(server.base_url)
            assert (await client.send(HEADER + lines + key + b"\r\n" + body)).startswith(b"HTTP/1.1 " + status)


def test_the_limit_leaves_room_for_every_request_and_for_health(tmp_path: Path):
    with pytest.raises(ValidationError, match="max_connections=24 must be more than max_running"):
        ServerSettings(output_dir=tmp_path, max_connections=24)
    few = ServerSettings(output_dir=tmp_path, max_connections=25)
    assert most_connections(few) == 25
