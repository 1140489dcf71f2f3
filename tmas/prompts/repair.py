"""Repairs damaged JSON with json-repair, within a limit on its work.

The time of json-repair can grow with the square of the text's length: 8,000 characters of ``tt)\\}`` take seconds, and
every other call of the run would wait for them. A time limit would make a resumed run differ from the first one, so the
limit counts how often the parser reads from the text. Where an array opens, json-repair may go through all elements
that it has found so far: 50,000 characters of ``[1],`` take seconds, too. So a bracket counts as further reads.
"""

from __future__ import annotations

from typing import Any, Self

import json_repair

MAX_READS = 400_000
"""Maximum number of reads of a repair. An agent's damaged reply needs two or three reads per character."""
CHARACTERS_PER_READ = 64
"""Length of a slice that counts as one read."""
CHARACTERS_PER_READ_BEFORE_BRACKET = 256
"""Number of characters before an opening square bracket that count as one more read of this bracket."""


class TooMuchWork(Exception):
    """The repair has reached the limit on its work."""


def repaired_json(text: str) -> Any:
    """Return the value that json-repair makes of ``text``. Raises ``ValueError`` if it cannot be repaired."""
    try:
        return json_repair.loads(_CountedText.limited(text), skip_json_loads=True)
    except TooMuchWork:
        raise ValueError("the repair takes too long") from None


class _CountedText(str):
    """A text that counts how often it is read, together with all texts made from it by slicing and adding."""

    reads: list[int]

    @classmethod
    def limited(cls, text: str, reads: list[int] | None = None) -> Self:
        counted = cls(text)
        counted.reads = [0] if reads is None else reads
        return counted

    def __getitem__(self, place: Any) -> str:
        self.reads[0] += 1
        if self.reads[0] > MAX_READS:
            raise TooMuchWork
        found = super().__getitem__(place)
        if isinstance(place, slice):
            self.reads[0] += len(found) // CHARACTERS_PER_READ
            return self.limited(found, self.reads)
        if found == "[":
            self.reads[0] += place // CHARACTERS_PER_READ_BEFORE_BRACKET
        return found

    def __add__(self, other: str) -> str:
        return self.limited(super().__add__(other), self.reads)

    def __radd__(self, other: str) -> str:
        return self.limited(other + str(self), self.reads)
