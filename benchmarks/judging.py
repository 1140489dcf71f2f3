"""The cost of an LLM judge in a training step: the hybrid reward with a slow judge, compared with correctness alone.

    python -m benchmarks.judging FOLDER [--steps 10] [--waves 16]

Trains the policy of recipes/cpu four times on this machine, with the same data and seed. vLLM generates a step's
replies in ``--waves`` waves, one after the other. The runs differ in their reward:

1. correctness alone
2. the hybrid reward with a scripted judge that answers at once
3. the hybrid reward with a judge that takes as long as the generation of one reply in run 1
4. the hybrid reward with a judge that takes as long as the generation of all replies of a step in run 1

Prints the median seconds per step of each run, and the ratio to run 1. The difference between runs 1 and 2 is the cost
of the questions themselves, on cores that also generate, train and serve the judge. The difference between runs 2 and 3
is waiting. The goal for run 3 is a ratio of 1.05: verl judges a reply while others are still being generated, so a step
waits only for the judge's answers about the last replies. All replies of this policy have about the same length; if a
few were longer than the others, the wait would be shorter.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from recipes.cpu.prepare import prepare
from tmas.files import read_lines
from tmas.testing.chat_server import Script, ScriptedServer, run_in_thread
from tmas.testing.judge import with_code

MAX_SEQUENCES = "actor_rollout_ref.rollout.max_num_seqs"
SETTINGS = "reward.custom_reward_function.reward_kwargs.settings"
WARM_UP = 2
"""Number of first steps that the medians leave out."""
REPLIES = 32 * 8
"""Number of replies in a step of experiment=grpo_cpu."""
Timings = dict[str, float]
"""Median seconds by the name of verl's metric."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the task and the runs; must be empty")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--waves", type=int, default=16)
    arguments = parser.parse_args()
    folder, waves = arguments.folder, arguments.waves
    if folder.exists() and any(folder.iterdir()):  # the commands would resume or refuse the runs in it
        parser.error(f"{folder} is not empty")
    prepare(folder / "task", n_train=256, n_val=8, n_sft=1024, terms=2)  # easy: the judge is asked about right answers
    cold_start(folder)
    shared = f"trainer.total_training_steps={arguments.steps}", f"{MAX_SEQUENCES}={REPLIES // waves}"
    baseline = train(folder, "vanilla", *shared, "reward=vanilla")
    show("correctness alone", baseline, baseline)
    all_replies = baseline["timing_s/gen"]
    for name, output, delay in (
        ("judge that answers at once", "at_once", 0.0),
        ("judge as slow as a rollout", "rollout", all_replies / waves),
        ("judge as slow as all rollouts", "rollouts", all_replies),
    ):
        timings, questions = train_with_judge(folder, output, delay, *shared)
        show(name, timings, baseline)
        print(f"  {questions} questions to the judge, each answered after {delay:.2f} s", flush=True)


def show(name: str, run: Timings, baseline: Timings) -> None:
    step, generation = run["timing_s/step"], run["timing_s/gen"]
    ratio = step / baseline["timing_s/step"]
    print(
        f"{name}: {step:.2f} s per step, including {generation:.2f} s generation and judging; ratio {ratio:.2f}",
        flush=True,
    )


def train_with_judge(folder: Path, name: str, delay: float, *settings: str) -> tuple[Timings, int]:
    """A run with the hybrid reward. The judge answers after ``delay`` seconds. Also returns the number of questions."""
    with run_in_thread(ScriptedServer(lambda body: Script(texts=(verdict(body),), first_delay=delay))) as judge:
        judge_setting = (
            f"{SETTINGS}.judge={{name: judge, base_url: '{judge.base_url}', timeout: 120, concurrency: {REPLIES}}}"
        )
        forms = [f"{SETTINGS}.{component}.form=judge" for component in ("experience", "novelty")]
        timings = train(folder, name, *settings, judge_setting, *forms)
        return timings, len(judge.requests)


def verdict(body: dict[str, Any]) -> str:
    """The judge's reply: no item was used (experience question), or the method is not new (novelty question)."""
    schema = json.dumps(body.get("response_format", body))
    if '"same"' in schema:
        known = {"name": "Counting", "description": "Counting on.", "steps": [], "same": ["g1"], "variation_of": []}
        return with_code(body, known)
    return with_code(body, {"items": [{"id": "e1", "use": "none", "correct": False, "quote": ""}], "repeated": []})


def cold_start(folder: Path) -> None:
    tmas(
        *("sft", f"train_files={folder}/task/sft.parquet", f"model.path={folder}/task/policy"),
        *(f"output_dir={folder}/sft", "device=cpu", "max_length=512", "gradient_checkpointing=false"),
        *("batch_size=32", "micro_batch_size=32", "learning_rate=2e-3", "max_steps=150"),
    )


def train(folder: Path, name: str, *settings: str) -> Timings:
    """Train in ``folder / name`` and return the medians of the step's timings, in seconds."""
    output = folder / name
    tmas(
        *("train", "experiment=grpo_cpu", f"output_dir={output}", "trainer.save_freq=-1"),
        *(f"data.train_files={folder}/task/train.parquet", f"data.val_files={folder}/task/val.parquet"),
        *(f"policy.path={folder}/sft/final", "trainer.test_freq=-1", "trainer.val_before_train=false"),
        *settings,
    )
    lines = [line["data"] for line in read_lines(output / "starts" / "0001" / "metrics.jsonl")][WARM_UP:]
    return {name: median(line[name] for line in lines) for name in ("timing_s/step", "timing_s/gen")}


def tmas(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "tmas.cli", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


if __name__ == "__main__":
    main()
