"""`tmas sft` with DeepSpeed ZeRO on the CPU: sharded, killed and resumed, and its result solving problems on vLLM.

torchrun resumes the run with ZeRO that was killed, and starts the runs of the slow tests except ``grouped``. The other
runs are forks (tests/support/ranks.py), which train in the same way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.support import tiny_sums
from tests.support.commands import tmas
from tests.support.installed import needs_deepspeed
from tests.support.ranks import Ranks, forked_ranks
from tmas.engines.vllm import free_port
from tmas.files import read_lines

pytestmark = [pytest.mark.e2e, needs_deepspeed, pytest.mark.timeout(3600)]

ALONE = [sys.executable, "-m", "tmas.cli"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "tmas.cli"]
SMALL = [
    *("device=cpu", "max_length=512", "gradient_checkpointing=false", "batch_size=8", "micro_batch_size=2"),
    *("learning_rate=3e-3", "schedule=linear", "warmup=0.1", "loss_chunk=16"),
]

FAST = [
    *("deepspeed=null", "optimizer=muon", "learning_rate=0.01", "max_grad_norm=null", "loss_on=all"),
    *("packing=true", "max_length=230", "batch_size=4", "model.attn_implementation=eager"),
    *("schedule=warmup_stable_decay", "warmup=2", "decay=0.6"),
]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sums")
    tiny_sums.write(folder, tiny_sums.problems(16))
    return folder


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with forked_ranks() as started:
        yield started


def sft(launcher: list[str], task: Path, output: Path, *settings: str) -> list[str]:
    files = [f"model.path={task / 'policy'}", f"train_files={task / 'traces.jsonl'}", f"output_dir={output}"]
    return [*launcher, "sft", *files, *SMALL, *settings]


def carried_out(command: list[str]) -> str:
    # Two threads would share so little work that they mostly wait for each other. torchrun sets this itself.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def curve(output: Path) -> list[dict[str, Any]]:
    """The metrics less what a clock says."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_lines(output / "metrics.jsonl")]


def until_step(output: Path, step: int, running: Callable[[], bool]) -> None:
    """Wait until the run in ``output`` has logged ``step``; it must still be running."""
    while len(curve(output)) < step:
        assert running(), "it ended before it could be killed"
        time.sleep(0.02)


@dataclass(frozen=True)
class Whole:
    """A run of two processes that nothing interrupted, with its settings."""

    settings: tuple[str, ...]
    output: Path
    printed: str


@pytest.fixture(scope="module")
def whole(task: Path, ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """The whole run of each kind: ``zero``, ``muon_packed`` or ``grouped``. Each is made once."""
    validated = [f"val_files={task / 'traces.jsonl'}", "eval_steps=24"]
    grouped = ["deepspeed=null", "group_by_length=true", "batch_size=4", "micro_batch_size=1", "save_steps=3"]
    kinds = {
        "zero": ["max_steps=16", "zero_stage=2"],
        "muon_packed": ["max_steps=24", *FAST, *validated],
        "grouped": ["max_steps=30", *grouped],  # four updates an epoch: a run is resumed within an epoch
    }

    @cache
    def made(kind: str) -> Whole:
        settings, output = ("save_steps=4", *kinds[kind]), tmp_path_factory.mktemp(kind) / "whole"
        launch = ranks.launch(sft([], task, output, *settings), 2, output.with_name("log"))
        return Whole(settings, output, launch.output())

    return made


@pytest.mark.parametrize(
    ("kind", "steps"), [("zero", 16), ("muon_packed", 24), pytest.param("grouped", 30, marks=pytest.mark.slow)]
)
def test_two_processes_killed_and_resumed_end_as_if_nothing_had_happened(
    whole: Callable[[str], Whole], ranks: Ranks, task: Path, tmp_path: Path, kind: str, steps: int
):
    expected, broken = whole(kind), tmp_path / "broken"
    words = sft([], task, broken, *expected.settings)
    launch = ranks.launch(words, 2, tmp_path / "killed")
    until_step(broken, 6, lambda: launch.running)
    launch.kill()
    assert not (broken / "final").exists()
    printed = carried_out([*TWO, *words]) if kind == "zero" else ranks.launch(words, 2, tmp_path / "resumed").output()
    assert "resuming from" in printed

    assert curve(broken) == curve(expected.output)
    trained = [line for line in curve(broken) if "loss" in line]
    assert [line["step"] for line in trained] == list(range(1, steps + 1))
    assert trained[-1]["loss"] < trained[0]["loss"] - 2
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (broken, expected.output)]
    assert weights[0] == weights[1]

    # Finished: nothing is done again. One process of two finds that out, as under torchrun.
    again = tmas(*words, env={"RANK": "0", "WORLD_SIZE": "2", "COLUMNS": "1000"})
    assert (again.returncode, again.stdout) == (0, f"finished: {broken / 'final'}\n")


def test_packing_trains_on_every_token_in_fewer_rows(whole: Callable[[str], Whole]):
    packed = whole("muon_packed")
    assert "packed into 8 rows" in packed.printed
    losses = curve(packed.output)
    assert f"16 rows ({losses[1]['tokens']:,} tokens" in packed.printed  # an epoch is 2 updates of 4 rows
    assert losses[0]["loss"] > 5
    assert losses[-1]["eval_loss"] < 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="DeepSpeed's Muon compiles its kernels")
def test_deepspeeds_muon_trains_as_torchs_does(task: Path, tmp_path: Path):
    losses: dict[str, list[float]] = {}
    for sharding in ("deepspeed=null", "zero_stage=1", "zero_stage=2", "zero_stage=3"):
        output = tmp_path / str(len(losses))
        settings = [*FAST, "schedule=constant_with_warmup", "warmup=0", "deepspeed={}", sharding, "max_steps=6"]
        carried_out(sft(TWO, task, output, *settings))
        losses[sharding] = [line["loss"] for line in curve(output)]
    for found in losses.values():
        assert found == pytest.approx(losses["deepspeed=null"], rel=0.02)
        assert found[-1] < found[0] - 2


@pytest.mark.slow
def test_every_zero_stage_trains_alike_and_leaves_the_same_kind_of_folder(task: Path, tmp_path: Path):
    losses: dict[int, list[float]] = {}
    for stage in (0, 1, 2, 3):
        output = tmp_path / str(stage)
        carried_out(sft(TWO, task, output, "max_steps=6", "learning_rate=1e-3", f"zero_stage={stage}"))
        losses[stage] = [line["loss"] for line in curve(output)]
        policy = {file.name: file.stat().st_size for file in (task / "policy").iterdir()}
        final = {file.name: file.stat().st_size for file in (output / "final").iterdir()}
        assert final.keys() == policy.keys()
        assert final["model.safetensors"] == policy["model.safetensors"]
        for kept in ("chat_template.jinja", "generation_config.json"):
            assert (output / "final" / kept).read_text() == (task / "policy" / kept).read_text()
    assert losses[2] == pytest.approx(losses[1], rel=0.01)
    assert losses[2] == pytest.approx(losses[3], rel=0.01)
    assert losses[2] == pytest.approx(losses[0], rel=0.03)  # stage 0 adds gradients up in bf16
    assert losses[2][-1] < losses[2][0] - 1


@pytest.mark.slow
def test_two_nodes_that_meet_through_torchrun_train_as_one(task: Path, tmp_path: Path):
    """Two runs of the recipe on loopback are two nodes of one process; another run is one node of two processes."""
    chats = pyarrow.Table.from_pylist(list(read_lines(task / "traces.jsonl")))
    for part in ("train", "validation"):
        parquet.write_table(chats, tmp_path / f"sft_{part}.parquet")

    def recipe(nodes: int, processes: int) -> list[dict[str, Any]]:
        port = free_port("127.0.0.1")
        knobs = {
            **{"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
            **{"GLOO_SOCKET_IFNAME": "lo", "HEAD": "127.0.0.1", "ADDRESS": "127.0.0.1", "PORT": str(port)},
            **{"NNODES": str(nodes), "GPUS": str(processes), "DATA": str(tmp_path), "OUT": str(tmp_path / str(nodes))},
            **{"MODEL": str(task / "policy"), "ATTENTION": "eager"},
        }
        command = ["recipes/sft/run.sh", *SMALL, "max_steps=6", "eval_steps=6"]
        started = [
            subprocess.Popen(
                command, env={**os.environ, **knobs}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for _ in range(nodes)
        ]
        printed = [node.communicate()[0] for node in started]
        assert [node.returncode for node in started] == [0] * nodes, "\n".join(printed)
        assert sum("2 x cpu, ZeRO 2" in text for text in printed) == 1  # only the process of rank 0 prints
        assert (tmp_path / str(nodes) / "final" / "model.safetensors").is_file()
        return curve(tmp_path / str(nodes))

    assert recipe(nodes=2, processes=1) == recipe(nodes=1, processes=2)


def test_a_chat_that_is_too_long_is_refused_or_left_out_with_its_reason(task: Path, ranks: Ranks, tmp_path: Path):
    traces = tmp_path / "traces.jsonl"
    longest = (task / "traces.jsonl").read_text().replace("I add", "I add " * 300, 1)
    traces.write_text(longest)
    words = sft([], task, tmp_path / "run", f"train_files={traces}", "max_steps=1", "max_length=300")
    assert f"{traces}: line 1: too_long" in ranks.launch(words, 1, tmp_path / "refused").output(code=2)
    assert not (tmp_path / "run").exists()

    assert "15 rows" in ranks.launch([*words, "on_bad_row=skip"], 1, tmp_path / "skipped").output()
    [left_out] = read_lines(tmp_path / "run" / "left_out.jsonl")
    assert (left_out["place"], left_out["reason"]) == ("line 1", "too_long")


@pytest.mark.slow
def test_what_was_imitated_is_answered_rightly_by_tmas_solve_on_vllm(task: Path, tmp_path: Path):
    pytest.importorskip("vllm", reason="needs the cpu or gpu extra")
    carried_out(sft(ALONE, task, tmp_path / "sft", "max_steps=240", f"val_files={task / 'traces.jsonl'}"))
    assert curve(tmp_path / "sft")[-1]["eval_loss"] < 0.05
    solve = [
        *(*ALONE, "solve", "method=majority_vote", "method.n_candidates=1", f"problems={task / 'problems.jsonl'}"),
        *(f"output_dir={tmp_path / 'solved'}", "serving=vllm", f"model.path={tmp_path / 'sft' / 'final'}"),
        *("model.name=policy", "model.context_length=2048", "model.sampling.max_tokens=64"),
        *("model.sampling.temperature=0", "+serving.args.enforce-eager=true"),
        '+serving.env={VLLM_CPU_KVCACHE_SPACE: "1", VLLM_CPU_NUM_OF_RESERVED_CPU: "0", HF_HUB_OFFLINE: "1"}',
    ]
    carried_out(solve)
    verdicts = [line["correct"] for line in read_lines(tmp_path / "solved" / "predictions.jsonl")]
    assert verdicts == ["equal"] * 16
