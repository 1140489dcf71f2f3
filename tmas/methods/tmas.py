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
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tmas.agents import Agents, AgentSettings, Evolved, Session
from tmas.answers import AnswerChecker
from tmas.concurrency import all_of, settled
from tmas.memory.bank import BankSettings
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.packing import Prompt
from tmas.records import Failure, Iteration, Mode, Problem, Rollout, StopReason, Trajectory
from tmas.selection import Selected, SelectionSettings, fingerprint, select


class TMASSettings(BaseModel):
    """Defaults are the published ones; what the paper leaves open is decided in docs/decisions.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["tmas"] = "tmas"
    n_candidates: int = Field(default=8, ge=1, description="N")
    n_verifications: int = Field(default=8, ge=1, description="M")
    max_iterations: int = Field(default=20, ge=1, description="T: the total, also on resume")
    epsilon: float = Field(default=0.2, ge=0, le=1, description="probability that a candidate explores")
    early_stop: Literal["none", "unanimous"] = Field(
        default="none", description="unanimous: stop once all M verifications of a candidate grade it 1"
    )
    agents: AgentSettings = AgentSettings()
    experience: BankSettings = BankSettings(capacity=48)
    guidelines: BankSettings = BankSettings(capacity=24)
    selection: SelectionSettings = SelectionSettings()


class TMAS:
    """Solves one problem at a time; holds no state between problems."""

    def __init__(self, settings: TMASSettings, checker: AnswerChecker) -> None:
        self.settings, self.checker = settings, checker

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        """All iterations on ``problem``. Failures of single calls are part of the trajectory, never raised."""
        agents = Agents(problem, session, self.settings.agents)
        rounds: list[_Round] = []
        stop: StopReason | None = None
        async with asyncio.TaskGroup() as background:
            previous = self._before_first()
            while stop is None:
                rollouts = await self._rollouts(agents, len(rounds), previous)
                previous = self._remember(agents, len(rounds), rollouts, previous, background)
                rounds.append(previous)
                stop = self._stop(session, rounds)
        rollouts = [r.rollouts for r in rounds]
        iterations = [await self._record(session, rollouts[: t + 1], r) for t, r in enumerate(rounds)]
        return Trajectory(iterations=tuple(iterations), stop=stop)

    async def _rollouts(self, agents: Agents, t: int, previous: _Round) -> tuple[Rollout, ...]:
        return tuple(await all_of(self._rollout(agents, t, i, previous) for i in range(self.settings.n_candidates)))

    async def _rollout(self, agents: Agents, t: int, i: int, previous: _Round) -> Rollout:
        mode = self._mode(agents.session, t, i)
        solution = await agents.solution(t, i, mode, await previous.prompt(agents, mode))
        if isinstance(solution, Failure):
            return Rollout(iteration=t, index=i, mode=mode, solution=solution)
        verifications = await agents.verifications(solution, self.settings.n_verifications)
        summary = await agents.summary(solution, verifications)
        return Rollout(iteration=t, index=i, mode=mode, solution=solution, verifications=verifications, summary=summary)

    def _mode(self, session: Session, t: int, i: int) -> Mode:
        if t == 0:
            return "initial"
        return "explore" if session.draw(f"mode/{t}/{i}") < self.settings.epsilon else "exploit"

    def _remember(
        self, agents: Agents, t: int, rollouts: tuple[Rollout, ...], previous: _Round, background: asyncio.TaskGroup
    ) -> _Round:
        """R_t, with E_t and G_t being written side by side."""

        async def experience() -> Evolved[ExperienceBank]:
            return await agents.experience(t, rollouts, (await previous.experience).bank)

        async def guidelines() -> Evolved[GuidelineBank]:
            return await agents.guideline(t, rollouts, (await previous.guidelines).bank)

        return _Round(rollouts, background.create_task(experience()), background.create_task(guidelines()))

    def _stop(self, session: Session, rounds: Sequence[_Round]) -> StopReason | None:
        if session.stopped:
            return "budget"
        if self.settings.early_stop == "unanimous" and any(self._is_unanimous(r) for r in rounds[-1].rollouts):
            return "early_stop"
        return "max_iterations" if len(rounds) == self.settings.max_iterations else None

    def _is_unanimous(self, rollout: Rollout) -> bool:
        return rollout.grades == [1.0] * self.settings.n_verifications

    async def _record(self, session: Session, history: Sequence[tuple[Rollout, ...]], last: _Round) -> Iteration:
        experience, guidelines = await last.experience, await last.guidelines
        t = len(history) - 1
        name = f"selection/{t}/{fingerprint(history)}"
        selected = await session.decide(name, lambda: select(history, self.settings.selection, self.checker), Selected)
        return Iteration(
            index=t,
            rollouts=last.rollouts,
            experiences=experience.bank.items,
            guidelines=guidelines.bank.items,
            experience_change=experience.change,
            guideline_change=guidelines.change,
            failures=tuple(f for f in (experience.failure, guidelines.failure) if f),
            selected=selected.selection,
        )

    def _before_first(self) -> _Round:
        return _Round(
            (),
            settled(Evolved(ExperienceBank(settings=self.settings.experience))),
            settled(Evolved(GuidelineBank(settings=self.settings.guidelines))),
        )


@dataclass
class _Round:
    """What iteration t leaves to t + 1: its rollouts at once, each bank as soon as its agent is done."""

    rollouts: tuple[Rollout, ...]
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
