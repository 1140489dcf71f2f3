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
from tmas.report.texts import Run, Texts

Json = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """``lines`` of the page, index first; the size of the texts in them; characters of the trace that are left out."""

    lines: list[str]
    size: int
    left_out: int


def problem_block(facts: Mapping[str, Any], trace: Iterable[Json], share: int) -> Block:
    """``facts`` go into the index as they are; of ``trace`` (entries as on disk) all calls, and texts up to ``share``.

    The share is in characters of the page. Prompts and replies come first, from the first iteration on, then
    reasoning from the first call on. A share of 0 leaves all texts out.
    """
    reader = _Reader(share)
    for entry in trace:
        reader.read(entry)
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
        self.runs: defaultdict[int, list[list[Run]]] = defaultdict(list)
        self.characters: defaultdict[int, int] = defaultdict(int)
        self.calls: list[Json] = []
        self.prompts: dict[str, list[Json]] = {}
        self.reasoning: list[tuple[Json, str | None]] = []
        self._room = share
        self._waiting: dict[str, list[Json]] = {}

    def read(self, entry: Json) -> None:
        if entry["type"] == "prompt":
            self._waiting[entry["digest"]] = entry["messages"]
        elif entry["type"] == "call":
            self._call(entry)

    def _call(self, entry: Json) -> None:
        key, request = entry["key"], entry["request"]
        self._prompt(entry["prompt"], key["iteration"])
        reply = entry.get("reply", {"completions": [], "usage": None, "notes": []})
        call = {
            **{name: key[name] for name in ("iteration", "role", "index", "attempt")},
            **{name: request[name] for name in ("model", "sampling", "n", "seed")},
            "prompt": entry["prompt"],
            "completions": [self._completion(c, key) for c in reply["completions"]],
            "usage": reply["usage"],
            "notes": reply["notes"],
            "failure": entry.get("failure"),
            "packing": entry.get("packing", []),
        }
        self.calls.append(call)
        self._reasoning(call, [c["reasoning"] for c in reply["completions"]])

    def _prompt(self, digest: str, unit: int) -> None:
        """Messages are written before their first call, and go into the unit of that."""
        if messages := self._waiting.pop(digest, None):
            self.prompts[digest] = [{"role": m["role"], **self._text(m["content"], unit)} for m in messages]

    def _completion(self, completion: Json, key: Json) -> Json:
        shown = {name: completion[name] for name in ("finish_reason", "thinking")}
        if key["role"] == "verification":
            shown["grade"] = _grade(completion)
        characters = len(completion["reasoning"] or "")
        return {**shown, **self._text(completion["text"], key["iteration"]), "reasoning_characters": characters}

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


def _grade(completion: Json) -> float | None:
    """As the verification agent reads it; None where it could not."""
    if completion["finish_reason"] == "length":
        return None
    try:
        return parse_verification(completion["text"]).grade
    except Unparsable:
        return None
