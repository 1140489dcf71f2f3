"""Self-Refine (arXiv 2303.17651), its mathematics task: write a draft, then rewrite it with the model's own feedback.

1. The model writes a draft from the bare problem.
2. In one call, the same model gives feedback on the draft and then rewrites the solution, which is the next draft. The
   next call sees only the new draft, not the feedback.
3. It stops when the feedback finds nothing to correct ("it is correct"), or after ``max_iterations``.

The original has one trajectory. Here N independent ones run, so that Pass@1 by iteration can be compared with Table 1
of TMAS. A trajectory that has stopped keeps its draft in all later iterations and makes no more calls; the problem
ends when all have stopped. conf/method/self_refine.yaml sets the published temperature of the feedback, 0.7.

The prompts are rewritten in our own words. ``prompts=FOLDER`` with ``feedback.jinja``, and ``solution.jinja`` for the
drafts, replaces them, for example by the originals; docs/prompts.md lists the variables and the form of a reply.

Differences from the original:

- Solutions are text; the original writes programs and shows examples. A heading marks where the rewrite begins.
- The draft is sampled like any candidate. At the original's temperature of 0 the N drafts would be equal.
- "It is correct" stops a trajectory only as the last sentence and without a rewrite, because feedback also says it
  about single steps.
- Feedback with neither a rewrite nor that sentence, or cut short, is retried, ``parse_attempts`` calls in all.
  If all fail, the failure is recorded and the draft stays; the next iteration asks for feedback on it again. The
  original starts the problem anew. A trajectory whose draft failed writes a new draft.
- The last drafts vote for the answer; the original has only one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tmas.agents.base import Session
from tmas.agents.packing import cut_middle
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.concurrency import gather_all
from tmas.methods.base import Memory, Method, MethodSettings, Round
from tmas.methods.selection import SelectionSettings
from tmas.prompts.parsing import Unparsable
from tmas.records import NOT_SAMPLED, Completion, Failure, Problem, Rollout, Solution, Trajectory

NOTHING_TO_CORRECT = "it is correct"
_CORRECT = re.compile(
    r"(?:^|[.!?:;\n])(?![^.!?:;\n]*(?:\bnot\b|n't|n’t|\bif\b|\bwhether\b))[^.!?:;\n]*\b"
    rf"{NOTHING_TO_CORRECT}$"
)
"""Matches the last sentence, if it has no negation and no condition."""
_ANSWER = re.compile(
    r"""(?:(?:the\s)?final\sanswer(?:\sis)?[:*\s]*)? (?:\\[\[(]|\$+)? \s*
        \\boxed\s*\{(?:[^{}]|\{[^{}]*\})*\} \s* (?:\\[\])]|\$+)?""",
    re.IGNORECASE | re.VERBOSE,
)
"""A boxed answer. Some replies end with one, whatever they say before it."""
_NEW_SOLUTION = r"\b(?:rewritten|corrected|revised|improved|refined|updated)\ solution\b"
_REWRITE = re.compile(
    rf"^(?:\s*\#[^\n]*{_NEW_SOLUTION}[^\n]* | \s*\*\*[^\n*]*{_NEW_SOLUTION}[^\n*]*\*\*:? | \s*{_NEW_SOLUTION}[:\s]*$)",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


class SelfRefineSettings(MethodSettings, frozen=True):
    """Settings of Self-Refine; defaults as in Table 1 of TMAS."""

    roles = ("solution", "feedback")

    name: Literal["self_refine"] = Field(default="self_refine", description="the method")
    n_candidates: int = Field(default=8, ge=1, description="N: independent trajectories")
    max_iterations: int = Field(default=20, ge=1, description="drafts of each trajectory, the first included")
    agents: AgentSettings = Field(default=AgentSettings(), description="how agents are prompted and replies parsed")
    selection: SelectionSettings = Field(
        default=SelectionSettings(rule="vote", scope="last"), description="how the final answer is selected"
    )


class SelfRefine(Method[SelfRefineSettings]):
    """Refines N drafts in parallel, each independently."""

    settings_type = SelfRefineSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        refiner = Refiner(Team(problem, session, self.settings.agents))
        rounds: list[Round] = []
        while self.continues(session, t := len(rounds)) and not _all_stopped(rounds):
            pasts = [[r[i] for r in rounds] for i in range(self.settings.n_candidates)]
            rounds.append(tuple(await gather_all(refiner.next(t, i, past) for i, past in enumerate(pasts))))
            self.report(t, rounds[-1])
        return await self.trajectory(session, rounds, _all_stopped(rounds), refiner.memories(len(rounds)))


class Refiner:
    """Writes drafts, and rewrites them."""

    def __init__(self, team: Team) -> None:
        self.team = team
        self._failures: dict[tuple[int, int], Failure] = {}

    def memories(self, n_rounds: int) -> list[Memory]:
        """For each iteration, the failures of its feedback."""
        failed = [(iteration, self._failures[iteration, i]) for iteration, i in sorted(self._failures)]
        return [Memory(failures=tuple(f for iteration, f in failed if iteration == t)) for t in range(n_rounds)]

    async def next(self, t: int, i: int, past: Sequence[Rollout]) -> Rollout:
        """The rollout of trajectory ``i`` in iteration ``t``."""
        drafts = [r.solution for r in past if isinstance(r.solution, Solution)]
        if not drafts:
            return await self.team.solution(t, i, "initial", self.team.solution_prompt())
        if _has_stopped(past[-1]):
            return past[-1].model_copy(update={"iteration": t})
        return await self.refined(t, i, drafts[-1])

    async def refined(self, t: int, i: int, draft: Solution) -> Rollout:
        """The rewritten draft; the draft itself if the feedback finds nothing to correct or fails.

        A failure if the model was not asked, for example because the budget is spent.
        """
        prompt = self.team.pack(
            "feedback",
            lambda texts: self.team.render("feedback", **texts),
            {"solution": draft.text},
            [("solution", cut_middle(draft.text))],
        )
        [found] = await self.team.ask(
            self.team.key(t, "feedback", i),
            prompt,
            lambda completion: self._rewrite(t, i, draft, completion),
            max_calls=self.team.settings.parse_attempts,
        )
        if isinstance(found, Failure) and found.reason not in NOT_SAMPLED:
            self._failures[t, i] = found
            found = draft.model_copy(update={"iteration": t})
        parents = ((draft.iteration, draft.index),)
        return Rollout(iteration=t, index=i, mode="exploit", parents=parents, solution=found)

    def _rewrite(self, t: int, i: int, draft: Solution, completion: Completion) -> Solution:
        feedback, *rewrite = _REWRITE.split(completion.text, maxsplit=1)
        if rewrite and rewrite[0].strip():
            return self.team.parse_solution(t, i, "exploit", completion.model_copy(update={"text": rewrite[0].strip()}))
        said = _ANSWER.sub("", feedback)
        if _CORRECT.search(said.lower().strip(" \n\t*_.!\"'`$")):
            return draft
        raise Unparsable(f"feedback with neither a rewritten solution nor {NOTHING_TO_CORRECT!r}")


def _has_stopped(rollout: Rollout) -> bool:
    """Whether the trajectory has stopped: its draft comes from an earlier iteration."""
    return isinstance(rollout.solution, Solution) and rollout.solution.iteration < rollout.iteration


def _all_stopped(rounds: Sequence[Round]) -> bool:
    return bool(rounds) and all(_has_stopped(rollout) for rollout in rounds[-1])
