"""Self-Refine (arXiv 2303.17651), its mathematics task: a draft, then feedback on it and a rewrite, again and again.

1. A draft from the bare problem.
2. Feedback by the same model on its own draft and, from the same call, the rewritten solution: the next draft. Only
   the draft goes on, not the feedback.
3. It stops when the feedback finds nothing to correct ("it is correct"), or after ``max_iterations``.

There is one trajectory in the original; here are N independent ones, so that Pass@1 by iteration is that of Table 1 of
TMAS. A trajectory that has stopped stands in all later iterations, without calls; the problem ends when all have. The
published temperature of the feedback, 0.7, is set by conf/method/self_refine.yaml.

Different here, and why:

- Solutions are text, where the original writes programs and shows examples of them; a rewrite follows a heading.
- The draft is sampled like any candidate; the original's temperature of 0 would make N equal drafts.
- "It is correct" stops a trajectory only as the last sentence, where no rewrite follows: feedback also says it of
  single steps.
- Feedback with neither of the two, or cut short, is asked for again, ``parse_attempts`` times in all. If it still fails
  that is on record, and the draft stays the trajectory's; the next iteration asks for feedback on it once more. The
  original starts the problem anew. A trajectory whose draft failed drafts again.
- The last drafts vote for the answer; the original's only one is it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tmas.agents.base import Session
from tmas.agents.packing import cut_middle
from tmas.agents.team import Solver, SolverSettings
from tmas.concurrency import gather_all
from tmas.methods.base import Method, Round, Settings
from tmas.methods.selection import SelectionSettings
from tmas.prompts.parsing import Unparsable
from tmas.records import NOT_SAMPLED, Completion, Failure, Problem, Rollout, Solution, Trajectory

NOTHING_TO_CORRECT = "it is correct"
_CORRECT = re.compile(
    r"(?:^|[.!?:;\n])(?![^.!?:;\n]*(?:\bnot\b|n't|n’t|\bif\b|\bwhether\b))[^.!?:;\n]*\b"
    rf"{NOTHING_TO_CORRECT}$"
)
"""As the last sentence, and said without a no or an if."""
_ANSWER = re.compile(
    r"""(?:(?:the\s)?final\sanswer(?:\sis)?[:*\s]*)? (?:\\[\[(]|\$+)? \s*
        \\boxed\s*\{(?:[^{}]|\{[^{}]*\})*\} \s* (?:\\[\])]|\$+)?""",
    re.IGNORECASE | re.VERBOSE,
)
"""Some end whatever they say with it."""
_NEW = r"\b(?:rewritten|corrected|revised|improved|refined|updated)\ solution\b"
_REWRITE = re.compile(
    rf"^(?:\s*\#[^\n]*{_NEW}[^\n]* | \s*\*\*[^\n*]*{_NEW}[^\n*]*\*\*:? | \s*{_NEW}[:\s]*$)",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


class RefinerSettings(SolverSettings):
    """How drafts and feedback are asked for."""

    parse_attempts: int = Field(default=3, ge=1, description="calls made in all for feedback that can be read")


class SelfRefineSettings(Settings, frozen=True):
    """Defaults as in Table 1 of TMAS."""

    roles = ("solution", "feedback")

    name: Literal["self_refine"] = "self_refine"
    n_candidates: int = Field(default=8, ge=1, description="N: independent trajectories")
    max_iterations: int = Field(default=20, ge=1, description="drafts of a trajectory, the first included")
    agents: RefinerSettings = RefinerSettings()
    selection: SelectionSettings = SelectionSettings(rule="vote", scope="last")


class SelfRefine(Method[SelfRefineSettings]):
    """Refines N drafts side by side, each on its own."""

    settings_type = SelfRefineSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        refiner = Refiner(problem, session, self.settings.agents)
        rounds: list[Round] = []
        while not self.done(session, rounds, _all_stand(rounds)):
            t, pasts = len(rounds), [[r[i] for r in rounds] for i in range(self.settings.n_candidates)]
            rounds.append(tuple(await gather_all(refiner.next(t, i, past) for i, past in enumerate(pasts))))
        return await self.trajectory(session, rounds, _all_stand(rounds), refiner.unread_in(len(rounds)))


class Refiner(Solver[RefinerSettings]):
    """Writes drafts, and rewrites them."""

    def __init__(self, problem: Problem, session: Session, settings: RefinerSettings) -> None:
        super().__init__(problem, session, settings)
        self._unread: dict[tuple[int, int], Failure] = {}

    def unread_in(self, rounds: int) -> list[dict[str, tuple[Failure, ...]]]:
        """What became of feedback that could not be read, for each round."""
        failed = [(place, self._unread[place]) for place in sorted(self._unread)]
        return [{"failures": tuple(failure for (at, _), failure in failed if at == t)} for t in range(rounds)]

    async def next(self, t: int, i: int, past: Sequence[Rollout]) -> Rollout:
        """What trajectory ``i`` has at iteration ``t``."""
        drafts = [r.solution for r in past if isinstance(r.solution, Solution)]
        if not drafts:
            return await self.solution(t, i, "initial", self.bare_prompt())
        if _stands(past[-1]):
            return past[-1].model_copy(update={"iteration": t})
        return await self.refined(t, i, drafts[-1])

    async def refined(self, t: int, i: int, draft: Solution) -> Rollout:
        """The draft rewritten, or the draft itself where the feedback finds nothing; the draft once more where the
        feedback cannot be read."""
        prompt = self.pack(
            "feedback",
            lambda texts: self.render("feedback", **texts),
            {"solution": draft.text},
            [("solution", cut_middle(draft.text))],
        )
        attempts = self.settings.parse_attempts
        [found] = await self.ask(
            self.key(t, "feedback", i), prompt, lambda c: self._rewrite(t, i, draft, c), attempts=attempts
        )
        if isinstance(found, Failure) and found.reason not in NOT_SAMPLED:
            self._unread[t, i] = found
            found = draft.model_copy(update={"iteration": t})
        parents = ((draft.iteration, draft.index),)
        return Rollout(iteration=t, index=i, mode="exploit", parents=parents, solution=found)

    def _rewrite(self, t: int, i: int, draft: Solution, completion: Completion) -> Solution:
        feedback, *rewrite = _REWRITE.split(completion.text, maxsplit=1)
        if rewrite and rewrite[0].strip():
            return self.candidate(t, i, "exploit", completion.model_copy(update={"text": rewrite[0].strip()}))
        said = _ANSWER.sub("", feedback)
        if _CORRECT.search(said.lower().strip(" \n\t*_.!\"'`$")):
            return draft
        raise Unparsable(f"feedback with neither a rewritten solution nor {NOTHING_TO_CORRECT!r}")


def _stands(rollout: Rollout) -> bool:
    """Whether the trajectory has stopped: its draft is that of an earlier iteration."""
    return isinstance(rollout.solution, Solution) and rollout.solution.iteration < rollout.iteration


def _all_stand(rounds: Sequence[Round]) -> bool:
    return bool(rounds) and all(_stands(rollout) for rollout in rounds[-1])
