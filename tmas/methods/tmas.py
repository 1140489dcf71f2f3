"""TMAS (arXiv 2605.10344): test-time scaling by a team of agents with two memories.

Per problem Q and iteration t = 0 ... T-1, with rollouts R, experience bank E and guideline bank G:

1. The solution agent A_sol writes N candidates. At t = 0 it sees only the problem: A_sol(Q). Later, each candidate
   draws its mode. With probability 1 - epsilon it *exploits* earlier work: A_sol(Q, R_{t-1}, E_{t-1}). With probability
   epsilon it *explores*, away from the strategies already tried: A_sol(Q, G_{t-1}).
2. Each candidate is verified M times and summarised. The N results are the rollouts R_t.
3. The experience agent evolves E with R_t, and at the same time the guideline agent evolves G.

Each step starts as soon as its own inputs exist: a candidate is verified once it is written, and summarised once
its verifications exist. The exploring candidates of t + 1 start as soon as G_t exists, even if E_t does not yet.

``method=tmas_adaptive`` spends calls where they change the outcome (docs/adaptive.md). It decides three things
differently: how often a candidate is verified, how many candidates an iteration has and how many of them explore, and
when a problem ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from tmas.agents.base import Session
from tmas.agents.packing import Prompt
from tmas.agents.settings import AgentSettings
from tmas.agents.team import BankT, Evolved, Team
from tmas.concurrency import gather_all, resolved
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank, GuidelineBankSettings
from tmas.memory.settings import BankSettings
from tmas.methods.adaptive import is_accepted, verify_in_rounds, verify_selected_in_full
from tmas.methods.allocation import POLICIES, AllocationSettings, NextIteration
from tmas.methods.base import Memory, Method, MethodSettings, Round
from tmas.methods.selection import SelectionSettings
from tmas.methods.stopping import VerificationSettings, accepted
from tmas.records import Failure, Mode, Problem, Rollout, Trajectory

EvolvingE = Awaitable[Evolved[ExperienceBank]]
EvolvingG = Awaitable[Evolved[GuidelineBank]]
"""``EvolvingE`` and ``EvolvingG``: the result of a bank's latest update, which may still be running. It can be awaited
more than once."""


def _is_none(value: object) -> bool:
    """Whether a setting is None. ``exclude_if`` then leaves it out of the files of a run, as older versions did."""
    return value is None


class TMASSettings(MethodSettings, frozen=True):
    """Settings of TMAS. The defaults are the published values where the paper gives them.

    docs/decisions.md explains the other defaults.
    """

    roles = ("solution", "verification", "summary", "experience", "guideline")

    name: Literal["tmas"] = Field(default="tmas", description="the method")
    n_candidates: int = Field(default=8, ge=1, description="N: candidates per iteration")
    n_verifications: int = Field(default=8, ge=1, description="M: verifications of each candidate")
    max_iterations: int = Field(
        default=20, ge=1, description="T: maximum number of iterations; can be increased when a run is resumed"
    )
    epsilon: float = Field(default=0.2, ge=0, le=1, description="probability that a candidate explores")
    use_experience: bool = Field(
        default=True, description="false: the experience bank stays empty and its agent is not called (an ablation)"
    )
    use_guidelines: bool = Field(
        default=True, description="false: the guideline bank stays empty and its agent is not called (an ablation)"
    )
    early_stop: Literal["none", "unanimous", "accepted"] = Field(
        default="none",
        description="unanimous: stop once all M verifications of a candidate grade it 1; accepted: stop once a"
        " candidate has M verifications and the sequential test (settings in method.verification,"
        " docs/adaptive.md) accepts it",
    )
    verification: VerificationSettings | None = Field(
        default=None,
        exclude_if=_is_none,
        description="verification in rounds, which ends early for a candidate that cannot become the answer"
        " (docs/adaptive.md); null: M verifications of each candidate in one call",
    )
    allocation: AllocationSettings | None = Field(
        default=None,
        exclude_if=_is_none,
        description="how the progress of the problem sets the number of candidates and the exploration of the next "
        "iteration (docs/adaptive.md); null: N candidates and epsilon in each iteration",
    )
    agents: AgentSettings = Field(default=AgentSettings(), description="how agents are prompted and replies parsed")
    experience: BankSettings = Field(default=BankSettings(capacity=48), description="rules of the experience bank")
    guidelines: GuidelineBankSettings = Field(
        default=GuidelineBankSettings(), description="rules of the guideline bank"
    )
    selection: SelectionSettings = Field(default=SelectionSettings(), description="how the final answer is selected")

    @property
    def allocates(self) -> bool:
        return self.allocation is not None

    @model_validator(mode="after")
    def _early_stop_can_take_effect(self) -> Self:
        if self.early_stop != "accepted":
            return self
        if self.verification is None:
            raise ValueError(
                "early_stop=accepted needs method.verification, which is null: set method.verification, or another"
                " early_stop"
            )
        if not accepted([1.0] * self.n_verifications, self.n_verifications, self.verification):
            raise ValueError(
                f"early_stop=accepted: {self.n_verifications} verifications that all give grade 1 are too little"
                f" evidence for alpha={self.verification.alpha}: raise verification.alpha or n_verifications"
            )
        return self


class TMAS(Method[TMASSettings]):
    """The TMAS method: solves a problem in iterations, with a team of five agents.

    After the first iteration, each candidate either exploits earlier work or explores new strategies.
    """

    settings_type = TMASSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        s = self.settings
        team = Team(problem, session, s.agents)
        E: EvolvingE = resolved(Evolved(ExperienceBank(settings=s.experience)))
        G: EvolvingG = resolved(Evolved(GuidelineBank(settings=s.guidelines)))
        rounds: list[Round] = []
        banks: list[tuple[EvolvingE, EvolvingG]] = []
        plan = self._plan(rounds)
        async with asyncio.TaskGroup() as background:
            while plan and self.continues(session, len(rounds)) and await self._share_allows(session, rounds, plan):
                t = len(rounds)
                work = (self._rollout(team, t, i, plan, rounds, E, G) for i in range(plan.candidates))
                R = tuple(await gather_all(work))
                rounds.append(R)
                plan = self._plan(rounds)
                # After an early end no prompt shows the banks, so their update is skipped. With ``unanimous`` it is
                # made, because published TMAS updates them after the last iteration, too: docs/decisions.md.
                evolve = _evolve if plan or s.early_stop == "unanimous" else _unchanged
                if s.use_experience:
                    E = background.create_task(evolve(team, t, R, E))
                if s.use_guidelines:
                    G = background.create_task(evolve(team, t, R, G))
                banks.append((E, G))
                self.report(t, R, lambda E=E, G=G: _memory(E, G))
        if s.verification:
            await verify_selected_in_full(team, rounds, s.n_verifications, s.selection, self.checker)
        return await self.trajectory(session, rounds, plan is None, [await _memory(E, G) for E, G in banks])

    async def _rollout(
        self, team: Team, t: int, i: int, plan: NextIteration, rounds: Sequence[Round], E: EvolvingE, G: EvolvingG
    ) -> Rollout:
        """Candidate ``i`` of iteration ``t``, verified and summarised."""
        mode = _mode(team.session, t, i, plan.epsilon)
        candidate = await team.solution(t, i, mode, await _prompt(team, mode, rounds[-1] if rounds else (), E, G))
        verified = await self._verified(team, candidate, rounds)
        return (await team.summary(verified)).without_critiques()

    async def _verified(self, team: Team, candidate: Rollout, rounds: Sequence[Round]) -> Rollout:
        s = self.settings
        if s.verification is None:
            return await team.verification(candidate, s.n_verifications)
        return await verify_in_rounds(team, candidate, s.n_verifications, s.verification, rounds, s.selection)

    def _plan(self, rounds: Sequence[Round]) -> NextIteration | None:
        """Plan the next iteration. None: the problem ends, by ``early_stop`` or because the policy gives it up."""
        s = self.settings
        if rounds and any(self._ends_problem(rollout) for rollout in rounds[-1]):
            return None
        if s.allocation is None:
            return NextIteration(s.n_candidates, s.epsilon)
        return POLICIES[s.allocation.policy](rounds, s.n_candidates, s.epsilon, s.allocation)

    async def _share_allows(self, session: Session, rounds: Sequence[Round], plan: NextIteration) -> bool:
        """Whether the problem's share of the run's budget pays for the next iteration. May wait for other problems."""
        if self.settings.allocation is None:
            return True
        return await session.share_allows(len(rounds), plan.iterations_without_progress)

    def _ends_problem(self, rollout: Rollout) -> bool:
        """Whether the verifications of ``rollout`` end the problem, by the setting ``early_stop``."""
        s = self.settings
        if s.early_stop == "accepted" and s.verification:
            return is_accepted(rollout, s.n_verifications, s.verification)
        return s.early_stop == "unanimous" and rollout.passes


def _mode(session: Session, t: int, i: int, epsilon: float) -> Mode:
    if t == 0:
        return "initial"
    return "explore" if session.draw(f"mode/{t}/{i}") < epsilon else "exploit"


async def _prompt(team: Team, mode: Mode, R: Round, E: EvolvingE, G: EvolvingG) -> Prompt | Failure:
    """A_sol(Q), A_sol(Q, R, E) or A_sol(Q, G). Waits only for the bank that the mode uses."""
    if mode == "exploit":
        return team.solution_prompt(rollouts=R, experience=(await E).bank)
    if mode == "explore":
        return team.solution_prompt(guidelines=(await G).bank)
    return team.solution_prompt()


async def _evolve(team: Team, t: int, R: Round, previous: Awaitable[Evolved[BankT]]) -> Evolved[BankT]:
    return await team.evolve((await previous).bank, t, R)


async def _unchanged(team: Team, t: int, R: Round, previous: Awaitable[Evolved[BankT]]) -> Evolved[BankT]:
    """The bank after the last iteration of a problem that ends by ``early_stop=accepted`` or by the policy.

    Its agent makes no call, because no later prompt would show the update.
    """
    return Evolved((await previous).bank)


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
