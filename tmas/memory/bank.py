"""The common part of both memory banks: how a reply changes a bank, what is evicted, and what is shown."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tmas.memory.similarity import near_duplicate
from tmas.prompts.schemas import ExperienceOutput, ExperienceUpdate, GuidelineOutput, GuidelineUpdate
from tmas.records import BankChange, Experience, Guideline, Record

ItemT = TypeVar("ItemT", Experience, Guideline)
OutputT = TypeVar("OutputT", ExperienceOutput, GuidelineOutput)


class BankSettings(BaseModel):
    """Limits of a memory bank. The paper publishes neither of the two values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    capacity: int = Field(
        ge=1,
        description="Most items in the bank. When it is full, the items with the lowest support minus iterations since"
        " they were last seen are dropped.",
    )
    similarity: float = Field(
        default=0.7, ge=0, le=1, description="Jaccard similarity at which two items count as near-duplicates."
    )


class RenderedBank(Record):
    """A bank as text for a prompt, with the ids of the items that are shown and left out."""

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

    def render(self, fits: Callable[[str], bool]) -> RenderedBank:
        """Render as many items as ``fits`` allows, possibly none.

        Items with the smallest support + last iteration seen are left out first. The remaining lines keep their order.
        ``fits`` is called for a few texts, never for an empty one.
        """
        weakest = [item.item_id for item in _weakest_first(self.items)]

        def without(n: int) -> list[ItemT]:
            return [item for item in self.items if item.item_id not in weakest[:n]]

        n = bisect_left(range(len(weakest)), True, key=lambda n: fits(self._layout(without(n))))
        shown = without(n)
        return RenderedBank(
            text=self._layout(shown), shown=tuple(item.item_id for item in shown), left_out=tuple(weakest[:n])
        )


class Bank(ItemCollection[ItemT], Generic[ItemT, OutputT]):
    """A bank that an agent maintains. ``items`` are in order of their ids, which are never reused."""

    prefix: ClassVar[str]
    role: ClassVar[str]
    item_type: ClassVar[type[Any]]
    output_type: ClassVar[type[Any]]

    settings: BankSettings

    def _alike(self, a: ItemT, b: ItemT) -> bool:
        return near_duplicate(a.text, b.text, self.settings.similarity)

    def evolve(self, output: OutputT, iteration: int, n_rollouts: int) -> tuple[Self, BankChange]:
        """Apply the reply ``output`` to the bank. Returns the new bank and the change.

        ``output`` refers to the ``n_rollouts`` rollouts of ``iteration``; rollout indices outside ``range(n_rollouts)``
        are ignored. Updates are applied first, because they refer to the bank that the model was shown. A confirmation
        adds 1 to an item's support. A correction resets it to 1, because earlier findings confirmed the old text. A new
        or corrected item that nearly duplicates another one confirms that one and adds its rollouts to it.

        A bank over capacity evicts the items with the smallest support + last iteration seen, the oldest first among
        equals. So each iteration in which an item is not seen costs it one support, and a full bank still accepts new
        items.
        """
        draft = _Draft({item.item_id: item for item in self.items}, self._alike, iteration, self.next_id)
        for update in output.updates:
            draft.update(update)
        for new in output.new:
            rollouts = tuple((iteration, index) for index in sorted(set(new.rollouts)) if 0 <= index < n_rollouts)
            item_id = f"{self.prefix}{draft.next_id}"
            seen = {"created": iteration, "last_seen": iteration, "rollouts": rollouts}
            draft.add(self.item_type(item_id=item_id, **seen, **new.content))
        draft.evict(self.settings.capacity)
        evolved = self.model_copy(update={"items": tuple(draft.items.values()), "next_id": draft.next_id})
        return evolved, draft.change()


def line(item: Experience | Guideline) -> str:
    """Return the line that shows an item in a prompt."""
    return f"- [{item.item_id}, support {item.support}] {item.text}"


def _weakest_first(items: Iterable[ItemT]) -> list[ItemT]:
    return sorted(items, key=lambda item: item.support + item.last_seen)


_PAST = {"confirm": "confirmed", "correct": "corrected", "drop": "dropped"}


@dataclass
class _Draft(Generic[ItemT]):
    """A bank while a reply is applied to it."""

    items: dict[str, ItemT]
    alike: Callable[[ItemT, ItemT], bool]
    iteration: int
    next_id: int
    unknown: int = 0
    log: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def update(self, update: ExperienceUpdate | GuidelineUpdate) -> None:
        item = self.items.get(update.id)
        if item is None:
            self.unknown += 1
            return
        match update.action:
            case "confirm":
                self._confirm(item)
            case "correct":
                self._put(item.model_copy(update=update.content | {"support": 1, "last_seen": self.iteration}))
            case "drop":
                del self.items[item.item_id]
        self.log[_PAST[update.action]].append(item.item_id)

    def add(self, item: ItemT) -> None:
        if self._put(item):
            self.next_id += 1
            self.log["added"].append(item.item_id)

    def evict(self, capacity: int) -> None:
        for item in _weakest_first(self.items.values())[: max(0, len(self.items) - capacity)]:
            del self.items[item.item_id]
            self.log["evicted"].append(item.item_id)

    def change(self) -> BankChange:
        return BankChange.model_validate(self.log | {"unknown": self.unknown})

    def _put(self, item: ItemT) -> bool:
        """Store ``item``, or merge it into the first similar item. Returns whether it was stored."""
        others = (other for other in self.items.values() if other.item_id != item.item_id)
        twin = next((other for other in others if self.alike(other, item)), None)
        if twin is None:
            self.items[item.item_id] = item
            return True
        self.items.pop(item.item_id, None)
        self._confirm(twin, item.rollouts)
        self.log["merged"].append(twin.item_id)
        return False

    def _confirm(self, item: ItemT, rollouts: tuple[tuple[int, int], ...] = ()) -> None:
        self.items[item.item_id] = item.model_copy(
            update={
                "support": item.support + 1,
                "last_seen": self.iteration,
                "rollouts": tuple(sorted({*item.rollouts, *rollouts})),
            }
        )
