"""Chooses the engine for each call. It is pure policy and does no I/O.

Each problem has a home engine, where the prefixes of its prompts are cached. The home is chosen by rendezvous hashing:
when an engine is added or removed, only that engine's problems move. A call goes to its home engine unless

- the home uses all of its share of the slots while other engines have free slots; or
- the home has over :data:`SPILL` more completions in flight than the least loaded engine. Prefilling a prompt again
  then costs less than decoding in a much larger batch.

Shares depend on speed. An engine that decodes less than half as fast as the fastest one gets problems and slots in
proportion to its speed. A stalled engine gets almost none.
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
"""Completions that a home engine may have in flight beyond the least loaded engine."""
HALF_LIFE = 60.0
"""Half-life, in seconds, of the weight of an engine's speed measurements."""
EVIDENCE = 100.0
"""Completion-seconds (time in flight summed over completions) before an engine's speed is used."""
EQUAL = 0.5
"""Engines above this fraction of the fastest speed count as equally fast; smaller differences come from batch sizes."""
SLOWEST = 1e-3
"""Weight of a stalled engine: it is used as a last resort, and its recovery is noticed."""


@dataclass(eq=False)
class Engine:
    """One engine. ``in_flight``: number of completions. ``is_healthy``: if False, it is used only if none is healthy.

    ``refusals``: consecutive answers that mean a wrong key, model or URL.
    """

    base_url: str
    now: Callable[[], float]
    in_flight: int = 0
    is_healthy: bool = True
    refusals: int = 0

    def __post_init__(self) -> None:
        self._tokens, self._busy, self._seen = 0.0, 0.0, self.now()

    @property
    def speed(self) -> float | None:
        """Recent decoding speed of one completion in tokens per second; None while there is too little data."""
        self._advance()
        return self._tokens / self._busy if self._busy >= EVIDENCE else None

    @contextmanager
    def call(self, count: int) -> Iterator[Callable[[int, int], None]]:
        """Count ``count`` completions as in flight. Yields a callback for (tokens streamed, completions ended)."""
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
    """Chooses among engines. ``slots``: maximum number of completions in flight on all engines together."""

    def __init__(
        self, base_urls: Iterable[str], slots: int = sys.maxsize, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.slots, self._now = slots, now
        self.engines: dict[str, Engine] = {}
        self.update(base_urls)

    def update(self, base_urls: Iterable[str]) -> None:
        """Replace the list of engines. Engines that are also in the new list keep their measurements."""
        known = self.engines
        self.engines = {base_url: known.get(base_url) or Engine(base_url, self._now) for base_url in base_urls}

    def choose(self, problem: str, tried: Collection[Engine] = (), count: int = 1) -> Engine | None:
        """Choose the engine for ``count`` completions of ``problem``; None if all engines were ``tried``.

        Unhealthy engines come last. Engines with free slots for all completions come before those with some.
        """
        untried = [engine for engine in self.engines.values() if engine not in tried]
        usable = [engine for engine in untried if engine.is_healthy] or untried
        if len(usable) < 2:
            return usable[0] if usable else None
        weights = _weights(usable)
        share = self.slots / sum(weights.values())
        free = {engine: math.ceil(share * weights[engine]) - engine.in_flight for engine in usable}
        choices = [e for e in usable if free[e] >= count] or [e for e in usable if free[e] > 0] or usable
        loads = {engine: (engine.in_flight + 1) / weights[engine] for engine in choices}
        home = max(choices, key=lambda e: _affinity(problem, e.base_url, weights[e]))
        emptiest = min(choices, key=loads.__getitem__)
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
    """Score of weighted rendezvous hashing. The engine with the largest score is the home.

    Each engine becomes the home of a share of the problems in proportion to its weight.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{problem}\0{base_url}".encode()).digest()[:7])
    return -weight / math.log((drawn + 1) / (2**56 + 1))
