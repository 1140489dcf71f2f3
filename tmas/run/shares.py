"""Shares of the problems in ``limits.tokens_per_run``, for a method that allocates (``method.allocation``).

Each problem has an equal share. A problem that ends leaves what it did not use to a common pool. A problem whose share
is used up takes what its next iteration will cost from the pool: as much as its last iteration cost. If the pool has
too little, the problem waits for others to end. Of the waiting problems, the one that made progress most recently is
served first. If all problems wait, the one that has made no progress for longest is refused, which ends it and leaves
the rest of its share to the others.

Who gets what depends on the order in which problems end. Therefore each grant is a recorded decision of the problem
that asked, and a resumed run repeats it. The pool of a resumed run is computed from the traces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tmas.records import Record
from tmas.records.trace_lines import DecisionLine
from tmas.run.trace import read_trace, trace_name

GRANT_PREFIX = "share/"
"""Prefix of the decisions about iterations, followed by the limit and the iteration. The value is a :class:`Grant`."""
ENDED = "share_ended"
"""Name of the decision that a problem ended. The value is the number of tokens that it has used."""


class Grant(Record):
    """Whether a problem may run an iteration. ``taken``: tokens from the pool, beyond the problem's own share."""

    granted: bool
    taken: int = 0


@dataclass
class _Account:
    """``taken``: tokens that the problem took from the pool. ``ended``: tokens that it had used when it ended."""

    taken: int = 0
    ended: int | None = None


class _Waiting(NamedTuple):
    stalled: int
    tokens: int
    name: str
    answer: asyncio.Future[bool]


@dataclass
class Shares:
    """The shares of one run. ``limit``: tokens of the run. ``problems``: number of problems in the run."""

    limit: int
    problems: int
    accounts: dict[str, _Account] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.share = self.limit // max(1, self.problems)
        self.pool = sum(
            (self.share - account.ended) if account.ended is not None else -account.taken
            for account in self.accounts.values()
        )
        self._running: set[str] = set()
        self._waiting: list[_Waiting] = []

    @classmethod
    def of_run(cls, directory: Path, limit: int, problems: int) -> Shares:
        """The shares of a run that may have been interrupted, from the traces in its directory."""
        accounts = {trace.name: _recorded_account(trace, limit) for trace in sorted(directory.glob("trace/*.jsonl"))}
        return cls(limit, problems, accounts)

    def begin(self, problem_id: str) -> None:
        """The problem is being solved from now on. A resumed problem gets back what it left to the pool."""
        name = trace_name(problem_id)
        account = self.accounts.setdefault(name, _Account())
        if account.ended is not None:
            self.pool -= self.share + account.taken - account.ended
            account.ended = None
        self._running.add(name)

    def end(self, problem_id: str, spent: int) -> None:
        """The problem has ended, and has used ``spent`` tokens. The rest goes to the pool."""
        name = trace_name(problem_id)
        account = self.accounts[name]
        account.ended = spent
        self.pool += self.share + account.taken - spent
        self._running.discard(name)
        self._serve()

    async def ask(self, problem_id: str, spent: int, cost: int, stalled: int, begun: bool = False) -> Grant:
        """Whether the problem may spend ``cost`` tokens in addition to ``spent``. May wait for other problems.

        ``stalled``: number of iterations without progress. ``begun``: the trace has calls of this iteration, so it is
        granted at once. The pool may fall below zero by this; then no other problem gets anything until one ends.
        """
        name = trace_name(problem_id)
        account = self.accounts[name]
        missing = spent + cost - self.share - account.taken
        if missing <= 0:
            return Grant(granted=True)
        if begun:
            self.pool -= missing
            account.taken += missing
            return Grant(granted=True, taken=missing)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(stalled, missing, name, answer)
        self._waiting.append(waiting)
        try:
            self._serve()
            granted = await answer
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return Grant(granted=granted, taken=missing if granted else 0)

    def _serve(self) -> None:
        """Grant the waiting requests that the pool can pay for. If all running problems wait, refuse one."""
        for waiting in sorted(self._waiting, key=lambda w: (w.stalled, w.tokens, w.name)):
            if waiting.tokens <= self.pool:
                self.pool -= waiting.tokens
                self.accounts[waiting.name].taken += waiting.tokens
                self._answer(waiting, True)
        if self._waiting and {waiting.name for waiting in self._waiting} >= self._running:
            self._answer(max(self._waiting, key=lambda w: (w.stalled, w.tokens, w.name)), False)

    def _answer(self, waiting: _Waiting, granted: bool) -> None:
        self._waiting.remove(waiting)
        if not waiting.answer.done():
            waiting.answer.set_result(granted)


def grant_name(limit: int, iteration: int) -> str:
    """The name of the decision about an iteration. With another limit it is decided anew."""
    return f"{GRANT_PREFIX}{limit}/{iteration}"


def _recorded_account(trace: Path, limit: int) -> _Account:
    account = _Account()
    for name, value in _decisions(trace):
        if name.startswith(grant_name(limit, 0).removesuffix("0")):
            account.taken += Grant.model_validate(value).taken
        elif name == ENDED:
            account.ended = int(value)
    return account


def _decisions(trace: Path) -> Iterator[tuple[str, Any]]:
    for line in read_trace(trace, skip_damaged=True):
        if isinstance(line, DecisionLine):
            yield line.name, line.value
