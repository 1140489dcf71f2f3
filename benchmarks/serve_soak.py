"""Whether ``tmas serve`` answers good clients among bad ones for a long time, and its memory stays flat.

``python -m benchmarks.serve_soak --minutes 10`` starts the server on a scripted chat model. Good clients ask, with and
without streaming. Bad clients send only the start of a request, send bodies slowly, send what is no HTTP, have no key,
ask for what is not supported, send too much, or leave while their request is being solved.

A *visit* is one request, or one misuse, by a client. The visit of a good client fails if it does not get a complete
answer. The visit of any client fails if the server keeps it waiting too long, or if the client raises an error that it
does not expect. The goal is that no visit fails, that good clients of each kind get answers, and that the memory stays
flat.

The memory of the server rises until Python collects garbage, which is rare (``tmas/run/garbage.py``), and then falls.
So the goal compares peaks: the largest memory in the last third of the time, and that in the middle third.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from benchmarks.server import chat_server

KEY = "soak"
GOOD_CLIENTS = 3
BAD_CLIENTS = 2
"""Number of clients that run at once for each entry of :data:`GOOD` and of :data:`BAD`."""
VISIT_SECONDS = 60.0
"""A visit that takes longer than this has failed."""
GOAL = 1.1
"""Maximum ratio: largest memory of the server in the last third of the time, divided by that in the middle third."""
PROGRESS_LINES = 10
"""Number of progress lines that are printed during the test."""
SAMPLES = 30
"""Measurements of the memory before each progress line."""
GARBAGE = [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", b"A" * 20_000]

Client = Callable[["Soak"], Awaitable[str]]
"""One visit of a client to the server. Returns its outcome."""
ANSWERED = "200"
"""Outcome of a visit with a complete answer."""
HUNG, CRASHED = "no reply in time", "crashed"
"""Outcome of a visit that has taken too long, and start of the outcome of a client that raised an unexpected error."""


class Soak:
    """The clients of one server at ``base_url``, and the outcomes of their visits, by client."""

    def __init__(self, base_url: str, http: aiohttp.ClientSession) -> None:
        self.base_url, self.http = base_url, http
        self.outcomes: Counter[str] = Counter()
        self.is_ending = False

    async def ask(self, key: str = KEY, leave: bool = False, **fields: object) -> str:
        """Send a chat completion request. ``leave``: close the connection as soon as the reply begins.

        Returns the status of the reply, and for a successful one whether it ended without an answer.
        """
        question = f"What is {random.randrange(10**9)} + 1?"
        body = {"model": "tmas", "messages": [{"role": "user", "content": question}], **fields}
        headers = {"Authorization": f"Bearer {key}"}
        async with self.http.post(f"{self.base_url}/chat/completions", json=body, headers=headers) as reply:
            is_complete = leave or reply.status != 200 or _has_finished(await reply.text())
            return str(reply.status) if is_complete else f"{reply.status} without an answer"

    async def send(self, data: bytes, more: bytes = b"", pause: float = 0.0) -> str:
        """Open a new connection, send ``data``, wait ``pause`` seconds, send ``more``, and wait for a reply.

        Returns the status of the reply, or ``closed``.
        """
        host, port = self.base_url.removeprefix("http://").removesuffix("/v1").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(data)
            await asyncio.sleep(pause)
            writer.write(more)
            async with asyncio.timeout(30):
                reply = await reader.read(100)
            return reply.split(b" ")[1].decode() if reply else "closed"
        finally:
            writer.close()

    async def repeat(self, name: str, client: Client) -> None:
        """Let a client visit again and again, until the test is ending."""
        while not self.is_ending:
            try:
                async with asyncio.timeout(VISIT_SECONDS):
                    outcome = await client(self)
            except TimeoutError:
                outcome = HUNG
            except (aiohttp.ClientError, OSError) as error:
                outcome = type(error).__name__
            except Exception as error:  # such as a reply that cannot be parsed: it must not end the client unnoticed
                outcome = f"{CRASHED}, {type(error).__name__}"
            self.outcomes[f"{name}: {outcome}"] += 1
            await asyncio.sleep(0.05)


def _has_finished(text: str) -> bool:
    """Whether the body of a reply, streamed or not, has an answer that reached its end."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if not text or (events and events[-1] != "[DONE]"):
        return False
    bodies = events[:-1] if events else [text]
    choices = [choice for body in bodies for choice in json.loads(body).get("choices", ())]
    return any(choice["finish_reason"] for choice in choices)


HEADER = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SLOW = HEADER + f"Authorization: Bearer {KEY}\r\nContent-Length: 1000\r\n\r\n".encode()
GOOD: dict[str, Client] = {
    "asks": lambda soak: soak.ask(),
    "streams": lambda soak: soak.ask(stream=True),
}
BAD: dict[str, Client] = {
    "leaves": lambda soak: soak.ask(stream=True, leave=True),
    "has no key": lambda soak: soak.ask(key="wrong"),
    "asks for what is not supported": lambda soak: soak.ask(n=2),
    "sends too much": lambda soak: soak.ask(padding="x" * 2_000_000),
    "sends half a request line": lambda soak: soak.send(b"GET /health HTT"),
    "sends no body": lambda soak: soak.send(SLOW),
    "sends slowly": lambda soak: soak.send(SLOW, b"{}", pause=1.0),
    "sends no HTTP": lambda soak: soak.send(random.choice(GARBAGE)),
}


@contextmanager
def server(engine: str, folder: str) -> Iterator[tuple[int, str]]:
    """``tmas serve`` in a process of its own. Yields its process id and base URL."""
    command = [
        *(sys.executable, "-m", "tmas.cli", "serve", f"serve.output_dir={folder}", "serve.port=0"),
        *(f"model.base_url={engine}", "model.name=scripted", "model.context_length=100000"),
        *("model.sampling.max_tokens=1000", "method.n_candidates=2", "method.n_verifications=1"),
        *("method.max_iterations=2", "serve.api_key_env=SOAK_KEY", "serve.keep_runs=false"),
        *("serve.header_seconds=2", "serve.body_seconds=2", "serve.max_connections=100", "serve.max_waiting=64"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "SOAK_KEY": KEY})
    try:
        assert process.stdout
        yield process.pid, next(line for line in process.stdout if "serves the model" in line).partition(" ")[0]
    finally:
        process.terminate()
        process.wait()


def memory_of(pid: int) -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def soak(pid: int, base_url: str, seconds: float) -> tuple[list[float], Counter[str]]:
    """Let the clients visit for ``seconds``. Returns the server's memory at equal intervals, in MiB, and outcomes."""
    start, memory = time.monotonic(), [memory_of(pid)]
    async with aiohttp.ClientSession() as http:
        clients = Soak(base_url, http)
        tasks = [
            asyncio.create_task(clients.repeat(name, client))
            for kinds, count in ((GOOD, GOOD_CLIENTS), (BAD, BAD_CLIENTS))
            for name, client in kinds.items()
            for _ in range(count)
        ]
        for sample in range(1, PROGRESS_LINES * SAMPLES + 1):
            await asyncio.sleep(max(0.0, start + seconds * sample / (PROGRESS_LINES * SAMPLES) - time.monotonic()))
            memory.append(memory_of(pid))
            if sample % SAMPLES == 0:
                files, passed = len(os.listdir(f"/proc/{pid}/fd")), time.monotonic() - start
                visits = clients.outcomes.total()
                print(f"{passed:6.0f} s  {memory[-1]:7.1f} MiB  {files:4} files  {visits:,} visits", flush=True)
        clients.is_ending = True
        await asyncio.gather(*tasks)  # the last visits count as well, so a server that no longer answers is noticed
    return memory, clients.outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    seconds = 60 * parser.parse_args().minutes
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(chat_server(delay=0.05, pieces=2))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        pid, base_url = stack.enter_context(server(engine, folder))
        memory, outcomes = asyncio.run(soak(pid, base_url, seconds))
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:8,}  {outcome}")
    met, summary = evaluate(memory, outcomes)
    print(summary)
    sys.exit(not met)


def evaluate(memory: Sequence[float], outcomes: Mapping[str, int]) -> tuple[bool, str]:
    """Whether the goal is met, and lines that say why."""
    third = len(memory) // 3
    middle, last = max(memory[third : 2 * third]), max(memory[2 * third :])
    failed = sum(count for outcome, count in outcomes.items() if _is_failure(outcome))
    answered = {name: outcomes.get(f"{name}: {ANSWERED}", 0) for name in GOOD}
    met = last / middle <= GOAL and not failed and all(answered.values())
    return met, (
        f"memory at the start: {memory[0]:.1f} MiB, at the end: {memory[-1]:.1f} MiB\n"
        f"largest memory in the last third / in the middle third: {last:.1f} / {middle:.1f} MiB = {last / middle:.2f}"
        f" (goal: at most {GOAL})\n"
        f"failed visits: {failed} (goal: 0); answered visits of good clients:"
        f" {', '.join(f'{name} {count:,}' for name, count in answered.items())} (goal: some of each);"
        f" {'met' if met else 'missed'}"
    )


def _is_failure(outcome: str) -> bool:
    name, _, what = outcome.partition(": ")
    return what == HUNG or what.startswith(CRASHED) or (name in GOOD and what != ANSWERED)


if __name__ == "__main__":
    main()
