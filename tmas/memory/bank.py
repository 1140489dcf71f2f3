"""The common part of both memory banks: how a reply changes a bank, what is evicted, and what is shown.

These are the rules. Names in code font are settings (:class:`~tmas.memory.settings.BankSettings`).

- An item's *support* is the number of distinct rollouts that the item was derived from, according to the agent. If the
  agent names a rollout that does not exist, it is ignored. A rollout whose prompt showed the item counts as
  ``shown_weight`` instead of 1. Stating an item again is the same as confirming it.
- The agent can *drop* an item and name the rollouts that contradict it. This adds the number of these rollouts (at
  least 1, at most ``drop_cost``) to the item's *contradictions*. An item can be contradicted once per iteration. When
  the contradictions reach the support, the item is *refuted*: it stays as a warning (``tombstones``), and its text
  cannot be added again.
- A correction counts as a drop. If the contradictions then reach the support, the new text replaces the old one in the
  item. Otherwise the new text becomes another item. If the bank already has the new text, that item is confirmed
  instead. If the new text was refuted, it is not added, and the correction has the same effect as a drop.
- An item's *shortfall* says by how much the grades of its rollouts are below the mean grades of their iterations, in
  total. It only counts for conclusions, and a negative shortfall counts as 0.
- The *rank* of an item is support - contradictions - ``grade_weight`` * shortfall + the iteration it was last seen in.
  Items with the lowest rank are the first to be evicted, and the first to be left out of a prompt.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from tmas.memory.draft import Draft
from tmas.memory.settings import BankSettings
from tmas.memory.similarity import near_duplicate, same_statement
from tmas.prompts.schemas import ExperienceOutput, GuidelineOutput
from tmas.records import BankChange, Experience, Guideline, Record, Rollout

ItemT = TypeVar("ItemT", Experience, Guideline)
OutputT = TypeVar("OutputT", ExperienceOutput, GuidelineOutput)


class RenderedBank(Record):
    """A bank as text for a prompt, with the ids of the items that are shown, and of those that are left out."""

    text: str
    shown: tuple[str, ...]
    left_out: tuple[str, ...]


class ItemCollection(Record, Generic[ItemT]):
    """The memory items of one problem (immutable), and their text for prompts."""

    items: tuple[ItemT, ...] = ()
    next_id: int = 1

    @abstractmethod
    def _layout(self, items: Sequence[ItemT]) -> str:
        """The text for prompts, one line per item, in order; empty if there are no items."""

    def rank(self, item: ItemT) -> float:
        """The rank of an item: support plus the iteration it was last seen in.

        So an item falls behind by one rollout of support in each iteration in which it is not seen.
        """
        return item.support + item.last_seen

    def weakest_first(self, items: Iterable[ItemT]) -> list[ItemT]:
        """Items by rank; among equals the oldest comes first."""
        return sorted(items, key=self.rank)

    def render(self, fits: Callable[[str], bool]) -> RenderedBank:
        """Render as many items as ``fits`` allows, possibly none.

        Items with the lowest rank are left out first. The remaining lines keep their order. ``fits`` is called for a
        few texts, never for an empty one.
        """
        weakest = [item.item_id for item in self.weakest_first(self.items)]

        def without(n: int) -> list[ItemT]:
            return [item for item in self.items if item.item_id not in weakest[:n]]

        n = bisect_left(range(len(weakest)), True, key=lambda n: fits(self._layout(without(n))))
        shown = without(n)
        return RenderedBank(
            text=self._layout(shown), shown=tuple(item.item_id for item in shown), left_out=tuple(weakest[:n])
        )


class Bank(ItemCollection[ItemT], Generic[ItemT, OutputT]):
    """A bank that an agent maintains. ``items`` are in order of their ids, which are never reused.

    ``prefix``: first letter of the ids. ``role``: role of the agent, and name of its prompt. ``item_type``: record of
    an item. ``output_type``: schema of the agent's reply.
    """

    prefix: ClassVar[str]
    role: ClassVar[str]
    item_type: ClassVar[type[Any]]
    output_type: ClassVar[type[Any]]

    settings: BankSettings

    @abstractmethod
    def is_weakened_by_low_grades(self, item: ItemT) -> bool:
        """Whether low grades of the item's rollouts are evidence against the item."""

    def alike(self, a: ItemT, b: ItemT) -> bool:
        """Whether two items say the same thing, so that the bank merges them."""
        similarity = self.settings.similarity
        return same_statement(a.text, b.text) or (similarity is not None and near_duplicate(a.text, b.text, similarity))

    def rank(self, item: ItemT) -> float:
        shortfall = max(0.0, item.shortfall) if self.is_weakened_by_low_grades(item) else 0.0
        return item.support - item.contradictions - self.settings.grade_weight * shortfall + item.last_seen

    def evolve(
        self,
        output: OutputT,
        iteration: int,
        rollouts: Sequence[Rollout],
        max_new: int | None = None,
        max_chars: int | None = None,
    ) -> tuple[Self, BankChange]:
        """Apply the reply ``output`` by the rules in the module's docstring. Returns the new bank and the change.

        ``rollouts``: the rollouts of ``iteration``, to which the reply refers by index. ``max_new``: maximum
        number of added items, including those that corrections add; later ones are left out. Texts longer than
        ``max_chars`` are cut at the end of a word. Updates are applied first, because they refer to the bank that the
        model was shown.
        """
        draft = Draft(self, iteration, rollouts, max_new if self.settings.cap_new else None, max_chars)
        for update in output.updates:
            draft.update(update)
        for new in output.new:
            draft.add(new)
        draft.evict()
        evolved = self.model_copy(update={"items": tuple(draft.items.values()), "next_id": draft.next_id})
        return evolved, draft.change()


def item_line(item: Experience | Guideline) -> str:
    """Return the line that shows an item in a prompt."""
    against = f", contradicted {item.contradictions}" if item.contradictions else ""
    state = f"support {item.support}{against}" if item.refuted is None else "refuted"
    return f"- [{item.item_id}, {state}] {item.text}"
