"""Earlier work as pieces of a prompt: rollouts and banks as text, and the steps that shorten them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tmas.agents.packing import Shorten, replace_by
from tmas.answers.normalize import normalise
from tmas.memory.bank import ItemCollection
from tmas.prompts import Prompts
from tmas.records import Rollout, Solution, Verification


class Attempts:
    """The rollouts as pieces of a prompt. ``full``: their texts by name.

    ``shorten`` reduces an attempt to its summary, ``drop`` leaves it out; both take the attempts in the order of
    :func:`least_valuable_first`.
    """

    def __init__(self, full: dict[str, str], brief: Callable[[str], str], worst_first: Sequence[str]) -> None:
        self.full = full
        self.shorten: list[tuple[str, Shorten]] = [(name, lambda _, name=name: brief(name)) for name in worst_first]
        self.drop = [(name, replace_by("")) for name in worst_first]

    def texts(self, current: Mapping[str, str]) -> list[str]:
        """The attempts that are left in ``current``, in their order."""
        return [current[name] for name in self.full if current[name]]


def attempts_of(rollouts: Sequence[Rollout], prompts: Prompts) -> Attempts:
    """The rollouts that have a solution, as pieces of a prompt."""
    solved = {f"attempt {r.index}": r for r in rollouts if isinstance(r.solution, Solution)}
    worst_first = [f"attempt {r.index}" for r in least_valuable_first([*solved.values()])]
    full = {name: _attempt(prompts, r, with_solution=True) for name, r in solved.items()}
    return Attempts(full, lambda name: _attempt(prompts, solved[name], with_solution=False), worst_first)


def least_valuable_first(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The order in which attempts are shortened, and then left out.

    The best attempt of each answer class comes after all others: the attempts with the best grades may share one wrong
    answer. Two answers are in one class if they are equal after typesetting is removed; no comparison runs here. An
    attempt without an answer is in no class. Within both groups the lower grade comes first, and of equal grades the
    later attempt. An ungraded attempt comes after those graded 0, which are known to be wrong, and before all others.
    """

    def value(rollout: Rollout) -> tuple[float, bool, int]:
        return rollout.mean_grade or 0.0, rollout.mean_grade is None, -rollout.index

    best_of_class: dict[str, Rollout] = {}
    ordered = sorted(rollouts, key=value)
    for rollout in ordered:
        if rollout.answer is not None:
            best_of_class[normalise(rollout.answer)] = rollout
    best = {rollout.index for rollout in best_of_class.values()}
    return sorted(ordered, key=lambda rollout: rollout.index in best)


def _attempt(prompts: Prompts, rollout: Rollout, with_solution: bool) -> str:
    return prompts.render(
        "attempt",
        index=rollout.index,
        answer=rollout.answer,
        grade=None if rollout.mean_grade is None else f"{rollout.mean_grade:.2f}",
        solution=rollout.solution.text if with_solution and isinstance(rollout.solution, Solution) else None,
        summary=rollout.summary if isinstance(rollout.summary, str) else None,
    )


def graded(verification: Verification) -> str:
    """A critique followed by its grade: a critique in JSON does not state the grade itself."""
    return f"{verification.critique}\nGrade: {verification.grade:g}"


def all_items(bank: ItemCollection[Any] | None) -> str:
    """The whole bank as text; "" without a bank."""
    return bank.render(lambda _: True).text if bank else ""


def fewer_items(bank: ItemCollection[Any]) -> Shorten:
    """The packing step that leaves out the bank's least supported items until it fits."""
    return lambda fits: bank.render(fits).text
