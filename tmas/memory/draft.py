"""A bank while the reply of its agent is applied to it. :mod:`tmas.memory.bank` states the rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tmas.prompts.schemas import MAX_NAME, ExperienceUpdate, GuidelineUpdate, NewExperience, NewGuideline
from tmas.records import BankChange, Experience, Guideline, Rollout, Solution

if TYPE_CHECKING:
    from tmas.memory.bank import Bank

ItemT = TypeVar("ItemT", Experience, Guideline)
RolloutKey = tuple[int, int]
"""Identifies a rollout: (iteration, index)."""


class Draft(Generic[ItemT]):
    """A bank while a reply is applied to it.

    :meth:`update`, :meth:`add` and :meth:`evict` are the steps of :meth:`tmas.memory.bank.Bank.evolve`. ``log``: event
    -> the ids of its items. ``counts``: event -> number. Both are fields of :class:`~tmas.records.BankChange`.
    """

    def __init__(
        self,
        bank: Bank[ItemT, Any],
        iteration: int,
        rollouts: Sequence[Rollout],
        max_new: int | None,
        max_chars: int | None,
    ) -> None:
        self.bank, self.iteration, self.max_new, self.max_chars = bank, iteration, max_new, max_chars
        self.settings, self.next_id = bank.settings, bank.next_id
        self.items = {item.item_id: item for item in bank.items}
        self.given = frozenset(self.items)  # updates refer to the bank that the model was shown
        accepts_failed = self.settings.support == "mentions"  # the older rule also counts candidates that failed
        self.rollouts = {r.index: r for r in rollouts if accepts_failed or isinstance(r.solution, Solution)}
        self.grades = {i: r.mean_grade for i, r in self.rollouts.items() if r.mean_grade is not None}
        self.log: defaultdict[str, list[str]] = defaultdict(list)
        self.counts: defaultdict[str, int] = defaultdict(int)

    def update(self, update: ExperienceUpdate | GuidelineUpdate) -> None:
        """Confirm, drop or correct an item. An update of an unknown or refuted item is only counted."""
        item = self.items.get(update.id) if update.id in self.given else None
        if item is None or item.refuted is not None:
            self.counts["unknown"] += 1
            return
        named = self._existing(update.rollouts)
        match update.action:
            case "confirm":
                self._note("confirmed", item)
                self._confirm(item, named)
            case "drop":
                if self._contradict(item, len(named)):
                    self._refute(self.items[item.item_id])  # with the contradictions that were just added
            case "correct":
                self._correct(item, named, update.content)

    def add(self, new: NewExperience | NewGuideline) -> None:
        """Add a new item, or confirm the item that says the same thing."""
        item = self._new(self._existing(new.rollouts), new.content)
        twin = self._twin(item)
        if twin is not None:
            self._absorb(twin, item)
        else:
            self._store_new(item, new.content)

    def evict(self) -> None:
        """Evict the lowest-ranked live items beyond ``capacity``, and the items refuted first beyond ``tombstones``."""
        live = [item for item in self.items.values() if item.refuted is None]
        refuted = sorted((i for i in self.items.values() if i.refuted is not None), key=lambda i: i.refuted or 0)
        surplus = self.bank.weakest_first(live)[: max(0, len(live) - self.settings.capacity)]
        for item in [*surplus, *refuted[: max(0, len(refuted) - self.settings.tombstones)]]:
            del self.items[item.item_id]
            self._note("evicted", item)

    def change(self) -> BankChange:
        """The record of what was done."""
        unique = {name: tuple(dict.fromkeys(ids)) for name, ids in self.log.items()}
        return BankChange.model_validate({**unique, **self.counts})

    def _existing(self, named: Sequence[int]) -> tuple[RolloutKey, ...]:
        """The named rollouts that exist, each once. Those that do not exist are counted in the change."""
        self.counts["unknown_rollouts"] += sum(index not in self.rollouts for index in set(named))
        return tuple((self.iteration, index) for index in sorted(set(named)) if index in self.rollouts)

    def _new(self, named: Sequence[RolloutKey], content: dict[str, Any]) -> ItemT:
        """An item with the next id. If the reply names no rollout for it, its support is 1."""
        now = {"item_id": self._next_item_id(), "created": self.iteration, "last_seen": self.iteration}
        item = self.bank.item_type(**now, **content, rollouts=tuple(named))
        return item.model_copy(update=self._text_and_evidence(named, content))

    def _next_item_id(self) -> str:
        return f"{self.bank.prefix}{self.next_id}"

    def _text_and_evidence(self, named: Sequence[RolloutKey], content: dict[str, Any]) -> dict[str, Any]:
        """The fields of an item whose text is new: the text, and the evidence, which comes from ``named`` alone."""
        texts = {name: self._cut(name, text) for name, text in content.items()}
        support = max(1, len(named)) if self.settings.support == "rollouts" else 1
        return texts | {
            "support": support,
            "contradictions": 0,
            "echoes": 0,
            "shortfall": self._shortfall(named),
            "last_seen": self.iteration,
        }

    def _cut(self, name: str, text: str) -> str:
        if self.max_chars is None or name == "kind":
            return text
        return shortened(text, min(self.max_chars, MAX_NAME) if name == "name" else self.max_chars)

    def _shortfall(self, keys: Sequence[RolloutKey]) -> float:
        """By how much the grades of ``keys`` are below the mean grade, in total. Other iterations' keys are ignored."""
        weighed = keys if self.settings.grade_weight else ()
        found = [self.grades[i] for t, i in weighed if t == self.iteration and i in self.grades]
        return len(found) * sum(self.grades.values()) / len(self.grades) - sum(found) if found else 0.0

    def _twin(self, item: ItemT) -> ItemT | None:
        others = (other for other in self.items.values() if other.item_id != item.item_id)
        return next((other for other in others if self.bank.alike(other, item)), None)

    def _store_new(self, item: ItemT, content: dict[str, Any]) -> None:
        if self.max_new is not None and len(self.log["added"]) >= self.max_new:
            self.counts["over_limit"] += 1
            return
        self.next_id += 1
        self._note("added", item)
        self._store(item, content)

    def _store(self, item: ItemT, content: dict[str, Any]) -> None:
        self.items[item.item_id] = item
        if any(getattr(item, name) != text for name, text in content.items()):
            self._note("shortened", item)

    def _absorb(self, twin: ItemT, item: ItemT) -> None:
        """Let ``twin`` take over the rollouts of ``item``, which says the same thing. A refuted twin refuses them."""
        if twin.refuted is not None:
            self._note("refused", twin)
            return
        self._note("merged", twin)
        self._confirm(twin, item.rollouts)

    def _confirm(self, item: ItemT, keys: Sequence[RolloutKey]) -> None:
        """Add the rollouts ``keys`` to the evidence for ``item``. Those that it already has do not count again.

        An *echo* is a rollout whose prompt showed the item. ``shown_weight`` times all echoes, rounded down, is part of
        the support, so with a weight of 0.5 every second echo adds 1. With ``support=mentions``, each confirmation adds
        1.
        """
        new = [key for key in keys if key not in item.rollouts]
        gain, echoes = 1, item.echoes
        if self.settings.support == "rollouts":
            shown = [(t, i) for t, i in new if t == self.iteration and item.item_id in self.rollouts[i].shown]
            weight, echoes = self.settings.shown_weight, item.echoes + len(shown)
            gain = len(new) - len(shown) + int(weight * echoes) - int(weight * item.echoes)
        if not gain:
            self._note("echoed", item)
        found = {
            "support": item.support + gain,
            "echoes": echoes,
            "shortfall": item.shortfall + self._shortfall(new),
            "last_seen": self.iteration,
            "rollouts": tuple(sorted({*item.rollouts, *keys})),
        }
        self.items[item.item_id] = item.model_copy(update=found)

    def _contradict(self, item: ItemT, n_named: int) -> bool:
        """Count a contradiction by ``n_named`` rollouts, once per iteration.

        Returns whether it uses up the support, which it always does if ``drop_cost`` is None.
        """
        if self.settings.drop_cost is None:
            return True
        if item.item_id in self.log["contradicted"]:
            return False
        against = item.contradictions + min(max(1, n_named), self.settings.drop_cost)
        self.items[item.item_id] = item.model_copy(update={"contradictions": against})
        if against >= item.support:
            return True
        self._note("contradicted", item)
        return False

    def _refute(self, item: ItemT) -> None:
        self._note("dropped", item)
        if self.settings.tombstones:
            self.items[item.item_id] = item.model_copy(update={"refuted": self.iteration, "last_seen": self.iteration})
        else:
            del self.items[item.item_id]

    def _correct(self, item: ItemT, named: Sequence[RolloutKey], content: dict[str, Any]) -> None:
        """Count a contradiction. If it uses up the support, replace the text of ``item``. Otherwise add a new item.

        If the new text was refuted earlier, it is not added, and the correction has the same effect as a drop.
        """
        fields = self._text_and_evidence(named, content)
        rollouts = tuple(sorted({*item.rollouts, *named}))
        corrected = item.model_copy(update=fields | {"rollouts": rollouts})
        if self.bank.alike(item, corrected):
            self._note("confirmed", item)
            self._confirm(item, named)
        elif self._contradict(item, len(named)):
            twin = self._twin(corrected)
            if twin is not None and twin.refuted is not None:
                self._note("refused", twin)
                self._refute(self.items[item.item_id])  # with the contradictions that were just added
                return
            self._note("corrected", item)
            if twin is not None:
                del self.items[item.item_id]
                # The rollouts of the old text are no evidence for the twin.
                self._absorb(twin, corrected.model_copy(update={"rollouts": tuple(named)}))
            else:
                self._store(corrected, content)
        else:
            other = corrected.model_copy(
                update={"item_id": self._next_item_id(), "created": self.iteration, "rollouts": tuple(named)}
            )
            if twin := self._twin(other):
                self._absorb(twin, other)
            else:
                self._store_new(other, content)

    def _note(self, event: str, item: ItemT) -> None:
        self.log[event].append(item.item_id)


def shortened(text: str, limit: int) -> str:
    """Cut ``text`` at the end of a word to at most ``limit`` characters, including the ellipsis that marks the cut."""
    return text if len(text) <= limit else f"{text[: limit - 1].rsplit(' ', 1)[0]}…"
