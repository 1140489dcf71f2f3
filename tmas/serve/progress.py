"""Progress of a request while it is being solved: one short line for each finished iteration."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from tmas.methods.base import Memory, Round
from tmas.records import Failure

ProgressLineCallback = Callable[[str], None]
"""Called with each progress line."""


class IterationProgress:
    """Passes a line for each iteration to ``on_progress_line``, as soon as the iteration's memory banks are updated.

    ``total``: maximum number of iterations. ``group``: runs the tasks that wait for the memory banks.
    """

    def __init__(self, total: int, on_progress_line: ProgressLineCallback, group: asyncio.TaskGroup) -> None:
        self._total, self._on_progress_line, self._group = total, on_progress_line, group

    def on_round(self, iteration: int, rollouts: Round, memory: Callable[[], Awaitable[Memory]]) -> None:
        """The progress callback of a method: see :data:`tmas.methods.base.OnRound`."""
        self._group.create_task(self._write(iteration, rollouts, memory))

    async def _write(self, iteration: int, rollouts: Round, memory: Callable[[], Awaitable[Memory]]) -> None:
        details = _details(rollouts, await memory())
        self._on_progress_line(f"iteration {iteration + 1}/{self._total}: {', '.join(details)}")


def _details(rollouts: Round, memory: Memory) -> list[str]:
    """The parts of a line, such as: 8 candidates (6 exploit, 2 explore), 1 failed, best mean grade 0.75, bank 5/3.

    The two numbers of the bank are its experiences and its guidelines.
    """
    modes = Counter(rollout.mode for rollout in rollouts)
    shown = f" ({', '.join(f'{count} {mode}' for mode, count in sorted(modes.items()))})"
    details = [f"{len(rollouts)} candidates{'' if modes.keys() == {'initial'} else shown}"]
    if failed := sum(isinstance(rollout.solution, Failure) for rollout in rollouts):
        details.append(f"{failed} failed")
    if grades := [rollout.mean_grade for rollout in rollouts if rollout.mean_grade is not None]:
        details.append(f"best mean grade {max(grades):.2f}")
    if memory.experiences or memory.guidelines:
        details.append(f"bank {len(memory.experiences)}/{len(memory.guidelines)}")
    return details
