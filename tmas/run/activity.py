"""Live counters of a run: calls in flight, tokens as they stream, the iteration of each problem.

The sessions write them; the progress display, ``tmas status`` and the Ray heartbeats read them. Nothing that a method
decides depends on them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tmas.records.live import RecentBankChange


@dataclass
class RoleActivity:
    """Live counters of one role. ``tokens``: completion tokens as they stream. The others are as in Activity."""

    in_flight: int = 0
    calls: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass
class Activity:
    """Live counters of a run, for the progress display and ``tmas status``.

    ``status``: what the run waits for before its first call. ``finished``: number of finished problems. ``tokens``:
    completion tokens as they stream. ``iterations``: the current iteration of each unfinished problem, by problem id.
    ``retrying``: why calls are being retried now, by the server's base URL.

    The other counters count calls. ``calls``: calls that this process made and that have ended. ``replayed``: calls
    answered from the trace. ``failed``: calls of either kind whose outcome is a failure. ``cost``: what this process
    has charged to the run, in the currency of the prices; calls without a known price cost nothing here.

    ``is_paused``: no new call starts. ``roles``: counters by role. ``failures``: failures in the finished
    iterations of each unfinished problem: problem id -> reason -> number. ``bank_changes``: the latest ones, oldest
    first, without those of iterations that were replayed.
    """

    status: str = ""
    finished: int = 0
    in_flight: int = 0
    calls: int = 0
    replayed: int = 0
    failed: int = 0
    tokens: int = 0
    cost: float = 0.0
    iterations: dict[str, int] = field(default_factory=dict)
    is_paused: bool = False
    roles: dict[str, RoleActivity] = field(default_factory=dict)
    failures: dict[str, Counter[str]] = field(default_factory=dict)
    bank_changes: tuple[RecentBankChange, ...] = ()
    retrying: dict[str, str] = field(default_factory=dict)

    def role(self, name: str) -> RoleActivity:
        """The counters of a role, which start at 0."""
        return self.roles.setdefault(name, RoleActivity())

    def note_retry(self, base_url: str, reason: str) -> None:
        """Note why calls to a server are retried. An empty ``reason``: a call has succeeded again."""
        if reason:
            self.retrying[base_url] = reason
        else:
            self.retrying.pop(base_url, None)
