"""records/prices.py and the settings about money: what is known about prices, and what a run with them writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tmas import asolve_all
from tmas.records import Usage
from tmas.records.prices import Price, cost_of, money
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer

USAGE = Usage(calls=1, prompt_tokens=3_000_000, cached_prompt_tokens=1_000_000, completion_tokens=2_000_000)
URL = "https://api.example.com/v1"
LISTED = {"m": {"input": 1, "output": 2, "host": "api.example.com", "as_of": "2026-01-01"}}


def run(prices: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **model: Any) -> RunSettings:
    settings = {"name": "m", "base_url": URL} | model
    return RunSettings.model_validate({"model": settings, "prices": prices or {}, "limits": limits or {}})


def test_cached_prompt_tokens_have_their_own_price():
    assert Price(input=1, cached_input=0.25, output=8).cost(USAGE) == 2 + 0.25 + 16
    assert Price(input=1, output=8).cost(USAGE) == 3 + 16
    assert Price(input=0, output=0).cost(USAGE) == 0
    assert Price(input=1, output=8).cost(Usage(calls=7)) is None  # the server reports no tokens


def test_what_is_not_known_is_not_free():
    found = cost_of({"solution": USAGE, "summary": USAGE}, {"solution": Price(input=1, output=8)})
    assert (found.currency, found.total, found.by_role) == ("USD", None, {"solution": 19, "summary": None})
    assert cost_of({"solution": USAGE}, {}).model_dump() == {
        "currency": None, "total": None, "by_role": {"solution": None},
    }  # fmt: skip
    assert [money(amount) for amount in (None, 0, 0.00001, 0.0123, 1234.5)] == [
        *("unknown", "0.00", "<0.0001", "0.0123", "1,234.50")
    ]


def test_half_a_price_is_refused():
    with pytest.raises(ValidationError, match="input and output: set both prices, or none"):
        Price(input=1)


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ({}, True),
        ({"name": "m-mini"}, False),  # its name only begins with that of another model
        ({"base_url": "http://127.0.0.1:8000/v1"}, False),  # the same name on a server of one's own
        ({"base_url": [URL, "https://other.example.com/v1"]}, False),
        ({"name": "x", "price": {"input": 1, "output": 2}}, True),
    ],
)
def test_a_list_price_holds_for_one_name_on_one_host(model: dict[str, Any], known: bool):
    prices = run(LISTED, **model).role_prices()
    assert prices == (dict.fromkeys(run().method.roles, Price(input=1, output=2)) if known else {})


def test_a_role_with_another_model_or_server_has_another_price():
    own: dict[str, Any] = {"input": 7, "output": 8}
    shared: dict[str, Any] = {"input": 3, "output": 4}
    roles = {
        "solution": {"sampling": {"temperature": 0}},
        "verification": {"name": "other"},
        "summary": {"base_url": "http://h/v1"},
        "guideline": {"name": "other", "price": own},
    }
    prices = run(price=shared, roles=roles).role_prices()
    assert prices == {role: Price(**shared) for role in ("solution", "experience")} | {"guideline": Price(**own)}


def test_a_budget_in_money_needs_all_prices_in_one_currency():
    run(LISTED, limits={"money_per_run": 5})
    with pytest.raises(ValidationError, match=r"that of other \(summary\) is not known: set model\.price\.input"):
        run(LISTED, limits={"money_per_problem": 5}, roles={"summary": {"name": "other"}})
    on_ray = {"model": {"name": "m", "base_url": URL}, "prices": LISTED, "limits": {"money_per_run": 5}}
    with pytest.raises(ValidationError, match=r"limits\.money_per_run is counted in one process: on Ray it needs"):
        RunSettings.model_validate(on_ray | {"ray": {"workers": 2}})
    with pytest.raises(ValidationError, match=r"several currencies \(EUR, USD\)"):
        run(LISTED, roles={"summary": {"price": {"input": 1, "output": 1, "currency": "EUR"}}})


async def test_a_run_records_its_prices_and_what_it_cost(tmp_path: Path):
    def read(name: str) -> Any:
        return orjson.loads((tmp_path / name).read_bytes())

    async def solve(**model: Any) -> None:
        settings = team.model(server.base_url, **model)
        await asolve_all(team.problems(1), settings, team.method(), output_dir=tmp_path)

    async with ScriptedServer(team.reply) as server:
        await solve()
        assert read("metrics.json")["cost"] is None
        assert "prices" not in read("manifest.json")
        await solve(price={"input": 2, "output": 3})
        assert read("manifest.json")["prices"]["summary"]["output"] == 3
        await solve()  # what is known stays known
    found = read("metrics.json")
    tokens = [(used["prompt_tokens"], used["completion_tokens"]) for used in found["usage"].values()]
    assert found["cost"]["total"] == pytest.approx(sum(2 * prompt + 3 * reply for prompt, reply in tokens) / 1e6)
    assert found["cost"]["by_role"].keys() == found["usage"].keys()


async def test_a_run_stops_at_its_budget_in_money_and_resumes_when_it_is_raised(tmp_path: Path):
    async def solve(limit: float) -> tuple[set[str], int]:
        async with ScriptedServer(team.reply) as server:
            model = team.model(server.base_url, price={"input": 1000, "output": 1000})
            limits = {"money_per_run": limit}
            results = await asolve_all(team.problems(2), model, team.method(), output_dir=tmp_path, limits=limits)
            return {result.trajectory.stop for result in results}, len(server.requests)

    stops, calls = await solve(2)  # 2,000 tokens
    assert "budget" in stops
    assert calls > 0
    assert await solve(2) == (stops, 0)
    stops, calls = await solve(1000)
    assert stops == {"max_iterations"}
    assert calls > 0
