"""Majority vote (self-consistency, arXiv 2203.11171): the largest class of equal answers among K samples.

Answers are one class where they are mathematically equivalent; what cannot be decided stays apart. Equal classes go to
the one that was sampled first. The original votes over equal strings and has no such cases.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tmas.agents.base import Session
from tmas.agents.team import Solver, SolverSettings
from tmas.concurrency import gather_all
from tmas.methods.base import Method, Settings
from tmas.methods.selection import SelectionSettings
from tmas.records import Problem, Trajectory


class MajorityVoteSettings(Settings, frozen=True):
    """K is 64, as MV@64 in Table 1 of TMAS."""

    roles = ("solution",)

    name: Literal["majority_vote"] = "majority_vote"
    n_candidates: int = Field(default=64, ge=1, description="K")
    max_iterations: Literal[1] = 1
    agents: SolverSettings = SolverSettings()
    selection: SelectionSettings = SelectionSettings(rule="vote")

    @model_validator(mode="after")
    def _has_answers_to_vote_on(self) -> Self:
        if self.agents.task == "proof":
            raise ValueError("a majority vote needs final answers: agents.task=proof has none")
        return self


class MajorityVote(Method[MajorityVoteSettings]):
    """Samples once, and votes."""

    settings_type = MajorityVoteSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        solver = Solver(problem, session, self.settings.agents)
        prompt = solver.bare_prompt()
        samples = await gather_all(solver.solution(0, k, "initial", prompt) for k in range(self.settings.n_candidates))
        return await self.trajectory(session, [tuple(samples)])
