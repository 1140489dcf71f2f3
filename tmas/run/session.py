"""The session of one problem: answers calls from its trace, makes the others, and counts what they cost."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from tmas.agents.packing import Prompt, Window
from tmas.concurrency import PriorityLimiter
from tmas.llm.client import ChatModel, RoutingHint
from tmas.llm.connection import StreamProgress
from tmas.llm.tokens import ContextWindow
from tmas.prompts import BUILT_IN, Prompts
from tmas.records import (
    CallKey,
    Failure,
    FailureReason,
    Problem,
    Reply,
    Request,
    Sampling,
    Usage,
    UsageEntry,
)
from tmas.run.budget import BROKEN, CANCELLED, BudgetReached, TokenBudget
from tmas.run.trace import Trace
from tmas.settings import Limits

Output = TypeVar("Output", bound=BaseModel)

MOST_PROBLEMS = 10**9
"""More than any run has: the priority of a call is its iteration, then its problem's place, in one number."""


@dataclass(frozen=True)
class RoleModel:
    """What one role calls: a chat server, the model's name there, its sampling and its window.

    ``free_first``: of each reply, the first call goes without its schema, which might keep the model from thinking.
    """

    chat: ChatModel
    name: str
    sampling: Sampling
    window: ContextWindow
    send_seed: bool = True
    free_first: bool = False

    def sampling_after(self, prompt: Prompt) -> Sampling:
        """The sampling, with the completion limited to what the prompt leaves of the window."""
        limit = self.window.max_completion(prompt.content)
        same = limit == self.sampling.max_tokens
        return self.sampling if same else self.sampling.model_copy(update={"max_tokens": limit})


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
class RunState:
    """The state that all sessions of a run share."""

    roles: Mapping[str, RoleModel]
    limiter: PriorityLimiter
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    budget: TokenBudget = field(default_factory=TokenBudget)
    activity: Activity = field(default_factory=Activity)
    prompts: Prompts = BUILT_IN


class ProblemSession:
    """Implements :class:`tmas.agents.base.Session` over a :class:`Trace`. ``order``: the problem's place in the input.

    ``lost``: why the problem is given up; what the trace does not answer is then a ``worker`` failure.
    """

    def __init__(self, problem: Problem, trace: Trace, run: RunState, order: int = 0, lost: str | None = None) -> None:
        self.problem, self.trace, self.run, self.order, self._lost = problem, trace, run, order, lost
        self.stopped: Literal["budget", "worker"] | None = None
        self.packed = 0
        self._usage: dict[tuple[str, int], Usage] = {}
        self._budget = TokenBudget(run.limits.tokens_per_problem, parent=run.budget)
        self._refusing = _still_stands(trace.decision("budget"), run.limits)
        for tokens in trace.decisions(BROKEN):
            self._budget.spend(Usage(completion_tokens=tokens), recorded=True)
        for entry in trace.decisions(CANCELLED):
            self._spend(UsageEntry(**entry), recorded=True)

    @property
    def usage(self) -> tuple[UsageEntry, ...]:
        entries = sorted(self._usage.items(), key=lambda entry: (entry[0][1], entry[0][0]))
        return tuple(UsageEntry(role=role, iteration=t, usage=usage) for (role, t), usage in entries)

    def draw(self, name: str) -> float:
        return keyed_hash(self.run.seed, self.problem.problem_id, name) / 2**56

    def window(self, role: str) -> Window:
        return self.run.roles[role].window

    @property
    def prompts(self) -> Prompts:
        return self.run.prompts

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
            messages=prompt.messages,
            sampling=role.sampling_after(prompt),
            n=n,
            seed=keyed_hash(self.run.seed, self.problem.problem_id, str(key)) % 2**31 if role.send_seed else None,
            output_schema=None if role.free_first and key.attempt == 0 else output_schema,
        )
        outcome = self.trace.find(key, request)
        if outcome is not None:
            self.run.activity.replayed += 1
            self._account(key, outcome, prompt, recorded=True)
            return outcome
        if self._lost:
            self.stopped = "worker"
            return Failure(reason=FailureReason.WORKER, message=self._lost, key=key)
        try:
            return await self._call(key, request, prompt)
        except BudgetReached as reached:
            return self._refused(key, reached.usage)

    async def _call(self, key: CallKey, request: Request, prompt: Prompt) -> Reply | Failure:
        role, activity = self.run.roles[key.role], self.run.activity
        hint = RoutingHint(self.problem.problem_id, key.iteration * MOST_PROBLEMS + self.order)
        async with self.run.limiter.slots((hint.priority,), request.n) as slots:
            if self._refusing:
                raise BudgetReached
            started, streamed, broken = time.time(), 0, 0

            def on_progress(progress: StreamProgress, count: Callable[[int], None]) -> None:
                nonlocal streamed, broken
                activity.tokens += progress.tokens - streamed
                broken += max(0, streamed - progress.tokens)  # an attempt that broke off, and begins again
                streamed = progress.tokens
                slots.keep(request.n - progress.ended)
                count(broken + progress.tokens)

            activity.in_flight += 1
            try:
                outcome = await self._budget.bounded(
                    lambda count: role.chat.complete(request, lambda progress: on_progress(progress, count), hint),
                    role.window.count(prompt.content) if self._budget.is_limited else 0,
                )
            except BudgetReached as reached:
                self._waste(key, broken)
                asked_for = reached.usage.completion_tokens - broken
                raise BudgetReached(reached.usage.model_copy(update={"completion_tokens": asked_for})) from None
            except BaseException:  # the run ends, and the call with it
                self._waste(key, broken + streamed)
                raise
            finally:
                activity.in_flight -= 1
        if isinstance(outcome, Failure):
            outcome = outcome.model_copy(update={"key": key})
        self._account(key, outcome, prompt)
        self._waste(key, broken + (streamed if isinstance(outcome, Failure) else _untold(outcome, prompt, role.window)))
        await self.trace.add(key, request, outcome, prompt.notes, started)
        activity.calls += 1
        return outcome

    def _account(self, key: CallKey, outcome: Reply | Failure, prompt: Prompt, recorded: bool = False) -> None:
        activity = self.run.activity
        activity.iterations[self.problem.problem_id] = key.iteration
        self.packed += bool(prompt.notes)
        if isinstance(outcome, Failure):
            activity.failed += 1
            return
        self._spend(UsageEntry(role=key.role, iteration=key.iteration, usage=outcome.usage), recorded)

    def _spend(self, entry: UsageEntry, recorded: bool = False) -> None:
        cell = (entry.role, entry.iteration)
        self._usage[cell] = self._usage.get(cell, Usage()) + entry.usage
        self._budget.spend(entry.usage, recorded)

    def _waste(self, key: CallKey, tokens: int) -> None:
        """Count tokens that stand in no usage, now and in every replay, beside those of the call before."""
        if tokens:
            name = f"{BROKEN}{key}"
            self.trace.decide(name, (self.trace.decision(name) or 0) + tokens)
            self._budget.spend(Usage(completion_tokens=tokens))

    def _refused(self, key: CallKey, cost: Usage) -> Failure:
        if cost.calls:
            self._note_cancelled(key, cost)
        if not self._refusing:
            self._refusing = True
            self.trace.decide("budget", self.run.limits.model_dump())
        self.stopped = "budget"
        return Failure(reason=FailureReason.BUDGET, message="the token budget is used up", key=key)

    def _note_cancelled(self, key: CallKey, cost: Usage) -> None:
        """Count what a cancelled call cost, now and in every replay, beside what it cost when cancelled before."""
        name = f"{CANCELLED}{key}"
        noted = self.trace.decision(name)
        before = UsageEntry(**noted).usage if noted else Usage()
        entry = UsageEntry(role=key.role, iteration=key.iteration, usage=cost)
        self._spend(entry)
        self.trace.decide(name, entry.model_copy(update={"usage": before + cost}).model_dump())


def keyed_hash(seed: int, problem_id: str, name: str) -> int:
    """A number below 2**56 that is a function of its arguments alone: what draws and request seeds are made of."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{problem_id}\0{name}".encode()).digest()[:7])


def _untold(reply: Reply, prompt: Prompt, window: Window) -> int:
    """What a reply cost in tokens, counted here, where the server did not tell; else 0."""
    if "usage_missing" not in reply.notes:
        return 0
    texts = (text for completion in reply.completions for text in (completion.text, completion.reasoning) if text)
    return window.count(prompt.content) + sum(map(window.count, texts))


def _still_stands(noted: dict[str, Any] | None, limits: Limits) -> bool:
    """Whether a budget stop that was noted under other limits stops this run too: it does unless one was raised."""
    return noted is not None and Limits(**noted) == limits
