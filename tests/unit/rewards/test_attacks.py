"""What attempts to cheat and honest solutions earn, with a judge that is deceived (tests/support/attacks.py)."""

from __future__ import annotations

import pytest

from tests.support.attacks import ATTACKS, HONEST, Case, earned
from tmas.rewards.component import scored


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: case.name)
async def test_an_attempt_to_cheat_earns_what_the_page_says(case: Case):
    assert await earned(case) == scored(case.earns, case.why)


@pytest.mark.parametrize("case", HONEST, ids=lambda case: case.name)
async def test_an_honest_solution_earns_the_whole_bonus(case: Case):
    assert await earned(case) == scored(1.0)
