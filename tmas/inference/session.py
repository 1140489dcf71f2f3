"""The session of one problem: answers calls from its trace, makes the others, and counts what they cost."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tmas.concurrency import PriorityLimiter
from tmas.inference.budget import BudgetReached, TokenBudget
from tmas.inference.client import ChatModel
from tmas.inference.store import Trace
from tmas.packing import Prompt, Window
from tmas.records import (
    CallKey,
    Failure,
    FailureReason,
    Message,
    Problem,
    Reply,
    Request,
    Sampling,
    Usage,
    UsageEntry,
)

Output = TypeVar("Output", bound=BaseModel)


class Limits(BaseModel):
    """Hard budgets in tokens, prompt and completion together; null: none. May be raised when a run is resumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens_per_problem: int | None = Field(default=None, ge=1)
    tokens_per_run: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class RoleModel:
    """What one role calls: a chat server, the model's name there, its sampling and its window."""

    chat: ChatModel
    name: str
    sampling: Sampling
    window: Window
    send_seed: bool = True


@dataclass
class Activity:
    """Live counters of a run, for the progress display. Tokens are completion tokens as they stream."""

    status: str = ""
    finished: int = 0
    in_flight: int = 0
    calls: int = 0
    replayed: int = 0
    failed: int = 0
    tokens: int = 0
    iterations: dict[str, int] = field(default_factory=dict)


@dataclass
class Run:
    """What all sessions of a run share."""

    roles: Mapping[str, RoleModel]
    limiter: PriorityLimiter
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    budget: TokenBudget = field(default_factory=TokenBudget)
    activity: Activity = field(default_factory=Activity)


class ProblemSession:
    """Implements :class:`tmas.agents.Session` over a :class:`Trace`. ``order``: the problem's place in the input."""

    def __init__(self, problem: Problem, trace: Trace, run: Run, order: int = 0) -> None:
        self.problem, self.trace, self.run, self.order = problem, trace, run, order
        self.stopped = False
        self.packed = 0
        self._usage: dict[tuple[str, int], Usage] = {}
        self._budget = TokenBudget(run.limits.tokens_per_problem, parent=run.budget)
        self._refusing = _still_stands(trace.decision("budget"), run.limits)

    @property
    def usage(self) -> tuple[UsageEntry, ...]:
        entries = sorted(self._usage.items(), key=lambda entry: (entry[0][1], entry[0][0]))
        return tuple(UsageEntry(role=role, iteration=t, usage=usage) for (role, t), usage in entries)

    def draw(self, name: str) -> float:
        return self._hash(name) / 2**56

    def window(self, role: str) -> Window:
        return self.run.roles[role].window

    async def decide(self, name: str, compute: Callable[[], Awaitable[Output]], output: type[Output]) -> Output:
        noted = self.trace.decision(name)
        if noted is not None:
            return output.model_validate(noted)
        value = await compute()
        self.trace.decide(name, value.model_dump(mode="json"))
        return value

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure:
        """The outcome of a call: recorded, or made now and recorded before it is returned."""
        role = self.run.roles[key.role]
        request = Request(
            model=role.name,
            messages=(Message(role="user", content=prompt.text),),
            sampling=role.sampling,
            n=n,
            seed=self._hash(str(key)) % 2**31 if role.send_seed else None,
            output_schema=output_schema,
        )
        outcome = self.trace.find(key, request)
        if outcome is not None:
            self.run.activity.replayed += 1
        else:
            try:
                outcome = await self._call(key, request, prompt)
            except BudgetReached:
                return self._refused(key)
        self._account(key, outcome, prompt)
        return outcome

    async def _call(self, key: CallKey, request: Request, prompt: Prompt) -> Reply | Failure:
        role, activity = self.run.roles[key.role], self.run.activity
        async with self.run.limiter.slot((key.iteration, self.order)):
            if self._refusing:
                raise BudgetReached
            started, streamed = time.time(), 0

            def on_progress(tokens: int, count: Callable[[int], None]) -> None:
                nonlocal streamed
                activity.tokens += tokens - streamed
                streamed = tokens
                count(tokens)

            activity.in_flight += 1
            try:
                outcome = await self._budget.bounded(
                    lambda count: role.chat.complete(request, lambda tokens: on_progress(tokens, count)),
                    role.window.count(prompt.text) if self._budget.is_limited else 0,
                )
            finally:
                activity.in_flight -= 1
        if isinstance(outcome, Failure):
            outcome = outcome.model_copy(update={"key": key})
        await self.trace.add(key, request, outcome, prompt.notes, started)
        activity.calls += 1
        return outcome

    def _account(self, key: CallKey, outcome: Reply | Failure, prompt: Prompt) -> None:
        activity = self.run.activity
        activity.iterations[self.problem.problem_id] = key.iteration
        self.packed += bool(prompt.notes)
        if isinstance(outcome, Failure):
            activity.failed += 1
            return
        cell = (key.role, key.iteration)
        self._usage[cell] = self._usage.get(cell, Usage()) + outcome.usage
        self._budget.spend(outcome.usage)

    def _refused(self, key: CallKey) -> Failure:
        if not self._refusing:
            self._refusing = True
            self.trace.decide("budget", self.run.limits.model_dump())
        self.stopped = True
        return Failure(reason=FailureReason.BUDGET, message="the token budget is used up", key=key)

    def _hash(self, name: str) -> int:
        text = f"{self.run.seed}\0{self.problem.problem_id}\0{name}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _still_stands(noted: dict[str, Any] | None, limits: Limits) -> bool:
    """Whether a budget stop that was noted under other limits stops this run too: it does unless one was raised."""
    return noted is not None and Limits(**noted) == limits
