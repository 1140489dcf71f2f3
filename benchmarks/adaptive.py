"""What each part of adaptive TMAS saves and costs, with the miniature's teacher and noise in the verifier's grades.

``python -m benchmarks.adaptive`` solves validation problems of the miniature with fixed TMAS, adaptive TMAS, and
adaptive TMAS without one of its parts. The rule-based teacher plays all roles in memory. Tokens are counted by the
tokenizer of the shipped policy with its prompts, as a server counts them: each call's prompt once, and each completion.
The table shows the share of problems whose selected answer is right, the mean tokens and calls per problem, and the
tokens relative to fixed TMAS. Brackets: the paired difference in accuracy to fixed TMAS, with a 95 % interval.

``--split test`` takes the problems of docs/miniature.md. The settings were chosen without them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tokenizers import Tokenizer

from recipes.adaptive.noise import with_flipped_grade
from recipes.miniature.language import answer, question
from recipes.miniature.task import Task
from recipes.miniature.teacher import Teacher
from tmas.agents.packing import Prompt
from tmas.answers.checker import AnswerChecker
from tmas.cli.main import register_resolvers
from tmas.evaluation.estimators import BootstrapSettings, estimate
from tmas.evaluation.intervals import DIFFERENCE
from tmas.llm.thinking import split_thinking
from tmas.methods.tmas import TMAS, TMASSettings
from tmas.miniature import POLICY, PROMPTS
from tmas.prompts import Prompts
from tmas.records import CallKey, Problem, Reply, Usage
from tmas.run.session import keyed_hash

SIZE = [
    *("method.n_candidates=8", "method.n_verifications=8", "method.max_iterations=8", "method.epsilon=0.25"),
    "method.agents.max_new_items=16",
]
ADAPTIVE = "method=tmas_adaptive"
VARIANTS = {
    "fixed": ["method=tmas"],
    "adaptive": [ADAPTIVE],
    "T = 16": [ADAPTIVE, "method.max_iterations=16"],
    "no rounds": [ADAPTIVE, "method.verification.round_size=8"],
    "no acceptance": [ADAPTIVE, "method.early_stop=none"],
    "N fixed": [ADAPTIVE, "method.allocation.least_candidates=8"],
    "epsilon fixed": [ADAPTIVE, "method.allocation.most_epsilon=0"],
    "new answers": [ADAPTIVE, "method.allocation.progress=grade_or_answer", "method.allocation.stalled_after=3"],
    "unanimous": ["method=tmas", "method.early_stop=unanimous"],
}
"""The settings of each variant, as words of the command line."""
TOKENIZER = Tokenizer.from_file(str(POLICY / "tokenizer.json"))
TASK = Task()
CONF = Path(__file__).parents[1] / "conf"


class NoisyTeacher:
    """Implements :class:`tmas.agents.base.Session` and the window of every role.

    ``rate``: share of the verifier's grades that are flipped. ``tokens``: number of tokens of all calls so far.
    """

    stopped = None
    prompts = Prompts.load(PROMPTS)

    def __init__(self, problem: Problem, seed: int, rate: float) -> None:
        self._problem, self._seed, self._rate = problem, seed, rate
        self.tokens = self.calls = 0

    def shown_items(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        return prompt.shown

    def draw(self, name: str) -> float:
        return keyed_hash(self._seed, self._problem.problem_id, name) / 2**56

    def window(self, role: str) -> NoisyTeacher:
        return self

    def fits(self, prompt: str) -> bool:
        return True

    def count(self, text: str) -> int:
        return len(TOKENIZER.encode(text).ids)

    async def decide(self, name: str, compute: Callable[[], Awaitable[Any]], output: type[Any]) -> Any:
        return await compute()

    async def share_allows(self, iteration: int, stalled: int) -> bool:
        return True

    async def ask(self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None) -> Reply:
        draws = [random.Random(f"{self._seed}/{key}/{choice}") for choice in range(n)]
        texts = [Teacher(TASK, draw).reply(prompt.content) for draw in draws]
        self.calls += n
        self.tokens += self.count(prompt.content) + sum(map(self.count, texts))
        if key.role == "verification":
            texts = [with_flipped_grade(text, f"{self._seed}/{key}", i, self._rate) for i, text in enumerate(texts)]
        return Reply(completions=tuple(split_thinking(text, "") for text in texts), usage=Usage(calls=1))


class Outcome(NamedTuple):
    """The outcome of one problem: whether the selected answer is right, its tokens, completions and iterations."""

    right: bool
    tokens: int
    calls: int
    iterations: int


def settings_of(words: Sequence[str], size: Sequence[str] = ()) -> TMASSettings:
    """The settings that the command line would compose."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("solve", overrides=[*size, *words])
    return TMASSettings.model_validate(OmegaConf.to_container(config.method, resolve=True))


async def solve(settings: TMASSettings, problem: Problem, seed: int, rate: float) -> Outcome:
    session = NoisyTeacher(problem, seed, rate)
    trajectory = await TMAS(settings, AnswerChecker()).solve(problem, session)
    chosen = trajectory.selected
    right = chosen is not None and chosen.answer == problem.answer
    return Outcome(right, session.tokens, session.calls, len(trajectory.iterations))


def measure(settings: TMASSettings, problems: Sequence[Problem], seed: int, rate: float) -> list[Outcome]:
    """The outcome of each problem."""

    async def run() -> list[Outcome]:
        return [await solve(settings, problem, seed, rate) for problem in problems]

    return asyncio.run(run())


def row(name: str, found: Sequence[Sequence[Outcome]], fixed: Sequence[Sequence[Outcome]]) -> str:
    """A line of the table: means over problems and seeds, and the paired difference to ``fixed``.

    Both hold one sequence per problem, with an outcome for each seed. The interval is over problems: the value of a
    problem is its mean over the seeds.
    """
    outcomes = [outcome for by_seed in found for outcome in by_seed]
    tokens = fmean(o.tokens for o in outcomes)
    relative = tokens / fmean(o.tokens for by_seed in fixed for o in by_seed)
    gains = [fmean(o.right for o in a) - fmean(o.right for o in b) for a, b in zip(found, fixed, strict=True)]
    gain = estimate(gains, BootstrapSettings(), DIFFERENCE)
    interval = f"[{100 * (gain.low or 0):+.1f}, {100 * (gain.high or 0):+.1f}]" if any(gains) else "[0, 0]"
    right, calls, rounds = (fmean(getattr(o, field) for o in outcomes) for field in ("right", "calls", "iterations"))
    return f"{name:>14}  {right:>6.1%} {interval:>15}  {tokens:>8,.0f} {relative:>6.1%}  {calls:>6,.0f} {rounds:>5.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds: 0, 1, ...")
    parser.add_argument(
        "--processes", type=int, default=None, help="number of processes; defaults to the number of cores"
    )
    parser.add_argument("--split", choices=["train", "validation", "test"], default="validation")
    parser.add_argument("--rates", type=float, nargs="+", default=[0, 0.05, 0.2], help="noise in the grades")
    parser.add_argument("--variants", nargs="+", default=[*VARIANTS], choices=VARIANTS)
    parser.add_argument("--settings", nargs="*", default=[], help="further settings of all variants but fixed")
    arguments = parser.parse_args()
    problems = [
        Problem(problem_id=f"{arguments.split}-{n}", question=question(blocks), answer=answer(gold))
        for n, (blocks, gold) in enumerate(islice(TASK.problems(arguments.split, 0), arguments.problems))
    ]
    variants: Mapping[str, TMASSettings] = {
        name: settings_of([*VARIANTS[name], *(arguments.settings if name != "fixed" else [])], SIZE)
        for name in dict.fromkeys(["fixed", *arguments.variants])
    }
    seeds = range(arguments.seeds)
    print(f"{len(problems)} problems of {arguments.split}, seeds {', '.join(map(str, seeds))}")
    print(f"{'':>14}  {'right':>6} {'to fixed':>15}  {'tokens':>8} {'':>6}  {'calls':>6} {'it':>5}", flush=True)
    fixed: dict[float, list[tuple[Outcome, ...]]] = {}
    with ProcessPoolExecutor(arguments.processes) as pool:
        measured = {
            (rate, name): [pool.submit(measure, settings, problems, seed, rate) for seed in seeds]
            for rate in arguments.rates
            for name, settings in variants.items()
        }
        for (rate, name), futures in measured.items():
            found = list(zip(*(future.result() for future in futures), strict=True))
            if name == "fixed":  # the first variant of each rate
                fixed[rate] = found
                print(f"noise {rate:.0%}")
            print(row(name, found, fixed[rate]), flush=True)


if __name__ == "__main__":
    main()
