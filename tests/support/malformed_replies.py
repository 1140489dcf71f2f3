"""Malformed replies of a chat server, and a program that sends them all to the client and to a run.

``python -m tests.support.malformed_replies FOLDER`` uses each reply once as a list of models or as a completion, then
makes a run in FOLDER whose calls each get a malformed reply first. The key, which the replies repeat, is in the
environment variable FUZZ_KEY. The program prints each outcome, and at the end the growth of its memory in MiB.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.support.raw_server import DONE, EVENTS, GOOD, HEAD, PLAIN, event, raw_server, text_event
from tmas.api import run
from tmas.llm.client import OpenAIChat
from tmas.llm.endpoint import EndpointDown, EndpointSettings
from tmas.methods.majority_vote import MajorityVoteSettings
from tmas.records import Message, Problem, Request, Sampling
from tmas.settings import ModelSettings, RunSettings

BRACKETS = b"[" * 200_000
SEED = 17
MUTATIONS = 60
"""Replies that are made from good ones by random changes."""


def odd_values(key: str) -> list[bytes]:
    """JSON values of every kind, valid and invalid, that a field may hold instead of its own."""
    values: list[Any] = [None, True, 0, -1, -100_000, 1.5, 2**64 - 1, 2**64, 10**400, "7", key, "\x1b[31m\x07", [], {}]
    values += [[None], [[0]], {"a": {}}, "x" * 1000]
    return [*(json.dumps(value).encode() for value in values), b"1e999", b"NaN", b'"\\ud800"', b"\xff\xfe", BRACKETS]


def model_lists(key: str) -> Iterator[bytes]:
    """Responses to a request for the list of models."""
    for value in odd_values(key):
        yield PLAIN + value
        yield PLAIN + b'{"data": ' + value + b"}"
        yield PLAIN + b'{"data": [' + value + b"]}"
        yield PLAIN + b'{"data": [{"id": "m", "max_model_len": ' + value + b"}]}"
    yield PLAIN + b'{"data": [{"id": "' + b"m" * 2**23 + b'"}]}'
    yield from http_faults(key, b'{"data": []}')


def completions(key: str) -> Iterator[bytes]:
    """Responses to a request for a completion."""
    choice = b'{"index": 0, "delta": {"content": "4"}, "finish_reason": "stop"}'
    good_usage = b'{"prompt_tokens": 9, "completion_tokens": 1}'
    for value in odd_values(key):
        bodies = [
            value,
            b'{"choices": ' + value + b"}",
            b'{"choices": [' + value + b"]}",
            b'{"choices": [' + choice.replace(b"0", value) + b"]}",
            b'{"choices": [' + choice.replace(b'"4"', value) + b"]}",
            b'{"choices": [' + choice.replace(b'{"content": "4"}', value) + b"]}",
            b'{"choices": [' + choice.replace(b'"stop"', value) + b"]}",
            b'{"choices": [' + choice + b'], "usage": ' + value + b"}",
            b'{"choices": [' + choice + b'], "usage": ' + good_usage.replace(b"9", value) + b"}",
            b'{"choices": [' + choice + b'], "usage": ' + good_usage.replace(b"1", value) + b"}",
            b'{"error": ' + value + b"}",
            b'{"error": {"code": ' + value + b', "message": ' + value + b"}}",
        ]
        for body in bodies:
            yield EVENTS + event(body) + DONE
            yield PLAIN + body
    yield from stream_faults(key)
    yield from http_faults(key, GOOD.partition(b"\r\n\r\n")[2])
    yield from mutations(GOOD)


def stream_faults(key: str) -> Iterator[bytes]:
    yield EVENTS
    yield EVENTS + DONE + DONE
    yield EVENTS + b": " + key.encode() + b"\n\n"
    yield EVENTS + b"data:" + b"\n" * 100_000
    yield EVENTS + b"data: {}\n\n" * 10_000
    yield EVENTS + text_event("endless ") * 20_000
    yield EVENTS + b"data: " + b"a" * 2**24
    yield EVENTS + b": " + b"a" * 2**24
    yield EVENTS + event({"choices": [{"index": i, "delta": {"content": "a"}} for i in range(20_000)]}) + DONE
    yield EVENTS + text_event(f"the key is {key}") + text_event("", "stop" + key) + DONE
    yield EVENTS + text_event(key[:9]) + text_event(key[9:], "stop") + DONE
    yield EVENTS + text_event("4", "stop") + DONE + event({"error": key})
    yield EVENTS + text_event("4", "stop") + DONE + b"data: " + b"a" * 2**24
    yield PLAIN + b'{"choices": [{"message": {"content": "' + b"a" * 2**24
    yield PLAIN + b'{"choices": [' + b"{}," * 2**20 + b"{}]}"


def http_faults(key: str, body: bytes) -> Iterator[bytes]:
    """Responses that are not valid HTTP, or that use a part of it which the client does not."""
    zeros = gzip.compress(b'{"choices": [{"message": {"content": "' + b"0" * 2**26 + b'"}}]}')
    secret = key.encode()
    yield b""
    yield secret
    yield b"HTTP/1.1 " + secret + b"\r\n\r\n"
    yield b"HTTP/9.9 200 " + secret + b"\r\n\r\n"
    yield b"HTTP/1.1 200 OK\r\n" + secret + b"\r\n\r\n"
    yield b"HTTP/1.1 200 OK\r\n" + b"X-A: " + secret * 5000 + b"\r\n\r\n" + body
    yield b"HTTP/1.1 200 OK\r\n" + b"X-" + secret + b"\x00: \x1b[2J\r\n\r\n" + body
    yield b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 50_000 + b"\r\n" + body
    yield b"HTTP/1.1 100 Continue\r\n\r\n" * 1000
    yield HEAD + b"Content-Length: " + secret + b"\r\n\r\n" + body
    yield HEAD + b"Content-Length: -1\r\n\r\n" + body
    yield HEAD + b"Content-Length: 999999999999999999999\r\n\r\n" + body
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + secret + b"\r\n" + body
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc" + secret + b"\r\n"
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n" + body
    yield HEAD + b"Transfer-Encoding: " + secret + b"\r\n\r\n" + body
    for encoding in (b"gzip", b"br", b"deflate, gzip", secret):
        yield HEAD + b"Content-Encoding: " + encoding + b"\r\nContent-Type: application/json\r\n\r\n" + zeros
    for kind in (secret, b"application/json; charset=" + secret, b"\xff", b"text/html"):
        yield HEAD + b"Content-Type: " + kind + b"\r\n\r\n" + body
    for status in (b"204", b"206", b"301", b"400", b"401", b"403", b"404", b"500", b"502", b"999"):
        yield b"HTTP/1.1 " + status + b" X\r\nConnection: close\r\n\r\n\x1b]0;" + secret + b"\x07\x1b[31m\xff\xfe"
    yield b"HTTP/1.1 502 X\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + zeros
    yield b"HTTP/1.1 500 X\r\nConnection: close\r\n\r\n" + secret * 10**6
    for retry_after in (b"9" * 500, b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT", b"nan", secret):
        yield b"HTTP/1.1 503 X\r\nRetry-After: " + retry_after + b"\r\nConnection: close\r\n\r\n"
    for location in (b"http://127.0.0.1:1/" + secret, b"//", b"file:///etc/passwd", b""):
        yield b"HTTP/1.1 302 X\r\nLocation: " + location + b"\r\nConnection: close\r\n\r\n"


def mutations(good: bytes) -> Iterator[bytes]:
    """``good`` with a few bytes changed, removed, repeated or inserted at random places."""
    rng = random.Random(SEED)
    for _ in range(MUTATIONS):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(data))
            end = start + rng.randint(0, 8)
            data[start:end] = rng.choice([b"", data[start:end] * 2, rng.randbytes(3), b'"', b"{", b"\r\n", b"\x00"])
        yield bytes(data)


def _settings(base_url: str, attempts: int) -> tuple[dict[str, Any], dict[str, Any]]:
    patience = {"max_attempts": attempts, "backoff_base": 0.0, "retry_after_max": 0.0}
    return {"base_url": base_url, "api_key_env": "FUZZ_KEY"}, patience | {"first_token_timeout": 5, "idle_timeout": 5}


async def ask_each(lists: Iterable[bytes], replies: Iterable[bytes]) -> None:
    """Use each reply once, with a new client that has served one good reply before."""
    current = [GOOD]
    request = Request(model="m", messages=(Message(role="user", content="2 + 2?"),), sampling=Sampling(max_tokens=64))
    async with raw_server(lambda path, body: current) as base_url:
        endpoint, patience = _settings(base_url, 1)
        for raw in lists:
            async with OpenAIChat(EndpointSettings(**endpoint, **patience)) as chat:
                current[:] = [raw]
                try:
                    print("length", await chat.context_length("m"))
                except EndpointDown as down:
                    print("models", down)
        for raw in replies:
            async with OpenAIChat(EndpointSettings(**endpoint, **patience)) as chat:
                for current[:] in ([GOOD], [raw]):
                    try:
                        print("reply", str(await chat.complete(request))[:500])
                    except EndpointDown as down:
                        print("reply", down)


async def run_with(replies: list[bytes], folder: Path) -> None:
    """A run in which the first attempt of each call gets one of the replies, and the next one a good reply."""
    seen: set[int] = set()

    def respond(_: str, body: Any) -> list[bytes]:
        is_first = body["seed"] not in seen
        seen.add(body["seed"])
        return [replies[len(seen) - 1] if is_first and len(seen) > 1 else GOOD]

    async with raw_server(respond) as base_url:
        endpoint, patience = _settings(base_url, 4)
        model = ModelSettings(
            name="m", **endpoint, patience=patience, context_length=4096, sampling=Sampling(max_tokens=64)
        )
        method = MajorityVoteSettings(n_candidates=len(replies))
        settings = RunSettings(model=model, method=method, concurrency=1)
        await run([Problem(problem_id="p", question="2 + 2?")], settings, folder)


class PeakMemory:
    """The growth of this process's peak memory since the construction, in MiB. The replies are in memory before."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = self._read("VmRSS")

    def growth(self) -> int:
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        found = re.search(rf"{name}:\s*(\d+)", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) // 1024


async def main(folder: Path) -> None:
    key = os.environ["FUZZ_KEY"]
    lists, replies = [*model_lists(key)], [*completions(key)]
    peak = PeakMemory()
    await ask_each(lists, replies)
    await run_with(replies, folder)
    print("replies", len(lists) + len(replies))
    print("MiB", peak.growth())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
