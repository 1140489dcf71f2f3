from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pebble import ProcessExpired, ProcessPool

from tests.support.benchmarks import WITH_ANSWERS, gold_answers, needs_data
from tests.support.waiting import LIMIT, until
from tmas.answers.checker import AnswerChecker, group_equivalent
from tmas.answers.equivalence import Comparison, Equivalence
from tmas.answers.extract import extract_boxed
from tmas.answers.verdicts import Cause

BOMB = "9^{9^{9^{9}}}"


@pytest.fixture
async def checker() -> AsyncIterator[AnswerChecker]:
    async with AnswerChecker(timeout=2.0, workers=1) as started:
        yield started


def verdict(equivalence: str, reason: str | None = None, cause: Cause | None = None) -> Comparison:
    return Comparison(equivalence=Equivalence(equivalence), reason=reason, cause=cause)


async def test_equal_strings_start_no_worker() -> None:
    checker = AnswerChecker()
    assert (await checker.compare(r"$\dfrac12$", r"\frac12")).equal
    assert checker._pool is None


@pytest.mark.parametrize("monster", [BOMB, "(10^{10^{10}})!", "(" * 3000 + "7" + ")" * 3000])
async def test_a_monstrous_answer_times_out_and_the_next_comparison_is_fine(monster: str) -> None:
    async with AnswerChecker(timeout=0.5, workers=1) as checker:
        bombed, fine = await asyncio.gather(checker.compare("5", monster), checker.compare("1/2", "0.5"))
    assert bombed == verdict("undecided", "timeout", Cause.TIMEOUT)
    assert fine == verdict("equal")


async def test_what_was_compared_is_known_and_a_worker_that_died_is_not_held_against_an_answer(
    checker: AnswerChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    outcomes = iter([ProcessExpired("died"), verdict("equal"), TimeoutError()])

    async def decide(gold: str, answer: str) -> Comparison:
        asked.append(answer)
        outcome = next(outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(checker, "_decide", decide)
    said = [await checker.compare("x+1", answer) for answer in ("1+x", "1+x", "1+x", "x^x", "x^x")]
    assert [v.reason for v in said] == ["worker died", None, None, "timeout", "timeout"]
    assert asked == ["1+x", "1+x", "x^x"]


async def test_a_killed_worker_is_undecided_and_replaced(checker: AnswerChecker) -> None:
    await checker.compare("1/2", "0.5")
    comparison = asyncio.create_task(checker.compare("5", BOMB))
    await until(lambda: comparing(checker))
    kill_workers(checker)
    assert await comparison == verdict("undecided", "worker died")
    assert (await checker.compare("1/4", "0.25")).equal


async def test_idle_workers_that_were_killed_are_replaced(checker: AnswerChecker) -> None:
    await checker.compare("1/2", "0.5")
    kill_workers(checker)
    await until(lambda: checker._pool is not None and not checker._pool.active)
    assert (await checker.compare("1/4", "0.25")).equal


async def test_a_comparison_asked_for_while_an_idle_worker_is_killed_is_made(checker: AnswerChecker) -> None:
    await checker.compare("1/2", "0.5")
    kill_workers(checker)
    assert await checker.compare("1/4", "0.25") == verdict("equal")


async def test_a_comparison_that_a_breaking_pool_loses_is_made_again(
    checker: AnswerChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await checker.compare("1/2", "0.5")
    assert checker._pool is not None
    lost: Future[Comparison] = Future()  # as one that stands in the pool's queue when the pool breaks
    monkeypatch.setattr(checker._pool, "schedule", lambda *_, **__: lost)
    comparison = asyncio.create_task(checker.compare("1/4", "0.25"))
    await until(lambda: lost in checker._pending)
    kill_workers(checker)
    assert await comparison == verdict("equal")
    assert lost.cancelled()


async def test_a_pool_that_breaks_again_leaves_the_comparison_undecided(
    checker: AnswerChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Unexpected error within the Pool")

    monkeypatch.setattr(ProcessPool, "schedule", refuse)
    assert await checker.compare("1/2", "0.5") == verdict("undecided", "worker died")


async def test_every_comparison_ends_whenever_workers_are_killed(checker: AnswerChecker) -> None:
    await checker.compare("1/2", "0.5")
    comparisons = [asyncio.create_task(checker.compare("1/2", f"{i}.5")) for i in range(60)]
    kills = 0
    while not all(comparison.done() for comparison in comparisons):
        kill_workers(checker)
        kills += 1
        await asyncio.sleep(0.01 * (kills % 10))  # a worker is killed before, while and after it compares
    found = {comparison.result() for comparison in comparisons}
    assert found <= {verdict("equal"), verdict("different"), verdict("undecided", "worker died")}
    assert await checker.compare("1/4", "0.25") == verdict("equal")


def kill_workers(checker: AnswerChecker) -> None:
    pool = checker._pool  # None while it is being replaced
    for pid in tuple(pool._pool_manager.worker_manager.workers) if pool else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def comparing(checker: AnswerChecker) -> bool:
    """Whether a worker has begun a comparison that has not ended."""
    return any(future.running() for future in checker._pending)


async def test_a_comparison_that_is_cancelled_while_it_starts_frees_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, schedule, go_on = AnswerChecker(timeout=LIMIT, workers=1), AnswerChecker._schedule, threading.Event()
    await slow.compare("1/2", "0.5")

    def held(*given: Any) -> Any:
        scheduled = schedule(*given)
        assert go_on.wait(LIMIT)
        return scheduled

    with monkeypatch.context() as holding:
        holding.setattr(AnswerChecker, "_schedule", held)
        comparison = asyncio.create_task(slow.compare("5", BOMB))
        await until(lambda: comparing(slow))
        comparison.cancel()
        with pytest.raises(asyncio.CancelledError):
            await comparison
    go_on.set()
    assert (await asyncio.wait_for(slow.compare("1/4", "0.25"), LIMIT)).equal
    await slow.close()


async def test_a_cancelled_comparison_frees_its_worker() -> None:
    slow = AnswerChecker(timeout=LIMIT, workers=1)
    await slow.compare("1/2", "0.5")
    comparison = asyncio.create_task(slow.compare("5", BOMB))
    await until(lambda: comparing(slow))
    comparison.cancel()
    with pytest.raises(asyncio.CancelledError):
        await comparison
    assert (await asyncio.wait_for(slow.compare("1/4", "0.25"), LIMIT)).equal
    await slow.close()


async def test_closing_ends_what_is_being_compared_and_a_later_comparison_starts_again() -> None:
    checker = AnswerChecker(timeout=LIMIT, workers=1)
    comparisons = [asyncio.create_task(checker.compare("5", BOMB)) for _ in range(3)]
    await until(lambda: len(checker._pending) == 3)
    await checker.close()
    assert set(await asyncio.gather(*comparisons)) == {verdict("undecided", "the checker was closed")}
    assert (await checker.compare("1/2", "0.5")).equal
    await checker.close()


def test_it_works_off_the_main_thread() -> None:
    verdicts: list[Comparison] = []

    async def compare() -> None:
        async with AnswerChecker(timeout=20.0) as checker:
            verdicts.append(await checker.compare("1/2", "0.5"))

    thread = threading.Thread(target=lambda: asyncio.run(compare()))
    thread.start()
    thread.join()
    assert verdicts == [verdict("equal")]


class Counting(AnswerChecker):
    """Equal where the strings are equal ignoring case; counts its comparisons."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def compare(self, gold: str, answer: str) -> Comparison:
        self.count += 1
        return verdict("equal" if gold.lower() == answer.lower() else "different")


async def test_answers_are_grouped_in_order_of_first_sight() -> None:
    async with AnswerChecker(timeout=20.0) as checker:
        answers = ["1/2", "3", "0.5", r"\frac12", "3.0", "no solutions", "No solutions at all"]
        assert await group_equivalent(answers, checker) == [0, 1, 0, 0, 1, 2, 3]


async def test_grouping_compares_little() -> None:
    checker = Counting()
    assert await group_equivalent(["a", "b", "a", "$a$", "A", "b", "a"], checker) == [0, 1, 0, 0, 0, 1, 0]
    assert checker.count == 3  # A with a; b with A and a


@pytest.mark.parametrize(
    ("answers", "classes"),
    [
        ([r"\{1,2\}", "(1,2)", "(2,1)"], 3),
        (["x>2", r"(2,\infty)", "x > 2"], 1),
        (["1,2", "(1,2)", "2,1"], 1),  # 1,2 connects the other two
    ],
)
async def test_classes_do_not_depend_on_the_order_of_the_answers(answers: list[str], classes: int) -> None:
    async with AnswerChecker(timeout=20.0) as checker:
        found = [
            dict(zip(order, await group_equivalent(order, checker), strict=True)) for order in permutations(answers)
        ]
    partitions = {frozenset(frozenset(a for a in one if one[a] == c) for c in one.values()) for one in found}
    assert [len(partition) for partition in partitions] == [classes]


@given(st.lists(st.sampled_from("aAbBcC")))
def test_grouping_is_a_partition_numbered_by_first_sight(answers: list[str]) -> None:
    classes = asyncio.run(group_equivalent(answers, Counting()))
    assert list(dict.fromkeys(classes)) == list(range(len(set(classes))))
    expected = [answer.lower() for answer in answers]
    assert [a == b for a in classes for b in classes] == [a == b for a in expected for b in expected]


@needs_data
@pytest.mark.parametrize("file", WITH_ANSWERS)
async def test_every_gold_answer_is_extracted_and_equal_to_itself(file: str, checker: AnswerChecker) -> None:
    golds = gold_answers(file)
    replies = [f"Thus it is $\\boxed{{{gold}}}$, as was to be shown." for gold in golds]
    found = [extract_boxed(reply) or "" for reply in replies]
    verdicts = [await checker.compare(gold, answer) for gold, answer in zip(golds, found, strict=True)]
    assert [gold for gold, seen in zip(golds, verdicts, strict=True) if not seen.equal] == []
