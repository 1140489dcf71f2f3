"""What all methods share: their settings' common part, when they stop, and how their rounds become a trajectory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from tmas.agents.base import Session
from tmas.agents.team import SolverSettings
from tmas.answers.checker import AnswerChecker
from tmas.methods.selection import SelectionSettings, selected
from tmas.records import Iteration, Problem, Rollout, Trajectory

Round = tuple[Rollout, ...]
"""The rollouts of one iteration, by index."""
Hear = Callable[[Sequence[Any]], None]
"""Hears of the rounds so far whenever another one begins or is not begun: see :meth:`Method.done`."""


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Of a method. ``roles``: those that it calls. ``max_iterations``: the total, also on resume."""

    roles: ClassVar[tuple[str, ...]]

    name: str
    max_iterations: int
    agents: SolverSettings
    selection: SelectionSettings


S = TypeVar("S", bound=Settings)


class Method(ABC, Generic[S]):
    """Solves one problem at a time; holds no state between problems.

    A method is a deterministic function of (problem, seed) whose only effects are the session's calls: it draws by
    name, uses results by index, and never sees time or order. So resuming it is running it again on recorded calls.
    """

    settings_type: ClassVar[type[Settings]]

    def __init__(self, settings: S, checker: AnswerChecker, hear: Hear = lambda _: None) -> None:
        self.settings, self.checker, self._hear = settings, checker, hear

    @abstractmethod
    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        """All iterations on ``problem``. Failures of single calls are part of the trajectory, never raised."""

    def done(self, session: Session, rounds: Sequence[Any], satisfied: bool = False) -> bool:
        """Whether ``rounds`` are all. ``satisfied``: the method has what it looks for and may stop early.

        One of ``rounds`` is a :data:`Round`, or has it as ``rollouts``, with banks to wait for in ``memory()``.
        """
        self._hear(rounds)
        return session.stopped is not None or satisfied or len(rounds) == self.settings.max_iterations

    async def trajectory(
        self,
        session: Session,
        rounds: Sequence[Round],
        satisfied: bool = False,
        memory: Sequence[Mapping[str, Any]] = (),
    ) -> Trajectory:
        """``rounds`` with the answer selected after each. ``memory``: further fields of each :class:`Iteration`."""
        iterations = []
        for t, rollouts in enumerate(rounds):
            chosen = await selected(session, rounds[: t + 1], self.settings.selection, self.checker)
            found = memory[t] if memory else {}
            iterations.append(Iteration(index=t, rollouts=rollouts, selected=chosen, **found))
        stop = session.stopped or ("early_stop" if satisfied else "max_iterations")
        return Trajectory(iterations=tuple(iterations), stop=stop)
