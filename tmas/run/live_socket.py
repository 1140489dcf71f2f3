"""The Unix socket of a live run: a file in the run directory, through which ``tmas status`` and ``tmas control`` reach
it.

A request and its answer are one line of JSON each. Only the owner of the run can connect: the socket has the file mode
0600. It exists while the run's process works. A socket whose process was killed refuses connections, and the next start
of the run replaces it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from tmas.errors import UserError
from tmas.redaction import clean_logger

log = clean_logger(__name__)

SOCKET = ".control.sock"
"""Name of the socket in the run directory."""
TIMEOUT = 60.0
"""Longest wait for a request, and for an answer, in seconds. A run with thousands of calls is busy."""

RequestHandler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers a request. Raises :class:`UserError` for a request that cannot be granted."""


class NotLive(UserError):
    """No process answers on the socket of a run directory."""


@asynccontextmanager
async def answer_requests(directory: Path, handle: RequestHandler) -> AsyncIterator[None]:
    """Answer the requests on the socket of ``directory`` while the block runs.

    If the socket cannot be created (the file system has no sockets, or another process answers on it), a warning is
    logged, and the block runs without a socket.
    """
    try:
        listener = _listen(directory)
    except OSError as error:
        log.warning("%s: no live status and control (%s)", directory / SOCKET, error.strerror or error)
        yield
        return
    inode = (directory / SOCKET).stat().st_ino
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        try:
            await _answer_one(reader, writer, handle)
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(connected, sock=listener)
    try:
        yield
    finally:
        server.close()
        for task in connections:
            task.cancel()
        with suppress(FileNotFoundError, NotADirectoryError):
            if (directory / SOCKET).stat().st_ino == inode:
                (directory / SOCKET).unlink()


def ask_live(directory: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send ``request`` to the process that works in ``directory``, and return its answer.

    Raises :class:`NotLive` if no process answers, and :class:`UserError` if it refuses the request, or if the run
    belongs to another user.
    """
    with _short_path(directory) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(path)
            connection.sendall(orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE))
            with connection.makefile("rb") as lines:
                line = lines.readline()
        except (FileNotFoundError, ConnectionError):  # no socket, a dead process's socket, or a process that is exiting
            line = b""
        except PermissionError:
            raise UserError(
                "only the owner of the run can read its live status or change its limits",
                where=directory,
                remedy="Run this command as that user.",
            ) from None
        except TimeoutError:
            raise NotLive(f"the run's process has not answered within {TIMEOUT:.0f} s", where=directory) from None
    if not line.endswith(b"\n"):
        raise NotLive("no process works in this run directory", where=directory)
    answer = orjson.loads(line)
    if "error" in answer:
        raise UserError(answer["error"], where=directory)
    return answer


async def _answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: RequestHandler) -> None:
    try:
        async with asyncio.timeout(TIMEOUT):
            request = orjson.loads(await reader.readline())
        if not isinstance(request, dict):
            raise ValueError("it is not a JSON object")
    except ValueError as error:  # a line that is too long, or not JSON
        reply = {"error": f"the request cannot be read ({error})"}
    except (TimeoutError, ConnectionError):
        return
    else:
        try:
            reply = await handle(request)
        except UserError as error:
            reply = {"error": str(error)}
        except OSError as error:  # for example, a trace that cannot be read
            reply = {"error": f"the request failed ({error})"}
    with suppress(ConnectionError):
        writer.write(orjson.dumps(reply, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS))
        await writer.drain()


def _listen(directory: Path) -> socket.socket:
    """A socket that only the owner can connect to. It replaces one whose process is dead."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _short_path(directory) as path:
            if _is_socket(directory / SOCKET):
                if _is_answered(path):
                    raise OSError("another process answers on it")
                (directory / SOCKET).unlink()
            listener.bind(path)
            os.chmod(path, 0o600)  # before listen(): until then, nobody can connect
            listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


@contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """A path of the socket shorter than 108 bytes, the operating system's limit, however long ``directory`` is."""
    try:
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise NotLive("there is no such folder", where=directory) from None
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)
