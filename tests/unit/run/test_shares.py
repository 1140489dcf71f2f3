"""Shares in the run's token budget: what is left to others, who waits, who is refused, and what a resumed run knows."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

from tmas.run.shares import ENDED, Amount, Grant, ShareRequest, Shares, grant_name
from tmas.run.trace import Trace, trace_path
from tmas.settings import Limits


async def test_a_problem_takes_what_others_left():
    shares = Shares(Limits(tokens_per_run=300), problems=3)
    for name in "abc":
        shares.begin(name)
    assert await shares.ask(ShareRequest("a", spent=Amount(60), cost=Amount(40), stalled=0)) == Grant(granted=True)
    asking = asyncio.create_task(shares.ask(ShareRequest("a", spent=Amount(90), cost=Amount(40), stalled=0)))
    await asyncio.sleep(0)
    assert not asking.done()  # b and c may still leave something
    await shares.end("b", spent=Amount(80))
    await asyncio.sleep(0)
    assert not asking.done()
    await shares.end("c", spent=Amount(70))
    assert await asking == Grant(granted=True, taken=30)
    assert shares.pool == Amount(20)


async def test_when_all_wait_the_one_without_progress_for_longest_is_refused_and_its_rest_serves_another():
    shares = Shares(Limits(tokens_per_run=200), problems=2)
    for name in "ab":
        shares.begin(name)

    async def solve(name: str, spent: int, stalled: int) -> Grant:
        grant = await shares.ask(ShareRequest(name, Amount(spent), cost=Amount(30), stalled=stalled))
        await shares.end(name, Amount(spent + 30 * grant.granted))
        return grant

    stalled, moving = await asyncio.gather(solve("a", 80, stalled=3), solve("b", 90, stalled=0))
    assert stalled == Grant(granted=False)
    assert moving == Grant(granted=True, taken=20)
    assert shares.pool == Amount(0)


async def test_a_cancelled_problem_does_not_wait_any_more():
    shares = Shares(Limits(tokens_per_run=20), problems=2)
    for name in "ab":
        shares.begin(name)
    asking = asyncio.create_task(shares.ask(ShareRequest("a", spent=Amount(10), cost=Amount(5), stalled=0)))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await shares.end("b", spent=Amount(0))
    assert shares.pool == Amount(10)


async def test_a_resumed_run_computes_the_pool_from_its_traces(tmp_path: Path):
    def record(problem: str, decisions: dict[str, object]) -> None:
        with closing(Trace(trace_path(tmp_path, problem))) as trace:
            for name, value in decisions.items():
                trace.record_decision(name, value)

    record("ended", {ENDED: 60})
    record(
        "killed",
        {
            grant_name(Limits(tokens_per_run=300), 3): {"granted": True, "taken": 25},
            grant_name(Limits(tokens_per_run=200), 3): {"granted": True},
        },
    )
    shares = Shares.of_run(tmp_path, Limits(tokens_per_run=300), problems=3, prices={})
    assert shares.pool == Amount(40 - 25)
    shares.begin("ended")  # it is replayed, and ends again
    await shares.end("ended", spent=Amount(60))
    shares.begin("killed")
    await shares.end("killed", spent=Amount(120))
    assert shares.pool == Amount(40 - 25 + 5)


async def test_a_problem_that_was_resumed_after_its_end_and_killed_has_not_ended(tmp_path: Path):
    limits = Limits(tokens_per_run=300)
    with closing(Trace(trace_path(tmp_path, "a"))) as trace:
        trace.record_decision(ENDED, 60)
        trace.record_decision(grant_name(limits, 3), {"granted": True, "taken": 20})
        trace.record_decision("broken/a/it3/solution[0]#0", 130)
    shares = Shares.of_run(tmp_path, limits, problems=3, prices={})
    assert shares.pool == Amount(-30)  # its last iteration took 10 more than was granted
    shares.begin("a")
    assert shares.pool == Amount(-30)
    with closing(Trace(trace_path(tmp_path, "a"))) as trace:
        trace.record_decision(ENDED, 130)
    assert Shares.of_run(tmp_path, limits, problems=3, prices={}).pool == Amount(-30)


async def test_an_iteration_with_recorded_calls_is_granted_although_the_pool_is_empty():
    shares = Shares(Limits(tokens_per_run=200), problems=2)
    for name in "ab":
        shares.begin(name)
    assert await shares.ask(ShareRequest("a", spent=Amount(90), cost=Amount(30), stalled=9, begun=True)) == Grant(
        granted=True, taken=20
    )
    assert shares.pool == Amount(-20)
    await shares.end("a", spent=Amount(120))
    assert shares.pool == Amount(-20)


async def test_money_and_tokens_are_granted_together_and_a_resumed_run_knows_both(tmp_path: Path):
    limits = Limits(tokens_per_run=200, money_per_run=4.0)
    shares = Shares(limits, problems=2)
    for name in "ab":
        shares.begin(name)
    asking = asyncio.create_task(shares.ask(ShareRequest("a", Amount(50, 1.5), Amount(20, 1.0), stalled=0)))
    await asyncio.sleep(0)
    assert not asking.done()  # the tokens of its share would suffice, the money does not
    await shares.end("b", Amount(90, 0.5))
    grant = await asking
    assert grant == Grant(granted=True, taken_money=0.5)
    assert shares.pool == Amount(10, 1.0)
    with closing(Trace(trace_path(tmp_path, "a"))) as trace:
        trace.record_decision(grant_name(limits, 1), grant.model_dump(mode="json"))
    assert Shares.of_run(tmp_path, limits, problems=2, prices={}).pool == Amount(0, -0.5)


async def test_strict_shares_never_add_up_to_more_than_the_limit():
    """Problem a ends, b takes what a left, and a is resumed with more iterations: it gets back only what is there."""
    shares = Shares(Limits(tokens_per_run=200), problems=2, reserve=0.5)
    shares.begin("a")
    shares.begin("b")
    await shares.end("a", Amount(40))
    grant = await shares.ask(ShareRequest("b", Amount(90), Amount(50), stalled=0, allowance=Amount(100)))
    assert grant == Grant(granted=True, taken=60)  # 40 are missing; of the reserve of 25, the pool has only 20
    assert shares.begin("a") == Amount(40)
    assert shares.pool == Amount(0)
    paid = await shares.ask(ShareRequest("b", Amount(160), Amount(50), stalled=0, begun=True, allowance=Amount(160)))
    assert paid == Grant(granted=True)
