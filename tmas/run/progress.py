"""The progress of a run in words and figures, for the command line and the Python API."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from tmas.redaction import clean_logger
from tmas.run.activity import Activity

log = clean_logger(__name__)

RATE_WINDOW = 60.0
"""Seconds over which tokens/s are averaged."""
PRINT_INTERVAL, CALL_INTERVAL = 10.0, 1.0
"""Seconds between two printed lines, and between two calls of a progress callback."""


class RunProgress:
    """The progress of a run, computed from its :class:`Activity`.

    ``problems``: number of problems. ``iterations``: maximum number of iterations of a problem.
    """

    def __init__(self, activity: Activity, problems: int, iterations: int) -> None:
        self.activity, self.problems, self.iterations = activity, problems, iterations
        self._started = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque([(self._started, 0)])
        self._first_call: tuple[float, float] | None = None

    def mark_finished(self, problem_id: str) -> None:
        self.activity.finished += 1
        self.activity.iterations.pop(problem_id, None)

    def line(self) -> str:
        """Problems, iterations, calls, completion tokens per second of the last minute, time elapsed and left.

        While servers start, the line shows the status instead. It ends with the reason if calls are being retried.
        """
        retries = [f"retrying {url}: {reason}" for url, reason in self.activity.retrying.items()]
        if self.activity.status:
            return " | ".join([f"{self.activity.status} ({clock(time.monotonic() - self._started)})", *retries])
        active = sorted(Counter(self.activity.iterations.values()).items())
        where = ", ".join(f"{count} in it {t}" for t, count in active) or "none active"
        parts = [
            f"{self.activity.finished}/{self.problems} problems ({where})",
            f"{self.activity.in_flight} calls in flight",
            "waiting for the server" if self._waits_for_first_reply else f"{self.activity.calls} made",
            f"{self.activity.replayed} from the trace",
            f"{self._tokens_per_second():.0f} tokens/s",
            f"{clock(time.monotonic() - self._started)} elapsed",
            f"{self._time_left()} left",
        ]
        if self.activity.is_paused:
            parts.insert(0, "paused")
        if self.activity.failed:
            parts.append(f"{self.activity.failed} failed calls")
        return " | ".join([*parts, *retries])

    @property
    def _waits_for_first_reply(self) -> bool:
        """Whether calls are in flight, and nothing has come back yet."""
        return self.activity.in_flight > 0 and not self.activity.calls and not self.activity.tokens

    @property
    def share(self) -> float:
        """The finished share of the work, from 0 to 1, counted in iterations."""
        return (self.activity.finished * self.iterations + sum(self.activity.iterations.values())) / (
            max(1, self.problems) * self.iterations
        )

    def _tokens_per_second(self) -> float:
        now = time.monotonic()
        self._recent.append((now, self.activity.tokens))
        while now - self._recent[0][0] > RATE_WINDOW:
            self._recent.popleft()
        since, tokens = self._recent[0]
        # The tokens of a call that is retried no longer count, so the sum can fall.
        return max(0, self.activity.tokens - tokens) / max(now - since, 1e-9)

    def _time_left(self) -> str:
        """Estimated from the work since the first new call, so that replayed calls do not count. "?" if unknown."""
        if not self.activity.calls:
            return "?"
        self._first_call = self._first_call or (time.monotonic(), self.share)
        since, share = self._first_call
        done = self.share - share
        return clock((time.monotonic() - since) * (1 - self.share) / done) if done > 0 else "?"


OnProgress = Callable[[RunProgress], None]
"""A progress callback of the Python API."""


def print_progress(progress: RunProgress) -> None:
    """Print the progress as a line to stderr."""
    print(progress.line(), file=sys.stderr, flush=True)


def until_it_fails(on_progress: OnProgress) -> OnProgress:
    """A callback that calls ``on_progress`` until it raises an exception, and never after that.

    The exception is logged and not raised: it must not cost the results of a run that has been paid for.
    """
    has_failed = False

    def call(progress: RunProgress) -> None:
        nonlocal has_failed
        if has_failed:
            return
        try:
            on_progress(progress)
        except Exception:
            has_failed = True
            log.exception("the progress callback failed, and is not called any more")

    return call


@asynccontextmanager
async def regular_calls(on_progress: OnProgress, progress: RunProgress, interval: float) -> AsyncIterator[None]:
    """Call ``on_progress(progress)`` every ``interval`` seconds while the block runs."""

    async def call() -> None:
        while True:
            await asyncio.sleep(interval)
            on_progress(progress)

    task = asyncio.create_task(call())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def clock(seconds: float) -> str:
    """A duration as M:SS or H:MM:SS."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
