"""The memory bank of the method RSE (:mod:`tmas.methods.rse`): statements distilled from all rollouts.

If statements repeat each other, it keeps one of them: a new one before an old one, then the longest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import NamedTuple

from tmas.memory.bank import ItemCollection
from tmas.memory.similarity import near_duplicate
from tmas.prompts.schemas import DistillOutput
from tmas.records import BankChange, Experience

KINDS = {"conclusion": "verified_propositions", "pitfall": "critical_pitfalls"}
"""Kind of an item -> the field of :class:`~tmas.prompts.schemas.DistillOutput` with the statements of this kind."""


class _Head(NamedTuple):
    """A kept statement, into which later ones may be merged.

    ``is_old``: it was already in the bank. ``place``: its index among the kept items.
    """

    statement: str
    is_old: bool
    place: int


class RecycledBank(ItemCollection[Experience]):
    """Propositions (``conclusion``) and pitfalls, without a size limit, as published.

    ``similarity``: minimum Jaccard similarity of duplicates (:mod:`tmas.memory.similarity`).
    """

    similarity: float = 0.7

    def evolve(self, distilled: Mapping[int, DistillOutput], iteration: int) -> tuple[RecycledBank, BankChange]:
        """Merge ``distilled`` (by rollout of ``iteration``) into the bank. Returns the new bank and the change.

        The merge is greedy: new statements come before old ones, and longer before shorter ones. A statement that
        repeats one already kept is merged into it, with its rollouts and support.
        """
        new = [item for index, output in distilled.items() for item in _items(output, iteration, index)]
        kept: list[Experience] = []
        heads: dict[str, list[_Head]] = {kind: [] for kind in KINDS}
        merged: set[int] = set()
        for item in [*_longest_first(new), *_longest_first(self.items)]:
            place = self._place_of_repeated(item, heads[item.kind])
            if place is None:
                heads[item.kind].append(_Head(item.statement, bool(item.item_id), len(kept)))
                kept.append(item)
            else:
                kept[place] = _united(kept[place], item)
                merged.add(place)
        ids = count(self.next_id)
        items = tuple(item if item.item_id else item.model_copy(update={"item_id": f"E{next(ids)}"}) for item in kept)
        before, after = [item.item_id for item in self.items], [item.item_id for item in items]
        change = BankChange(
            added=tuple(item_id for item_id in after if item_id not in before),
            merged=tuple(after[place] for place in sorted(merged)),
            dropped=tuple(item_id for item_id in before if item_id not in after),  # merged into another item
        )
        return self.model_copy(update={"items": items, "next_id": next(ids)}), change

    def _place_of_repeated(self, item: Experience, heads: Sequence[_Head]) -> int | None:
        """Return the place of the first of ``heads`` that ``item`` repeats; None if it repeats none.

        Two old statements are not tested for near-duplication: an earlier iteration has already done so.
        """
        said, is_old = item.statement, bool(item.item_id)
        for statement, head_is_old, place in heads:
            if _contains(statement, said) or (
                not (is_old and head_is_old) and near_duplicate(said, statement, self.similarity)
            ):
                return place
        return None

    def _layout(self, items: Sequence[Experience]) -> str:
        headings = {"pitfall": "Critical pitfalls:", "conclusion": "Propositions:"}
        sections = {kind: [f"- {item.statement}" for item in items if item.kind == kind] for kind in headings}
        return "\n\n".join("\n".join([headings[kind], *lines]) for kind, lines in sections.items() if lines)


def _items(output: DistillOutput, iteration: int, index: int) -> list[Experience]:
    """The statements of one rollout. They get an id when they are kept."""
    seen = {"item_id": "", "created": iteration, "last_seen": iteration, "rollouts": ((iteration, index),)}
    return [
        Experience.model_validate({"kind": kind, "statement": statement, **seen})
        for kind, field in KINDS.items()
        for statement in getattr(output, field)
    ]


def _contains(statement: str, said: str) -> bool:
    """Whether ``statement`` has ``said`` in it as whole words and terms.

    Neither "x = 12" nor "x = 1 + y" contains "x = 1".
    """
    if said not in statement:
        return False
    return re.search(rf"(?<![\w.-]){re.escape(said)}(?!\w|[.,]\d|\s*[-+*/^!_])", statement) is not None


def _longest_first(items: Sequence[Experience]) -> list[Experience]:
    return sorted(items, key=lambda item: -len(item.statement))


def _united(head: Experience, item: Experience) -> Experience:
    return head.model_copy(
        update={
            "created": min(head.created, item.created),
            "last_seen": max(head.last_seen, item.last_seen),
            "support": head.support + item.support,
            "rollouts": tuple(sorted({*head.rollouts, *item.rollouts})),
        }
    )
