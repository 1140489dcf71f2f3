"""`tmas serve` as a user meets it: its settings, a process of its own, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.support.commands import TMAS, tmas
from tests.support.waiting import LIMIT
from tmas.errors import UserError
from tmas.serve.server import bind_port
from tmas.serve.settings import ServerSettings, ServeSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer, run_in_thread

ROOT = Path(__file__).parents[3]
OWN_VLLM = ("serving=vllm", "model.path=/no/model", "model.tokenizer=estimate", "model.patience.max_attempts=1")
"""With what stands in for vLLM where :func:`stand_in` is the environment."""
SECRET = "sk-canary-2264"


def command(folder: Path, engine: str, *overrides: str) -> list[str]:
    return [
        *("serve", f"serve.output_dir={folder / 'served'}", "serve.port=0", "model.name=scripted"),
        *(f"model.base_url={engine}", "model.context_length=100000", "model.sampling.max_tokens=1000"),
        *("method.n_candidates=2", "method.n_verifications=1", "method.max_iterations=2", *overrides),
    ]


@contextmanager
def serving(
    folder: Path, engine: str, *overrides: str, environment: Mapping[str, str] = os.environ
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its base URL."""
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [*TMAS, *command(folder, engine, *overrides)], env={**environment, "MY_KEY": SECRET}, **given
    )
    try:
        assert process.stdout
        if "serving=vllm" in overrides:
            assert process.stdout.readline().startswith("starting vLLM with scripted")
        yield process, next(line for line in process.stdout if "serves the model" in line).partition(" ")[0]
    finally:
        process.kill()
        process.wait()


def ask(base_url: str, key: str | None = None) -> dict[str, Any]:
    body = orjson.dumps({"model": "tmas", "messages": [{"role": "user", "content": "1 + 1?"}]})
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{base_url}/chat/completions", body, headers)
    with urllib.request.urlopen(request) as response:
        return orjson.loads(response.read())


def stand_in(folder: Path, **told: Any) -> dict[str, str]:
    paths = f"{ROOT / 'tests' / 'support' / 'vllm_stand_in'}:{ROOT}"
    return {**os.environ, "PYTHONPATH": paths, "STAND_IN": orjson.dumps({"log": str(folder)} | told).decode()}


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()  # of a zombie there is none


def test_a_vllm_of_its_own_ends_with_it_and_when_it_has_died_before_that_is_told(tmp_path: Path):
    (engines := tmp_path / "engines").mkdir()
    with serving(tmp_path, "null", *OWN_VLLM, environment=stand_in(engines)) as (process, url):
        assert ask(url)["choices"][0]["message"]["content"]
        [engine] = [int(file.stem) for file in engines.glob("*.jsonl")]
        os.kill(engine, signal.SIGKILL)
        with pytest.raises(urllib.error.HTTPError) as raised:
            ask(url)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=LIMIT)
    assert (raised.value.code, raised.value.headers["Retry-After"]) == (503, "10")
    assert orjson.loads(raised.value.read())["error"]["code"] == "engine_down"
    assert "is down" in errors
    assert (process.returncode, output) == (0, "stopped\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_with_nothing_to_wait_for_it_ends_at_once_and_its_vllm_with_it(
    tmp_path: Path, number: signal.Signals, code: int
):
    (engines := tmp_path / "engines").mkdir()
    with serving(tmp_path, "null", *OWN_VLLM, environment=stand_in(engines)) as (process, url):
        with urllib.request.urlopen(f"{url}/models") as response:
            assert response.status == 200
        [engine] = [int(file.stem) for file in engines.glob("*.jsonl")]
        assert alive(engine)
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT)
        assert not alive(engine)
    assert process.returncode == code
    assert "Traceback" not in errors


def test_a_vllm_that_does_not_start_is_one_message(tmp_path: Path):
    words = [*TMAS, *command(tmp_path, "null", *OWN_VLLM)]
    told = stand_in(tmp_path, broken=True)
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=told)
    assert done.returncode == 3
    assert done.stderr.startswith("tmas: vLLM ended with code 1 while starting")
    assert "Traceback" not in done.stderr


def test_it_says_where_it_is_and_sigterm_lets_what_runs_end(tmp_path: Path):
    begun, replies = threading.Event(), []

    def slow(body: Body) -> Script:
        begun.set()
        return Script(tuple(team.reply(body)), first_delay=0.2)

    locked = ("serve.api_key_env=MY_KEY", "serve.host=0.0.0.0")
    with run_in_thread(ScriptedServer(slow)) as engine, serving(tmp_path, engine.base_url, *locked) as (process, url):
        asking = threading.Thread(target=lambda: replies.append(ask(url, SECRET)))
        asking.start()
        assert begun.wait(LIMIT)
        process.send_signal(signal.SIGTERM)
        asking.join()
        output, errors = process.communicate()
    assert url.startswith("http://0.0.0.0:")
    assert replies[0]["choices"][0]["message"]["content"]
    assert (process.returncode, output, errors) == (0, "stopped\n", "")
    assert [path.name for path in (tmp_path / "served").iterdir()] == [replies[0]["id"]]


def test_ctrl_c_ends_it_at_once_where_others_run_the_model(tmp_path: Path):
    with serving(tmp_path, "http://127.0.0.1:9/v1") as (process, _):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["serve.api_key_env=NOT_THERE"], "the environment variable NOT_THERE (serve.api_key_env) holds no key"),
        (["serve.host=0.0.0.0"], "serve: serve.host=0.0.0.0 can be reached by others"),
        (["model.base_url=null"], "model.base_url is not set"),
        (["serving=vllm", "model.path=/no/model", "model.tokenizer=/no/place"], "/no/place cannot be loaded"),
    ],
)
def test_what_is_wrong_is_one_message_before_anything_is_begun(tmp_path: Path, overrides: list[str], message: str):
    done = tmas(*command(tmp_path, "http://127.0.0.1:9/v1", *overrides))
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "served" / "vllm.log").exists()


def test_a_port_that_is_taken_is_told_before_vllm_is_started(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"serve.port={taken.getsockname()[1]}"
        words = command(tmp_path, "null", "serving=vllm", "model.path=/no/model", "model.tokenizer=estimate", port)
        done = tmas(*words)
    assert (done.returncode, done.stderr) == (2, f"tmas: serve.host=127.0.0.1 {port}: Address already in use\n")
    assert not (tmp_path / "served").exists()


def test_help_teaches_and_cfg_prints_the_composed_settings(tmp_path: Path):
    outputs: dict[str, str] = {}
    for words in ("--help", "--cfg job method.epsilon=0.3"):
        done = tmas("serve", *words.split())
        assert done.returncode == 0
        outputs[words] = done.stdout
    assert "serve.host=0.0.0.0 serve.api_key_env=VARIABLE" in outputs["--help"]
    assert "/v1/chat/completions" in outputs["--help"]
    assert "epsilon: 0.3" in outputs["--cfg job method.epsilon=0.3"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_key(tmp_path: Path, host: str):
    assert ServerSettings(output_dir=tmp_path, host=host).read_key() is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "tmas.example", "127.0.0.1.example"])
def test_any_other_host_needs_one(tmp_path: Path, host: str):
    with pytest.raises(ValidationError, match="can be reached by others"):
        ServerSettings(output_dir=tmp_path, host=host)
    assert ServerSettings(output_dir=tmp_path, host=host, api_key_env="MY_KEY").host == host


@pytest.mark.parametrize("held", ["", "  \n"])
def test_an_empty_key_is_no_key(tmp_path: Path, held: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", held)
    with pytest.raises(UserError, match="holds no key"):
        ServerSettings(output_dir=tmp_path, api_key_env="MY_KEY").read_key()


def test_a_limit_below_the_methods_own_setting_is_refused(tmp_path: Path):
    serve = {"output_dir": tmp_path, "most": {"max_iterations": 2}}
    with pytest.raises(ValidationError, match=r"most.max_iterations=2 is less than method.max_iterations=3"):
        ServeSettings.model_validate({"model": team.model("http://x/v1"), "method": team.method(), "serve": serve})


def test_an_address_of_six_parts_is_bound_too(tmp_path: Path):
    with bind_port(ServerSettings(output_dir=tmp_path, host="::1", port=0)) as port:
        assert port.getsockname()[0] == "::1"


@pytest.mark.parametrize("ray", [{"workers": 2}, {"address": "head:6379"}])
def test_ray_settings_that_would_do_nothing_are_refused(tmp_path: Path, ray: dict[str, Any]):
    given = {"serve": {"output_dir": tmp_path}, "model": {"name": "m", "base_url": "http://127.0.0.1:1/v1"}, "ray": ray}
    with pytest.raises(ValidationError, match=next(iter(ray))):
        ServeSettings.model_validate(given)
