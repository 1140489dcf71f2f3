"""What both memory banks share: how a reply changes one, what it gives up when full, and how much of it is shown."""

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
    """Limits of a memory bank. The paper publishes neither."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    capacity: int = Field(
        ge=1,
        description="Most items in the bank. When it is full, the items with the lowest support minus iterations since"
        " they were last seen are dropped.",
    )
    similarity: float = Field(
        default=0.7, ge=0, le=1, description="Jaccard similarity at which two items count as near-duplicates."
    )


class Rendered(Record):
    """A bank as text for a prompt, and which of its items are in it."""

    text: str
    shown: tuple[str, ...]
    left_out: tuple[str, ...]


class Items(Record, Generic[ItemT]):
    """Immutable items of one problem, and how prompts show them."""

    items: tuple[ItemT, ...] = ()
    next_id: int = 1

    @abstractmethod
    def _layout(self, items: Sequence[ItemT]) -> str:
        """The text for prompts: one line an item, in order. Without items it is empty."""

    def render(self, fits: Callable[[str], bool]) -> Rendered:
        """As many items as ``fits`` allows, perhaps none: left out first are those of the least support, less the
        iterations for which they were not seen.

        ``fits`` is asked about a few texts, and about none that is empty. Lines keep their order whatever is left out.
        """
        weakest = [item.item_id for item in _weakest_first(self.items)]

        def without(n: int) -> list[ItemT]:
            return [item for item in self.items if item.item_id not in weakest[:n]]

        n = bisect_left(range(len(weakest)), True, key=lambda n: fits(self._layout(without(n))))
        shown = without(n)
        return Rendered(
            text=self._layout(shown), shown=tuple(item.item_id for item in shown), left_out=tuple(weakest[:n])
        )


class Bank(Items[ItemT], Generic[ItemT, OutputT]):
    """A bank that an agent keeps. ``items`` are in order of their ids, which are never given twice."""

    prefix: ClassVar[str]
    item_type: ClassVar[type[Any]]

    settings: BankSettings

    def _alike(self, a: ItemT, b: ItemT) -> bool:
        return near_duplicate(a.text, b.text, self.settings.similarity)

    def evolve(self, output: OutputT, iteration: int, n_rollouts: int) -> tuple[Self, BankChange]:
        """The bank after the reply ``output`` to the ``n_rollouts`` rollouts of ``iteration``, and what changed.

        Updates come first, for they speak of the bank that the model was shown. A confirmation adds 1 to an item's
        support; a correction sets it back to 1, because what was found before was the old text. A new or corrected
        item that nearly duplicates another one confirms that one and leaves it its rollouts. Rollout indices outside
        ``range(n_rollouts)`` are left out. When the bank is over capacity the weakest items go: an iteration unseen
        costs an item one support, so that a full bank still takes in what is new; of equals the oldest goes.
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
    """An item as prompts show it."""
    return f"- [{item.item_id}, support {item.support}] {item.text}"


def _weakest_first(items: Iterable[ItemT]) -> list[ItemT]:
    return sorted(items, key=lambda item: item.support + item.last_seen)


_PAST = {"confirm": "confirmed", "correct": "corrected", "drop": "dropped"}


@dataclass
class _Draft(Generic[ItemT]):
    """A bank while a reply is worked into it."""

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
        """Puts ``item`` in its place, or merges it into the first other item like it; whether it is in the bank."""
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
