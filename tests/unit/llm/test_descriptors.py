"""llm/descriptors.py: as many open files as a run's calls need; clear words where the system has no more."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tmas.llm.descriptors import TooManyFiles
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer, run_in_thread

SHOW = """
import resource
from tmas.llm.descriptors import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_open_files({count})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
WITH_FEW = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "count", "allowed"),
    [(1024, 4096, 1312, 1568), (1024, 4096, 5000, 4096), (2000, 4096, 100, 2000)],
    ids=["raised", "as far as it may", "enough already"],
)
def test_the_soft_limit_is_raised_to_what_a_run_needs(soft: int, hard: int, count: int, allowed: int):
    code = SHOW.format(soft=soft, hard=hard, count=count)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(allowed), str(hard)]


def test_a_worker_on_ray_can_tell_of_it():
    told = TooManyFiles.now()
    assert str(pickle.loads(pickle.dumps(told))) == str(told)


def test_a_run_that_may_open_too_few_sockets_stops_and_says_so(tmp_path: Path):
    problems = "".join(
        f'{{"problem_id": "p{i}", "question": "What is {i} + {i}?", "answer": "7"}}\n' for i in range(40)
    )
    (tmp_path / "problems.jsonl").write_text(problems)
    with run_in_thread(ScriptedServer(team.reply)) as server:
        settings = [
            *(f"problems={tmp_path}/problems.jsonl", f"output_dir={tmp_path}/run", f"model.base_url={server.base_url}"),
            *("model.name=scripted", "model.context_length=100000", "model.tokenizer=estimate"),
            "model.sampling.max_tokens=1000",
        ]
        command = [sys.executable, "-m", "tmas.cli", "solve", *settings]
        done = subprocess.run([sys.executable, "-c", WITH_FEW, *command], check=False, capture_output=True, text=True)
    assert done.returncode == 3
    assert "ulimit -n" in done.stderr or "Too many open files" in done.stderr
    assert "Traceback" not in done.stderr
    failures = tmp_path / "run" / "failures.jsonl"
    assert not failures.exists() or not failures.read_text()  # that is no failure of a call
