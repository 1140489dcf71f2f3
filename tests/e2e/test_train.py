"""`tmas train` on the CPU: real Ray, verl, FSDP, vLLM rollouts and weight sync, the real reward; export; answers.

The judge is scripted, and down in part of a test: what it says is not what these tests are about.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.support import commands
from tmas.answers.extract import extract_boxed
from tmas.files import read_lines
from tmas.llm.tokens import ContextWindow, token_counter
from tmas.rewards.settings import AdvantageSettings
from tmas.rewards.verification import VerificationTruth
from tmas.testing.chat_server import Fault, Script, ScriptedServer, run_in_thread
from tmas.testing.judge import code_in, with_code
from tmas.testing.processes import writing_to
from tmas.training.contexts import TrainingProblem, verification_row
from tmas.training.rl.group_advantages import group_advantages
from tmas.training.rl.liveness import ActorDied, watch_actors
from tmas.training.rl.rollouts import kept_files, read_step
from tmas.training.rows import TrainingRow, read_rows, write_rows

pytest.importorskip("verl", reason="needs the cpu or gpu extra")
ray = pytest.importorskip("ray", reason="needs the cpu or gpu extra")
torch = pytest.importorskip("torch", reason="needs the cpu or gpu extra")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

SETTINGS = "reward.custom_reward_function.reward_kwargs.settings"
ONE_PROCESS = "+serving.args.distributed-executor-backend=vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""vLLM's engine computes in its own process, as in conf/demo.yaml. test_data_chain.py has a server with the default."""
BOMB = "9^{9^{9^{9}}}"
KNOWN = {
    "name": "Counting on",
    "description": "Count up one by one.",
    "steps": [],
    "same": ["g1"],
    "variation_of": [],
}
UNUSED = {"items": [{"id": "e1", "use": "none", "correct": True, "quote": ""}], "repeated": []}


def unimpressed(body: dict[str, Any]) -> Script:
    """A judge to whom every strategy is known, and who finds no item used."""
    asks_about_items = "repeated" in json.dumps(body["response_format"])
    return Script(texts=(with_code(body, UNUSED if asks_about_items else KNOWN),))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task of recipes/cpu, smaller, and a policy that has learned to box an answer (``sft/final``)."""
    return taught(tmp_path_factory.mktemp("task"), 100, 8, n_train=64, n_val=8, n_sft=1024)


@pytest.fixture(scope="module")
def easy_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like ``task``, but with the sums of 0 and 1 alone: there are so few answers that every third guess is right."""
    return taught(tmp_path_factory.mktemp("easy_task"), 60, 4, n_train=14, n_val=8, n_sft=256, terms=2)


def taught(folder: Path, updates: int, batch: int, **sizes: int) -> Path:
    """Prepare the task in ``folder``, and fine-tune its policy with so many updates of ``batch`` chats."""
    from recipes.cpu.prepare import prepare

    prepare(folder, **sizes)
    torch.set_num_threads(1)  # two threads share so little work here that they mostly wait for each other
    done = commands.tmas(
        *("sft", f"model.path={folder}/policy", f"train_files={folder}/sft.parquet", f"output_dir={folder}/sft"),
        *("device=cpu", "max_length=512", "gradient_checkpointing=false", f"max_steps={updates}"),
        *(f"batch_size={batch}", f"micro_batch_size={batch}"),
        *("optimizer=muon", "max_grad_norm=null", "learning_rate=3e-3"),
        "deepspeed=null",  # DeepSpeed's Muon compiles its kernels, for a minute: test_sft.py has a slow test of it
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(autouse=True)
def left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a ``ray start`` that was killed leaves on a machine; Ray's sockets need a short path."""
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        current = Path(folder, "ray", "ray_current_cluster")
        current.parent.mkdir()
        current.write_text("127.0.0.1:1")
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


@pytest.fixture
def judge() -> Iterator[ScriptedServer]:
    with run_in_thread(ScriptedServer(unimpressed)) as server:
        yield server


def tmas(*arguments: str, **variables: str) -> str:
    """Run a command. A training whose cluster does not start is started again: Ray gives its processes 30 seconds,
    which no setting changes and which may be too short on a busy machine."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    command = [sys.executable, "-m", "tmas.cli", *arguments]
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode == 0 or "The current node timed out during startup" not in done.stderr:
            break
        [output] = [argument.partition("=")[2] for argument in arguments if argument.startswith("output_dir=")]
        shutil.rmtree(max(Path(output, "starts").iterdir()))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def train(task: Path, output: Path, judge: ScriptedServer, *settings: str) -> list[str]:
    return [
        *("train", "experiment=grpo_cpu", "reward=hybrid", f"output_dir={output}"),
        *(
            f"data.train_files={task}/train.parquet",
            f"data.val_files={task}/val.parquet",
            f"policy.path={task}/sft/final",
        ),
        *("trainer.test_freq=-1", "trainer.val_before_train=false"),
        f"{SETTINGS}.judge={{name: judge, base_url: '{judge.base_url}', timeout: 600, patience: {{max_attempts: 1}}}}",
        *settings,
    ]


def verifications(count: int) -> Iterator[TrainingRow]:
    """Rows that ask for a verification of a right or a wrong sum."""
    window = ContextWindow(token_counter("estimate"), 2048, 48)
    for n in range(count):
        problem = TrainingProblem(problem_id=f"v{n}", question=f"What is 2 + {n % 8}?", answer=str(2 + n % 8))
        stated = 2 + n % 8 + n % 2
        truth = VerificationTruth(right=not n % 2, gold=str(2 + n % 8), candidate=f"It is \\boxed{{{stated}}}.")
        row = verification_row(problem, 0, truth, window)
        assert isinstance(row, TrainingRow)
        yield row


def started_by(pid: int) -> Iterator[int]:
    """The processes that ``pid`` and its children have started."""
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        yield child
        yield from started_by(child)


def steps(output: Path, start: int) -> dict[int, dict[str, Any]]:
    lines = read_lines(output / "starts" / f"{start:04d}" / "metrics.jsonl")
    return {line["step"]: line["data"] for line in lines}


def test_hybrid_grpo_trains_exports_and_answers(easy_task: Path, tmp_path: Path, judge: ScriptedServer):
    output, prompts, responses = tmp_path / "run", 8, 4
    rows = [*read_rows(easy_task / "train.parquet"), *verifications(2)]
    assert len(rows) == 2 * prompts
    write_rows(tmp_path / "train.parquet", rows)
    tmas(
        *train(easy_task, output, judge, "trainer.total_training_steps=2", "trainer.save_freq=2"),
        *(f"data.train_files={tmp_path}/train.parquet", f"data.train_batch_size={prompts}"),
        f"actor_rollout_ref.rollout.n={responses}",
        "data.max_prompt_length=768",  # the tokenizer was not trained on the verifier's prompt
    )
    curves = steps(output, 1)
    assert sorted(curves) == [1, 2]
    verified = [data for data in curves.values() if "reward/verification/samples" in data]
    assert verified
    under = "reward/verification/outcome"
    shares = [sum(data.get(f"{under}/{o}", 0) for o in ("graded", "no_grade", "truncated")) for data in verified]
    assert shares == pytest.approx([1] * len(verified))
    first = curves[1]
    assert first["reward/all/samples"] == prompts * responses
    assert 0 < first["reward/all/acc"] < 1
    assert first["reward/all/outcome/answered"] > 0.5
    assert first["actor/grad_norm"] > 0
    assert first["reward/experience/experience_masked"] == 0
    assert first["reward/experience/experience"] == 0  # the judge finds no item used
    assert first["reward/experience/score"] == first["reward/experience/acc"]
    guided = [data for data in curves.values() if "reward/guideline/novelty" in data]
    assert guided
    assert {data["reward/guideline/novelty"] for data in guided} == {0.0}  # the judge calls all of it known
    assert judge.requests
    assert "timing_s/update_weights" in curves[2]

    assert [file.name for file in kept_files(output)] == ["000001.jsonl.gz", "000002.jsonl.gz"]
    kept = [(prompt, response) for prompt in read_step(kept_files(output)[0])[1] for response in prompt.responses]
    assert len(kept) == prompts * responses
    assert all(prompt.extra_info["question"] in prompt.prompt for prompt, _ in kept)
    rewards, uids = [response.reward for _, response in kept], [prompt.uid for prompt, _ in kept]
    computed = group_advantages(rewards, uids, AdvantageSettings(), "grpo", by_std=True)
    assert [response.advantage for _, response in kept] == pytest.approx(computed, abs=1e-4)

    exported = commands.tmas("export", f"checkpoint={output}", f"output_dir={tmp_path / 'policy'}")
    assert exported.returncode == 0, exported.stderr
    replies = greedy_replies(tmp_path / "policy", read_rows(easy_task / "val.parquet"))
    assert len(replies) == 8
    assert sum(extract_boxed(reply) is not None for reply in replies) >= 6


def greedy_replies(policy: Path, rows: Iterable[TrainingRow]) -> list[str]:
    """The most probable reply of ``policy`` to each row. Transformers generates it: a start of vLLM takes a minute."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(policy), AutoModelForCausalLM.from_pretrained(policy)
    replies = []
    for row in rows:
        messages = [message.model_dump() for message in row.prompt]
        given = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        tokens = model.generate(**given, do_sample=False, max_new_tokens=48)[0, given["input_ids"].shape[1] :]
        replies.append(tokenizer.decode(tokens, skip_special_tokens=True))
    return replies


@pytest.mark.slow
def test_a_trained_policy_solves_on_vllm_that_ray_starts(task: Path, tmp_path: Path):
    """The policy is one of ``tmas sft``. An exported one is a folder of the same kind (test_export.py), and
    test_miniature_recipe.py has vLLM serve it."""
    tmas(
        *("solve", f"problems={task}/problems.jsonl", f"output_dir={tmp_path / 'solved'}", "method=majority_vote"),
        *("method.n_candidates=4", "serving=vllm", "model.name=policy", f"model.path={task}/sft/final"),
        *("model.context_length=2048", "model.sampling.max_tokens=48", "+serving.args.enforce-eager=true"),
        ONE_PROCESS,
        '+serving.env={VLLM_CPU_KVCACHE_SPACE: "1", VLLM_CPU_NUM_OF_RESERVED_CPU: "0", HF_HUB_OFFLINE: "1"}',
        "ray.workers=1",  # vLLM runs on Ray: who starts it, and where, makes no difference to a run
    )
    assert (tmp_path / "solved" / "vllm-0.log").exists()
    assert writing_to(tmp_path / "solved" / "vllm") == {}
    predictions = list(read_lines(tmp_path / "solved" / "predictions.jsonl"))
    assert len(predictions) == 8
    assert sum(line["answer"] is not None for line in predictions) >= 6


def test_the_death_of_an_actor_interrupts_what_waits_for_another():
    @ray.remote
    class Actor:
        def pid(self) -> int:
            return os.getpid()

        def wait(self) -> None:
            time.sleep(3600)

    with ray.init(address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1"):
        busy, killed = Actor.remote(), Actor.remote()
        pid, waiting = ray.get(killed.pid.remote()), busy.wait.remote()

        def interrupted() -> None:
            with watch_actors({"actor": [busy], "vLLM server": [killed]}, interval=0.1):
                os.kill(pid, signal.SIGKILL)
                ray.get(waiting)

        with pytest.raises(ActorDied, match="vLLM server: "):
            interrupted()


@pytest.mark.slow
def test_a_training_ends_when_its_server_is_killed(task: Path, tmp_path: Path, judge: ScriptedServer):
    output = tmp_path / "run"
    command = train(task, output, judge, "trainer.total_training_steps=50", "trainer.save_freq=-1")
    running = subprocess.Popen(
        [sys.executable, "-m", "tmas.cli", *command],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not any(output.glob("starts/0001/metrics.jsonl")):
        assert running.poll() is None, "it ended before its server could be killed"
        time.sleep(0.2)
    [server] = [pid for pid in started_by(running.pid) if "vLLMHttpServer" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(server, signal.SIGKILL)
    printed, _ = running.communicate()
    assert running.returncode == 1
    assert "A part of the training has died: vLLM server" in printed


@pytest.mark.slow
def test_ppo_trains_its_critic_too(task: Path, tmp_path: Path, judge: ScriptedServer):
    output = tmp_path / "run"
    settings = ("algorithm.adv_estimator=gae", "trainer.total_training_steps=2", "trainer.save_freq=2")
    tmas(*train(task, output, judge, *settings))
    curves = steps(output, 1)
    assert sorted(curves) == [1, 2]
    assert curves[1]["critic/grad_norm"] > 0
    assert curves[1]["actor/grad_norm"] > 0
    assert (output / "checkpoints" / "global_step_2" / "critic").is_dir()


@pytest.mark.slow
def test_a_judge_that_verl_hosts_is_asked(task: Path, tmp_path: Path, judge: ScriptedServer):
    """It is the policy itself on a device of its own: it answers, and nothing that it says is a verdict."""
    model = f"{task}/sft/final"
    hosted = ("enable=true", "enable_resource_pool=true", "nnodes=1", "n_gpus_per_node=1", f"model_path={model}")
    tmas(
        *train(task, tmp_path / "run", judge, "trainer.total_training_steps=1", "trainer.save_freq=-1"),
        *(f"reward.reward_model.{given}" for given in hosted),
        *(f"{SETTINGS}.judge.base_url=null", f"{SETTINGS}.judge.name={model}", f"{SETTINGS}.judge.timeout=200"),
        *(f"+{SETTINGS}.judge.sampling={{max_tokens: 16}}", "ray_kwargs.ray_init.num_gpus=2"),
    )
    data = steps(tmp_path / "run", 1)[1]
    reasons = {name.rpartition("/")[2] for name in data if "guideline/novelty_masked/" in name}
    assert reasons
    assert reasons <= {"unparsable", "judge"}
    assert not judge.requests


@pytest.mark.slow
def test_a_dead_judge_is_masked_and_a_killed_trainer_goes_on(task: Path, tmp_path: Path):
    output = tmp_path / "run"
    down = ScriptedServer(lambda _: Script(fault=Fault("status", after=None, status=500)))
    with run_in_thread(down) as judge:
        command = train(task, output, judge, "trainer.total_training_steps=4", "trainer.save_freq=2")
        running = subprocess.Popen(
            [sys.executable, "-m", "tmas.cli", *command],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        saved = output / "checkpoints" / "latest_checkpointed_iteration.txt"
        while not saved.exists():
            assert running.poll() is None, "it ended before it could be killed"
            time.sleep(0.2)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        before = steps(output, 1)
        tmas(*command, "trainer.test_freq=4")
    assert 4 in steps(output, 2)
    assert "val-core/math/acc/mean@4" in steps(output, 2)[4]
    assert "val-reward/all/correctness" in steps(output, 2)[4]
    assert 1 not in steps(output, 2)
    curves = {**before, **steps(output, 2)}
    assert sum(data.get("reward/guideline/novelty_masked", 0) for data in curves.values()) > 0
    assert not any("reward/guideline/novelty" in data for data in curves.values())
    assert all(data["reward/all/acc"] > 0 for data in curves.values())


@pytest.mark.slow
def test_a_judge_that_turns_slow_lies_and_breaks_and_bombs_among_the_answers(task: Path, tmp_path: Path):
    rows = [with_bomb(row) if place % 8 == 0 else row for place, row in enumerate(read_rows(task / "train.parquet"))]
    write_rows(tmp_path / "train.parquet", rows)
    replies = itertools.cycle(
        [
            lambda body: Script(texts=(with_code(body, KNOWN),)),
            lambda body: Script(fault=Fault("status", after=None, status=500)),
            lambda body: Script(first_delay=60),
            lambda body: Script(texts=(with_code(body, {**KNOWN, "same": ["g99"]}),)),  # there is no such guideline
            lambda body: Script(texts=("Very good!",)),
            lambda body: Script(texts=(json.dumps(KNOWN),)),  # without the code
        ]
    )
    replied: dict[str, Callable[[dict[str, Any]], Script]] = {}

    def reply(body: dict[str, Any]) -> Script:
        """A question that is asked again meets with the same reply, although its code is another one."""
        question = body["messages"][0]["content"].replace(code_in(body), "")
        if question not in replied:
            replied[question] = next(replies)
        return replied[question](body)

    with run_in_thread(ScriptedServer(reply)) as judge:
        tmas(
            *train(task, tmp_path / "run", judge, "trainer.total_training_steps=2", "trainer.save_freq=-1"),
            *(f"data.train_files={tmp_path}/train.parquet", "trainer.logger=[console,file,tensorboard,wandb]"),
            *(f"{SETTINGS}.judge.timeout=3", f"{SETTINGS}.checker.timeout=0.5", "+env.WANDB_MODE=offline"),
        )
    curves = steps(tmp_path / "run", 1)
    assert sorted(curves) == [1, 2]
    total = Counter[str]()
    for data in curves.values():
        total.update(data)
    reasons = {name.rpartition("/")[2] for name in total if "novelty_masked/" in name}
    assert {"endpoint", "timeout", "judge", "unparsable", "code"} <= reasons
    assert total["reward/guideline/novelty_masked"] < total["reward/guideline/samples"]
    assert total["reward/all/correctness_masked"] > 0
    assert total["reward/all/masked"] > 0
    assert all(0 < data["reward/all/acc"] < 1 and data["actor/grad_norm"] > 0 for data in curves.values())
    start = tmp_path / "run" / "starts" / "0001"
    assert list(start.rglob("events.out.tfevents.*"))
    assert list(start.rglob("offline-run-*/*.wandb"))


def with_bomb(row: TrainingRow) -> TrainingRow:
    """A gold answer that no computer evaluates."""
    return row.model_copy(update={"reward_model": row.reward_model.model_copy(update={"ground_truth": BOMB})})
