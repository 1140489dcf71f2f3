"""The progress display of a run: a live line with a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from tmas.run.session import Activity

PLAIN_INTERVAL = 10.0
"""Seconds between two lines if the output is not a terminal."""
RATE_WINDOW = 60.0
"""Seconds over which tokens/s are averaged."""


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

        While servers start, the line shows the status instead.
        """
        if self.activity.status:
            return f"{self.activity.status} ({_clock(time.monotonic() - self._started)})"
        active = sorted(Counter(self.activity.iterations.values()).items())
        where = ", ".join(f"{count} in it {t}" for t, count in active) or "none active"
        parts = [
            f"{self.activity.finished}/{self.problems} problems ({where})",
            f"{self.activity.in_flight} calls in flight",
            f"{self.activity.calls} made",
            f"{self.activity.replayed} from the trace",
            f"{self._tokens_per_second():.0f} tokens/s",
            f"{_clock(time.monotonic() - self._started)} elapsed",
            f"{self._time_left()} left",
        ]
        if self.activity.is_paused:
            parts.insert(0, "paused")
        if self.activity.failed:
            parts.append(f"{self.activity.failed} failed calls")
        return " | ".join(parts)

    @property
    def share(self) -> float:
        """The finished share of the work, from 0 to 1, counted in iterations."""
        return (self.activity.finished * self.iterations + sum(self.activity.iterations.values())) / (
            self.problems * self.iterations
        )

    def _tokens_per_second(self) -> float:
        now = time.monotonic()
        self._recent.append((now, self.activity.tokens))
        while now - self._recent[0][0] > RATE_WINDOW:
            self._recent.popleft()
        since, tokens = self._recent[0]
        return (self.activity.tokens - tokens) / max(now - since, 1e-9)

    def _time_left(self) -> str:
        """Estimated from the work since the first new call, so that replayed calls do not count. "?" if unknown."""
        if not self.activity.calls:
            return "?"
        self._first_call = self._first_call or (time.monotonic(), self.share)
        since, share = self._first_call
        done = self.share - share
        return _clock((time.monotonic() - since) * (1 - self.share) / done) if done > 0 else "?"


@contextlib.asynccontextmanager
async def show_progress(progress: RunProgress, console: Console) -> AsyncIterator[None]:
    """Show ``progress`` while the block runs."""
    show = _live if console.is_terminal else _lines
    task = asyncio.create_task(show(progress, console))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _live(progress: RunProgress, console: Console) -> None:
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            bar = ProgressBar(total=1.0, completed=progress.share, width=60)
            live.update(Group(Text(progress.line()), bar))  # the bar comes last, because it does not end its line
            await asyncio.sleep(0.5)


async def _lines(progress: RunProgress, console: Console) -> None:
    while True:
        await asyncio.sleep(PLAIN_INTERVAL)
        console.print(progress.line(), highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
