"""run/garbage.py: thresholds are raised for as long as a run goes on, and no longer."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmas import asolve
from tmas.run.garbage import RARE, RARE_IN_A_SERVER, rare_collections
from tmas.testing import team
from tmas.testing.chat_server import Body, ScriptedServer

OWN = (701, 11, 12)


@pytest.fixture(autouse=True)
def _own_thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*OWN)
    yield
    gc.set_threshold(*before)


def test_thresholds_are_raised_in_the_block_and_set_back_after_an_error():
    @rare_collections()
    def interrupted() -> None:
        assert gc.get_threshold() == RARE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert gc.get_threshold() == OWN


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_overlapping_blocks_leave_the_thresholds_as_they_were(first_ends_first: bool):
    first, second = rare_collections(), rare_collections()
    blocks = (first, second) if first_ends_first else (second, first)
    first.__enter__()
    second.__enter__()
    for block in blocks:
        block.__exit__(None, None, None)
    assert gc.get_threshold() == OWN


def test_a_block_inside_another_has_its_own_thresholds():
    with rare_collections():
        with rare_collections(RARE_IN_A_SERVER):
            assert gc.get_threshold() == RARE_IN_A_SERVER
        assert gc.get_threshold() == RARE
    assert gc.get_threshold() == OWN


async def test_a_run_collects_rarely_and_sets_the_thresholds_back(tmp_path: Path):
    seen: set[tuple[int, int, int]] = set()

    def reply(body: Body) -> list[str]:
        seen.add(gc.get_threshold())
        return team.reply(body)

    async with ScriptedServer(reply) as server:
        await asolve("1 + 1?", team.model(server.base_url), team.method(max_iterations=1), output_dir=tmp_path / "run")
    assert seen == {RARE}
    assert gc.get_threshold() == OWN
