"""Which of several engines a call goes to: pure policy, no I/O.

A problem has a home among the engines (rendezvous hashing: when one comes or goes, only the problems of that one move),
where the beginnings of its prompts are cached. A call goes home unless

- the home has its share of all slots in use: no engine is given more while others are not full; or
- it has :data:`SPILL` calls more than the emptiest: reading a prompt anew costs less than decoding in a batch that is
  so much larger.

Shares go by speed: an engine that decodes less than half as fast as the fastest gets problems and slots in proportion,
and one that stands still gets next to none.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SPILL = 16
"""Completions that a home may have in flight beyond the emptiest engine."""
HALF_LIFE = 60.0
"""Seconds after which what was seen of an engine's speed counts half."""
EVIDENCE = 100.0
"""Seconds of completions in flight, summed over them, before an engine's speed is judged."""
EQUAL = 0.5
"""Engines above this share of the fastest one's speed count as equally fast: the rest is the batch that they have."""
SLOWEST = 1e-3
"""Weight of an engine that stands still: it stays the last resort, and is seen should it move again."""


@dataclass(eq=False)
class Engine:
    """One engine, by its base URL. ``in_flight``: completions; ``is_healthy`` False: none goes there if another can."""

    base_url: str
    now: Callable[[], float]
    in_flight: int = 0
    is_healthy: bool = True

    def __post_init__(self) -> None:
        self._tokens, self._busy, self._seen = 0.0, 0.0, self.now()

    @property
    def speed(self) -> float | None:
        """Tokens a second of one completion, of late; None while too little was seen."""
        self._advance()
        return self._tokens / self._busy if self._busy >= EVIDENCE else None

    @contextmanager
    def call(self, count: int) -> Iterator[Callable[[int, int], None]]:
        """Count ``count`` completions as in flight; what is yielded takes tokens streamed and completions ended."""
        streamed = ended = 0

        def progress(tokens: int, now_ended: int) -> None:
            nonlocal streamed, ended
            self._advance()
            self._tokens += max(0, tokens - streamed)
            self.in_flight -= now_ended - ended
            streamed, ended = tokens, now_ended

        self._advance()
        self.in_flight += count
        try:
            yield progress
        finally:
            progress(streamed, count)

    def _advance(self) -> None:
        passed = self.now() - self._seen
        kept = 0.5 ** (passed / HALF_LIFE)
        self._tokens *= kept
        self._busy = self._busy * kept + self.in_flight * passed
        self._seen += passed


class Router:
    """Engines, and the choice among them. ``slots``: completions that may be in flight at all of them together."""

    def __init__(
        self, base_urls: Iterable[str], slots: int = sys.maxsize, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.slots, self._now = slots, now
        self.engines: dict[str, Engine] = {}
        self.update(base_urls)

    def update(self, base_urls: Iterable[str]) -> None:
        """These are the engines now; those that stay keep what is known of them."""
        known = self.engines
        self.engines = {base_url: known.get(base_url) or Engine(base_url, self._now) for base_url in base_urls}

    def choose(self, problem: str, tried: Collection[Engine] = (), count: int = 1) -> Engine | None:
        """The engine for ``count`` completions of ``problem``; None if all engines were ``tried``.

        An ailing one comes last. One that has room for all of them goes before those that have room for some.
        """
        left = [engine for engine in self.engines.values() if engine not in tried]
        fit = [engine for engine in left if engine.is_healthy] or left
        if len(fit) < 2:
            return fit[0] if fit else None
        weights = _weights(fit)
        share = self.slots / sum(weights.values())
        free = {engine: math.ceil(share * weights[engine]) - engine.in_flight for engine in fit}
        open_ = [e for e in fit if free[e] >= count] or [e for e in fit if free[e] > 0] or fit
        loads = {engine: (engine.in_flight + 1) / weights[engine] for engine in open_}
        home = max(open_, key=lambda e: _affinity(problem, e.base_url, weights[e]))
        emptiest = min(open_, key=loads.__getitem__)
        return emptiest if loads[home] > loads[emptiest] + SPILL else home


def _weights(engines: Collection[Engine]) -> dict[Engine, float]:
    speeds = {engine: engine.speed for engine in engines}
    fastest = max((speed for speed in speeds.values() if speed), default=None)

    def weight(speed: float | None) -> float:
        if speed is None or fastest is None or speed > EQUAL * fastest:
            return 1.0
        return max(speed / fastest, SLOWEST)

    return {engine: weight(speed) for engine, speed in speeds.items()}


def _affinity(problem: str, base_url: str, weight: float) -> float:
    """Weighted rendezvous hashing: the engine with the largest is the home; shares are as the weights."""
    drawn = int.from_bytes(hashlib.sha256(f"{problem}\0{base_url}".encode()).digest()[:7])
    return -weight / math.log((drawn + 1) / (2**56 + 1))
