"""The command line as a user meets it: in a process of its own, against a scripted server."""

from __future__ import annotations

import pkgutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import yaml
from rich.console import Console

from tests.support import commands
from tests.support.commands import TMAS
from tests.support.waiting import LIMIT, wait_until
from tmas.cli import main as cli
from tmas.cli.config_files import config_name
from tmas.cli.main import COMMANDS, usage
from tmas.files import read_lines
from tmas.records.prices import money
from tmas.settings import SolveSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, Fault, Script, ScriptedServer, run_in_thread

pytestmark = pytest.mark.timeout(3600)
SECRET = "sk-canary-5127"


def command(directory: Path, base_url: str, *overrides: str) -> list[str]:
    problems = directory / "problems.jsonl"
    if not problems.exists():
        problems.write_bytes(b"\n".join(orjson.dumps(p.model_dump(exclude={"metadata"})) for p in team.problems(2)))
    return [
        "solve",
        *(f"problems={problems}", f"output_dir={directory / 'run'}", "model.name=scripted"),
        *(f"model.base_url={base_url}", "model.context_length=100000", "model.sampling.max_tokens=1000"),
        *("method.n_candidates=3", "method.n_verifications=2", "method.max_iterations=2"),
        *("model.patience.max_attempts=2", "model.patience.backoff_base=0.01", *overrides),
    ]


def tmas(directory: Path, base_url: str, *overrides: str) -> commands.CommandResult:
    return commands.tmas(*command(directory, base_url, *overrides), env={"MY_KEY": SECRET})


def test_solve_prints_a_result_and_leaves_the_run_directory(tmp_path: Path):
    with run_in_thread(ScriptedServer(team.reply)) as server:
        done = tmas(tmp_path, server.base_url, "model.api_key_env=MY_KEY")
    assert done.returncode == 0, done.stderr
    for title in ("By iteration", "Selected answers", "Tokens by role", "Run directory"):
        assert title in done.stdout
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"config.yaml", "manifest.json", "trace", "predictions.jsonl", "failures.jsonl", "metrics.json"}
    assert server.exchanges[0].headers["Authorization"] == f"Bearer {SECRET}"
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert SECRET.encode() not in written
    assert SECRET not in done.stdout + done.stderr


def test_solve_prints_what_a_run_cost_and_what_the_rest_would_cost(tmp_path: Path):
    prices = ("model.price.input=2000", "model.price.output=1000", "method=verify_refine", "method.n_best=2")
    with run_in_thread(ScriptedServer(team.reply)) as server:
        unknown, done, estimated, refused, limited = (
            tmas(tmp_path, server.base_url, *prices, *more)
            for more in (
                *(["dry_run=true"], ["max_problems=1"], ["dry_run=true"], ["dry_run=true", "seed=7"]),
                ["limits.money_per_run=5"],
            )
        )
    assert unknown.stdout.startswith("There is no estimate for verify_refine before its first problem is finished.")
    cost = orjson.loads((tmp_path / "run" / "metrics.json").read_bytes())["cost"]["total"]
    assert "USD" in done.stdout
    assert "1 problems to solve, about " in estimated.stdout
    assert "measured on the problems already finished\n" in estimated.stdout
    assert f"cost: about {money(cost, 'USD')}\n" in estimated.stdout
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "contains a run with other settings, prompts or problems" in refused.stderr
    assert limited.returncode == 0, limited.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_at_any_moment_the_same_command_goes_on(tmp_path: Path, number: signal.Signals):
    def slow(body: Body) -> Script:
        return Script(tuple(team.reply(body)), first_delay=0.05)

    with run_in_thread(ScriptedServer(slow)) as server:
        running = subprocess.Popen([*TMAS, *command(tmp_path, server.base_url)], stderr=subprocess.PIPE, text=True)
        wait_until(lambda: len(server.requests) >= 12)
        running.send_signal(number)
        _, errors = running.communicate()
        recorded = set(team.recorded_calls(tmp_path / "run"))
        wait_until(lambda: not any(exchange.state == "open" for exchange in server.exchanges))
        before = len(server.requests)
        done = tmas(tmp_path, server.base_url)
    assert done.returncode == 0, done.stderr
    if number != signal.SIGKILL:
        assert running.returncode == 130
        assert f"Interrupted. Run the same command again to resume in {tmp_path / 'run'}.\n" in errors
    calls = team.recorded_calls(tmp_path / "run")
    assert recorded <= set(calls)
    assert len(server.requests) - before == len(calls) - len(recorded)
    assert len(list(read_lines(tmp_path / "run" / "predictions.jsonl"))) == 2


def test_two_runs_cannot_use_one_directory(tmp_path: Path):
    refused = threading.Event()

    def held(body: Body) -> list[str]:
        assert refused.wait(LIMIT)
        return team.reply(body)

    with run_in_thread(ScriptedServer(held)) as server:
        running = subprocess.Popen([*TMAS, *command(tmp_path, server.base_url)], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: server.requests)
            second = tmas(tmp_path, server.base_url)
        finally:
            refused.set()
        assert running.wait() == 0
    assert second.returncode == 2
    assert f"in use by another run (process {running.pid}" in second.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.epsilon=7"], "wrong settings:\n  method.epsilon: Input should be less than or equal to 1\n"),
        (["method.n_candidats=7"], "n_candidats"),
        (["model.api_key_env=NOT_THERE"], "NOT_THERE"),
        (["model.base_url=localhost:8000"], "model.base_url: must be an http:// or https:// URL, such as http://host"),
        (["model.base_url=http://h:8000"], "such as http://host:8000/v1: it needs a path, usually /v1"),
        (["model.base_url=null"], "wrong settings:\n  model.base_url is not set: give an OpenAI-compatible endpoint"),
        (["model.sampling.max_tokens=200000"], "leaves no room for a prompt"),
        (
            ["model.context_length=32768", "model.sampling.max_tokens=130000"],
            "model.sampling.max_tokens=16384. Or ",
        ),
        (["problems=nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_wrong_input_is_one_clear_message_before_any_call(tmp_path: Path, overrides: list[str], message: str):
    with run_in_thread(ScriptedServer(team.reply)) as server:
        done = tmas(tmp_path, server.base_url, *overrides)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert server.requests == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.patience.max_attempts=0"], "model.patience.max_attempts"),
        (["model.roles.summary.base_url=nonsense"], "model.roles.summary.base_url: must be an http:// or https:// URL"),
        (["model.roles.summary.api_key_env=NOT_THERE"], "NOT_THERE"),
        ([], "model.path: there is no folder /no/such/place. Give the folder of a model"),
        (["serving.args.max-num-sequences=4"], "needs a plus: +serving.args.max-num-sequences=VALUE"),
        (["model.tokenizer=/no/such/place"], "model.tokenizer: /no/such/place cannot be loaded"),
        (["model.sampling.max_tokens=200000", "model.tokenizer=estimate"], "leaves no room for a prompt"),
        (["+serving.args.max-model-len=5"], "max-model-len is set by model.context_length"),
        ([f"+serving.env.HF_TOKEN={SECRET}"], "written to disk: set HF_TOKEN in the command's environment"),
    ],
)
def test_what_is_wrong_is_said_before_a_server_is_started(tmp_path: Path, overrides: list[str], message: str):
    done = tmas(tmp_path, "http://unused/v1", "serving=vllm", "model.path=/no/such/place", *overrides)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    assert not (tmp_path / "run" / "vllm.log").exists()


def test_variables_of_the_server_and_fields_of_requests_are_set_as_typed(tmp_path: Path):
    given = ["serving.env.THREADS=4", "+serving.env.LEVEL=0.5", "serving.env.ON=true", "model.sampling.extra.top_k=20"]
    done = tmas(tmp_path, "http://h/v1", *given, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    settings = SolveSettings.model_validate(config)
    assert settings.serving.env == {"THREADS": "4", "LEVEL": "0.5", "ON": "true"}
    assert settings.model.sampling.extra == {"top_k": 20}


def test_a_model_that_the_server_does_not_have_is_wrong_input_with_the_names_that_it_has(tmp_path: Path):
    fault = Fault("status", status=404, body="The model `scriptd` does not exist.")
    with run_in_thread(ScriptedServer(lambda _: Script(fault=fault))) as server:
        done = tmas(tmp_path, server.base_url, "model.name=scriptd")
        unasked = tmas(tmp_path, server.base_url, "model.name=scriptd", "model.context_length=null")
    message = f"tmas: the server {server.base_url} has no model 'scriptd'. It serves scripted. Set model.name"
    for ended in (done, unasked):
        assert ended.returncode == 2
        assert ended.stderr.startswith(message)


def test_solve_says_which_role_s_replies_could_not_be_read(tmp_path: Path):
    def reply(body: Body) -> list[str]:
        wrong = team.role_of(body) == "verification"
        return ["No grade."] * body.get("n", 1) if wrong else team.reply(body)

    with run_in_thread(ScriptedServer(reply)) as server:
        done = tmas(tmp_path, server.base_url, "method.max_iterations=1")
        again = tmas(tmp_path, server.base_url, "method.max_iterations=1")
        fine = tmas(tmp_path, server.base_url, "output_dir=" + str(tmp_path / "fine"), "method.agents.parse_attempts=1")
    # 2 problems x 3 candidates x 2 verifications, each asked for three times
    line = "verification: 0 of 36 replies readable; try method.agents.structured_verification=true\n"
    assert line in done.stdout
    assert line in again.stdout
    assert "verification: 0 of 24 replies readable" in fine.stdout  # one attempt, two iterations


def test_a_dead_endpoint_ends_in_bounded_time_with_its_own_exit_code(tmp_path: Path):
    started = time.monotonic()
    done = tmas(tmp_path, "http://127.0.0.1:9/v1", "model.patience.max_attempts=100")
    assert time.monotonic() - started < 30
    assert done.returncode == 3
    assert "is down: cannot connect (Connection refused). Check the server's URL" in done.stderr
    assert f"Run the same command again to resume in {tmp_path / 'run'}.\n" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_table_says_and_has_its_settings(name: str):
    home, explained = COMMANDS[name]
    assert pkgutil.resolve_name(home).__doc__
    assert f"  tmas {name}" in usage()
    assert explained in usage()
    assert (Path(__file__).parents[3] / "conf" / f"{config_name(name)}.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate"], "tmas: not set: runs. Give each as KEY=VALUE. `tmas evaluate --help` shows an example.\n"),
        (["solve"], "tmas: not set: model.name, output_dir, problems. Give each as KEY=VALUE. "),
        (["slove"], "tmas: unknown command 'slove'\n"),
        (["prompts", __file__], f"tmas: {__file__}: this is a file, not a folder. Name a new folder"),
        (["solve", "--hlep"], "tmas: --hlep: tmas solve has no such option. "),
        (
            ["solve", "--problems=p.jsonl"],
            "tmas: --problems=p.jsonl: tmas solve has no such option. A setting is ",
        ),
    ],
)
def test_what_is_missing_or_unknown_is_one_message(words: list[str], message: str):
    done = commands.tmas(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(message)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("the folder is no model"), "tmas: the folder is no model\n"),
        (PermissionError(13, "Permission denied", "runs/x"), "tmas: Permission denied: runs/x\n"),
    ],
)
def test_an_error_of_the_system_says_what_it_is(
    error: OSError, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def failing(config: dict[str, Any], console: Console) -> None:
        raise error

    monkeypatch.setattr("tmas.cli.report.print_report", failing)
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", "runs=[runs/x]"])
    assert (ended.value.code, capsys.readouterr().err) == (3, message)


def test_help_teaches_and_cfg_prints_the_composed_settings(tmp_path: Path):
    outputs: dict[str, str] = {}
    for words in (["--help"], ["solve", "--help"], ["solve", "--cfg", "job", "method.epsilon=0.3"]):
        done = commands.tmas(*words, cwd=tmp_path)
        assert done.returncode == 0
        outputs[" ".join(words)] = done.stdout
    assert "tmas solve" in outputs["--help"]
    assert "method.n_candidates" in outputs["solve --help"]
    assert "epsilon: 0.3" in outputs["solve --cfg job method.epsilon=0.3"]
    assert list(tmp_path.iterdir()) == []


def test_help_loads_neither_hydra_nor_verl():
    """``python -m benchmarks.startup`` measures the time that this saves."""
    code = (
        "import sys; from tmas.cli.main import main\n"
        "main(['--help']); print('after --help:', {'hydra', 'pydantic', 'yaml', 'numpy'} & {*sys.modules})\n"
        "main(['train', '--help']); print('after train --help:', {'hydra', 'omegaconf', 'verl'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "after --help: set()" in done.stdout
    assert "after train --help: set()" in done.stdout
    assert "tmas train experiment=hybrid_grpo" in done.stdout


def test_ctrl_c_ends_a_repeated_status_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    status = SimpleNamespace(is_live=True, model_dump_json=lambda: "{}")
    monkeypatch.setattr("tmas.cli.live.run_status", lambda _: status)
    monkeypatch.setattr("tmas.cli.live.time", SimpleNamespace(sleep=interrupt))
    cli.main(["status", "runs/x", "every=5", "json=true"])
    assert capsys.readouterr() == ("{}\n", "")
