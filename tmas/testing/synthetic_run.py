"""Creates a run of any size without a model.

The real methods run on seeded random texts, and the real trace code records them.

``python -m tmas.testing.synthetic_run FOLDER --problems 100 --reasoning 20000`` creates a run of the published size.
The probability of a correct candidate depends on the problem and grows over the iterations. Grades follow correctness,
with errors. Some replies are truncated, cannot be parsed, or are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tmas.agents.packing import Prompt
from tmas.answers.checker import AnswerChecker
from tmas.methods import METHODS, MethodSettings
from tmas.methods.tmas import TMASSettings
from tmas.prompts import BUILT_IN
from tmas.records import (
    CallKey,
    Completion,
    Failure,
    FailureReason,
    Problem,
    Reply,
    Request,
    Result,
    Sampling,
    Usage,
    UsageEntry,
)
from tmas.run.directory import RunDirectory
from tmas.run.results import failure_lines, prediction_line, verdicts
from tmas.run.runner import write_metrics
from tmas.run.trace import Trace, trace_path
from tmas.settings import ModelSettings, RunSettings

WORDS = (
    "the of that we is a in to and by for with this let hence since then value bound each case modulo residue "
    "prime divides exactly sequence function polynomial degree root integer real positive triangle circle tangent "
    "angle midpoint parallel ratio sum product maximum minimum inequality equality holds induction hypothesis "
    "step base invariant parity coloring graph vertex edge cycle path matching counting bijection generating "
    "coefficient matrix rank linear convex smooth substitution symmetric homogeneous expand factor bounded "
    "monotone limit converges assume contrary contradiction therefore follows previous lemma claim verify check "
    "directly remains only possible small cases pattern suggests general "
)
FORMULAS = (
    "$a_{{{0}}} \\equiv {1} \\pmod{{{2}}}$",
    "$\\frac{{{0}}}{{{1}}} + \\sqrt{{{2}}}$",
    "$\\sum_{{k=1}}^{{{0}}} k^{{{1}}} = {2}$",
    "$x^{{{0}}} - {1}x + {2} = 0$",
    "\\(\\gcd({0}, {1}) = {2}\\)",
    "$n \\ge {0}$",
    "\n\n$$\\prod_{{p \\mid {0}}} \\left(1 - \\frac{{{1}}}{{p^{{{2}}}}}\\right)$$\n\n",
)


class Writer:
    """Writes the replies of all agents.

    ``ability``: log-odds of a correct candidate in iteration 0, on a problem of average difficulty. ``gain``: their
    increase over the iterations. ``reasoning``: median length of the reasoning of a completion, in characters.
    """

    def __init__(self, seed: int, ability: float = -0.6, gain: float = 1.2, reasoning: int = 400) -> None:
        self.seed, self.ability, self.gain, self.reasoning = seed, ability, gain, reasoning

    def reply(self, problem: Problem, key: CallKey, prompt: str, n: int) -> Reply | Failure:
        """The outcome of a call, a function of the seed and the arguments."""
        dice = random.Random(f"{self.seed}/{key}")
        if dice.random() < 0.003:
            return Failure(reason=FailureReason.TIMEOUT, message="the stream made no progress for 600 s", key=key)
        completions = tuple(self._completion(problem, key, prompt, dice) for _ in range(n))
        written = sum(len(c.text) + len(c.reasoning or "") for c in completions) // 4
        usage = Usage(calls=1, prompt_tokens=len(prompt) // 4, completion_tokens=written, seconds=written / 60)
        return Reply(completions=completions, usage=usage)

    def _completion(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> Completion:
        text = getattr(self, f"_{key.role}")(problem, key, prompt, dice)
        reasoning = _prose(dice, int(self.reasoning * dice.lognormvariate(0, 0.5)))
        if dice.random() < 0.02:
            return Completion(text="", reasoning=reasoning, thinking="server", finish_reason="length")
        return Completion(text=text, reasoning=reasoning, thinking="server")

    def _solution(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> str:
        hard = random.Random(f"{self.seed}/{problem.problem_id}").gauss(0, 1.6)
        explores = "different in substance" in prompt  # words of the solution prompt with guidelines
        advantage = self.gain * (1 - math.exp(-key.iteration / 5)) - 0.8 * explores
        right = dice.random() < 1 / (1 + math.exp(hard - self.ability - advantage))
        answer = problem.answer if right else str(int(problem.answer or 0) + dice.choice((1, 1, 2, 7)))
        steps = [f"## Step {i}\n\n{_prose(dice, 450)}" for i in range(1, dice.randint(3, 7))]
        return "\n\n".join([*steps, f"**Final answer.** \\boxed{{{answer}}}"])

    def _verification(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> str:
        right = f"\\boxed{{{problem.answer}}}" in prompt
        grade = dice.choices(("1", "0.5", "0"), (80, 12, 8) if right else (22, 23, 55))[0]
        if dice.random() < 0.01:
            return "I cannot decide this."
        checks = [f"{i}. {_prose(dice, 250)}" for i in range(1, dice.randint(3, 6))]
        return "\n".join([*checks, f"Based on my evaluation, the final grade is: \\boxed{{{grade}}}"])

    def _summary(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> str:
        return _prose(dice, 1200)

    def _feedback(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> str:
        found = _prose(dice, 300)
        rewritten = f"# Rewritten solution\n\n{self._solution(problem, key, prompt, dice)}"
        return f"{found}\n\n{rewritten if dice.random() < 0.7 else 'It is correct.'}"

    def _comparison(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> str:
        shown = re.split(r"^Solution \d+:$", prompt, flags=re.MULTILINE)[1:]
        weights = [4 if f"\\boxed{{{problem.answer}}}" in text else 1 for text in shown]
        return f"{_prose(dice, 600)}\n\nJudgment: {dice.choices(range(len(shown)), weights)[0]}"

    def _distill(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> str:
        lists = ("verified_propositions", "critical_pitfalls")
        return json.dumps({name: [_prose(dice, 120) for _ in range(dice.randint(0, 2))] for name in lists})

    def _experience(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> str:
        new = [{"kind": dice.choice(("conclusion", "pitfall")), "statement": _prose(dice, 160), "rollouts": [i]}
               for i in range(dice.randint(1, 4))]  # fmt: skip
        return self._bank_reply(new, "statement", "E", prompt, dice)

    def _guideline(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> str:
        new = [{"name": _prose(dice, 20), "description": _prose(dice, 120), "rollouts": [i]}
               for i in range(dice.randint(0, 2))]  # fmt: skip
        return self._bank_reply(new, "description", "G", prompt, dice)

    @staticmethod
    def _bank_reply(new: list[dict[str, Any]], field: str, prefix: str, prompt: str, dice: random.Random) -> str:
        known = re.findall(rf"\[({prefix}\d+), support", prompt)
        updates = []
        for item_id in dice.sample(known, min(len(known), 4)):
            action = dice.choices(("confirm", "correct", "drop"), (70, 20, 10))[0]
            updates.append({"id": item_id, "action": action, field: _prose(dice, 140) if action == "correct" else ""})
        return json.dumps({"new": new, "updates": updates})


def _prose(dice: random.Random, length: int) -> str:
    """About ``length`` characters of sentences with formulas."""
    parts: list[str] = []
    size = 0
    while size < length:
        words = dice.choices(WORDS.split(), k=dice.randint(4, 11))
        formula = dice.choice(FORMULAS).format(*(dice.randrange(1, 10 ** dice.randint(1, 5)) for _ in range(3)))
        parts.append(f"{' '.join(words).capitalize()} {formula}.")
        size += len(parts[-1]) + 1
    return " ".join(parts)


class SyntheticSession:
    """Implements :class:`tmas.agents.base.Session`. The writer answers every call, and the trace records it."""

    stopped = None
    prompts = BUILT_IN

    def __init__(self, problem: Problem, trace: Trace, writer: Writer) -> None:
        self.problem, self.trace, self.writer = problem, trace, writer
        self._usage: dict[tuple[str, int], Usage] = {}

    @property
    def usage(self) -> tuple[UsageEntry, ...]:
        return tuple(UsageEntry(role=role, iteration=t, usage=u) for (role, t), u in sorted(self._usage.items()))

    def shown_items(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        return prompt.shown

    def draw(self, name: str) -> float:
        return random.Random(f"{self.writer.seed}/{self.problem.problem_id}/{name}").random()

    def window(self, role: str) -> SyntheticSession:
        return self

    def fits(self, prompt: str) -> bool:
        return True

    def count(self, text: str) -> int:
        return len(text) // 4

    async def decide(self, name: str, compute: Callable[[], Awaitable[Any]], output: type[Any]) -> Any:
        value = await compute()
        self.trace.record_decision(name, value.model_dump(mode="json"))
        return value

    async def share_allows(self, iteration: int, stalled: int) -> bool:
        return True

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure:
        outcome = self.writer.reply(self.problem, key, prompt.text, n)
        request = Request(model="synthetic", messages=prompt.messages, sampling=Sampling(), n=n, seed=self.writer.seed)
        await self.trace.add(key, request, outcome)
        if isinstance(outcome, Reply):
            cell = (key.role, key.iteration)
            self._usage[cell] = self._usage.get(cell, Usage()) + outcome.usage
        return outcome


def problems(count: int) -> list[Problem]:
    """Questions with formulas and integer answers."""
    dice = random.Random(count)
    return [
        Problem(problem_id=f"synthetic-{i:03}", question=_prose(dice, 220), answer=str(dice.randrange(1000)))
        for i in range(count)
    ]


async def make(folder: Path, tasks: Sequence[Problem], method: MethodSettings, writer: Writer) -> Path:
    """Solve ``tasks`` one after the other into the run directory ``folder``."""
    model = ModelSettings(name="synthetic", base_url="http://127.0.0.1:9/v1")
    settings = RunSettings(model=model, method=method, seed=writer.seed)
    terms = settings.terms()
    async with AnswerChecker() as checker:
        with closing(RunDirectory(folder, settings.identity(), tasks)) as directory:
            for problem in tasks:
                with closing(Trace(trace_path(directory.path, problem.problem_id))) as trace:
                    session = SyntheticSession(problem, trace, writer)
                    trajectory = await METHODS[method.name](method, checker).solve(problem, session)
                failures = tuple(f for iteration in trajectory.iterations for f in iteration.all_failures)
                result = Result(
                    problem=problem, method=method.name, trajectory=trajectory, usage=session.usage, failures=failures
                )
                directory.append("failures.jsonl", failure_lines(result))
                directory.append("predictions.jsonl", [prediction_line(result, terms, await verdicts(result, checker))])
            write_metrics(directory)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in {"problems": 10, "iterations": 20, "candidates": 8, "verifications": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--reasoning", type=int, default=400, help="median characters of reasoning per completion")
    parser.add_argument("--epsilon", type=float, default=0.2)
    parser.add_argument("--ability", type=float, default=-0.6)
    parser.add_argument("--gain", type=float, default=1.2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    method = TMASSettings(
        n_candidates=given.candidates,
        n_verifications=given.verifications,
        max_iterations=given.iterations,
        epsilon=given.epsilon,
    )
    writer = Writer(given.seed, given.ability, given.gain, given.reasoning)
    asyncio.run(make(given.folder, problems(given.problems), method, writer))


if __name__ == "__main__":
    main()
