"""What a client hears while its request is being solved: one short line for each iteration that is done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tmas.methods.base import Round
from tmas.records import Failure, Trajectory

Tell = Callable[[str], None]


class IterationProgress:
    """Tells of each iteration once, in order, as soon as its banks are written. ``total``: iterations at most."""

    def __init__(self, total: int, tell: Tell, group: asyncio.TaskGroup) -> None:
        self._total, self._tell, self._group = total, tell, group
        self._heard = 0

    def hear(self, rounds: Sequence[Any]) -> None:
        """What a method tells whenever it may begin a round: :data:`tmas.methods.base.Hear`."""
        if len(rounds) > self._heard:
            self._group.create_task(self._remembered(self._heard, rounds[-1]))
            self._heard += 1

    async def _remembered(self, t: int, last: Any) -> None:
        if isinstance(last, tuple):
            self._say(t, last, {})
        else:
            self._say(t, last.rollouts, await last.memory())

    def rest(self, trajectory: Trajectory) -> None:
        """Tell of the iterations that were not heard of: a method of one round never asks whether it is done."""
        for iteration in trajectory.iterations[self._heard :]:
            memory = {"experiences": iteration.experiences, "guidelines": iteration.guidelines}
            self._say(iteration.index, iteration.rollouts, memory)

    def _say(self, t: int, rollouts: Round, memory: Mapping[str, Any]) -> None:
        self._tell(f"iteration {t + 1}/{self._total}: {', '.join(_facts(rollouts, memory))}")


def _facts(rollouts: Round, memory: Mapping[str, Any]) -> list[str]:
    """Such as: 8 candidates (6 exploit, 2 explore) · 1 failed · best mean grade 0.75 · bank 5/3."""
    modes = Counter(rollout.mode for rollout in rollouts)
    shown = f" ({', '.join(f'{count} {mode}' for mode, count in sorted(modes.items()))})"
    facts = [f"{len(rollouts)} candidates{'' if modes.keys() == {'initial'} else shown}"]
    if failed := sum(isinstance(rollout.solution, Failure) for rollout in rollouts):
        facts.append(f"{failed} failed")
    if grades := [rollout.mean_grade for rollout in rollouts if rollout.mean_grade is not None]:
        facts.append(f"best mean grade {max(grades):.2f}")
    banks = [len(memory.get(name, ())) for name in ("experiences", "guidelines")]
    if any(banks):
        facts.append(f"bank {banks[0]}/{banks[1]}")
    return facts
