"""How Ray workers ask the run's own process for shares of its budget (:mod:`tmas.run.shares`).

The run's process keeps the shares of all problems. A worker sends its questions in its replies to heartbeats, and
receives the answers with the next heartbeats. There is one question before each iteration of a problem after the first,
and one when the problem ends. A question is repeated until it is answered. So a lost heartbeat or a dead worker only
costs time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tmas.run.shares import Amount, Grant, ShareRequest, Shares
from tmas.settings import Limits


@dataclass(frozen=True)
class Ended:
    """A problem has ended and has used ``spent``."""

    problem_id: str
    spent: Amount


@dataclass(frozen=True)
class ShareQuestion:
    """A question of a worker: a request for a share, or the report that a problem has ended.

    ``number``: unique in the worker's process. The grant that answers :class:`Ended` only confirms its receipt.
    """

    number: int
    content: ShareRequest | Ended


class RemoteShares:
    """Implements :class:`tmas.run.shares.ShareKeeper` in a worker."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._allowances: dict[str, Amount] = {}
        self._asked = 0
        self._open: dict[int, tuple[ShareQuestion, asyncio.Future[Grant]]] = {}

    def allow(self, problem_id: str, allowance: Amount) -> None:
        """Note the allowance of a problem that this worker is about to solve."""
        self._allowances[problem_id] = allowance

    def begin(self, problem_id: str) -> Amount | None:
        return self._allowances.pop(problem_id)

    async def ask(self, request: ShareRequest) -> Grant:
        return await self._answer_to(request)

    async def end(self, problem_id: str, spent: Amount) -> None:
        await self._answer_to(Ended(problem_id, spent))

    @property
    def questions(self) -> tuple[ShareQuestion, ...]:
        """The questions without an answer, for the next reply to a heartbeat."""
        return tuple(question for question, _ in self._open.values())

    def receive(self, answers: Mapping[int, Grant]) -> None:
        """Take the answers from a heartbeat, by the number of the question."""
        for number, grant in answers.items():
            if number in self._open and not (future := self._open[number][1]).done():
                future.set_result(grant)

    async def _answer_to(self, content: ShareRequest | Ended) -> Grant:
        self._asked += 1
        number = self._asked
        future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._open[number] = ShareQuestion(number, content), future
        try:
            return await future
        finally:
            del self._open[number]


class ShareDesk:
    """Answers the questions of all workers, in the run's own process."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._tasks: dict[tuple[str, int], asyncio.Task[Grant]] = {}

    def receive(self, process_id: str, questions: Sequence[ShareQuestion]) -> None:
        """Take the open questions of a worker's process. Questions that it no longer sends are dropped."""
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
        """Drop the questions of all other processes: those have died, or will send the questions again."""
        for key in [key for key in self._tasks if key[0] not in process_ids]:
            self._tasks.pop(key).cancel()

    async def _answer(self, asked: ShareQuestion) -> Grant:
        if isinstance(asked.content, ShareRequest):
            return await self._shares.ask(asked.content)
        await self._shares.end(asked.content.problem_id, asked.content.spent)
        return Grant(granted=True)
