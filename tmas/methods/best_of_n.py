"""Best of N by the model's own verifier: N samples of the bare problem, M verifications each; the best mean grade.

Not in the paper, but what its iterations must beat at equal tokens: the same solver and the same verifier, with all of
the budget in one round. Equal grades go to the larger class of equal answers, then to the one sampled first.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tmas.agents.base import Session
from tmas.agents.packing import Prompt
from tmas.agents.team import Verifier, VerifierSettings
from tmas.concurrency import gather_all
from tmas.methods.base import Method, Settings
from tmas.methods.selection import SelectionSettings
from tmas.records import Failure, Problem, Rollout, Trajectory


class BestOfNSettings(Settings, frozen=True):
    """N is that of MV@64, M that of TMAS."""

    roles = ("solution", "verification")

    name: Literal["best_of_n"] = "best_of_n"
    n_candidates: int = Field(default=64, ge=1, description="N")
    n_verifications: int = Field(default=8, ge=1, description="M")
    max_iterations: Literal[1] = 1
    agents: VerifierSettings = VerifierSettings()
    selection: SelectionSettings = SelectionSettings(rule="grade")


class BestOfN(Method[BestOfNSettings]):
    """Samples once, verifies, and takes the best."""

    settings_type = BestOfNSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        verifier = Verifier(problem, session, self.settings.agents)
        prompt = verifier.bare_prompt()
        rollouts = await gather_all(self._rollout(verifier, n, prompt) for n in range(self.settings.n_candidates))
        return await self.trajectory(session, [tuple(rollouts)])

    async def _rollout(self, verifier: Verifier[VerifierSettings], n: int, prompt: Prompt | Failure) -> Rollout:
        sample = await verifier.solution(0, n, "initial", prompt)
        return await verifier.verification(sample, self.settings.n_verifications)
