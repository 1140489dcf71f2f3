"""run/budget.py: exact accounts, and calls in flight that end when nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.llm.client import OpenAIChat
from tmas.llm.endpoint import EndpointSettings
from tmas.records import Failure, Message, Reply, Request, Sampling, Usage
from tmas.records.prices import UNKNOWN_PRICE, Price
from tmas.run.budget import BudgetReached, TokenBudget
from tmas.testing.chat_server import Script, ScriptedServer

Count = Callable[[int], None]


def used(tokens: int) -> Usage:
    return Usage(prompt_tokens=tokens // 3, completion_tokens=tokens - tokens // 3)


class Stream:
    """A call whose progress the test decides. Its result is the last count it was given."""

    def __init__(self, budget: TokenBudget, prompt_tokens: int = 0, price: Price = UNKNOWN_PRICE) -> None:
        self.ended = asyncio.Event()
        self.begun = False
        self.tokens = 0
        self.task = asyncio.create_task(budget.run_limited(self._call, prompt_tokens, price))

    async def _call(self, count: Count) -> int:
        self.begun, self._count = True, count
        await self.ended.wait()
        return self.tokens

    async def streamed(self, tokens: int) -> None:
        await settle()
        self.tokens = tokens
        self._count(tokens)
        await settle()

    async def result(self) -> int:
        self.ended.set()
        return await self.task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def cost_when_refused(stream: Stream) -> tuple[int, int, int]:
    """Calls, prompt tokens and completion tokens."""
    with pytest.raises(BudgetReached) as reached:
        await stream.task
    usage = reached.value.usage
    return usage.calls, usage.prompt_tokens, usage.completion_tokens


async def is_refused(stream: Stream) -> bool:
    await cost_when_refused(stream)
    return True


# --- money

PRICE = Price(input=1_000_000, cached_input=250_000, output=2_000_000)
"""1 for a prompt token, 0.25 for a cached one, 2 for a completion token: all exact in binary."""


async def test_calls_in_flight_cost_money_as_they_stream():
    budget = TokenBudget(parent=(run := TokenBudget(money_limit=100)))
    first, second = Stream(budget, 20, PRICE), Stream(budget, 20, PRICE)
    await first.streamed(14)
    await second.streamed(15)
    assert not budget.exhausted  # 2 prompts of 20 and 29 completion tokens at 2
    await second.streamed(16)
    assert run.exhausted
    assert await is_refused(first)
    assert await cost_when_refused(second) == (1, 20, 16)


async def test_a_finished_call_costs_less_for_cached_prompt_tokens():
    run = TokenBudget(money_limit=100)
    budget = TokenBudget(parent=run, money_limit=1000)
    usage = Usage(prompt_tokens=100, cached_prompt_tokens=80, completion_tokens=29)
    budget.charge(usage, price=PRICE)
    assert (run.spent, run.spent_money) == (129, 20 + 80 / 4 + 58)
    assert not run.exhausted
    budget.charge(Usage(completion_tokens=1), recorded=True, price=PRICE)
    assert (run.spent_money, budget.spent_money) == (98, 100)
    budget.charge(Usage(completion_tokens=1), price=PRICE)
    assert budget.exhausted


# --- accounts


@given(st.integers(1, 100), st.lists(st.integers(0, 60)))
def test_a_budget_is_used_up_by_its_last_token_and_not_before(limit: int, amounts: list[int]):
    budget = TokenBudget(limit)
    for i, amount in enumerate(amounts):
        budget.charge(used(amount))
        assert budget.spent == sum(amounts[: i + 1])
        assert budget.exhausted == (budget.spent >= limit)


async def test_without_a_limit_nothing_is_ever_used_up():
    budget = TokenBudget(parent=TokenBudget())
    budget.charge(used(10**12))
    stream = Stream(budget)
    await stream.streamed(10**12)
    assert await stream.result() == 10**12
    assert not budget.exhausted
    assert not budget.is_limited


def test_a_limit_anywhere_above_makes_a_budget_limited():
    assert TokenBudget(1).is_limited
    assert TokenBudget(parent=TokenBudget(1)).is_limited


async def test_calls_in_flight_count_as_they_stream():
    budget = TokenBudget(100)
    first, second = Stream(budget, prompt_tokens=20), Stream(budget, prompt_tokens=20)
    await first.streamed(30)
    await second.streamed(29)
    assert not budget.exhausted
    await second.streamed(30)
    assert budget.exhausted
    assert await is_refused(first)
    assert await is_refused(second)


async def test_a_finished_call_counts_once_and_by_its_usage():
    budget = TokenBudget(100)
    first = Stream(budget, prompt_tokens=20)
    await first.streamed(70)
    assert await first.result() == 70
    budget.charge(used(50))
    second = Stream(budget)
    await second.streamed(49)
    assert not budget.exhausted
    await second.streamed(50)
    assert budget.exhausted
    assert budget.spent == 50


async def test_a_prompt_that_is_over_the_budget_is_never_sent():
    budget = TokenBudget(100)
    stream = Stream(budget, prompt_tokens=100)
    assert await is_refused(stream)
    assert not stream.begun


async def test_nothing_is_called_once_the_budget_is_used_up():
    budget = TokenBudget(100)
    budget.charge(used(100))
    stream = Stream(budget)
    assert await is_refused(stream)
    assert not stream.begun


async def test_a_cancelled_call_tells_what_it_had_cost():
    budget = TokenBudget(100)
    first, second = Stream(budget, prompt_tokens=20), Stream(budget, prompt_tokens=20)
    await first.streamed(30)
    await second.streamed(33)
    assert await cost_when_refused(first) == (1, 20, 30)
    assert await cost_when_refused(second) == (1, 20, 33)
    assert await cost_when_refused(Stream(budget, prompt_tokens=20)) == (0, 0, 0)


async def test_a_prompt_that_is_never_sent_costs_nothing():
    assert await cost_when_refused(Stream(TokenBudget(100), prompt_tokens=100)) == (0, 0, 0)


async def test_a_call_that_ends_with_the_tokens_that_reach_the_limit_is_kept():
    budget = TokenBudget(100)
    other = Stream(budget)
    await other.streamed(10)

    async def last(count: Count) -> str:
        count(90)
        return "whole"

    assert await budget.run_limited(last, 0) == "whole"
    assert budget.exhausted
    assert await cost_when_refused(other) == (1, 0, 10)


def chunk(content: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 4}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        ((chunk("a"), chunk("b") + chunk("c") + chunk("d", "stop") + USAGE + DONE), True),
        ((chunk("a"), chunk("b") + chunk("c") + chunk("d", "stop"), USAGE, DONE), True),
        ((chunk("a"), chunk("b") + chunk("c"), chunk("d", "stop") + USAGE + DONE), False),
    ],
    ids=["with its end", "with its last token", "a chunk before its end"],
)
async def test_an_answer_that_is_complete_when_the_limit_is_reached_is_kept(pieces: tuple[bytes, ...], kept: bool):
    request = Request(model="m", messages=(Message(role="user", content="?"),), sampling=Sampling())
    server = ScriptedServer(lambda _: Script(raw=pieces, chunk_delay=0.02))
    async with server, OpenAIChat(EndpointSettings(base_url=server.base_url)) as chat:

        async def call(count: Count) -> Reply | Failure:
            return await chat.complete(request, lambda progress: count(progress.tokens))

        try:
            outcome = await TokenBudget(3).run_limited(call, 0)
        except BudgetReached as reached:
            outcome = reached
    assert isinstance(outcome, Reply) == kept
    assert outcome.usage.completion_tokens == (4 if kept else 3)  # type: ignore[union-attr]


# --- ends


async def test_closing_ends_calls_in_flight_and_refuses_new_ones():
    budget = TokenBudget(1000)
    stream = Stream(budget)
    await settle()
    budget.close()
    assert await is_refused(stream)
    assert await is_refused(Stream(budget))


async def test_a_cancelled_caller_sees_a_cancellation_even_when_the_budget_ends_with_it():
    budget = TokenBudget(100)
    cancelled, both = Stream(budget), Stream(budget)
    await settle()
    cancelled.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled.task
    both.task.cancel()
    budget.close()
    with pytest.raises(asyncio.CancelledError):
        await both.task


async def test_cancelling_the_caller_ends_the_call():
    ended = asyncio.Event()

    async def call(count: Count) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.create_task(TokenBudget(100).run_limited(call, 0))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_cancellation_from_within_the_call_is_not_taken_for_the_budget():
    async def call(count: Count) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await TokenBudget(100).run_limited(call, 0)


async def test_a_call_that_fails_raises_its_error_and_leaves_the_budget_as_it_was():
    async def call(count: Count) -> None:
        count(90)
        raise ConnectionError

    budget = TokenBudget(100)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await budget.run_limited(call, 5)
    assert not budget.exhausted


# --- a problem's budget within the run's


async def test_the_run_s_limit_stops_the_calls_of_every_problem():
    run = TokenBudget(100)
    first, second = TokenBudget(parent=run), TokenBudget(90, parent=run)
    streams = [Stream(first, 10), Stream(second, 10)]
    await streams[0].streamed(40)
    await streams[1].streamed(40)
    assert [await is_refused(s) for s in streams] == [True, True]
    assert [await is_refused(Stream(b)) for b in (first, second)] == [True, True]


async def test_a_problem_s_limit_stops_no_other_problem_and_its_ended_calls_weigh_on_none():
    run = TokenBudget(100)
    first, second, third = (TokenBudget(limit, parent=run) for limit in (50, 50, None))
    streams = [Stream(first), Stream(second)]
    await streams[0].streamed(50)
    assert await is_refused(streams[0])
    await streams[1].streamed(49)
    assert await streams[1].result() == 49
    await Stream(third).streamed(99)
    assert [budget.exhausted for budget in (first, second, third, run)] == [True, False, False, False]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50))))
def test_the_run_has_spent_what_its_problems_have(amounts: list[tuple[int, int]]):
    run = TokenBudget(1)
    problems = [TokenBudget(parent=run) for _ in range(3)]
    for i, amount in amounts:
        problems[i].charge(used(amount))
    assert run.spent == sum(p.spent for p in problems) == sum(amount for _, amount in amounts)
