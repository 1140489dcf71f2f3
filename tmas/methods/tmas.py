"""TMAS (arXiv 2605.10344): test-time scaling by a team of agents with two memories.

Per problem Q and iteration t = 0 ... T-1, with rollouts R, experience bank E and guideline bank G:

1. The solution agent A_sol writes N candidates. At t = 0 it sees only the problem: A_sol(Q). Later, each candidate
   draws its mode. With probability 1 - epsilon it *exploits* earlier work: A_sol(Q, R_{t-1}, E_{t-1}). With probability
   epsilon it *explores*, away from the strategies already tried: A_sol(Q, G_{t-1}).
2. Each candidate is verified M times and summarised. The N results are the rollouts R_t.
3. The experience agent evolves E with R_t, and at the same time the guideline agent evolves G.

Each step starts as soon as its own inputs exist: a candidate is verified once it is written, and summarised once
its verifications exist. The exploring candidates of t + 1 start as soon as G_t exists, even if E_t does not yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Literal

from pydantic import Field

from tmas.agents.base import Session
from tmas.agents.packing import Prompt
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Bank, Evolved, Team
from tmas.concurrency import gather_all, resolved
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank, GuidelineBankSettings
from tmas.memory.settings import BankSettings
from tmas.methods.base import Memory, Method, MethodSettings, Round
from tmas.methods.selection import SelectionSettings
from tmas.records import Failure, Mode, Problem, Rollout, Trajectory

EvolvingE = Awaitable[Evolved[ExperienceBank]]
EvolvingG = Awaitable[Evolved[GuidelineBank]]
"""The future value of a bank, which its agent may still be updating. It can be awaited many times."""


class TMASSettings(MethodSettings, frozen=True):
    """Settings of TMAS. Published values are the defaults; docs/decisions.md explains the other defaults."""

    roles = ("solution", "verification", "summary", "experience", "guideline")

    name: Literal["tmas"] = Field(default="tmas", description="the method")
    n_candidates: int = Field(default=8, ge=1, description="N: candidates per iteration")
    n_verifications: int = Field(default=8, ge=1, description="M: verifications of each candidate")
    max_iterations: int = Field(
        default=20, ge=1, description="T: iterations in all; may be raised when a run is resumed"
    )
    epsilon: float = Field(default=0.2, ge=0, le=1, description="probability that a candidate explores")
    use_experience: bool = Field(
        default=True, description="false: the experience bank stays empty and its agent is not called (an ablation)"
    )
    use_guidelines: bool = Field(
        default=True, description="false: the guideline bank stays empty and its agent is not called (an ablation)"
    )
    early_stop: Literal["none", "unanimous"] = Field(
        default="none", description="unanimous: stop once all M verifications of a candidate grade it 1"
    )
    agents: AgentSettings = Field(default=AgentSettings(), description="how agents are prompted and replies parsed")
    experience: BankSettings = Field(default=BankSettings(capacity=48), description="rules of the experience bank")
    guidelines: GuidelineBankSettings = Field(
        default=GuidelineBankSettings(), description="rules of the guideline bank"
    )
    selection: SelectionSettings = Field(default=SelectionSettings(), description="how the final answer is selected")


class TMAS(Method[TMASSettings]):
    """Exploits and explores with a team of five agents."""

    settings_type = TMASSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        s = self.settings
        team = Team(problem, session, s.agents)
        R: Round = ()
        E: EvolvingE = resolved(Evolved(ExperienceBank(settings=s.experience)))
        G: EvolvingG = resolved(Evolved(GuidelineBank(settings=s.guidelines)))
        rounds: list[Round] = []
        banks: list[tuple[EvolvingE, EvolvingG]] = []
        passed = False
        async with asyncio.TaskGroup() as background:
            while self.continues(session, t := len(rounds)) and not passed:
                R = tuple(await gather_all(self._rollout(team, t, i, R, E, G) for i in range(s.n_candidates)))
                if s.use_experience:
                    E = background.create_task(_evolve(team, t, R, E))
                if s.use_guidelines:
                    G = background.create_task(_evolve(team, t, R, G))
                rounds.append(R)
                banks.append((E, G))
                self.report(t, R, lambda E=E, G=G: _memory(E, G))
                passed = s.early_stop == "unanimous" and any(rollout.passes for rollout in R)
        return await self.trajectory(session, rounds, passed, [await _memory(E, G) for E, G in banks])

    async def _rollout(self, team: Team, t: int, i: int, R: Round, E: EvolvingE, G: EvolvingG) -> Rollout:
        """Candidate ``i`` of iteration ``t``, verified and summarised."""
        mode = self._mode(team.session, t, i)
        candidate = await team.solution(t, i, mode, await _prompt(team, mode, R, E, G))
        verified = await team.verification(candidate, self.settings.n_verifications)
        return (await team.summary(verified)).folded()

    def _mode(self, session: Session, t: int, i: int) -> Mode:
        if t == 0:
            return "initial"
        return "explore" if session.draw(f"mode/{t}/{i}") < self.settings.epsilon else "exploit"


async def _prompt(team: Team, mode: Mode, R: Round, E: EvolvingE, G: EvolvingG) -> Prompt | Failure:
    """A_sol(Q), A_sol(Q, R, E) or A_sol(Q, G). Waits only for the bank that the mode uses."""
    if mode == "exploit":
        return team.solution_prompt(rollouts=R, experience=(await E).bank)
    if mode == "explore":
        return team.solution_prompt(guidelines=(await G).bank)
    return team.solution_prompt()


async def _evolve(team: Team, t: int, R: Round, previous: Awaitable[Evolved[Bank]]) -> Evolved[Bank]:
    return await team.evolve((await previous).bank, t, R)


async def _memory(E: EvolvingE, G: EvolvingG) -> Memory:
    """Both banks after an iteration, once their agents have finished."""
    e, g = await E, await G
    return Memory(
        experiences=e.bank.items,
        guidelines=g.bank.items,
        experience_change=e.change,
        guideline_change=g.change,
        failures=tuple(failure for failure in (e.failure, g.failure) if failure),
    )
