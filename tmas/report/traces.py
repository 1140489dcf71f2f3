"""One problem for the page's browser: all that its prediction holds, and its trace as far as a share of the page goes.

What comes out is lines of base64 over zlib over JSON, which a browser takes apart by itself: the first is the index,
which the page needs to show the problem at all; the others are units of text, inflated when one of their texts is
opened. The trace is streamed. In memory stand the texts of one problem, each line once, and of its reasoning no more
than the share.
"""

from __future__ import annotations

import base64
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tmas.prompts.parsing import Unparsable, parse_verification
from tmas.records import CallKey, Completion
from tmas.records.trace_lines import CallLine
from tmas.report.texts import LineRun, Texts

Json = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """``lines`` of the page, index first; the size of the texts in them; characters of the trace that are left out."""

    lines: list[str]
    size: int
    left_out: int


def problem_block(facts: Mapping[str, Any], calls: Iterable[CallLine], share: int) -> Block:
    """``facts`` go into the index as they are; all ``calls`` follow, and their texts up to ``share``.

    The share is in characters of the page. Prompts and replies come first, from the first iteration on, then
    reasoning from the first call on. A share of 0 leaves all texts out.
    """
    reader = _Reader(share)
    for call in calls:
        reader.read(call)
    units = {unit: packed({"lines": lines, "texts": reader.runs[unit]}) for unit, lines in reader.texts.units.items()}
    kept: list[str] = []
    places: dict[int, int] = {}
    room = share
    for unit in sorted(units):
        if len(units[unit]) > room:
            break
        room -= len(units[unit])
        kept.append(units[unit])
        places[unit] = len(kept)
    left_out = sum(count for unit, count in reader.characters.items() if unit not in places)
    for call, reasoning in reader.reasoning:
        if reasoning is None or len(reasoning) > room:
            left_out += sum(c["reasoning_characters"] for c in call["completions"])
            continue
        room -= len(reasoning)
        kept.append(reasoning)
        call["reasoning"] = len(kept)
    index = {**facts, "calls": reader.calls, "prompts": reader.prompts, "units": places}
    return Block([packed(index), *kept], share - room, left_out)


def packed(value: Any) -> str:
    """``value`` as one line of the page."""
    data = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return base64.b64encode(zlib.compress(data)).decode("ascii")


class _Reader:
    """Takes a trace apart: ``calls`` and ``prompts`` for the index, ``texts`` and ``runs`` by unit, ``reasoning``.

    A unit is an iteration. A text is referred to by its unit and its number there; ``characters`` counts them by unit.
    """

    def __init__(self, share: int) -> None:
        self.texts = Texts()
        self.runs: defaultdict[int, list[list[LineRun]]] = defaultdict(list)
        self.characters: defaultdict[int, int] = defaultdict(int)
        self.calls: list[Json] = []
        self.prompts: dict[str, list[Json]] = {}
        self.reasoning: list[tuple[Json, str | None]] = []
        self._room = share

    def read(self, line: CallLine) -> None:
        key, request = line.key, line.request
        self._prompt(line, key.iteration)
        completions = line.reply.completions if line.reply else ()
        call = {
            **key.model_dump(include={"iteration", "role", "index", "attempt"}),
            **request.model_dump(include={"model", "sampling", "n", "seed"}),
            "prompt": line.prompt,
            "completions": [self._completion(c, key) for c in completions],
            "usage": line.reply and line.reply.usage.model_dump(),
            "notes": line.reply.notes if line.reply else (),
            "failure": line.failure and line.failure.model_dump(mode="json"),
            "packing": [note.model_dump() for note in line.packing],
        }
        self.calls.append(call)
        self._reasoning(call, [c.reasoning for c in completions])

    def _prompt(self, line: CallLine, unit: int) -> None:
        """A prompt goes into the unit of the first call that has it."""
        if line.prompt not in self.prompts:
            self.prompts[line.prompt] = [{"role": m.role, **self._text(m.content, unit)} for m in line.messages]

    def _completion(self, completion: Completion, key: CallKey) -> Json:
        shown = completion.model_dump(include={"finish_reason", "thinking"})
        if key.role == "verification":
            shown["grade"] = _grade(completion)
        characters = len(completion.reasoning or "")
        return {**shown, **self._text(completion.text, key.iteration), "reasoning_characters": characters}

    def _text(self, text: str, unit: int) -> Json:
        self.runs[unit].append(self.texts.add(text, unit))
        self.characters[unit] += len(text)
        return {"text": [unit, len(self.runs[unit]) - 1], "characters": len(text)}

    def _reasoning(self, call: Json, texts: list[str | None]) -> None:
        if not any(texts):
            return
        block = packed(texts) if self._room > 0 else None
        self._room -= len(block or "")
        self.reasoning.append((call, block))


def _grade(completion: Completion) -> float | None:
    """As the verification agent reads it; None where it could not."""
    if completion.finish_reason == "length":
        return None
    try:
        return parse_verification(completion.text).grade
    except Unparsable:
        return None
