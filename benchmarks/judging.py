"""What judging costs a training step: the hybrid reward, with a judge as slow as a rollout, against correctness alone.

    python -m benchmarks.judging FOLDER [--steps 10] [--waves 16]

Trains the policy of recipes/cpu four times on this machine, from the same data and seed, with room in vLLM for a
``--waves``th of a step's replies at once: on correctness alone; on the hybrid reward with a scripted judge that answers
at once; with one that answers each question after as long as a reply takes to generate, by the first run; and with one
that takes as long as all of a step's replies do. Prints the median seconds a step of each, and the ratio to the first.
The second run is what the questions themselves cost, on a machine whose cores also generate, train and serve the judge;
what the third takes beyond it is waiting. The goal for the third is 1.05: verl judges a reply while others are still
being generated, so what is left is the judge's time for the last ones. The replies of this policy are all as long as
each other; where a few are longer than the rest, less is left.
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

MAX_SEQUENCES = "actor_rollout_ref.rollout.max_num_seqs"
SETTINGS = "reward.custom_reward_function.reward_kwargs.settings"
WARM_UP = 2
"""Steps left out of the medians."""
REPLIES = 32 * 8
"""Of a step of experiment=hybrid_grpo_cpu."""
Timings = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the task and the runs; must be empty")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--waves", type=int, default=16)
    arguments = parser.parse_args()
    folder, waves = arguments.folder, arguments.waves
    prepare(folder / "task", n_train=256, n_val=8, n_sft=1024)
    cold_start(folder)
    given = f"trainer.total_training_steps={arguments.steps}", f"{MAX_SEQUENCES}={REPLIES // waves}"
    alone = train(folder, "vanilla", *given, "reward=vanilla")
    show("correctness alone", alone, alone)
    show("judge that answers at once", judged(folder, "at_once", 0.0, *given), alone)
    show("judge as slow as a rollout", judged(folder, "rollout", alone["timing_s/gen"] / waves, *given), alone)
    show("judge as slow as all rollouts", judged(folder, "rollouts", alone["timing_s/gen"], *given), alone)


def show(name: str, run: Timings, alone: Timings) -> None:
    step, generation = run["timing_s/step"], run["timing_s/gen"]
    ratio = step / alone["timing_s/step"]
    print(
        f"{name}: {step:.2f} s a step, of it {generation:.2f} s generation and judging; ratio {ratio:.2f}", flush=True
    )


def judged(folder: Path, name: str, delay: float, *given: str) -> Timings:
    """A run on the hybrid reward whose judge answers after ``delay`` seconds."""
    with run_in_thread(ScriptedServer(lambda body: Script(texts=(verdict(body),), first_delay=delay))) as judge:
        setting = (
            f"{SETTINGS}.judge={{name: judge, base_url: '{judge.base_url}', timeout: 120, concurrency: {REPLIES}}}"
        )
        forms = [f"{SETTINGS}.{component}.form=judge" for component in ("experience", "novelty")]
        timings = train(folder, name, *given, setting, *forms)
        print(f"{len(judge.requests)} questions to the judge, each answered after {delay:.2f} s")
    return timings


def verdict(body: dict[str, Any]) -> str:
    """Nothing used, nothing new: whichever the judge is asked."""
    schema = json.dumps(body.get("response_format", body))
    if '"same"' in schema:
        return json.dumps(
            {"name": "Counting", "description": "Counting on.", "steps": [], "same": ["g1"], "variation_of": []}
        )
    return json.dumps({"items": [{"id": "e1", "use": "none", "correct": False, "quote": ""}], "repeated": []})


def cold_start(folder: Path) -> None:
    tmas(
        *("sft", f"train_files={folder}/task/sft.parquet", f"model.path={folder}/task/policy"),
        *(f"output_dir={folder}/sft", "device=cpu", "max_length=512", "gradient_checkpointing=false"),
        *("batch_size=32", "micro_batch_size=32", "learning_rate=2e-3", "max_steps=150"),
    )


def train(folder: Path, name: str, *settings: str) -> Timings:
    """Medians of a run's timings over its steps, in seconds."""
    output = folder / name
    tmas(
        *("train", "experiment=hybrid_grpo_cpu", f"output_dir={output}", "trainer.save_freq=-1"),
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
