"""engines/vllm.py with the scripted team in vLLM's place: started, waited for, and gone with the block."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tmas.engines.vllm import ServerFailed, _command, free_port, log_tail, temporary_directory, vllm_server
from tmas.settings import ModelSettings, ServingSettings
from tmas.testing.team import model as scripted

ROOT = Path(__file__).parents[3]
KEY = "k-1234"


def model(**settings: Any) -> ModelSettings:
    return scripted("", path="/models/small", context_length=4096, **settings)


def serving(directory: Path, broken: bool = False, **settings: Any) -> ServingSettings:
    told = json.dumps({"log": str(directory), "broken": broken})
    path = f"{ROOT / 'tests/support/vllm_stand_in'}:{ROOT}"
    return ServingSettings(name="vllm", env={"PYTHONPATH": path, "STAND_IN": told}, **settings)


async def status(port: int, key: str) -> int:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "How?"}], "seed": 1}
    url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
        return response.status


def command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


async def test_a_server_answers_those_who_have_the_key_and_ends_with_the_block(tmp_path: Path):
    port = free_port("127.0.0.1")
    async with vllm_server(model(), serving(tmp_path), port, tmp_path / "vllm.log", KEY) as guard:
        assert await status(port, KEY) == 200
        assert await status(port, "another") == 401
        assert guard.poll() is None
        assert KEY.encode() not in command_line(guard.pid)
    assert guard.poll() is not None
    with pytest.raises(aiohttp.ClientConnectionError):
        await status(port, KEY)


async def test_a_server_that_ends_while_it_starts_is_told_with_the_end_of_its_log(tmp_path: Path):
    with pytest.raises(ServerFailed) as failed:
        async with vllm_server(model(), serving(tmp_path, broken=True), 1, tmp_path / "vllm.log", KEY):
            raise AssertionError("it never came up")
    message = str(failed.value)
    assert message.startswith("vLLM ended with code 1 while starting:\n")
    assert message.endswith(f"STAND_IN has broken=true\n(whole log: {tmp_path / 'vllm.log'})")


async def test_the_errors_of_an_earlier_start_are_not_shown(tmp_path: Path):
    log = tmp_path / "vllm.log"
    log.write_text("\n".join(["ValueError: an earlier start.", *["  at a line"] * 30, ""]))
    with pytest.raises(ServerFailed) as failed:
        async with vllm_server(model(), serving(tmp_path, broken=True), 1, log, KEY):
            raise AssertionError("it never came up")
    assert "ValueError" not in str(failed.value)
    assert "STAND_IN has broken=true" in str(failed.value)


async def test_a_server_that_takes_too_long_is_given_up_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        begun.append(start(*arguments, **options))
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    with pytest.raises(ServerFailed, match=r"not ready after 0 s \(serving.startup_timeout\)"):
        async with vllm_server(model(), serving(tmp_path, startup_timeout=0.01), 1, tmp_path / "vllm.log", KEY):
            raise AssertionError("it was too slow")
    assert [guard.poll() is None for guard in begun] == [False]


async def test_a_server_that_takes_requests_and_answers_none_is_given_up_in_time(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(ServerFailed, match="not ready after 1 s"):
            async with vllm_server(model(), serving(tmp_path, startup_timeout=1), port, tmp_path / "vllm.log", KEY):
                raise AssertionError("it never answered")
        assert time.monotonic() - started < 30


def test_flags_are_those_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "distributions", lambda name: [])
    args = {"max_num_seqs": 64, "enforce-eager": True, "dtype": None, "reasoning-parser": False}
    command = _command(model(), serving(tmp_path, tensor_parallel_size=2, args=args), 8123)
    words = command[command.index("serve") + 1 :]
    assert command[0] == sys.executable
    assert words == [
        *("/models/small", "--served-model-name", "scripted", "--host", "127.0.0.1", "--port", "8123"),
        *("--tensor-parallel-size", "2", "--max-model-len", "4096", "--scheduling-policy", "priority"),
        *("--max-num-seqs", "64", "--enforce-eager"),
    ]


@pytest.mark.parametrize("args", [{}, {"no-enable-chunked-prefill": False}])
def test_prompts_are_read_whole_on_the_cpu_unless_set_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: dict[str, Any]
):
    monkeypatch.setattr(metadata, "distributions", lambda name: [name])
    command = _command(model(), serving(tmp_path, args=args), 8123)
    assert ("--no-enable-chunked-prefill" in command) == (not args)


def test_the_end_of_a_log_is_its_last_lines_whatever_bytes_are_in_it(tmp_path: Path):
    log = tmp_path / "vllm.log"
    log.write_bytes(b"first\nsecond\nthird \xff\n")
    assert log_tail(log, lines=2) == f"second\nthird \N{REPLACEMENT CHARACTER}\n(whole log: {log})"


def test_the_reason_of_a_failed_engine_is_shown_above_the_last_lines(tmp_path: Path):
    log = tmp_path / "vllm.log"
    cause = "(EngineCore pid=7) ValueError: Available memory is too small."
    later = "(APIServer pid=6) RuntimeError: Engine core initialization failed."
    log.write_text("\n".join(["loading", cause, *["  at a line"] * 30, later]))
    assert log_tail(log, lines=2) == f"first error: {cause}\n...\n  at a line\n{later}\n(whole log: {log})"
    assert log_tail(log, lines=40).count(cause) == 1


@pytest.mark.parametrize(("error", "kept"), [(ServerFailed("no"), True), (ValueError("no"), False), (None, False)])
def test_a_temporary_directory_stays_only_if_it_holds_the_log_of_a_failed_server(error: Exception | None, kept: bool):
    with suppress(ServerFailed, ValueError), temporary_directory() as directory:
        (directory / "vllm.log").write_text("why")
        if error:
            raise error
    assert (directory / "vllm.log").exists() == kept
    if kept:
        shutil.rmtree(directory)
