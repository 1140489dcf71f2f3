"""IterationProgress of a request while it is being solved: one short line for each finished iteration."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from tmas.methods.base import Memory, Round
from tmas.records import Failure

Tell = Callable[[str], None]


class IterationProgress:
    """Writes a line for each round, in order, as soon as its banks are written. ``total``: iterations at most."""

    def __init__(self, total: int, tell: Tell, group: asyncio.TaskGroup) -> None:
        self._total, self._tell, self._group = total, tell, group

    def on_round(self, iteration: int, rollouts: Round, memory: Callable[[], Awaitable[Memory]]) -> None:
        """The progress callback of a method: see :data:`tmas.methods.base.OnRound`."""
        self._group.create_task(self._write(iteration, rollouts, memory))

    async def _write(self, iteration: int, rollouts: Round, memory: Callable[[], Awaitable[Memory]]) -> None:
        facts = _facts(rollouts, await memory())
        self._tell(f"iteration {iteration + 1}/{self._total}: {', '.join(facts)}")


def _facts(rollouts: Round, memory: Memory) -> list[str]:
    """Facts such as: 8 candidates (6 exploit, 2 explore), 1 failed, best mean grade 0.75, bank 5/3."""
    modes = Counter(rollout.mode for rollout in rollouts)
    shown = f" ({', '.join(f'{count} {mode}' for mode, count in sorted(modes.items()))})"
    facts = [f"{len(rollouts)} candidates{'' if modes.keys() == {'initial'} else shown}"]
    if failed := sum(isinstance(rollout.solution, Failure) for rollout in rollouts):
        facts.append(f"{failed} failed")
    if grades := [rollout.mean_grade for rollout in rollouts if rollout.mean_grade is not None]:
        facts.append(f"best mean grade {max(grades):.2f}")
    if memory.experiences or memory.guidelines:
        facts.append(f"bank {len(memory.experiences)}/{len(memory.guidelines)}")
    return facts
