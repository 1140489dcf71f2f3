"""The session of one problem: answers recorded calls from the trace, makes new calls, and counts their tokens."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from tmas.agents.packing import Prompt, Window
from tmas.llm.chat_model import RoutingHint
from tmas.llm.connection import StreamProgress
from tmas.prompts import Prompts
from tmas.records import (
    CallKey,
    Failure,
    FailureReason,
    Problem,
    Reply,
    Request,
    Usage,
    UsageEntry,
)
from tmas.records.token_counts import UNREPORTED, USAGE_IMPLAUSIBLE
from tmas.redaction import clean_logger
from tmas.run.budget import (
    UNREPORTED_PREFIX,
    BudgetReached,
)
from tmas.run.charges import ProblemCharges
from tmas.run.health import ReplyCounter
from tmas.run.shares import ENDED, Amount, Grant, ShareRequest, grant_name
from tmas.run.state import RunState
from tmas.run.trace import Trace
from tmas.settings import Limits

Output = TypeVar("Output", bound=BaseModel)
log = clean_logger(__name__)

PRIORITY_STRIDE = 10**9
"""Larger than the number of problems of any run. So the priority ``iteration * PRIORITY_STRIDE + order`` sorts calls by
iteration first, and then by the problem's position in the input."""


class ProblemSession:
    """Implements :class:`tmas.agents.base.Session` over a :class:`Trace`.

    ``order``: the problem's position in the input. ``give_up_reason``: if set, no new calls are made; a call that is
    not in the trace is a ``worker`` failure with this message. ``allowance``: maximum that the problem may take from
    the budget of the run; only set if the run has strict shares (:mod:`tmas.run.shares`). ``earlier_usage``: usage in
    the trace when the session begins, by role; only needed with an allowance.
    """

    def __init__(
        self,
        problem: Problem,
        trace: Trace,
        run: RunState,
        order: int = 0,
        give_up_reason: str | None = None,
        allowance: Amount | None = None,
        earlier_usage: Mapping[str, Usage] | None = None,
    ) -> None:
        self.problem, self.trace, self.run, self.order = problem, trace, run, order
        self._give_up_reason = give_up_reason
        self.stopped: Literal["budget", "worker"] | None = None
        self.packed_prompts = 0  # prompts that had to be shortened to fit
        self.reply_counter = ReplyCounter()
        self.charges = ProblemCharges(trace, run, allowance, earlier_usage)
        self._iterations_with_new_calls: set[int] = set()
        # True from the beginning if a budget stopped the problem in an earlier start, and the limits have not changed.
        # Recorded calls are still answered, and all new calls are refused.
        self._refuses_new_calls = _stop_applies(trace.decision("budget"), run.limits)

    @property
    def usage(self) -> tuple[UsageEntry, ...]:
        return self.charges.usage

    def has_new_calls(self, iteration: int) -> bool:
        """Whether this session has made a new call in ``iteration``. If not, the iteration was replayed."""
        return iteration in self._iterations_with_new_calls

    def draw(self, name: str) -> float:
        return keyed_hash(self.run.seed, self.problem.problem_id, name) / 2**56

    def window(self, role: str) -> Window:
        return self.run.roles[role].window

    @property
    def prompts(self) -> Prompts:
        return self.run.prompts

    def shown_items(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        """The ids of the bank items in ``prompt``. ``key`` is only needed in a replay."""
        return prompt.shown

    async def decide(self, name: str, compute: Callable[[], Awaitable[Output]], output: type[Output]) -> Output:
        recorded = self.trace.decision(name)
        if recorded is not None:
            try:
                return output.model_validate(recorded)
            except ValidationError as error:
                # Only possible if someone edited the trace of an older version: its lines have no checksums.
                log.warning("%s: the decision %s is invalid and is made again: %s", self.trace.path, name, error)
        value = await compute()
        self.trace.record_decision(name, value.model_dump(mode="json"))
        return value

    async def share_allows(self, iteration: int, stalled: int) -> bool:
        shares = self.run.shares
        if shares is None or iteration == 0 or self._give_up_reason:
            return True
        begun = self.trace.has_calls(f"{self.problem.problem_id}/it{iteration}/")
        is_new = False

        async def request_share() -> Grant:
            nonlocal is_new
            is_new = True
            spent, allowance = self.charges.spent, self.charges.allowance
            expected_cost = self.charges.used_in_iteration(iteration - 1)
            request = ShareRequest(self.problem.problem_id, spent, expected_cost, stalled, begun, allowance)
            return await shares.ask(request)

        grant = await self.decide(grant_name(shares.limits, iteration), request_share, Grant)
        if is_new:  # a recorded grant is already part of the allowance
            self.charges.allow(grant.amount)
        if not grant.granted:
            self.stopped = "budget"
        return grant.granted

    async def end_share(self) -> None:
        """Record how much the problem used, and leave the rest of its share to the other problems.

        The usage is recorded even if the run has no limit, because the run may be resumed with a limit.
        """
        spent = self.charges.spent
        if self.trace.decision(ENDED) != spent.tokens or self._iterations_with_new_calls:
            self.trace.record_decision(ENDED, spent.tokens)
        if self.run.shares:
            await self.run.shares.end(self.problem.problem_id, spent)

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure:
        """Return the recorded outcome of a call, or make the call and record its outcome before returning it."""
        role = self.run.roles[key.role]
        request = Request(
            model=role.name,
            messages=prompt.messages,
            sampling=role.sampling_for(prompt),
            n=n,
            seed=keyed_hash(self.run.seed, self.problem.problem_id, str(key)) % 2**31 if role.send_seed else None,
            output_schema=None if role.unconstrained_first and key.attempt == 0 else output_schema,
        )
        outcome = self.trace.find(key, request)
        if outcome is not None:
            self.run.activity.replayed += 1
            self.reply_counter.count(key, n, outcome)
            self._count_outcome(key, outcome, prompt, recorded=True)
            self._charge_unreported_replay(key, outcome, prompt)
            return outcome
        if self._give_up_reason:
            self.stopped = "worker"
            return Failure(reason=FailureReason.WORKER, message=self._give_up_reason, key=key)
        try:
            return await self._call(key, request, prompt)
        except BudgetReached as reached:
            return self._stop_by_budget(key, reached.usage)

    async def _call(self, key: CallKey, request: Request, prompt: Prompt) -> Reply | Failure:
        role, activity, budget = self.run.roles[key.role], self.run.activity, self.charges.budget
        role_activity = activity.role(key.role)
        hint = RoutingHint(self.problem.problem_id, key.iteration * PRIORITY_STRIDE + self.order)
        async with self.run.limiter.slots((hint.priority,), request.n) as slots:
            if self._refuses_new_calls:
                raise BudgetReached
            started, streamed, aborted_tokens = time.time(), 0, 0

            def on_progress(progress: StreamProgress, report_tokens: Callable[[int], None]) -> None:
                nonlocal streamed, aborted_tokens
                activity.tokens += progress.tokens - streamed
                role_activity.tokens += progress.tokens - streamed
                aborted_tokens += max(0, streamed - progress.tokens)  # the stream broke off, and the client retries
                streamed = progress.tokens
                slots.keep(request.n - progress.ended)
                report_tokens(aborted_tokens + progress.tokens)  # the budget needs those of aborted streams, too

            self._iterations_with_new_calls.add(key.iteration)
            activity.in_flight += 1
            role_activity.in_flight += 1
            activity.iterations.setdefault(self.problem.problem_id, key.iteration)
            try:
                outcome = await budget.run_limited(
                    lambda report_tokens: role.chat.complete(
                        request, lambda progress: on_progress(progress, report_tokens), hint
                    ),
                    role.window.count(prompt.content) if budget.is_limited else 0,
                    self.charges.price(key.role),
                )
            except BudgetReached as reached:
                self.charges.add_unreported(key, aborted_tokens)
                # Tokens of aborted streams are recorded as unreported above. The usage must not contain them again.
                tokens_of_last_stream = reached.usage.completion_tokens - aborted_tokens
                raise BudgetReached(
                    reached.usage.model_copy(update={"completion_tokens": tokens_of_last_stream})
                ) from None
            except BaseException:  # the run is stopped
                self.charges.add_unreported(key, aborted_tokens + streamed)
                raise
            finally:
                activity.in_flight -= 1
                role_activity.in_flight -= 1
        if isinstance(outcome, Failure):
            outcome = outcome.model_copy(update={"key": key})
        # Nothing may await between a charge and its line in the trace, which trace.add() writes before its first await.
        # Otherwise count_earlier_starts() could count the call twice or not at all.
        self._count_outcome(key, outcome, prompt)
        unreported = streamed if isinstance(outcome, Failure) else _unreported_tokens(outcome, prompt, role.window)
        self.charges.add_unreported(key, aborted_tokens + unreported)
        await self.trace.add(key, request, outcome, prompt.notes, started)
        self.reply_counter.count(key, request.n, outcome)
        activity.calls += 1
        role_activity.calls += 1
        return outcome

    def _count_outcome(self, key: CallKey, outcome: Reply | Failure, prompt: Prompt, recorded: bool = False) -> None:
        """Count a finished call in the activity, the usage and the budget. ``recorded``: it is from the trace."""
        activity = self.run.activity
        activity.iterations[self.problem.problem_id] = key.iteration
        self.packed_prompts += bool(prompt.notes)
        if isinstance(outcome, Failure):
            activity.failed += 1
            activity.role(key.role).failed += 1
            return
        self.charges.add(UsageEntry(role=key.role, iteration=key.iteration, usage=outcome.usage), recorded)

    def _charge_unreported_replay(self, key: CallKey, outcome: Reply | Failure, prompt: Prompt) -> None:
        """Charge the budget for a recorded reply with implausible token counts that an older version accepted.

        That version did not count the tokens itself, so the trace has no unreported tokens for the call.
        """
        if isinstance(outcome, Failure) or USAGE_IMPLAUSIBLE not in outcome.notes:
            return
        if self.trace.decision(f"{UNREPORTED_PREFIX}{key}") is None:
            self.charges.add_unreported(key, _unreported_tokens(outcome, prompt, self.run.roles[key.role].window))

    def _stop_by_budget(self, key: CallKey, used: Usage) -> Failure:
        """Return the failure of a call that the budget refused or cancelled, and record that the budget is exhausted.

        ``used``: usage of the call until it was cancelled. Without any usage, the call was refused.
        """
        if used.calls:
            self.charges.add_cancelled(key, used)
        if not self._refuses_new_calls:
            self._refuses_new_calls = True
            self.trace.record_decision("budget", self.run.limits.model_dump())
        self.stopped = "budget"
        return Failure(reason=FailureReason.BUDGET, message="the budget is used up", key=key)


def keyed_hash(seed: int, problem_id: str, name: str) -> int:
    """A number below 2**56 that depends on the arguments alone. Random draws and request seeds are derived from it."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{problem_id}\0{name}".encode()).digest()[:7])


def _unreported_tokens(reply: Reply, prompt: Prompt, window: Window) -> int:
    """Tokens of a reply, counted by the client, if the server reported no usage or an implausible one.

    0 if the usage that the server reported is plausible.
    """
    if UNREPORTED.isdisjoint(reply.notes):
        return 0
    texts = (text for completion in reply.completions for text in (completion.text, completion.reasoning) if text)
    return window.count(prompt.content) + sum(map(window.count, texts))


def _stop_applies(recorded: dict[str, Any] | None, limits: Limits) -> bool:
    """Whether a budget stop still applies: it was recorded, and the limits have not changed since."""
    return recorded is not None and Limits(**recorded) == limits
