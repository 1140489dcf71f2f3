"""Verify-Refine (DeepSeekMath-V2, arXiv 2511.22570): keep a pool of graded candidates and rewrite the best ones.

1. The model writes N candidates from the bare problem. Each ends with a self-evaluation and its own grade.
2. Each candidate gets M analyses (verifications), each with a grade of 1, 0.5 or 0. Candidates that were cut short or
   could not be graded are dropped. The others form the pool, where equal texts count once.
3. Each round takes the n best candidates of the pool by (mean grade, own grade), with ties in random order. It pairs
   each with up to 8 of its analyses, the lowest grades first and at most 4 with the same grade (8 if all have the same
   grade), and rewrites it. ``n_analyses`` and ``n_analyses_of_a_grade`` are these numbers.
4. The N rewrites are analysed and join the pool. It stops when a candidate passes all M analyses.

Published: N = 64, M = 64, n = 64, 16 rounds, temperature 1.0 and top-p 0.95; conf/method/verify_refine.yaml sets the
last two. The other defaults are those of Table 1 of TMAS. The published code has N = 128 and n = 32 by default. Each
size is a setting.

The prompts are rewritten in our own words. ``prompts=FOLDER`` with ``self_graded.jinja``, ``refinement.jinja`` and
``verification.jinja`` replaces them, for example by the originals; docs/prompts.md lists the variables and the form of
a reply.

Differences from the original:

- Each rewrite comes from one candidate, as in the published runs. The N rewrites are distributed over the n best in
  turn, so every round has N, even while the pool is smaller.
- At most 8 analyses are shown. The published code stops at 8 within a grade only, so with three grades it shows up to
  12 (``n_analyses=12``; a candidate whose analyses all have one grade then shows 12, too).
- The request for a self-evaluation has one sentence on honesty. The original has several: a faithful account of the
  remaining errors is fine, a wrong solution that is called correct is the worst reply, and cheating is penalised.
- A candidate without a self-evaluation stays in the pool, behind candidates of the same mean grade that have one. The
  original drops it, and counts a grade that cannot be parsed as 0.
- An analysis that cannot be parsed is retried; one that still fails does not count as a pass.
- Meta-verification (verifying the analyses) is off, as in the published runs.
- While the pool is empty, a round samples the bare problem again; the original gives the problem up.
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
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.concurrency import gather_all
from tmas.methods.base import Method, MethodSettings, Round
from tmas.methods.selection import SelectionSettings
from tmas.prompts.parsing import Unparsable, parse_verification
from tmas.records import Completion, Failure, Mode, Problem, Rollout, Solution, Trajectory, Verification

_SELF_EVALUATION = re.compile(
    r"^[^\w\n]*(?:\d+[.)]\s*)?(?:my\s+)?self[-\s\u2010\u2011]?evaluation\b", re.IGNORECASE | re.MULTILINE
)
_OTHER_HEADINGS = re.compile(
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
"""Matches the last line of a self-evaluation that has no heading."""
_MAX_HEADINGS = 8
"""Maximum number of headings that are tried, from the last one backwards."""


class VerifyRefineSettings(MethodSettings, frozen=True):
    """Settings of Verify-Refine; defaults as in Table 1 of TMAS."""

    roles = ("solution", "verification")

    name: Literal["verify_refine"] = Field(default="verify_refine", description="the method")
    n_candidates: int = Field(
        default=8, ge=1, description="N: candidates of the first round, and rewrites of every later round"
    )
    n_verifications: int = Field(default=8, ge=1, description="M: analyses of each candidate")
    n_best: int = Field(default=8, ge=1, description="n: best candidates of the pool, which a round rewrites")
    n_analyses: int = Field(
        default=8, ge=1, description="maximum number of analyses that the prompt for a rewrite shows"
    )
    n_analyses_of_a_grade: int = Field(
        default=4,
        ge=1,
        description="maximum number of them with the same grade; has no effect if all analyses have the same grade",
    )
    max_iterations: int = Field(default=20, ge=1, description="rounds, the first included")
    agents: AgentSettings = Field(default=AgentSettings(), description="how agents are prompted and replies parsed")
    selection: SelectionSettings = Field(
        default=SelectionSettings(rule="grade"), description="how the final answer is selected"
    )


class VerifyRefine(Method[VerifyRefineSettings]):
    """Keeps a pool of graded candidates and rewrites its best."""

    settings_type = VerifyRefineSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        prover = Prover(Team(problem, session, self.settings.agents))
        rounds: list[Round] = []
        passed = False
        while self.continues(session, t := len(rounds)) and not passed:
            tasks = self._tasks(prover, rounds)
            rollouts = await gather_all(self._rollout(prover, t, i, tasks) for i in range(self.settings.n_candidates))
            rounds.append(tuple(rollouts))
            self.report(t, rounds[-1])
            passed = any(rollout.passes for rollout in rounds[-1])
        return await self.trajectory(session, rounds, passed)

    def _tasks(self, prover: Prover, rounds: Sequence[Round]) -> list[_Task]:
        """The tasks of the next round; its candidates take them in turn."""
        t = len(rounds)
        best = best_of(prover.team.session, t, pool_of(rounds))[: self.settings.n_best]
        limits = self.settings.n_analyses, self.settings.n_analyses_of_a_grade
        shown = [paired_analyses(prover.team.session, t, rollout, *limits) for rollout in best]
        tasks = [_Task(prover.refinement_prompt(r, analyses), r) for r, analyses in zip(best, shown, strict=True)]
        return tasks or [_Task(prover.prompt())]

    async def _rollout(self, prover: Prover, t: int, i: int, tasks: Sequence[_Task]) -> Rollout:
        prompt, source = tasks[i % len(tasks)]
        parents = ((source.iteration, source.index),) if source else ()
        rollout = await prover.solution(t, i, "exploit" if source else "initial", prompt, parents)
        return await prover.team.verification(rollout, self.settings.n_verifications)


class _Task(NamedTuple):
    """A prompt for a candidate. ``source``: the candidate that it rewrites; None if it asks for a new one."""

    prompt: Prompt | Failure
    source: Rollout | None = None


def pool_of(rounds: Sequence[Round]) -> list[Rollout]:
    """All graded candidates; of equal texts only the first."""
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


def paired_analyses(
    session: Session, t: int, rollout: Rollout, limit: int, limit_of_a_grade: int
) -> list[Verification]:
    """The analyses that the prompt shows for a rewrite of ``rollout`` in round ``t``: step 3 of the module.

    ``limit``: maximum number of analyses. ``limit_of_a_grade``: the same for one grade, unless all have the same grade.
    """
    analyses = [v for v in rollout.verifications if isinstance(v, Verification)]
    drawn = shuffled(session, f"analyses/{t}/{rollout.iteration}/{rollout.index}", analyses)
    by_grade = [list(group) for _, group in groupby(sorted(drawn, key=_grade), key=_grade)]
    of_a_grade = limit if len(by_grade) == 1 else limit_of_a_grade
    return [analysis for group in by_grade for analysis in group[:of_a_grade]][:limit]


def _grade(analysis: Verification) -> float:
    return analysis.grade


class Prover:
    """Writes candidates that grade themselves, and rewrites them."""

    def __init__(self, team: Team) -> None:
        self.team = team

    def prompt(self) -> Prompt | Failure:
        """The bare problem, with a request for a self-evaluation."""
        return self.team.pack("solution", lambda _: self.team.render("self_graded"))

    def refinement_prompt(self, rollout: Rollout, shown: Sequence[Verification]) -> Prompt | Failure:
        """The candidate with the analyses ``shown``.

        If it is too long, analyses are left out, the last first; then the first analysis and the solution are cut.
        """
        assert isinstance(rollout.solution, Solution)
        solution = rollout.solution.text
        analyses = {f"analysis {v.index}": graded(v) for v in shown}

        def prompt(texts: Mapping[str, str]) -> str:
            remaining = [texts[name] for name in analyses if texts[name]]
            return self.team.render("refinement", solution=texts["solution"], analyses=remaining)

        first, *others = analyses
        steps = [(name, replace_by("")) for name in reversed(others)]
        steps += [(first, cut_middle(analyses[first])), ("solution", cut_middle(solution))]
        return self.team.pack("solution", prompt, {"solution": solution, **analyses}, steps)

    async def solution(
        self, t: int, i: int, mode: Mode, prompt: Prompt | Failure, parents: tuple[tuple[int, int], ...]
    ) -> Rollout:
        """One candidate, without its self-evaluation."""
        return await self.team.solution(t, i, mode, prompt, parents, parse=self.parse_candidate)

    def parse_candidate(self, iteration: int, index: int, mode: Mode, completion: Completion) -> Solution:
        """The solution without its self-evaluation, but with the grade in it, which is never taken for the answer."""
        text, evaluation = _split_reply(completion.text)
        if not text.strip():
            raise Unparsable("a self-evaluation without a solution")
        solution = self.team.parse_solution(
            iteration, index, mode, completion.model_copy(update={"text": text.strip()})
        )
        return solution.model_copy(update={"own_grade": _own_grade(evaluation)})


def _split_reply(text: str) -> tuple[str, str]:
    """Split a reply into solution and self-evaluation.

    Without a heading, the solution ends before the line with the grade, and the self-evaluation is the whole text.
    """
    if heading := _heading(text):
        return text[: heading.start()], text[heading.end() :]
    *_, last = (None, *_GRADED_ITSELF.finditer(text))
    return (text[: last.start()], text) if last else (text, "")


def _heading(text: str) -> re.Match[str] | None:
    """The heading at which the self-evaluation begins.

    It is the last heading of the form asked for that a grade follows; if no grade follows any of them, the last one.
    Without such a heading, it is the last of ``_OTHER_HEADINGS`` that the word "grade" or "score" and a grade follow.
    """
    asked_for = [*_SELF_EVALUATION.finditer(text)][-_MAX_HEADINGS:]
    for heading in reversed(asked_for):
        if _own_grade(text[heading.end() :]) is not None:
            return heading
    if asked_for:
        return asked_for[-1]
    for heading in reversed([*_OTHER_HEADINGS.finditer(text)][-_MAX_HEADINGS:]):
        rest = text[heading.end() :]
        if re.search(r"(?i)\b(?:grade|score)\b", rest) and _own_grade(rest) is not None:
            return heading
    return None


def _own_grade(evaluation: str) -> float | None:
    try:
        return parse_verification(evaluation).grade
    except Unparsable:
        return None
