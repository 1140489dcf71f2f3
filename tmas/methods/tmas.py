"""TMAS (arXiv 2605.10344): test-time scaling by a team of agents with two memories.

Per problem Q and iteration t = 0 ... T-1, with the experience bank E and the guideline bank G:

1. N candidates. At t = 0 from A_sol(Q). Later each draws its mode: with probability 1 - epsilon it *exploits*,
   A_sol(Q, R_{t-1}, E_{t-1}); with probability epsilon it *explores*, A_sol(Q, G_{t-1}), away from what was tried.
2. M verifications of each candidate, then its summary: a rollout. R_t are the N rollouts.
3. The experience agent evolves E with R_t; beside it the guideline agent evolves G.

Nothing waits for what it does not need: a candidate is verified as soon as it is there, summarised as soon as its
verifications are, and the explorers of t + 1 start on G_t while E_t is still being written. The method only makes
calls; resuming it is running it again on the recorded ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from tmas.agents.base import Session
from tmas.agents.packing import Prompt
from tmas.agents.team import Agents, AgentSettings, Evolved
from tmas.concurrency import gather_all, resolved
from tmas.memory.bank import BankSettings
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.methods.base import Method, Round, Settings
from tmas.methods.selection import SelectionSettings
from tmas.records import Failure, Mode, Problem, Rollout, Trajectory


class TMASSettings(Settings, frozen=True):
    """Defaults are the published ones; what the paper leaves open is decided in docs/decisions.md.

    The paper's ablations: ``use_experience`` or ``use_guidelines`` False leaves that bank empty, without its agent.
    """

    roles = ("solution", "verification", "summary", "experience", "guideline")

    name: Literal["tmas"] = "tmas"
    n_candidates: int = Field(default=8, ge=1, description="N")
    n_verifications: int = Field(default=8, ge=1, description="M")
    max_iterations: int = Field(default=20, ge=1, description="T: the total, also on resume")
    epsilon: float = Field(default=0.2, ge=0, le=1, description="probability that a candidate explores")
    use_experience: bool = True
    use_guidelines: bool = True
    early_stop: Literal["none", "unanimous"] = Field(
        default="none", description="unanimous: stop once all M verifications of a candidate grade it 1"
    )
    agents: AgentSettings = AgentSettings()
    experience: BankSettings = BankSettings(capacity=48)
    guidelines: BankSettings = BankSettings(capacity=24)
    selection: SelectionSettings = SelectionSettings()


class TMAS(Method[TMASSettings]):
    """Exploits and explores with a team of five agents."""

    settings_type = TMASSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        agents = Agents(problem, session, self.settings.agents)
        rounds: list[_Round] = []
        async with asyncio.TaskGroup() as background:
            previous = self._before_first()
            while not self.done(session, rounds, self._satisfied(previous)):
                rollouts = await self._rollouts(agents, len(rounds), previous)
                previous = self._remember(agents, len(rounds), rollouts, previous, background)
                rounds.append(previous)
        memory = [await r.memory() for r in rounds]
        return await self.trajectory(session, [r.rollouts for r in rounds], self._satisfied(previous), memory)

    async def _rollouts(self, agents: Agents, t: int, previous: _Round) -> Round:
        rollouts = await gather_all(self._rollout(agents, t, i, previous) for i in range(self.settings.n_candidates))
        previous.prompts.clear()  # they are long, and nobody asks for them again
        return tuple(rollouts)

    async def _rollout(self, agents: Agents, t: int, i: int, previous: _Round) -> Rollout:
        mode = self._mode(agents.session, t, i)
        rollout = await agents.solution(t, i, mode, await previous.prompt(agents, mode))
        rollout = await agents.verification(rollout, self.settings.n_verifications)
        return (await agents.summary(rollout)).folded()

    def _mode(self, session: Session, t: int, i: int) -> Mode:
        if t == 0:
            return "initial"
        return "explore" if session.draw(f"mode/{t}/{i}") < self.settings.epsilon else "exploit"

    def _remember(
        self, agents: Agents, t: int, rollouts: Round, previous: _Round, background: asyncio.TaskGroup
    ) -> _Round:
        """R_t, with E_t and G_t being written side by side."""

        async def experience() -> Evolved[ExperienceBank]:
            bank = (await previous.experience).bank
            return await agents.experience(t, rollouts, bank) if self.settings.use_experience else Evolved(bank)

        async def guidelines() -> Evolved[GuidelineBank]:
            bank = (await previous.guidelines).bank
            return await agents.guideline(t, rollouts, bank) if self.settings.use_guidelines else Evolved(bank)

        return _Round(rollouts, background.create_task(experience()), background.create_task(guidelines()))

    def _satisfied(self, last: _Round) -> bool:
        return self.settings.early_stop == "unanimous" and any(rollout.passes for rollout in last.rollouts)

    def _before_first(self) -> _Round:
        return _Round(
            (),
            resolved(Evolved(ExperienceBank(settings=self.settings.experience))),
            resolved(Evolved(GuidelineBank(settings=self.settings.guidelines))),
        )


@dataclass
class _Round:
    """What iteration t leaves to t + 1: its rollouts at once, each bank as soon as its agent is done."""

    rollouts: Round
    experience: Awaitable[Evolved[ExperienceBank]]
    guidelines: Awaitable[Evolved[GuidelineBank]]
    prompts: dict[Mode, Prompt | Failure] = field(default_factory=dict)

    async def prompt(self, agents: Agents, mode: Mode) -> Prompt | Failure:
        """The solution prompt of ``mode``: one for all candidates that draw it. Waits only for the bank it uses."""
        memory: dict[str, Any] = {}
        if mode == "exploit":
            memory = {"rollouts": self.rollouts, "experience": (await self.experience).bank}
        if mode == "explore":
            memory = {"guidelines": (await self.guidelines).bank}
        if mode not in self.prompts:
            self.prompts[mode] = agents.solution_prompt(**memory)
        return self.prompts[mode]

    async def memory(self) -> dict[str, Any]:
        """Both banks as fields of an :class:`~tmas.records.Iteration`."""
        experience, guidelines = await self.experience, await self.guidelines
        return {
            "experiences": experience.bank.items,
            "guidelines": guidelines.bank.items,
            "experience_change": experience.change,
            "guideline_change": guidelines.change,
            "failures": tuple(f for f in (experience.failure, guidelines.failure) if f),
        }
