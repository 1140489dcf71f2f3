"""What one problem has used: its tokens by role and iteration, and the budgets that they count against."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tmas.records import CallKey, Usage, UsageEntry
from tmas.records.prices import UNKNOWN_PRICE, Price
from tmas.records.token_counts import plausible_tokens
from tmas.run.budget import (
    CANCELLED_PREFIX,
    UNREPORTED_PREFIX,
    TokenBudget,
    known_cost,
    recorded_usage,
    unreported_usage,
)
from tmas.run.shares import Amount
from tmas.run.state import RunState
from tmas.run.trace import Trace


class ProblemCharges:
    """Counts what a problem uses, and records what its calls do not show: unreported and cancelled tokens.

    The tokens count against the budget of the problem, its allowance and the budget of the run. ``allowance`` and
    ``earlier_usage``: see :class:`~tmas.run.session.ProblemSession`.
    """

    def __init__(
        self,
        trace: Trace,
        run: RunState,
        allowance: Amount | None = None,
        earlier_usage: Mapping[str, Usage] | None = None,
    ) -> None:
        self.trace, self.run, self.allowance = trace, run, allowance
        self._usage: dict[tuple[str, int], Usage] = {}
        self._share_budget = TokenBudget(parent=run.budget)
        self._share_budget.count_recorded(earlier_usage or {}, run.prices)
        self._used_before = Amount(self._share_budget.spent, self._share_budget.spent_money)
        self.allow(Amount())  # sets the limits of the share
        limits = run.limits
        self.budget = TokenBudget(limits.tokens_per_problem, self._share_budget, limits.money_per_problem)
        for name, tokens in trace.decisions(UNREPORTED_PREFIX).items():
            unreported = unreported_usage(name, tokens)
            self._charge(unreported.role, unreported.usage, recorded=True)
        for entry in trace.decisions(CANCELLED_PREFIX).values():
            self.add(recorded_usage(entry), recorded=True)

    @property
    def usage(self) -> tuple[UsageEntry, ...]:
        """The usage of finished and cancelled calls, by iteration and role."""
        entries = sorted(self._usage.items(), key=lambda entry: (entry[0][1], entry[0][0]))
        return tuple(UsageEntry(role=role, iteration=t, usage=usage) for (role, t), usage in entries)

    @property
    def spent(self) -> Amount:
        return Amount(self.budget.spent, self.budget.spent_money)

    def used_in_iteration(self, iteration: int) -> Amount:
        """What the calls of an iteration have used."""
        used = {role: usage for (role, t), usage in self._usage.items() if t == iteration}
        return Amount(sum(usage.total_tokens for usage in used.values()), known_cost(used, self.run.prices))

    def price(self, role: str) -> Price:
        return self.run.prices.get(role, UNKNOWN_PRICE)

    def allow(self, more: Amount) -> None:
        """Raise the allowance by ``more``. The usage of earlier starts alone never ends a problem."""
        if self.allowance is None:
            return
        self.allowance += more
        limits, used, allowed = self.run.limits, self._used_before, self.allowance
        self._share_budget.set_limits(
            max(allowed.tokens, used.tokens + 1) if limits.tokens_per_run else None,
            max(allowed.money, math.nextafter(used.money, math.inf)) if limits.money_per_run else None,
        )

    def add(self, entry: UsageEntry, recorded: bool = False) -> None:
        """Add usage to the totals of its role and iteration, and charge the budgets for it.

        ``recorded``: the usage is from the trace, so the run was charged for it before.
        """
        role_and_iteration = (entry.role, entry.iteration)
        self._usage[role_and_iteration] = self._usage.get(role_and_iteration, Usage()) + entry.usage
        self._charge(entry.role, entry.usage, recorded)

    def add_unreported(self, key: CallKey, tokens: int) -> None:
        """Charge the budgets for tokens that no server reported, and record them for replay.

        A call that was made again on resume may have such tokens already; the new ones are added.
        """
        if tokens:
            name = f"{UNREPORTED_PREFIX}{key}"
            self.trace.record_decision(name, plausible_tokens(self.trace.decision(name)) + tokens)
            self._charge(key.role, Usage(completion_tokens=tokens))

    def add_cancelled(self, key: CallKey, used: Usage) -> None:
        """Charge the budgets for a cancelled call, and record its usage for replay.

        A call that was cancelled before and made again on resume has such usage already; the new usage is added.
        """
        name = f"{CANCELLED_PREFIX}{key}"
        recorded = self.trace.decision(name)
        before = recorded_usage(recorded).usage if recorded else Usage()
        entry = UsageEntry(role=key.role, iteration=key.iteration, usage=used)
        self.add(entry)
        self.trace.record_decision(name, entry.model_copy(update={"usage": before + used}).model_dump())

    def _charge(self, role: str, usage: Usage, recorded: bool = False) -> None:
        price = self.price(role)
        self.budget.charge(usage, recorded, price)
        if not recorded:
            self.run.activity.cost += price.cost(usage) or 0.0
