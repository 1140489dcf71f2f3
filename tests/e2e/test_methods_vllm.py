"""Every baseline, from its own config, and an LLM judge: all on one real vLLM server with the shipped policy."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.support.installed import needs_vllm
from tests.support.policy_server import NAME
from tests.support.runs import candidate, iteration, prediction, write_run
from tmas.api import run
from tmas.concurrency import gather_all
from tmas.evaluation.evaluate import EvaluateSettings, evaluate
from tmas.files import read_lines
from tmas.judge import JudgeSettings
from tmas.miniature import POLICY, PROBLEMS, PROMPTS
from tmas.problems.loader import load_problems
from tmas.records import Result, Rollout, Solution
from tmas.run.activity import Activity
from tmas.run.trace import read_calls
from tmas.settings import SolveSettings

pytestmark = [pytest.mark.e2e, needs_vllm, pytest.mark.timeout(3600)]

CONF = str(Path(__file__).parents[2] / "conf")
PROBLEM = load_problems(PROBLEMS).problems[0]
SCHEMA = ("method.agents.structured_verification=true", "model.roles.verification.sampling.max_tokens=96")
"""The shipped policy was trained without schemas: with one it may repeat itself until the limit."""
SMALL = {
    "majority_vote": ["method.n_candidates=4"],
    "best_of_n": ["method.n_candidates=4", "method.n_verifications=2", *SCHEMA],
    "self_refine": ["method.n_candidates=2", "method.max_iterations=3"],
    "verify_refine": [
        *("method.n_candidates=4", "method.n_verifications=2", "method.n_best=2", "method.max_iterations=2"),
        *SCHEMA,
    ],
    "pacore": ["method.widths=[3,2,1]", "method.max_iterations=3"],
    # The shipped policy was trained on replies without a schema. The tokens that a schema allows are new to it.
    "rse": ["method.n_candidates=2", "method.max_iterations=2", "method.agents.structured_outputs=off"],
    # The shipped policy was not trained on the prompts of these two: what is tested is which calls are made.
    "rsa": ["method.n_candidates=2", "method.n_aggregated=2", "method.max_iterations=2"],
    "genselect": ["method.n_candidates=4", "method.n_compared=2", "method.n_votes=2"],
}


def composed(*overrides: str) -> SolveSettings:
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("solve", overrides=["problems=sample", "output_dir=unused", *overrides])
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return SolveSettings.model_validate(plain)


@dataclass
class Run:
    """A method on the problem, and what its trace holds: how often each call was made, by iteration, role and index."""

    result: Result
    calls: Counter[tuple[int, str, int]]
    systems: list[str]

    @property
    def rounds(self) -> list[tuple[Rollout, ...]]:
        return [iteration.rollouts for iteration in self.result.trajectory.iterations]

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for rollouts in self.rounds for rollout in rollouts]

    @property
    def solved(self) -> set[tuple[int, int]]:
        """The candidates that were not cut short, by iteration and index."""
        return {(r.iteration, r.index) for r in self.rollouts if isinstance(r.solution, Solution)}

    def called(self, role: str) -> set[tuple[int, int]]:
        return {(t, i) for t, who, i in self.calls if who == role}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, policy_server: str) -> dict[str, Run]:
    """All methods side by side, each by its own config; then all again, without a server."""
    folder = tmp_path_factory.mktemp("methods")
    made = asyncio.run(solved(policy_server, folder))
    again = asyncio.run(solved("http://127.0.0.1:9/v1", folder))
    assert again == {name: (result, 0) for name, (result, _) in made.items()}
    return {name: recorded(result, folder / name) for name, (result, _) in made.items()}


async def solved(base_url: str, folder: Path) -> dict[str, tuple[Result, int]]:
    """The result of each method, and how many calls it made."""
    return dict(zip(SMALL, await gather_all(solve(name, base_url, folder / name) for name in SMALL), strict=True))


async def solve(name: str, base_url: str, directory: Path) -> tuple[Result, int]:
    settings = composed(
        *("experiment=miniature", f"model.name={NAME}", f"model.base_url={base_url}", f"model.tokenizer={POLICY}"),
        *(f"prompts={PROMPTS}", f"method={name}", *SMALL[name]),
    )
    results: list[Result] = []
    activity = Activity()
    await run([PROBLEM], settings, directory, activity=activity, on_result=results.append, replay_finished=True)
    [result] = results
    return result, activity.calls


def recorded(result: Result, directory: Path) -> Run:
    [trace] = (directory / "trace").iterdir()
    entries = list(read_calls(trace))
    keys = [entry.key.model_dump() for entry in entries]
    calls = Counter((key["iteration"], key["role"], key["index"]) for key in keys)
    systems = [m.content for entry in entries for m in entry.messages if m.role == "system"]
    return Run(result, calls, systems)


def test_majority_vote(runs: dict[str, Run]):
    done = runs["majority_vote"]
    assert done.calls == {(0, "solution", k): 1 for k in range(4)}
    assert done.solved
    assert done.result.trajectory.stop == "max_iterations"


def test_best_of_n(runs: dict[str, Run]):
    done = runs["best_of_n"]
    assert done.called("solution") == {(0, i) for i in range(4)}
    assert done.called("verification") == done.solved != set()


def test_self_refine(runs: dict[str, Run]):
    done = runs["self_refine"]
    assert done.called("solution") >= {(0, 0), (0, 1)}
    refined = [r for before, now in pairwise(done.rounds) for r in now if r.parents and not stands(before[r.index])]
    assert done.called("feedback") == {(r.iteration, r.index) for r in refined} != set()


def stands(rollout: Rollout) -> bool:
    return isinstance(rollout.solution, Solution) and rollout.solution.iteration < rollout.iteration


def test_verify_refine(runs: dict[str, Run]):
    done = runs["verify_refine"]
    assert done.called("verification") == done.solved != set()
    graded = {(r.iteration, r.index) for r in done.rounds[0] if r.grades}
    assert graded
    if done.result.trajectory.stop != "early_stop":
        assert {parent for r in done.rounds[1] for parent in r.parents} <= graded
        assert all(len(r.parents) == 1 and r.mode == "exploit" for r in done.rounds[1])


def test_pacore(runs: dict[str, Run]):
    done = runs["pacore"]
    assert done.calls == {(t, "solution", i): 1 for t, width in enumerate((3, 2, 1)) for i in range(width)}
    assert [len(rollouts) for rollouts in done.rounds] == [3, 2, 1]
    assert {r.mode for r in done.rounds[1]} == {"exploit"}


def test_rse(runs: dict[str, Run]):
    done = runs["rse"]
    assert done.called("solution") == {(t, i) for t in range(2) for i in range(2)}
    assert done.called("distill") == {(t, i) for t, i in done.solved if t == 0} != set()
    bank = done.result.trajectory.iterations[0].experiences
    assert bank
    assert {r.mode for r in done.rounds[1]} == {"exploit"}
    assert len(done.systems) == 2
    assert all(item.statement in system for item in bank for system in done.systems)


def test_rsa(runs: dict[str, Run]):
    done = runs["rsa"]
    assert done.called("solution") == {(t, i) for t in range(2) for i in range(2)}
    assert all({*r.parents} == done.solved & {(0, 0), (0, 1)} for r in done.rounds[1])


def test_genselect(runs: dict[str, Run]):
    done = runs["genselect"]
    assert done.called("solution") == {(0, i) for i in range(4)}
    assert done.called("comparison") != set()
    assert done.result.trajectory.selected is not None


ANSWERS = ["12", "12.0", r"\frac{24}{2}", "13", "all odd n"]


async def test_a_real_judge_gives_verdicts_that_can_be_read_and_are_kept(tmp_path: Path, policy_server: str):
    run = write_run(tmp_path / "run", [prediction("p", "12", [iteration([candidate(a) for a in ANSWERS], "12")])])
    judge = JudgeSettings.model_validate(
        {"name": NAME, "base_url": policy_server, "passes": 3, "sampling": {"max_tokens": 300}}
    )
    [evaluation] = await evaluate(EvaluateSettings(runs=(run,), judge=judge))
    found = evaluation.model_dump(mode="json")
    assert_judged(found, run)
    no_server = judge.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
    [later] = await evaluate(EvaluateSettings(runs=(run,), judge=no_server))  # the server is gone, the verdicts are not
    again = later.model_dump(mode="json")
    assert again["verdicts"]["judge"] | {"failed": {}} == found["verdicts"]["judge"] | {"failed": {}}


def assert_judged(found: dict[str, Any], run: Path) -> None:
    """The model is too small to judge well: what is tested is that its verdicts come and are of the right form."""
    counts = found["verdicts"]["judge"]
    given = counts["equivalent"] + counts["different"]
    assert counts["not_asked"] == 1  # the gold answer itself
    assert given + sum(counts["failed"].values()) == 3 * (len(ANSWERS) - 1)
    assert counts["failed"].keys() <= {"judge"}  # a text that rambles on is cut short; what ends is always valid
    assert given >= 6
    lines = list(read_lines(run / "judgements.jsonl"))
    assert {line["verdict"] for line in lines} <= {"equivalent", "different", None}
    assert orjson.loads((run / "evaluation.json").read_bytes()) == found
