"""Best of N by the model's own verifier: N samples, M verifications of each; the best mean grade wins.

This baseline is not in the paper. It has the same solution and verification agents as TMAS and spends its whole budget
in one round, so TMAS's iterations must beat it at equal tokens. Among samples with equal grades, the one
whose answer has more votes wins, then the earliest one.

The prompts are our own, those of TMAS. ``prompts=FOLDER`` with the files ``solution.jinja`` and ``verification.jinja``
replaces them (docs/prompts.md).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tmas.agents.base import Session
from tmas.agents.packing import Prompt
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.concurrency import gather_all
from tmas.methods.base import Method, MethodSettings
from tmas.methods.selection import SelectionSettings
from tmas.records import Failure, Problem, Rollout, Trajectory


class BestOfNSettings(MethodSettings, frozen=True):
    """Settings of best of N; N as in MV@64, M as in TMAS."""

    roles = ("solution", "verification")

    name: Literal["best_of_n"] = Field(default="best_of_n", description="the method")
    n_candidates: int = Field(default=64, ge=1, description="N: samples")
    n_verifications: int = Field(default=8, ge=1, description="M: verifications of each sample")
    max_iterations: Literal[1] = Field(default=1, description="always 1: samples are drawn once")
    agents: AgentSettings = Field(default=AgentSettings(), description="how agents are prompted and replies parsed")
    selection: SelectionSettings = Field(
        default=SelectionSettings(rule="grade"), description="how the final answer is selected"
    )


class BestOfN(Method[BestOfNSettings]):
    """Samples once, verifies, and takes the best."""

    settings_type = BestOfNSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        team = Team(problem, session, self.settings.agents)
        prompt = team.solution_prompt()
        rollouts = await gather_all(self._rollout(team, n, prompt) for n in range(self.settings.n_candidates))
        self.report(0, tuple(rollouts))
        return await self.trajectory(session, [tuple(rollouts)])

    async def _rollout(self, team: Team, n: int, prompt: Prompt | Failure) -> Rollout:
        sample = await team.solution(0, n, "initial", prompt)
        return await team.verification(sample, self.settings.n_verifications)
