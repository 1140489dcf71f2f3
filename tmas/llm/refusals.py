"""Learns which optional request fields an endpoint refuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Set

TRY_AGAIN = 600.0
"""Seconds after which one call sends a refused field again. The server may have been replaced or updated."""
SHORT_REPLIES = 3
"""Consecutive replies with fewer choices than requested after which ``n`` counts as refused."""

NOTHING: frozenset[str] = frozenset()


class RefusedFields:
    """The fields that the endpoint refuses, and which calls therefore leave out. ``now``: the clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._try_at: dict[str, float] = {}
        self._short_replies = 0

    def for_call(self) -> frozenset[str]:
        """The fields that the next call leaves out. When the time of a field has passed, one call sends it again."""
        if not self._try_at:
            return NOTHING
        now = self._now()
        due = [name for name, try_at in self._try_at.items() if try_at <= now]
        self._try_at.update(dict.fromkeys(due, now + TRY_AGAIN))
        return frozenset(self._try_at.keys() - set(due))

    def add(self, names: Collection[str]) -> list[str]:
        """Record refused fields. Returns those that were not known to be refused."""
        if not names:
            return []
        new = [name for name in names if name not in self._try_at]
        self._try_at.update(dict.fromkeys(names, self._now() + TRY_AGAIN))
        return new

    def accept(self, names: Set[str]) -> None:
        """Record that the server accepted these fields."""
        for name in self._try_at.keys() & names:
            del self._try_at[name]

    def count_reply(self, is_short: bool) -> list[str]:
        """Record whether a reply had fewer choices than ``n``. Returns ``["n"]`` if ``n`` now counts as refused.

        A single short reply is no evidence: a choice can be lost for other reasons.
        """
        self._short_replies = self._short_replies + 1 if is_short else 0
        if not is_short:
            self.accept({"n"})
        return self.add(["n"]) if self._short_replies >= SHORT_REPLIES else []
