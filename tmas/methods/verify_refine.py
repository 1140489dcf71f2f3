"""Verify-Refine (DeepSeekMath-V2, arXiv 2511.22570): a pool of graded candidates, whose best are rewritten.

1. N candidates from the bare problem; each ends with a self-evaluation and its own grade.
2. M analyses of each, graded 1, 0.5 or 0. Candidates that were cut short or could not be graded are dropped; the
   others form the pool, a text only once.
3. Each round takes the n best of the pool by (mean grade, own grade), ties shuffled; pairs each with up to 8 of its
   analyses, those that found faults first, at most 4 of a grade unless all have the same; and rewrites it.
4. The N rewrites are analysed and join the pool, with their parents. It stops when one passes all M analyses.

Published: N = 64, M = 64, n = 64, 16 rounds, temperature 1.0 and top-p 0.95 (the last two are set by
conf/method/verify_refine.yaml). The defaults are those of Table 1 of TMAS.

Different here, and why:

- Each rewrite is made of one candidate, as in the published runs. N rewrites are shared out over the n best in turn,
  so that a round always has N, also while the pool is smaller.
- Without the self-evaluation a candidate stands, with no own grade, behind those of the same mean grade that have
  one. The original drops it, and counts a grade that cannot be read as 0.
- An analysis that cannot be read is asked for again; one that still fails is not a pass.
- Meta-verification (verifying the analyses) is off, as in the published runs.
- While the pool is empty a round samples the bare problem again; the original gives the problem up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

from pydantic import Field

from tmas.agents.base import Session, shuffled
from tmas.agents.context import graded
from tmas.agents.packing import Prompt, cut_middle, replace_by
from tmas.agents.team import Verifier, VerifierSettings
from tmas.concurrency import gather_all
from tmas.methods.base import Method, Round, Settings
from tmas.methods.selection import SelectionSettings
from tmas.prompts.parsing import Unparsable, parse_verification
from tmas.records import Completion, Failure, Mode, Problem, Rollout, Solution, Trajectory, Verification

MOST_ANALYSES, MOST_OF_A_GRADE = 8, 4
_SELF_EVALUATION = re.compile(
    r"^[^\w\n]*(?:\d+[.)]\s*)?(?:my\s+)?self[-\s\u2010\u2011]?evaluation\b", re.IGNORECASE | re.MULTILINE
)
_OTHERWISE_CALLED = re.compile(
    r"""^(?:
        [^\w\n]* (?:\d+[.)]\s*)? (?:my\s+)? self[-\s\u2010\u2011]? (?:assessment|verification|grading|check)\b
        | [ \t]* (?:\#|\*\*) [^\w\n]* (?:\d+[.)]\s*)? (?:final\s+)? (?:evaluation|assessment|grading)
          (?:\ of\ (?:the|my)\ (?:solution|proof|answer))? [^\w\n]* $
    )""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_GRADED_ITSELF = re.compile(
    r"^(?: .*\bmy\ (?:self-)?evaluation\b.{0,200}?\b(?:grade|score)\b | [^\w\n]*(?:the\ )?final\ grade\b )"
    r"(?:[^\\]|\\[\[(,;!]|\\(?:text|math)[a-z]*){0,80} \\boxed.*$",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""What a self-evaluation ends with, where it has no heading."""
_TRIED = 8
"""Headings, from the last on."""


class VerifyRefineSettings(Settings, frozen=True):
    """Defaults as in Table 1 of TMAS."""

    roles = ("solution", "verification")

    name: Literal["verify_refine"] = "verify_refine"
    n_candidates: int = Field(default=8, ge=1, description="N: candidates of the first round, rewrites of the others")
    n_verifications: int = Field(default=8, ge=1, description="M: analyses of each")
    n_best: int = Field(default=8, ge=1, description="n: candidates of the pool that a round rewrites")
    max_iterations: int = Field(default=20, ge=1, description="rounds, the first included")
    agents: VerifierSettings = VerifierSettings()
    selection: SelectionSettings = SelectionSettings(rule="grade")


class VerifyRefine(Method[VerifyRefineSettings]):
    """Keeps a pool, and rewrites its best."""

    settings_type = VerifyRefineSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        prover = Prover(problem, session, self.settings.agents)
        rounds: list[Round] = []
        passed = False
        while not self.done(session, rounds, passed):
            t, tasks = len(rounds), self._tasks(prover, rounds)
            rollouts = await gather_all(self._rollout(prover, t, i, tasks) for i in range(self.settings.n_candidates))
            rounds.append(tuple(rollouts))
            passed = any(rollout.passes for rollout in rounds[-1])
        return await self.trajectory(session, rounds, passed)

    def _tasks(self, prover: Prover, rounds: Sequence[Round]) -> list[_Task]:
        """What the candidates of the next round are written from, in turn."""
        t = len(rounds)
        best = best_of(prover.session, t, pool_of(rounds))[: self.settings.n_best]
        return [_Task(prover.refinement_prompt(t, rollout), rollout) for rollout in best] or [_Task(prover.prompt())]

    async def _rollout(self, prover: Prover, t: int, i: int, tasks: Sequence[_Task]) -> Rollout:
        prompt, source = tasks[i % len(tasks)]
        parents = ((source.iteration, source.index),) if source else ()
        rollout = await prover.solution(t, i, "exploit" if source else "initial", prompt, parents)
        return await prover.verification(rollout, self.settings.n_verifications)


class _Task(NamedTuple):
    """What a candidate is written from: a prompt, and the candidate that it rewrites."""

    prompt: Prompt | Failure
    source: Rollout | None = None


def pool_of(rounds: Sequence[Round]) -> list[Rollout]:
    """All graded candidates, of equal texts the first."""
    pool: dict[str, Rollout] = {}
    for rollout in (rollout for rollouts in rounds for rollout in rollouts):
        if isinstance(rollout.solution, Solution) and rollout.grades:
            pool.setdefault(rollout.solution.text, rollout)
    return list(pool.values())


def best_of(session: Session, t: int, pool: Sequence[Rollout]) -> list[Rollout]:
    """The pool by (mean grade, own grade), the best first; ties in an order drawn for round ``t``."""

    def grades(rollout: Rollout) -> tuple[float, float]:
        own = rollout.solution.own_grade if isinstance(rollout.solution, Solution) else None
        return rollout.mean_grade or 0.0, -1.0 if own is None else own

    return sorted(shuffled(session, f"pool/{t}", pool), key=grades, reverse=True)


def paired_analyses(session: Session, t: int, rollout: Rollout) -> list[Verification]:
    """The analyses that a rewrite of ``rollout`` in round ``t`` is shown: see the module."""
    analyses = [v for v in rollout.verifications if isinstance(v, Verification)]
    drawn = shuffled(session, f"analyses/{t}/{rollout.iteration}/{rollout.index}", analyses)
    by_grade = [list(group) for _, group in groupby(sorted(drawn, key=_grade), key=_grade)]
    most = MOST_ANALYSES if len(by_grade) == 1 else MOST_OF_A_GRADE
    return [analysis for group in by_grade for analysis in group[:most]][:MOST_ANALYSES]


def _grade(analysis: Verification) -> float:
    return analysis.grade


class Prover(Verifier[VerifierSettings]):
    """Writes candidates that grade themselves, rewrites them, and verifies them."""

    def prompt(self) -> Prompt | Failure:
        """The bare problem."""
        return self.pack("solution", lambda _: self.render("self_graded"))

    def refinement_prompt(self, t: int, rollout: Rollout) -> Prompt | Failure:
        """The candidate with its paired analyses. Too long, it loses analyses, the last first; then their middle."""
        assert isinstance(rollout.solution, Solution)
        solution = rollout.solution.text
        analyses = {f"analysis {v.index}": graded(v) for v in paired_analyses(self.session, t, rollout)}

        def prompt(texts: Mapping[str, str]) -> str:
            shown = [texts[name] for name in analyses if texts[name]]
            return self.render("refinement", solution=texts["solution"], analyses=shown)

        first, *others = analyses
        steps = [(name, replace_by("")) for name in reversed(others)]
        steps += [(first, cut_middle(analyses[first])), ("solution", cut_middle(solution))]
        return self.pack("solution", prompt, {"solution": solution, **analyses}, steps)

    def candidate(self, iteration: int, index: int, mode: Mode, completion: Completion) -> Solution:
        """The solution without its self-evaluation, and the grade in that: a grade is never its answer."""
        text, evaluation = _parted(completion.text)
        if not text.strip():
            raise Unparsable("a self-evaluation without a solution")
        solution = super().candidate(iteration, index, mode, completion.model_copy(update={"text": text.strip()}))
        return solution.model_copy(update={"own_grade": _own_grade(evaluation)})


def _parted(text: str) -> tuple[str, str]:
    """The solution, and the self-evaluation from its heading on; without one, what stands before and in its last line
    belongs to both."""
    if heading := _heading(text):
        return text[: heading.start()], text[heading.end() :]
    *_, last = (None, *_GRADED_ITSELF.finditer(text))
    return (text[: last.start()], text) if last else (text, "")


def _heading(text: str) -> re.Match[str] | None:
    """The last that a grade follows; by another name than asked for, one that says so."""
    asked_for = [*_SELF_EVALUATION.finditer(text)][-_TRIED:]
    for heading in reversed(asked_for):
        if _own_grade(text[heading.end() :]) is not None:
            return heading
    if asked_for:
        return asked_for[-1]
    for heading in reversed([*_OTHERWISE_CALLED.finditer(text)][-_TRIED:]):
        rest = text[heading.end() :]
        if re.search(r"(?i)\b(?:grade|score)\b", rest) and _own_grade(rest) is not None:
            return heading
    return None


def _own_grade(evaluation: str) -> float | None:
    try:
        return parse_verification(evaluation).grade
    except Unparsable:
        return None
