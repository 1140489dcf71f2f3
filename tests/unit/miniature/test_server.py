"""recipes/miniature/server.py: the project's client and judge over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from recipes.miniature.language import Finding, question, solution
from recipes.miniature.server import application, serve
from recipes.miniature.task import Task
from tests.support.miniature import PROMPTS, miniature_problems
from tests.support.waiting import until
from tmas import asolve_all
from tmas.judge import Judge, JudgeSettings
from tmas.llm.client import OpenAIChat
from tmas.llm.endpoint import EndpointSettings
from tmas.methods.tmas import TMASSettings
from tmas.records import Experience, Message, Reply, Request, Sampling
from tmas.rewards.experience import ExperienceVerdict, prompt
from tmas.testing import team

[(BLOCKS, GOLD)] = islice(Task().problems("validation", 0), 1)
QUESTION = question(BLOCKS)
BARE = PROMPTS.render("solution", question=QUESTION, task="answer", attempts=[], experience="", guidelines="")


@pytest_asyncio.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """The URL that the running server has written to its file."""
    ready = tmp_path / "url"
    serving = asyncio.create_task(serve(application(Task()), 0, ready))
    await until(lambda: ready.exists() and ready.read_text())
    yield ready.read_text()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def complete(url: str, text: str = BARE, stream: bool = True, n: int = 1, seed: int = 0) -> Reply:
    message = Message(role="user", content=text)
    request = Request(model="rules", messages=(message,), sampling=Sampling(), n=n, seed=seed)
    async with OpenAIChat(EndpointSettings(base_url=url, stream=stream)) as chat:
        reply = await chat.complete(request)
    assert isinstance(reply, Reply), reply
    return reply


def texts(reply: Reply) -> list[str]:
    return [completion.text for completion in reply.completions]


@pytest.mark.parametrize("stream", [True, False])
async def test_choices_and_usage(url: str, stream: bool):
    reply = await complete(url, stream=stream, n=12, seed=1)
    assert len(reply.completions) == 12
    assert len({*texts(reply)}) > 3
    assert all("\\boxed{" in text for text in texts(reply))
    assert {completion.finish_reason for completion in reply.completions} == {"stop"}
    assert reply.usage.prompt_tokens == len(BARE.split())
    assert reply.usage.completion_tokens == sum(len(text.split()) for text in texts(reply))
    assert reply.notes == ()


async def test_the_seed_decides_the_reply_and_streaming_does_not(url: str):
    first, again, whole = [await complete(url, stream=stream, n=8, seed=5) for stream in (True, True, False)]
    assert texts(first) == texts(again) == texts(whole)
    assert texts(await complete(url, n=8, seed=6)) != texts(first)


@pytest.mark.parametrize("stream", [True, False])
async def test_thinking_arrives_as_thinking(url: str, stream: bool):
    text = PROMPTS.render("pacore", question=QUESTION, task="answer", references=[solution(GOLD)])
    [completion] = (await complete(url, text, stream=stream, seed=0)).completions
    assert completion.thinking == "tags"
    assert f"{GOLD.rule} 4/4" in (completion.reasoning or "")
    assert completion.text == solution(GOLD)


async def test_it_judges(url: str):
    found = Finding(1, GOLD.rule, GOLD.orders[1], True)
    item = Experience(item_id="E1", kind="conclusion", statement=str(found), created=0, last_seen=0)
    settings = JudgeSettings(name="rules", base_url=url)
    async with Judge(settings) as judge:
        verdicts = await judge.ask(
            prompt(PROMPTS, QUESTION, solution(GOLD), [item]), ExperienceVerdict, passes=2, coded=True
        )
    assert len(verdicts) == 2
    for verdict in verdicts:
        assert isinstance(verdict, ExperienceVerdict), verdict
        assert [(use.id, use.use, use.correct) for use in verdict.items] == [("E1", "applied", True)]


async def test_the_list_of_models_names_it(url: str):
    async with aiohttp.ClientSession() as session, session.get(f"{url}/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["rules"]


async def test_a_run_on_it_has_no_failures_and_can_be_repeated(url: str):
    method = TMASSettings(n_candidates=3, n_verifications=2, max_iterations=3, epsilon=0.4)
    results = [
        await asolve_all(miniature_problems(2), team.model(url, name="rules"), method, seed=seed) for seed in (0, 0, 1)
    ]
    assert [failure for run in results for result in run for failure in result.failures] == []
    first, again, other = ([result.trajectory for result in run] for run in results)
    assert first == again
    assert first != other
