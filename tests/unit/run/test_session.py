"""run/session.py: what a problem's calls cost, also where they came to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import recorded_tokens
from tests.support.waiting import LIMIT
from tmas.agents.packing import Prompt
from tmas.concurrency import PriorityLimiter
from tmas.files import complete_lines
from tmas.llm.chat_model import NO_HINT, RoutingHint
from tmas.llm.connection import ProgressCallback, StreamProgress
from tmas.llm.endpoint import EndpointDown
from tmas.llm.tokens import ContextWindow
from tmas.records import CallKey, Completion, Failure, FailureReason, Problem, Reply, Request, Sampling, Usage
from tmas.records.checksums import add_checksum
from tmas.records.prices import Price
from tmas.records.trace_lines import DecisionLine, trace_bytes
from tmas.run.budget import TokenBudget, recorded_charges
from tmas.run.session import ProblemSession
from tmas.run.shares import ENDED
from tmas.run.solver import ProblemSolver
from tmas.run.state import RoleModel, RunState
from tmas.run.trace import Trace, read_trace
from tmas.settings import Limits

PROBLEM = Problem(problem_id="p", question="?")
KEY = CallKey(problem_id="p", iteration=0, role="solution", index=0)
WHOLE = Reply(completions=(Completion(text="7"),), usage=Usage(calls=1, prompt_tokens=5, completion_tokens=20))
UNTOLD = WHOLE.model_copy(update={"usage": Usage(calls=1), "notes": ("usage_missing",)})
LOST = Failure(reason=FailureReason.ENDPOINT, message="it broke off once more")


class Breaking:
    """Streams 90 tokens and breaks off, 70 and breaks off, then 20 that end in ``outcome``."""

    def __init__(self, outcome: Reply | Failure) -> None:
        self._outcome = outcome

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply | Failure:
        assert on_progress
        for tokens in (*range(91), *range(71), *range(21)):
            on_progress(StreamProgress(tokens, 0))
            await asyncio.sleep(0)
        return self._outcome


Asked = tuple[RunState, Reply | Failure, list[Usage]]


async def asked_twice(tmp_path: Path, outcome: Reply | Failure, limit: int) -> AsyncIterator[Asked]:
    """The run, what a call came to and the usage; and the same from what the trace holds."""
    for _ in range(2):
        role = RoleModel(Breaking(outcome), "m", Sampling(), ContextWindow(len, 1000, 1))
        run = RunState({"solution": role}, PriorityLimiter(1), limits=Limits(tokens_per_problem=limit))
        with closing(Trace(tmp_path / "trace" / "t.jsonl")) as trace:
            session = ProblemSession(PROBLEM, trace, run)
            found = await session.ask(KEY, Prompt(text="?"))
        yield run, found, [entry.usage for entry in session.usage]


@pytest.mark.parametrize(("outcome", "spent"), [(WHOLE, 5 + 20 + 160), (LOST, 20 + 160)])
async def test_budgets_count_attempts_that_broke_off_and_usage_does_not(
    tmp_path: Path, outcome: Reply | Failure, spent: int
):
    (first, _, usage), (again, _, replayed) = [asked async for asked in asked_twice(tmp_path, outcome, 1000)]
    assert first.budget.spent == recorded_tokens(tmp_path) == spent
    assert usage == replayed == ([WHOLE.usage] if outcome is WHOLE else [])
    assert (first.activity.replayed, again.activity.replayed) == (0, 1)
    assert again.budget.spent == 0  # a run counts what is recorded as it begins


async def test_what_is_recorded_counts_against_the_problem_s_budget_again(tmp_path: Path):
    [(run, _, _), _] = [asked async for asked in asked_twice(tmp_path, WHOLE, 1000)]
    limits = Limits(tokens_per_problem=5 + 20 + 160)
    run = RunState(run.roles, PriorityLimiter(1), limits=limits)
    with closing(Trace(tmp_path / "trace" / "t.jsonl")) as trace:
        session = ProblemSession(PROBLEM, trace, run)
        assert await session.ask(KEY, Prompt(text="?")) == WHOLE
        refused = await session.ask(KEY.model_copy(update={"index": 1}), Prompt(text="?"))
    assert isinstance(refused, Failure)
    assert refused.reason == FailureReason.BUDGET


async def test_a_call_that_the_budget_cancels_costs_what_it_asked_for_and_counts_what_broke_off(tmp_path: Path):
    async for _, found, [usage] in asked_twice(tmp_path, WHOLE, 173):
        assert isinstance(found, Failure)
        assert found.reason == FailureReason.BUDGET
        assert (usage.prompt_tokens, usage.completion_tokens) == (1, 12)
        assert recorded_tokens(tmp_path) == 1 + 12 + 160


async def test_a_budget_holds_where_the_server_tells_no_usage(tmp_path: Path):
    (run, found, usage), (_, again, replayed) = [asked async for asked in asked_twice(tmp_path, UNTOLD, 1000)]
    assert found == again == UNTOLD
    assert run.budget.spent == recorded_tokens(tmp_path) == len("?") + len("7") + 160
    assert usage == replayed == [UNTOLD.usage]


async def test_what_a_call_had_cost_when_the_run_ended_is_on_record(tmp_path: Path):
    class Dying(Breaking):
        async def complete(self, *given: Any) -> Reply | Failure:
            await super().complete(*given)
            raise EndpointDown("http://h/v1", "gone")

    with closing(Trace(tmp_path / "trace" / "t.jsonl")) as trace:
        role = RoleModel(Dying(WHOLE), "m", Sampling(), ContextWindow(len, 1000, 1))
        run = RunState({"solution": role}, PriorityLimiter(1))
        with pytest.raises(EndpointDown):
            await ProblemSession(PROBLEM, trace, run).ask(KEY, Prompt(text="?"))
    assert run.budget.spent == recorded_tokens(tmp_path) == 20 + 160


@pytest.mark.parametrize("outcome", [WHOLE, UNTOLD, LOST])
async def test_a_run_that_is_resumed_has_spent_the_money_that_it_had_spent(tmp_path: Path, outcome: Reply | Failure):
    """Tokens that no server reported cost as much as completion tokens, in the first run and in every later one."""
    prices, spent = {"solution": Price(input=1, output=10)}, []
    role = RoleModel(Breaking(outcome), "m", Sampling(), ContextWindow(len, 1000, 1))
    for _ in range(2):
        run = RunState({"solution": role}, PriorityLimiter(1), limits=Limits(money_per_problem=1), prices=prices)
        with closing(Trace(tmp_path / "trace" / "t.jsonl")) as trace:
            session = ProblemSession(PROBLEM, trace, run)
            await session.ask(KEY, Prompt(text="?"))
        spent.append(session.charges.budget.spent_money)
    [(name, usage)] = recorded_charges(tmp_path).items()
    assert spent == [pytest.approx(prices[name].cost(usage))] * 2
    assert spent[0] > 160 * 10 / 1e6


async def test_a_stop_by_a_budget_in_money_is_repeated_until_the_budget_is_raised(tmp_path: Path):
    role = RoleModel(Breaking(WHOLE), "m", Sampling(), ContextWindow(len, 1000, 1))

    async def ask(limit: float, price: float, calls: int) -> list[Reply | Failure]:
        prices = {"solution": Price(input=0, output=price)}
        run = RunState({"solution": role}, PriorityLimiter(1), limits=Limits(money_per_problem=limit), prices=prices)
        with closing(Trace(tmp_path / "trace" / "t.jsonl")) as trace:
            session = ProblemSession(PROBLEM, trace, run)
            keys = (KEY.model_copy(update={"index": index}) for index in range(calls))
            return [await session.ask(key, Prompt(text="?")) for key in keys]

    first = await ask(limit=0.00365, price=10, calls=3)  # a call is 180 completion tokens
    assert first[:2] == [WHOLE, WHOLE]
    assert isinstance(first[2], Failure)
    assert first[2].reason == FailureReason.BUDGET
    assert await ask(limit=0.00365, price=1, calls=3) == first  # the price has changed, the record has not
    assert await ask(limit=0.0038, price=1, calls=3) == [WHOLE] * 3


@pytest.mark.parametrize("asks", [True, False])
async def test_the_end_of_a_problem_is_recorded_again_after_a_new_call(tmp_path: Path, asks: bool):
    """The repaired trace of a problem can end with the same number of tokens as before."""
    path = tmp_path / "trace" / "t.jsonl"
    role = RoleModel(Breaking(WHOLE), "m", Sampling(), ContextWindow(len, 1000, 1))
    with closing(Trace(path)) as trace:
        trace.record_decision(ENDED, 5 + 20 + 160 if asks else 0)
        session = ProblemSession(PROBLEM, trace, RunState({"solution": role}, PriorityLimiter(1)))
        if asks:
            await session.ask(KEY, Prompt(text="?"))
        await session.end_share()
    ends = [line for line in read_trace(path) if isinstance(line, DecisionLine) and line.name == ENDED]
    assert len(ends) == 1 + asks


def test_a_damaged_line_costs_nothing_in_a_budget(tmp_path: Path):
    """It is set aside as soon as its problem is resumed, and its call is made again."""
    file = tmp_path / "trace" / "t.jsonl"
    file.parent.mkdir()
    file.write_text('{"v": 1, "type": "call\n{"v": 1, "type": "decision", "name": "broken/a", "value": 7}\n')
    assert recorded_tokens(tmp_path) == 7


@pytest.mark.parametrize("is_repaired", [False, True])
async def test_a_call_that_ends_while_earlier_starts_are_counted_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_repaired: bool
):
    """``is_repaired``: the trace becomes another, longer file just before it is read."""
    role = RoleModel(Breaking(WHOLE), "m", Sampling(), ContextWindow(len, 1000, 1))
    run = RunState({"solution": role}, PriorityLimiter(1), prices={"solution": Price(input=1000, output=3000)})
    path, loop, repairs = tmp_path / "trace" / "t.jsonl", asyncio.get_running_loop(), [is_repaired]

    async def ask(trace: Trace, index: int) -> None:
        session = ProblemSession(PROBLEM, trace, run)
        await session.ask(KEY.model_copy(update={"index": index}), Prompt(text="?"))

    def read(*given: Any, **named: Any) -> Any:
        asyncio.run_coroutine_threadsafe(ask(trace, 2), loop).result(LIMIT)
        if repairs.pop(0):
            repairs.append(False)
            first = add_checksum(trace_bytes(DecisionLine(name="added", value="x" * 2000)))
            trace._rewrite([first, *(line.content for line in complete_lines(path))])
        return read_trace(*given, **named)

    with closing(Trace(path)) as trace:
        await ask(trace, 0)
    run.budget = TokenBudget()  # as in a later start, which has no limit yet
    with closing(Trace(path)) as trace:
        await ask(trace, 1)
        monkeypatch.setattr("tmas.run.budget.read_trace", read)
        await ProblemSolver(None, run, tmp_path).limit(Limits(tokens_per_run=10**6))  # type: ignore[arg-type]
    monkeypatch.undo()
    charges = recorded_charges(tmp_path)
    assert run.budget.spent == recorded_tokens(tmp_path) == 3 * (5 + 20 + 160)
    assert run.budget.spent_money == pytest.approx(run.prices["solution"].cost(charges["solution"]))
