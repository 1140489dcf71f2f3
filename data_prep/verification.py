"""Chooses the candidates of the ``verification`` rows from recorded runs: right and wrong ones in equal numbers.

The rows come in pairs of a right and a wrong candidate of the same problem. So neither the problem nor its difficulty
tells the policy which grade is right. The pairs are spread over the problems' pass rates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pydantic import Field

from tmas.agents.packing import Window
from tmas.agents.settings import AgentSettings
from tmas.data_prep.reports import VerificationBin
from tmas.evaluation.judgements import recorded_majorities
from tmas.prompts import Prompts
from tmas.records import Failure, Solution
from tmas.records.run_files import PredictedCandidate
from tmas.rewards.verification import VerificationTruth
from tmas.run.replay import RecordedRun
from tmas.run.session import keyed_hash
from tmas.settings import Settings
from tmas.training.contexts import TrainingProblem, verification_row
from tmas.training.rows import UNKNOWN_PASS_RATE, TrainingRow


class VerificationRowSettings(Settings):
    """Which candidates of recorded runs become rows that ask for a verification."""

    runs: tuple[Path, ...] | None = Field(
        default=None,
        description="Run directories, of any method, whose candidates are verified: best those of the policy, because"
        " it will read its own candidates. null: the run that gives the other rows.",
    )
    per_problem: int = Field(
        default=4,
        ge=2,
        description="Maximum number of verification rows from one problem. Half of them show right candidates.",
    )
    bins: int = Field(
        default=4,
        ge=1,
        description="Number of ranges of pass rates, of equal width. Each gives the same number of verification rows,"
        " if its problems suffice. 1: the pass rate plays no part.",
    )


class _Candidate(NamedTuple):
    """A candidate whose final answer is known to be right or wrong. ``agents``: the settings of its run."""

    iteration: int
    truth: VerificationTruth
    agents: AgentSettings


class VerificationRows:
    """Makes pairs of rows: one shows a right candidate of a problem, one a wrong candidate of the same problem.

    ``left_out``: number of candidates that were left out, by reason.
    """

    def __init__(self, runs: Sequence[RecordedRun], settings: VerificationRowSettings, seed: int) -> None:
        self.runs, self.settings, self._seed = runs, settings, seed
        self.left_out: Counter[str] = Counter()

    @cached_property
    def _judged(self) -> dict[Path, dict[tuple[str, str], bool | None]]:
        """The recorded verdicts of each run."""
        return {run.path: recorded_majorities(run.path / "judgements.jsonl") for run in self.runs}

    def rows(
        self, problems: Iterable[TrainingProblem], wanted: int, window: Window, prompts: Prompts
    ) -> tuple[list[TrainingRow], list[VerificationBin]]:
        """Make up to ``wanted`` rows in pairs, and count them by pass rate.

        The next problem is always from the bin with the fewest rows. ``window``: the room for a prompt. ``prompts``:
        render the prompts, as in inference.
        """
        if wanted < 2:
            return [], []
        queues = self._by_bin(problems)
        found: list[list[TrainingRow]] = [[] for _ in queues]
        while any(queues) and (missing := wanted - sum(map(len, found))) > 1:
            index = min((n for n, queue in enumerate(queues) if queue), key=lambda n: len(found[n]))
            limit = min(self.settings.per_problem, missing) // 2
            for pair in islice(self._pairs(queues[index].pop(0), window, prompts), limit):
                found[index] += pair
        return [row for rows in found for row in rows], [_counted(n, found) for n in range(len(found))]

    def _by_bin(self, problems: Iterable[TrainingProblem]) -> list[list[TrainingProblem]]:
        """The problems that a run finished, by pass rate, in random order."""
        queues: list[list[TrainingProblem]] = [[] for _ in range(self.settings.bins)]
        known = [problem for problem in problems if any(problem.problem_id in run.problem_ids for run in self.runs)]
        for problem in sorted(known, key=lambda p: keyed_hash(self._seed, p.problem_id, "order of verifications")):
            rate = self._pass_rate(problem)
            queues[min(int(rate * self.settings.bins), self.settings.bins - 1)].append(problem)
        return queues

    def _pass_rate(self, problem: TrainingProblem) -> float:
        """The policy's pass rate; if it was not measured, the share of right candidates in the runs."""
        if problem.baseline_pass_rate != UNKNOWN_PASS_RATE:
            return problem.baseline_pass_rate
        runs = [run for run in self.runs if problem.problem_id in run.problem_ids]
        iterations = [iteration for run in runs for iteration in run.prediction(problem.problem_id).iterations]
        return fmean([c.correct == "equal" for i in iterations for c in i.candidates] or [0.0])

    def _pairs(
        self, problem: TrainingProblem, window: Window, prompts: Prompts
    ) -> Iterator[tuple[TrainingRow, TrainingRow]]:
        """Yield pairs of rows: one with a right, one with a wrong candidate of ``problem``, drawn at random.

        No candidate is in two pairs.
        """
        candidates = [c for run in self.runs if problem.problem_id in run.problem_ids for c in self._of(run, problem)]
        by_text = {candidate.truth.candidate: candidate for candidate in candidates}
        self.left_out["same text"] += len(candidates) - len(by_text)
        drawn = sorted(
            by_text.values(), key=lambda c: keyed_hash(self._seed, problem.problem_id, f"verify {c.truth.candidate}")
        )
        make = partial(self._made, problem, window, prompts)
        right = make(c for c in drawn if c.truth.right)
        wrong = make(c for c in drawn if not c.truth.right)
        yield from zip(right, wrong, strict=False)

    def _of(self, run: RecordedRun, problem: TrainingProblem) -> Iterator[_Candidate]:
        """Yield the candidates of ``problem`` in ``run`` that are known to be right or wrong."""
        prediction = run.prediction(problem.problem_id)
        agents = AgentSettings.model_validate(prediction.terms.method.get("agents", {}))
        judged = self._judged[run.path]
        for replayed, scored in zip(run.trajectory(problem).iterations, prediction.iterations, strict=True):
            for rollout, candidate in zip(replayed.rollouts, scored.candidates, strict=True):
                if not isinstance(rollout.solution, Solution):
                    continue
                right = is_right(candidate, problem.answer, judged)
                if right is None:
                    self.left_out["no answer" if candidate.answer is None else "undecided"] += 1
                    continue
                truth = VerificationTruth(right=right, gold=problem.answer, candidate=rollout.solution.text)
                yield _Candidate(scored.iteration, truth, agents)

    def _made(
        self, problem: TrainingProblem, window: Window, prompts: Prompts, candidates: Iterable[_Candidate]
    ) -> Iterator[TrainingRow]:
        for iteration, truth, agents in candidates:
            row = verification_row(problem, iteration, truth, window, agents, prompts)
            if isinstance(row, Failure):
                self.left_out[row.reason.value] += 1
            else:
                yield row


def _counted(index: int, found: Sequence[Sequence[TrainingRow]]) -> VerificationBin:
    labels = Counter(row.truth.label for row in found[index] if row.truth)
    return VerificationBin(
        low=index / len(found),
        high=(index + 1) / len(found),
        problems=len({row.extra_info.problem_id for row in found[index]}),
        right=labels["right"],
        wrong=labels["wrong"],
    )


def is_right(candidate: PredictedCandidate, gold: str, judged: Mapping[tuple[str, str], bool | None]) -> bool | None:
    """Whether the candidate's answer is right; None if it has none, or if nobody decided.

    ``judged``: the majority of a judge's recorded verdicts by gold answer and answer. It decides where the rule does
    not. If the rule and the judge contradict each other, nobody has decided.
    """
    if candidate.answer is None:
        return None
    rule = {"equal": True, "different": False}.get(candidate.correct or "")
    judge = judged.get((gold, candidate.answer))
    if rule is None or judge is None:
        return judge if rule is None else rule
    return rule if rule == judge else None
