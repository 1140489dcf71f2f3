"""Each problem's share of a run's budget, for a method that allocates (``method.allocation``).

The budget is ``limits.tokens_per_run``, ``limits.money_per_run``, or both. Each problem has an equal share. A problem
that ends leaves what it did not use to a common pool. A problem whose share is used up takes the expected cost of its
next iteration, which is what its last one cost, from the pool. If the pool has too little, the problem waits for others
to end. Of the waiting problems, the one that made progress most recently is served first. If all problems wait, the one
that has made no progress for longest is refused. This ends it, and leaves the rest of its share to the others.

Who gets what depends on the order in which problems end. Therefore each grant is a recorded decision of the problem
that asked, and a resumed run repeats it. The pool of a resumed run is computed from the traces.

In one process, :class:`~tmas.run.budget.TokenBudget` counts all calls of the run and ends it at the limit, so an
iteration may cost more than was granted. Several Ray workers have no common count. There the shares are *strict*: a
problem may use its share and what it took, its *allowance*, and a call that would exceed the allowance is cancelled.
The allowances of all problems and the pool add up to the limit. To make such cancellations rare, a problem takes
a reserve in addition to the expected cost.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from tmas.records import Record
from tmas.records.prices import Price
from tmas.records.trace_lines import CallLine, DecisionLine, PromptLine
from tmas.run.budget import known_cost, line_charges
from tmas.run.trace import read_trace, trace_name
from tmas.settings import Limits

GRANT_PREFIX = "share/"
"""Prefix of the decisions about iterations, followed by the limit and the iteration. The value is a :class:`Grant`."""
ENDED = "share_ended"
"""Name of the decision that a problem ended. The value is the number of tokens that it has used.

If tokens were charged after it, the problem was resumed, and has ended only if the decision is recorded once more."""


@dataclass(frozen=True)
class Amount:
    """Tokens, and money in the currency of the prices.

    If the run has no limit on one of them, :class:`Shares` uses 0 for it. All operations work on each of the two
    separately.
    """

    tokens: int = 0
    money: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.money + other.money)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.tokens - other.tokens, self.money - other.money)

    def __neg__(self) -> Amount:
        return Amount() - self

    def times(self, factor: float) -> Amount:
        """The amount multiplied by ``factor``. Tokens are rounded up."""
        return Amount(math.ceil(self.tokens * factor), self.money * factor)

    def at_least_zero(self) -> Amount:
        return Amount(max(0, self.tokens), max(0.0, self.money))

    def at_most(self, other: Amount) -> Amount:
        return Amount(min(self.tokens, other.tokens), min(self.money, other.money))

    def fits(self, other: Amount) -> bool:
        """Whether ``other`` has enough tokens and enough money. A need of 0 is met even if ``other`` is negative."""
        return self.tokens <= max(0, other.tokens) and self.money <= max(0.0, other.money)


class Grant(Record):
    """Whether a problem may run an iteration. ``taken``, ``taken_money``: what the problem takes from the pool."""

    granted: bool
    taken: int = 0
    taken_money: float = 0.0

    @property
    def amount(self) -> Amount:
        return Amount(self.taken, self.taken_money)


@dataclass(frozen=True)
class ShareRequest:
    """Asks whether the problem may spend ``cost``, for its next iteration, in addition to what it has ``spent``.

    ``stalled``: number of iterations without progress. ``begun``: the trace has calls of this iteration, so it is
    granted at once. ``allowance``: with strict shares, the allowance as the problem knows it. The real one is higher if
    the answer to an earlier request was lost.
    """

    problem_id: str
    spent: Amount
    cost: Amount
    stalled: int = 0
    begun: bool = False
    allowance: Amount | None = None


class ShareKeeper(Protocol):
    """Keeps the shares of a run. In a Ray worker it asks the run's own process (:mod:`tmas.run.share_messages`)."""

    limits: Limits

    def begin(self, problem_id: str) -> Amount | None:
        """Register that a problem starts or resumes. Returns its allowance; None if the shares are not strict."""

    async def end(self, problem_id: str, spent: Amount) -> None:
        """Register that a problem has ended and has used ``spent``. The rest of its share goes to the pool."""

    async def ask(self, request: ShareRequest) -> Grant:
        """Answer a request. May wait for other problems.

        Without strict shares, an iteration that has begun can take more than the pool has. The pool is then below zero,
        and no other problem gets anything until one ends.
        """
        ...


@dataclass
class _Account:
    """``taken``: what the problem took from the pool. ``spent``: what it has used; only exact once it has ``ended``."""

    taken: Amount = Amount()
    spent: Amount = Amount()
    ended: bool = False


class _Waiting(NamedTuple):
    """A request that waits. ``needed``: what the pool must have for a grant. ``wanted``: this plus the reserve."""

    stalled: int
    needed: Amount
    wanted: Amount
    name: str
    answer: asyncio.Future[bool]

    @property
    def order(self) -> tuple[int, int, float, str]:
        """Sort key: the request with the lowest key is served first.

        If all problems wait, the one with the highest key is refused.
        """
        return self.stalled, self.needed.tokens, self.needed.money, self.name


@dataclass
class Shares:
    """Implements :class:`ShareKeeper`. ``problems``: number of problems in the run.

    ``reserve``: with strict shares, what a problem takes beyond the expected cost of an iteration, as a fraction of
    that cost, if the pool has it. None: the shares are not strict.
    """

    limits: Limits
    problems: int
    accounts: dict[str, _Account] = field(default_factory=dict)
    reserve: float | None = None

    def __post_init__(self) -> None:
        self.share = share_of(self.limits, self.problems)
        self.pool = Amount()
        for account in self.accounts.values():
            # An ended problem has put back what it did not use, of its share and of what it took.
            self.pool += self.share - account.spent if account.ended else -account.taken
        self._running: set[str] = set()
        self._waiting: list[_Waiting] = []

    @classmethod
    def of_run(
        cls,
        directory: Path,
        limits: Limits,
        problems: int,
        prices: Mapping[str, Price],
        reserve: float | None = None,
    ) -> Shares:
        """The shares of a run that may have been interrupted, from the traces in its directory."""
        share = share_of(limits, problems)
        traces = sorted(directory.glob("trace/*.jsonl"))
        accounts = {trace.name: _recorded_account(trace, limits, share, prices) for trace in traces}
        return cls(limits, problems, accounts, reserve)

    @property
    def is_strict(self) -> bool:
        """Whether a call that would exceed the allowance of its problem is cancelled."""
        return self.reserve is not None

    def begin(self, problem_id: str) -> Amount | None:
        """See :class:`ShareKeeper`. A resumed problem gets back what it left to the pool.

        Other problems may have taken it, so the pool may fall below zero. With strict shares, the problem then gives up
        unused parts of its share until the pool is at zero.
        """
        name = trace_name(problem_id)
        account = self.accounts.setdefault(name, _Account())
        if account.ended:
            self.pool -= self.share + account.taken - account.spent
            account.ended = False
        if self.is_strict and name not in self._running:
            unused = (self.share + account.taken - account.spent).at_least_zero()
            given_up = (-self.pool).at_least_zero().at_most(unused)
            self._take(account, -given_up)
        self._running.add(name)
        return self.share + account.taken if self.is_strict else None

    async def end(self, problem_id: str, spent: Amount) -> None:
        name = trace_name(problem_id)
        account = self.accounts[name]
        if not account.ended:  # a worker repeats the report if the answer was lost
            account.spent, account.ended = only_limited_kinds(spent, self.limits), True
            self.pool += self.share + account.taken - account.spent
        self._running.discard(name)
        self._serve()

    async def ask(self, request: ShareRequest) -> Grant:
        name = trace_name(request.problem_id)
        account = self.accounts[name]
        if request.allowance is None:
            known_allowance = self.share + account.taken
        else:
            known_allowance = only_limited_kinds(request.allowance, self.limits)
        cost, spent = only_limited_kinds(request.cost, self.limits), only_limited_kinds(request.spent, self.limits)
        remaining = self.share + account.taken - spent
        needed = (cost - remaining).at_least_zero()
        wanted = (cost.times(1 + (self.reserve or 0.0)) - remaining).at_least_zero()
        granted = True
        if request.begun and not self.is_strict:
            self._take(account, needed)  # even if the pool is then below zero
        elif request.begun or needed == Amount():
            self._take(account, wanted.at_most(self.pool.at_least_zero()))
        else:
            answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            granted = await self._wait(_Waiting(request.stalled, needed, wanted, name, answer))
        taken = self.share + account.taken - known_allowance  # includes grants whose answer was lost
        return Grant(granted=granted, taken=taken.tokens, taken_money=taken.money)

    async def _wait(self, waiting: _Waiting) -> bool:
        self._waiting.append(waiting)
        try:
            self._serve()
            return await waiting.answer
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _serve(self) -> None:
        """Grant the waiting requests that the pool can pay for. If all running problems wait, refuse one."""
        for waiting in sorted(self._waiting, key=lambda w: w.order):
            if waiting.needed.fits(self.pool):
                self._take(self.accounts[waiting.name], waiting.wanted.at_most(self.pool.at_least_zero()))
                self._answer(waiting, True)
        if self._waiting and {waiting.name for waiting in self._waiting} >= self._running:
            self._answer(max(self._waiting, key=lambda w: w.order), False)

    def _take(self, account: _Account, amount: Amount) -> None:
        self.pool -= amount
        account.taken += amount

    def _answer(self, waiting: _Waiting, granted: bool) -> None:
        self._waiting.remove(waiting)
        if not waiting.answer.done():
            waiting.answer.set_result(granted)


def share_of(limits: Limits, problems: int) -> Amount:
    """Each problem's share of the run's budget."""
    count = max(1, problems)
    return Amount((limits.tokens_per_run or 0) // count, (limits.money_per_run or 0.0) / count)


def only_limited_kinds(amount: Amount, limits: Limits) -> Amount:
    """``amount`` with 0 tokens, or 0 money, where the run has no limit on them."""
    return Amount(amount.tokens if limits.tokens_per_run else 0, amount.money if limits.money_per_run else 0.0)


def grant_name(limits: Limits, iteration: int) -> str:
    """The name of the decision about an iteration. A run that is resumed with another limit decides it again."""
    money = f"+{limits.money_per_run}" if limits.money_per_run else ""
    return f"{GRANT_PREFIX}{limits.tokens_per_run or ''}{money}/{iteration}"


def _recorded_account(trace: Path, limits: Limits, share: Amount, prices: Mapping[str, Price]) -> _Account:
    """The account of a problem, from its trace. Only grants under the present ``limits`` count."""
    account = _Account()
    prefix = grant_name(limits, 0).removesuffix("0")  # common to all iterations
    ended_with: int | None = None

    def read() -> Iterator[PromptLine | CallLine | DecisionLine]:
        """Yield the lines of the trace, and note the decisions for the account on the way: one reading serves both."""
        nonlocal ended_with
        for line in read_trace(trace, skip_damaged=True):
            if isinstance(line, DecisionLine) and line.name.startswith(prefix):
                account.taken += Grant.model_validate(line.value).amount
            elif isinstance(line, DecisionLine) and line.name == ENDED:
                ended_with = int(line.value)
            elif line_charges([line]):
                ended_with = None  # the problem was resumed after it had ended
            yield line

    charges = line_charges(read())
    tokens = sum(usage.total_tokens for usage in charges.values())
    account.ended = ended_with is not None
    account.spent = only_limited_kinds(
        Amount(tokens if ended_with is None else ended_with, known_cost(charges, prices)), limits
    )
    if not account.ended:  # an iteration may have cost more than was granted
        over = (account.spent - share - account.taken).at_least_zero()
        account.taken += over
    return account
