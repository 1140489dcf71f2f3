"""How Ray workers ask the run's own process for shares of its budget (:mod:`tmas.run.shares`).

The run's process keeps the shares of all problems. A worker's questions travel in its answers to heartbeats, and the
answers in the next heartbeats: one question for each iteration of a problem, and one when the problem ends. A question
is repeated until it is answered. So a lost heartbeat, or a worker that dies, changes nothing but time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tmas.run.shares import Amount, Grant, Shares
from tmas.settings import Limits


@dataclass(frozen=True)
class ShareQuestion:
    """``number``: unique in the worker's process. ``cost``: of the next iteration; None if the problem has ended.

    The other fields are those of :meth:`tmas.run.shares.ShareKeeper.ask`.
    """

    number: int
    problem_id: str
    spent: Amount
    cost: Amount | None = None
    stalled: int = 0
    begun: bool = False
    allowance: Amount | None = None


class RemoteShares:
    """Implements :class:`tmas.run.shares.ShareKeeper` in a worker."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._allowances: dict[str, Amount] = {}
        self._asked = 0
        self._open: dict[int, tuple[ShareQuestion, asyncio.Future[Grant]]] = {}

    def allow(self, problem_id: str, allowance: Amount) -> None:
        """The run's process has begun the problem with this allowance, and this worker solves it."""
        self._allowances[problem_id] = allowance

    def begin(self, problem_id: str) -> Amount | None:
        return self._allowances.pop(problem_id)

    async def ask(
        self,
        problem_id: str,
        spent: Amount,
        cost: Amount,
        stalled: int,
        begun: bool = False,
        allowance: Amount | None = None,
    ) -> Grant:
        return await self._answer_to(ShareQuestion(self._next(), problem_id, spent, cost, stalled, begun, allowance))

    async def end(self, problem_id: str, spent: Amount) -> None:
        await self._answer_to(ShareQuestion(self._next(), problem_id, spent))

    @property
    def questions(self) -> tuple[ShareQuestion, ...]:
        """The questions without an answer, for the next answer to a heartbeat."""
        return tuple(question for question, _ in self._open.values())

    def receive(self, answers: Mapping[int, Grant]) -> None:
        """Take the answers from a heartbeat, by the number of the question."""
        for number, grant in answers.items():
            if number in self._open and not (future := self._open[number][1]).done():
                future.set_result(grant)

    def _next(self) -> int:
        self._asked += 1
        return self._asked

    async def _answer_to(self, question: ShareQuestion) -> Grant:
        future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._open[question.number] = question, future
        try:
            return await future
        finally:
            del self._open[question.number]


class ShareDesk:
    """Answers the questions of all workers, in the run's own process."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._tasks: dict[tuple[str, int], asyncio.Task[Grant]] = {}

    def receive(self, process_id: str, questions: Sequence[ShareQuestion]) -> None:
        """Take the open questions of a worker's process. Questions that it does not ask any more are forgotten."""
        asked = {(process_id, question.number): question for question in questions}
        for key in [key for key in self._tasks if key[0] == process_id and key not in asked]:
            self._tasks.pop(key).cancel()
        for key, question in asked.items():
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._answer(question))

    def answers(self, process_id: str) -> dict[int, Grant]:
        """The answers for a worker's process, by the number of the question."""
        done = {
            number: task for (process, number), task in self._tasks.items() if process == process_id and task.done()
        }
        return {number: task.result() for number, task in done.items()}

    def keep_only(self, process_ids: set[str]) -> None:
        """Forget the questions of all other processes: they have died, or ask again when they are back."""
        for key in [key for key in self._tasks if key[0] not in process_ids]:
            self._tasks.pop(key).cancel()

    async def _answer(self, asked: ShareQuestion) -> Grant:
        if asked.cost is not None:
            return await self._shares.ask(
                asked.problem_id, asked.spent, asked.cost, asked.stalled, asked.begun, asked.allowance
            )
        await self._shares.end(asked.problem_id, asked.spent)
        return Grant(granted=True)
