"""Counts how many replies of each role could be read. Unreadable replies are the first sign of an unfit model."""

from __future__ import annotations

from collections.abc import Iterable

from tmas.records import CallKey, Failure, FailureReason, Reply, ReplyCounts

UNREADABLE = frozenset({FailureReason.UNPARSABLE, FailureReason.TRUNCATED})
"""Failure reasons of a reply that arrived but could not be read."""


class ReplyCounter:
    """Counts the replies of one problem. A session passes every reply to :meth:`count`, recorded ones as well.

    Agents parse the replies, not the session. But a call with ``attempt`` > 0 asks again for exactly those completions
    that could not be read, and those that are never requested again are failures of the result.
    """

    def __init__(self) -> None:
        self._counts: dict[str, ReplyCounts] = {}
        self._answered: set[str] = set()

    def count(self, key: CallKey, n: int, outcome: Reply | Failure) -> None:
        """Count the outcome of a call for ``n`` completions."""
        if key.attempt:
            self._add(ReplyCounts(role=key.role, unreadable=n))
        if isinstance(outcome, Failure):
            return
        self._answered.add(str(key))
        thinking = [completion.thinking for completion in outcome.completions]
        truncated = sum(completion.finish_reason == "length" for completion in outcome.completions)
        self._add(
            ReplyCounts(
                role=key.role,
                replies=n,
                truncated=truncated,
                thinking_tags=thinking.count("tags"),
                thinking_field=thinking.count("server"),
            )
        )

    def counts(self, failures: Iterable[Failure]) -> tuple[ReplyCounts, ...]:
        """The counts by role, in the order of the roles' names, because replies arrive in any order.

        ``failures``: those of the result. One without a reply, such as a call that could not be made for lack of input,
        does not count.
        """
        unreadable = [
            ReplyCounts(role=failure.key.role, unreadable=1)
            for failure in failures
            if failure.key and failure.reason in UNREADABLE and str(failure.key) in self._answered
        ]
        totals = replies_by_role([*self._counts.values(), *unreadable])
        return tuple(totals[role] for role in sorted(totals))

    def _add(self, more: ReplyCounts) -> None:
        self._counts[more.role] = self._counts.get(more.role, ReplyCounts(role=more.role)) + more


def replies_by_role(counts: Iterable[ReplyCounts]) -> dict[str, ReplyCounts]:
    """The sums over problems, by role."""
    totals: dict[str, ReplyCounts] = {}
    for one in counts:
        totals[one.role] = totals.get(one.role, ReplyCounts(role=one.role)) + one
    return totals
