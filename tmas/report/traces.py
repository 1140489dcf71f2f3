"""One problem for the page's browser: its whole prediction, and as much of its trace as its share of the page allows.

The output is lines of base64 over zlib over JSON, which a browser can decode without a library. The first line is the
index, which the page needs to show the problem. The other lines are units of text. The page inflates a unit when one
of its texts is opened. The trace is streamed: memory holds each line of one problem's texts once, and its reasoning
only up to the share.
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
    """``lines`` of the page (index first), the size of their texts, and the number of trace characters left out."""

    lines: list[str]
    size: int
    left_out: int


def problem_block(facts: Mapping[str, Any], calls: Iterable[CallLine], share: int) -> Block:
    """Create a problem's block. The index has ``facts`` unchanged and all ``calls``, with their texts up to ``share``.

    The share is in characters of the page. Prompts and replies come first, from the first iteration on. Reasoning comes
    next, from the first call on. A share of 0 leaves out all texts.
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
    """Encode ``value`` as one line of the page."""
    data = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return base64.b64encode(zlib.compress(data)).decode("ascii")


class _Reader:
    """Splits a trace into ``calls`` and ``prompts`` (for the index), ``texts`` and ``runs`` by unit, and ``reasoning``.

    A unit is an iteration. A text is identified by its unit and its number there. ``characters``: the length of
    the texts by unit.
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
            **key.model_dump(include={"iteration", "role", "index", "offset", "attempt"}),
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
        """Add a prompt to the unit of the first call that has it."""
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
    """Return the grade that the verification agent parses, or None if it could not parse one."""
    if completion.finish_reason == "length":
        return None
    try:
        return parse_verification(completion.text).grade
    except Unparsable:
        return None
