"""Majority vote (self-consistency, arXiv 2203.11171): the largest class of equal answers among K samples.

Answers belong to one class if they are mathematically equivalent; two answers whose equivalence cannot be decided
stay in two classes. Among classes of equal size, the one that was sampled first wins. The original votes
over equal strings.

The prompt is our own, the bare problem of TMAS. ``prompts=FOLDER`` with a file ``solution.jinja`` replaces it
(docs/prompts.md).
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tmas.agents.base import Session
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.concurrency import gather_all
from tmas.methods.base import Method, MethodSettings
from tmas.methods.selection import SelectionSettings
from tmas.records import Problem, Trajectory


class MajorityVoteSettings(MethodSettings, frozen=True):
    """Settings of majority vote; K = 64 as MV@64 in Table 1 of TMAS."""

    roles = ("solution",)

    name: Literal["majority_vote"] = Field(default="majority_vote", description="the method")
    n_candidates: int = Field(default=64, ge=1, description="K: samples")
    max_iterations: Literal[1] = Field(default=1, description="always 1: samples are drawn once")
    agents: AgentSettings = Field(default=AgentSettings(), description="how agents are prompted and replies parsed")
    selection: SelectionSettings = Field(
        default=SelectionSettings(rule="vote"), description="how the final answer is selected"
    )

    @model_validator(mode="after")
    def _has_answers_to_vote_on(self) -> Self:
        if self.agents.task == "proof":
            raise ValueError("a majority vote needs final answers: agents.task=proof has none")
        return self


class MajorityVote(Method[MajorityVoteSettings]):
    """Samples once, and votes."""

    settings_type = MajorityVoteSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        team = Team(problem, session, self.settings.agents)
        prompt = team.solution_prompt()
        samples = await gather_all(team.solution(0, k, "initial", prompt) for k in range(self.settings.n_candidates))
        self.report(0, tuple(samples))
        return await self.trajectory(session, [tuple(samples)])
