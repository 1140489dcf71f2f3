"""Compare answers and group equal ones. Comparisons run in worker processes that can be killed."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import resource
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Self

from pebble import ProcessExpired, ProcessPool

from tmas.answers.equivalence import Comparison, compare_texts, decide, normalise, undecided
from tmas.answers.verdicts import Cause

_MEMORY_BYTES = 4 * 2**30
_MAX_CACHED = 1 << 16
"""Maximum number of comparisons that a checker caches. A method compares the same answers again after each
iteration."""
_WALL_TIME_FACTOR = 20
"""Wall-time limit of a comparison, as a multiple of its CPU-time limit. It ends comparisons that sleep and so use no
CPU time."""
_POOL_CHECK = 1.0
"""Seconds between two checks of the pool while a comparison waits."""
_REASONS: dict[type[BaseException], str] = {
    TimeoutError: "timeout",
    asyncio.CancelledError: "the checker was closed",
    MemoryError: "out of memory",
    ProcessExpired: "worker died",
    BrokenProcessPool: "worker died",
}


def _prepare_worker() -> None:
    """Limit memory, let SIGTERM end even a blocked C call, and load everything before a comparison is timed."""
    import tmas.answers.prepared  # noqa: F401 - loaded before the fork, unless other code started the fork server

    logging.disable(logging.WARNING)  # math-verify warns that it has no time limit; the pool has one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def _decide_within(seconds: float, gold: str, answer: str, digits: int | None) -> Comparison:
    """Compare in a worker, which SIGPROF ends after ``seconds`` of CPU time, even in a C call."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return decide(gold, answer, digits)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class AnswerChecker:
    """Compares answers in up to ``workers`` processes, which start with the first comparison that needs one.

    ``timeout``: seconds of CPU time per comparison, so that verdicts do not depend on the machine's other load.
    ``max_tasks``: comparisons after which a worker is replaced. ``approximation_digits``: minimum number of
    significant digits of a decimal that is accepted for an exact value which rounds to it (with 3, 0.333 equals 1/3);
    None: an approximation is never accepted. Results are cached. The checker works in any thread and event loop.
    """

    def __init__(
        self,
        timeout: float = 5.0,
        workers: int = 2,
        max_tasks: int = 1000,
        approximation_digits: int | None = None,
    ) -> None:
        self._approximation_digits = approximation_digits
        self._timeout = timeout
        self._workers = workers
        self._max_tasks = max_tasks
        self._pool: ProcessPool | None = None
        self._pending: set[Future[Comparison]] = set()
        self._cached: dict[tuple[str, str], Comparison] = {}
        self._lock = threading.Lock()

    async def compare(self, gold: str, answer: str) -> Comparison:
        """Compare ``answer`` with ``gold``.

        The verdict does not depend on their order. Only the reason does, where it names one of the two. This never
        raises because of an answer: a comparison that fails, hangs or kills its worker is undecided.
        """
        if verdict := compare_texts(gold, answer) or self._cached.get((gold, answer)):
            return verdict
        [outcome] = await asyncio.gather(self._decide(gold, answer), return_exceptions=True)
        # an idle worker was killed from outside before this comparison began
        if isinstance(outcome, BrokenProcessPool):
            [outcome] = await asyncio.gather(self._decide(gold, answer), return_exceptions=True)
        if isinstance(outcome, ProcessExpired) and outcome.exitcode == -signal.SIGPROF:
            outcome = TimeoutError()
        if isinstance(outcome, BaseException):
            reason = _REASONS.get(type(outcome), f"{type(outcome).__name__} in the comparison")
            verdict = undecided(reason, Cause.TIMEOUT if isinstance(outcome, TimeoutError) else None)
            if not isinstance(outcome, TimeoutError | MemoryError):
                return verdict  # not cached: another attempt may succeed
            outcome = verdict
        self._remember(gold, answer, outcome)
        return outcome

    def _remember(self, gold: str, answer: str, verdict: Comparison) -> None:
        with self._lock:
            if len(self._cached) >= _MAX_CACHED:
                self._cached.pop(next(iter(self._cached)))
            self._cached[gold, answer] = verdict

    async def close(self) -> None:
        """End the workers. Comparisons in progress become undecided. A later comparison starts new workers."""
        await asyncio.to_thread(self._stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _decide(self, gold: str, answer: str) -> Comparison:
        starting = asyncio.create_task(asyncio.to_thread(self._schedule, gold, answer))  # a new pool takes a second
        try:
            pool, future = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_cancel_comparison)  # nobody waits for it: it must not keep its worker
            raise
        comparison = asyncio.wrap_future(future)
        try:
            while not comparison.done():
                await asyncio.wait([comparison], timeout=_POOL_CHECK)
                if not (comparison.done() or pool.active):
                    raise BrokenProcessPool  # a broken pool never answers what was in its queue
            return comparison.result()
        finally:
            comparison.cancel()

    def _schedule(self, gold: str, answer: str) -> tuple[ProcessPool, Future[Comparison]]:
        with self._lock:
            if self._pool is not None and not self._pool.active:  # an idle worker was killed from outside
                self._stop_pool()
            pool = self._pool = self._pool or self._new_pool()
            try:
                arguments = (self._timeout, gold, answer, self._approximation_digits)
                future = pool.schedule(_decide_within, args=arguments, timeout=self._timeout * _WALL_TIME_FACTOR)
            except RuntimeError as error:  # the pool broke in the meantime
                raise BrokenProcessPool from error
            self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return pool, future

    def _new_pool(self) -> ProcessPool:
        context = multiprocessing.get_context("forkserver")  # forks from a clean process that is ready to compare
        context.set_forkserver_preload([__name__, "tmas.answers.prepared"])
        return ProcessPool(self._workers, self._max_tasks, initializer=_prepare_worker, context=context)

    def _stop(self) -> None:
        with self._lock:
            for future in tuple(self._pending):
                future.cancel()
            self._stop_pool()

    def _stop_pool(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None


def _cancel_comparison(started: asyncio.Task[tuple[ProcessPool, Future[Comparison]]]) -> None:
    if not started.cancelled() and started.exception() is None:
        _, future = started.result()
        future.cancel()


async def group_equivalent(answers: Sequence[str], checker: AnswerChecker) -> list[int]:
    """Return the number of each answer's class. Classes are numbered in the order of their first answers.

    Two answers are in one class if a chain of equal answers connects them. So the classes depend on the set of answers
    alone, not on their order. (Equality is symmetric but not transitive: ``1,2`` equals both ``(1,2)`` and ``2,1``.)
    Answers whose equality is undecided are not connected.
    """
    plain_of = {answer: normalise(answer) for answer in answers}
    shortest_of: dict[str, str] = {}
    for answer in sorted(plain_of, key=lambda answer: (len(answer), answer)):
        shortest_of.setdefault(plain_of[answer], answer)
    classes: list[set[str]] = []
    for plain in sorted(shortest_of):
        joined = {plain}
        for members in list(classes):
            if await _is_connected(shortest_of[plain], [shortest_of[member] for member in sorted(members)], checker):
                classes.remove(members)
                joined |= members
        classes.append(joined)
    class_of = {plain: index for index, members in enumerate(classes) for plain in members}
    found = [class_of[plain_of[answer]] for answer in answers]
    numbers = {class_: number for number, class_ in enumerate(dict.fromkeys(found))}
    return [numbers[class_] for class_ in found]


async def _is_connected(answer: str, members: Sequence[str], checker: AnswerChecker) -> bool:
    for member in members:
        if (await checker.compare(member, answer)).equal:
            return True
    return False
