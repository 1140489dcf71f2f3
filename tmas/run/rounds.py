"""What ``tmas status`` shows of the rounds of a live run: failures by reason, and the latest bank changes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from tmas.concurrency import first_cause
from tmas.llm.endpoint import EndpointDown
from tmas.methods.base import Memory, OnRound, Round
from tmas.records import BankChange
from tmas.records.live import RecentBankChange
from tmas.run.activity import Activity
from tmas.run.session import ProblemSession

MAX_BANK_CHANGES = 10
"""Number of the latest bank changes that are kept."""


@asynccontextmanager
async def observed_rounds(session: ProblemSession, activity: Activity) -> AsyncIterator[OnRound]:
    """Yield a progress callback for the method that solves the session's problem. It updates ``activity``.

    The failures are those of all finished iterations of the problem, including replayed ones. The caller removes them
    once it has the result, which contains them. Bank changes of replayed iterations are left out: they were shown when
    they were made, by an earlier start or by another worker.
    """
    problem_id = session.problem.problem_id
    failures: Counter[str] = Counter()
    activity.failures[problem_id] = failures

    async def add_memory(iteration: int, memory: Callable[[], Awaitable[Memory]]) -> None:
        found = await memory()
        failures.update(failure.reason.value for failure in found.failures)
        if session.has_new_calls(iteration):
            sizes = len(found.experiences), len(found.guidelines)
            changes = found.experience_change, found.guideline_change
            recent = recent_changes(problem_id, iteration, sizes, changes, time.time())
            activity.bank_changes = (*activity.bank_changes, *recent)[-MAX_BANK_CHANGES:]

    def on_round(iteration: int, rollouts: Round, memory: Callable[[], Awaitable[Memory]]) -> None:
        failures.update(failure.reason.value for rollout in rollouts for failure in rollout.failures)
        group.create_task(add_memory(iteration, memory))

    try:
        async with asyncio.TaskGroup() as group:
            yield on_round
    except BaseExceptionGroup as raised:
        raise first_cause(raised, foremost=EndpointDown) from None


def recent_changes(
    problem_id: str,
    iteration: int,
    sizes: tuple[int, int],
    changes: tuple[BankChange | None, BankChange | None],
    now: float | None = None,
) -> tuple[RecentBankChange, ...]:
    """The changes of one iteration. ``sizes`` and ``changes`` are of the experience bank and of the guideline bank.

    ``now``: time of the changes; None if it is not known.
    """
    names: tuple[Literal["experience"], Literal["guideline"]] = ("experience", "guideline")
    return tuple(
        RecentBankChange(time=now, problem_id=problem_id, iteration=iteration, bank=bank, size=size, change=change)
        for bank, size, change in zip(names, sizes, changes, strict=True)
        if change
    )


def add_up_details(total: Activity, known: Sequence[Activity], live: Sequence[Activity]) -> None:
    """Set the counters by role, the failures and the latest bank changes of ``total`` to those of several processes.

    ``known``: the last activity of every process. ``live``: those of the processes that answer now. Only failures of
    ``live`` processes count, because another worker replays the problems of a dead one.
    """
    total.failures = {problem: reasons for activity in live for problem, reasons in activity.failures.items()}
    changes = [change for activity in known for change in activity.bank_changes]
    total.bank_changes = tuple(sorted(changes, key=lambda change: change.time or 0)[-MAX_BANK_CHANGES:])
    for name in {name for activity in known for name in activity.roles}:
        of_role = total.role(name)
        for counter in ("calls", "failed", "tokens"):
            setattr(of_role, counter, sum(getattr(activity.role(name), counter) for activity in known))
        of_role.in_flight = sum(activity.role(name).in_flight for activity in live)
