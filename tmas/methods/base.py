"""What all methods share: the common settings, when they stop, and how their rounds become a trajectory."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from pydantic import BaseModel, Field, field_serializer, model_validator

from tmas.agents.base import Session
from tmas.agents.settings import AgentSettings
from tmas.answers.checker import AnswerChecker
from tmas.methods.selection import SelectionSettings, select_and_record
from tmas.records import BankChange, Experience, Failure, Guideline, Iteration, Problem, Rollout, Selection, Trajectory

Round = tuple[Rollout, ...]
"""The rollouts of one iteration, by index."""


class Memory(NamedTuple):
    """The memory after one iteration, and what changed it; fields as in :class:`~tmas.records.Iteration`."""

    experiences: tuple[Experience, ...] = ()
    guidelines: tuple[Guideline, ...] = ()
    experience_change: BankChange | None = None
    guideline_change: BankChange | None = None
    failures: tuple[Failure, ...] = ()


async def no_memory() -> Memory:
    """The memory of a method that keeps none."""
    return Memory()


OnRound = Callable[[int, Round, Callable[[], Awaitable[Memory]]], None]
"""Progress callback, called after each round: its number, its rollouts, and a function that waits for its memory."""


class MethodSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings that every method has. ``roles``: the roles that the method calls."""

    roles: ClassVar[tuple[str, ...]]

    name: str = Field(description="the method")
    max_iterations: int = Field(description="maximum number of iterations")
    agents: AgentSettings = Field(description="how agents are prompted and replies parsed")
    selection: SelectionSettings = Field(description="how the final answer is selected")

    @property
    def allocates(self) -> bool:
        """Whether the method divides the budgets of the run between the problems by their progress."""
        return False

    @model_validator(mode="after")
    def _sets_nothing_without_effect(self) -> Self:
        default: AgentSettings = type(self).model_fields["agents"].default
        without_effect = AgentSettings.model_fields.keys() - AgentSettings.names_for(self.roles)
        for name in sorted(without_effect):
            if getattr(self.agents, name) != getattr(default, name):
                raise ValueError(f"agents.{name} has no effect on {self.name}, which calls {', '.join(self.roles)}")
        return self

    @field_serializer("agents")
    def _only_those_with_an_effect(self, agents: AgentSettings) -> dict[str, Any]:
        return agents.model_dump(include=AgentSettings.names_for(self.roles))


S = TypeVar("S", bound=MethodSettings)


class Method(ABC, Generic[S]):
    """Solves one problem at a time; holds no state between problems.

    A method is a deterministic function of (problem, seed), and its only effects are the session's calls. Each random
    draw has a name, results are used by index, and nothing depends on the time or on the order in which calls finish.
    A problem is resumed by running the method again on the recorded calls.
    """

    settings_type: ClassVar[type[MethodSettings]]

    def __init__(self, settings: S, checker: AnswerChecker, on_round: OnRound = lambda *_: None) -> None:
        self.settings, self.checker, self._on_round = settings, checker, on_round

    @abstractmethod
    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        """Run all iterations on ``problem``. Failures of single calls are part of the trajectory, never raised."""

    def observed(self, on_round: OnRound) -> Self:
        """A copy of the method that also calls ``on_round`` after each round."""
        own, both = self._on_round, copy.copy(self)

        def call_both(iteration: int, rollouts: Round, memory: Callable[[], Awaitable[Memory]]) -> None:
            own(iteration, rollouts, memory)
            on_round(iteration, rollouts, memory)

        both._on_round = call_both
        return both

    def continues(self, session: Session, iteration: int) -> bool:
        """Whether ``iteration`` (from 0) may begin: the session is not stopped, and ``max_iterations`` not reached."""
        return session.stopped is None and iteration < self.settings.max_iterations

    def report(self, iteration: int, rollouts: Round, memory: Callable[[], Awaitable[Memory]] = no_memory) -> None:
        """Report a finished round to the progress callback."""
        self._on_round(iteration, rollouts, memory)

    async def trajectory(
        self,
        session: Session,
        rounds: Sequence[Round],
        early_stop: bool = False,
        memories: Sequence[Memory] = (),
        chosen: Selection | None = None,
    ) -> Trajectory:
        """The trajectory of ``rounds``, with the answer selected after each. ``memories``: one for each round.

        ``chosen``: the selection after the last round, if the method itself has made it.
        """
        iterations = []
        for t, rollouts in enumerate(rounds):
            selection = chosen if t == len(rounds) - 1 else None
            if selection is None:
                selection = await select_and_record(session, rounds[: t + 1], self.settings.selection, self.checker)
            memory = memories[t] if memories else Memory()
            iterations.append(Iteration(index=t, rollouts=rollouts, selected=selection, **memory._asdict()))
        stop = session.stopped or ("early_stop" if early_stop else "max_iterations")
        return Trajectory(iterations=tuple(iterations), stop=stop)
