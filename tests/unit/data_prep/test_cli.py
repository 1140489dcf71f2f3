"""The four commands as a user gives them, in one workspace, against a scripted policy and teacher."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import commands
from tests.support.commands import TMAS, tmas_process
from tests.support.data_steps import problem_file
from tests.support.installed import needs_datasketch
from tests.support.waiting import wait_until
from tmas.data_prep.reports import earlier_reports
from tmas.errors import UserError
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer, run_in_thread
from tmas.training.rows import validate_rows

pytestmark = [needs_datasketch, pytest.mark.timeout(3600)]


def command(name: str, workspace: Path, *overrides: str) -> list[str]:
    return [*TMAS, name, f"workspace={workspace}", *overrides]


def tmas(name: str, workspace: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return tmas_process(name, f"workspace={workspace}", *overrides)


def model(server: ScriptedServer) -> list[str]:
    given = {"name": "scripted", "base_url": server.base_url, "context_length": 100000, "sampling.max_tokens": 1000}
    return ["model=endpoint", *(f"model.{key}={value}" for key, value in given.items())]


def benchmarks(folder: Path) -> list[str]:
    """One small file stands for every benchmark."""
    exam = folder / "exam.jsonl"
    exam.write_text(json.dumps({"problem_id": "b", "question": "What is the first prime after 200?"}) + "\n")
    names = ("aime24", "gsm8k", "hle_math_100", "imo2025", "imo_answerbench", "imo_proofbench", "math500")
    fields = (
        "fields={problem_id: problem_id, question: question, answer: null, answer_required: false, answer_regex: null}"
    )
    used = [f"benchmarks.{name}.files=[]" for name in names[1:]]
    return [f"benchmarks.aime24.files=[{exam}]", f"benchmarks.aime24.{fields}", "benchmarks_dir=unused", *used]


SMALL = ["method.n_candidates=3", "method.n_verifications=2", "method.max_iterations=2", "method.epsilon=0.4"]


def test_from_files_to_rows_with_a_kill_on_the_way(tmp_path: Path):
    workspace, pool = tmp_path / "w", problem_file(tmp_path, 12)
    with pool.open("a") as file:
        file.write('{"question": "What is 99 mod 3?"}\n')
    source = [f"source.local.files=[{pool}]", "source.local.origin=made up", "source.local.licence=CC0"]
    collected = tmas("collect", workspace, "source=local", *source, *benchmarks(tmp_path))
    assert collected.returncode == 0, collected.stderr
    assert "local: 13 rows, 12 kept, 0 copies, 1 skipped" in collected.stdout

    def slow(body: Body) -> Script:
        return Script(tuple(team.reply(body)), first_delay=0.02)

    with run_in_thread(ScriptedServer(slow)) as server:
        filtered = tmas("filter", workspace, *model(server), "method.n_candidates=4")
        assert filtered.returncode == 0, filtered.stderr
        assert "of 12 problems kept" in filtered.stdout

        distil = ["limits.tokens_per_run=1000000", *SMALL]
        killed = command("distill", workspace, *distil, *model(server))
        running = subprocess.Popen(killed, stdout=subprocess.DEVNULL)
        trace = workspace / "teacher" / "trace"
        wait_until(lambda: trace.exists() and len(team.recorded_calls(workspace / "teacher")) >= 8)
        running.send_signal(signal.SIGKILL)
        running.wait()
    recorded = len(team.recorded_calls(workspace / "teacher"))
    with run_in_thread(ScriptedServer(slow)) as server:
        done = commands.tmas("distill", f"workspace={workspace}", *distil, *model(server))
        assert done.returncode == 0, done.stderr
        assert "problems to distill, about" in done.stdout
        assert "max_iterations): " in done.stdout
        assert len(server.requests) == len(team.recorded_calls(workspace / "teacher")) - recorded

    rows = ["rows.normal=4", "rows.experience=4", "rows.guideline=2", "validation_share=0.2"]
    built = tmas("build", workspace, "tokenizer=estimate", *rows)
    assert built.returncode == 0, built.stderr
    assert "train.parquet: 4 experience, 2 guideline, 4 normal" in built.stdout
    assert validate_rows(workspace / "rows" / "train.parquet") == 10
    names = {path.name for path in (workspace / "rows").iterdir()}
    assert names >= {"sft_train.parquet", "README.md", "look.html", "report.json"}
    assert f"{pool}:13: field &#39;answer&#39;: missing" in (workspace / "rows" / "look.html").read_text()


def test_a_missing_report_of_an_earlier_step_says_which_commands_write_it(tmp_path: Path):
    with pytest.raises(UserError, match=r"pool/report\.json: there is no such file\. Run tmas collect and tmas filter"):
        earlier_reports([tmp_path / "pool"])


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("collect", ["source=local", "source.local.files=[nowhere.jsonl]", "benchmarks_dir=b", "source.local.origin=o",
                     "source.local.licence=l"], "the benchmark aime24 is missing. conf/data/aime24.yaml says"),
        ("filter", ["model.name=m", "model.base_url=http://127.0.0.1:9/v1"], "Run tmas collect first"),
        ("distill", ["model=endpoint", "model.name=m", "model.base_url=http://h/v1"], "not set: limits.tokens_per_run"),
        ("build", ["tokenizer=estimate", "max_prompt_tokens=3"], "max_prompt_tokens"),
        ("build", ["tokenizer=estimate"], "problems.jsonl: No such file or directory. Run tmas filter first"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_clear_message(tmp_path: Path, name: str, overrides: list[str], message: str):
    done = commands.tmas(name, f"workspace={tmp_path / 'w'}", *overrides)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["collect", "filter", "distill", "build"])
def test_help_teaches_the_next_step(name: str):
    done = commands.tmas(name, "--help")
    assert done.returncode == 0
    assert f"tmas {name}" in done.stdout
    assert "tmas options COMMAND lists all settings" in done.stdout
