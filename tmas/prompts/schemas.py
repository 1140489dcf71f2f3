"""The JSON output of agents: one model per role, and its schema for structured output.

Limits on the lengths of lists are only in the schema, so that a list that is too long does not make a reply
unparsable. The banks accept a limited number of new items and shorten texts that are too long.

No schema limits the length of a text. XGrammar, which vLLM uses by default, would then accept neither a backslash nor a
quotation mark in the text, so no LaTeX (https://github.com/mlc-ai/xgrammar/issues/800), and it would take milliseconds
for each token (https://github.com/mlc-ai/xgrammar/issues/852; ``python -m benchmarks.schemas`` compares).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _one_line(text: str) -> str:
    """Put ``text`` on one line without control or format characters: prompts show one bank item per line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def storable(text: str) -> str:
    """Make ``text`` valid UTF-8."""
    return text.strip().encode(errors="replace").decode()  # JSON can spell lone surrogates, UTF-8 cannot


def cut(count: int) -> AfterValidator:
    """A validator that cuts a text after ``count`` characters."""
    return AfterValidator(lambda text: text[:count])


def grade_of(spelling: str) -> str | None:
    """Parse a grade (``1/2``, ``**0.5**``, ``1.0``). Returns None if it is not 0, 0.5 or 1."""
    plain = re.sub(r"[\s*$(]|out(?= of)", "", re.sub(r"\\[dt]?frac\s*(\{1\}\{2\}|12)", "1/2", spelling))
    return _SPELLINGS.get(plain.replace("of", "/").removesuffix(".0").removesuffix("/1"))


_SPELLINGS = {"0": "0", "0.0": "0", "0.5": "0.5", ".5": "0.5", "0.50": "0.5", "1/2": "0.5", "1": "1", "1.0": "1"}


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _item_id(value: Any) -> Any:
    """Extract the id from variants such as ``[E1]`` or ``E1, support 2``."""
    found = re.search(r"[EG]\d+", value) if isinstance(value, str) else None
    return found[0] if found else value


def _indices(value: Any) -> list[int]:
    """Parse the valid indices and drop others, because the finding matters more than its source."""
    listed = value if isinstance(value, list | tuple) else [value]
    numbers = [
        re.search(r"-?\d+", str(one)) for one in listed if isinstance(one, int | str) and not isinstance(one, bool)
    ]
    return [int(number[0]) for number in numbers if number and number[0][0] != "-"]


MAX_NAME = 120
"""Maximum number of characters of a strategy's name."""
_EMPTY_TEXT = BeforeValidator(lambda value: "" if value is None else value)
_EMPTY_LIST = BeforeValidator(lambda value: () if value is None else value)

Text = Annotated[str, _EMPTY_TEXT, AfterValidator(_one_line)]
Statement = Annotated[Text, Field(min_length=1)]
Indices = Annotated[tuple[int, ...], BeforeValidator(_indices), Field(json_schema_extra={"maxItems": 64})]


class _OutputModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class VerificationOutput(_OutputModel):
    """A verification. The critique comes first, so that the grade follows from it."""

    critique: Annotated[str, AfterValidator(storable), Field(min_length=1)]
    grade: Annotated[Literal["0", "0.5", "1"], BeforeValidator(lambda value: grade_of(str(value)) or value)]


class _New(_OutputModel):
    """A new item. ``content``: the fields of its bank record. ``rollouts``: indices of rollouts, from 0."""

    @property
    def content(self) -> dict[str, Any]:
        return self.model_dump(exclude={"rollouts"})

    @property
    def texts(self) -> list[str]:
        """The texts that the model worded itself."""
        return [text for field, text in self.content.items() if field != "kind"]


class NewExperience(_New):
    kind: Annotated[Literal["conclusion", "pitfall"], BeforeValidator(_lower)]
    statement: Statement
    rollouts: Indices = ()


class NewGuideline(_New):
    name: Statement
    description: Statement
    rollouts: Indices = ()


class _Update(_OutputModel):
    """An update of an item in the bank. ``content``: the fields that a correction replaces.

    ``rollouts``: those that confirm, correct or contradict the item. Prompts of older versions do not ask for them.
    """

    id: Annotated[str, BeforeValidator(_item_id), Field(max_length=16)]
    action: Annotated[Literal["confirm", "correct", "drop"], BeforeValidator(_lower)]
    rollouts: Indices = ()

    @property
    def content(self) -> dict[str, Any]:
        return self.model_dump(exclude={"id", "action", "rollouts"})

    @model_validator(mode="after")
    def _correction_has_text(self) -> Self:
        if self.action == "correct" and not all(self.content.values()):
            raise ValueError("a correction without its text")
        return self


class ExperienceUpdate(_Update):
    statement: Text = ""


class GuidelineUpdate(_Update):
    description: Text = ""


class ExperienceOutput(_OutputModel):
    """The experience agent's reply. Empty lists mean that there is nothing new."""

    new: Annotated[tuple[NewExperience, ...], _EMPTY_LIST, Field(json_schema_extra={"maxItems": 32})] = ()
    updates: Annotated[tuple[ExperienceUpdate, ...], _EMPTY_LIST, Field(json_schema_extra={"maxItems": 64})] = ()


class GuidelineOutput(_OutputModel):
    """The guideline agent's reply. Empty lists mean that there is nothing new."""

    new: Annotated[tuple[NewGuideline, ...], _EMPTY_LIST, Field(json_schema_extra={"maxItems": 32})] = ()
    updates: Annotated[tuple[GuidelineUpdate, ...], _EMPTY_LIST, Field(json_schema_extra={"maxItems": 64})] = ()


class DistillOutput(_OutputModel):
    """The statements that RSE distils from one rollout."""

    verified_propositions: Annotated[tuple[Statement, ...], _EMPTY_LIST, Field(json_schema_extra={"maxItems": 32})] = ()
    critical_pitfalls: Annotated[tuple[Statement, ...], _EMPTY_LIST, Field(json_schema_extra={"maxItems": 32})] = ()


def output_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of ``model`` in the subset that xgrammar and OpenAI's strict mode share.

    It has no references, closed objects, and every field is required. It does not limit the length of a text.
    """
    schema = _json_schema(model)
    return _strict(schema, schema.get("$defs", {}))


@cache  # without the cache, pydantic would take a tenth of a run's CPU time
def _json_schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def bank_schema(
    model: type[ExperienceOutput | GuidelineOutput],
    rollouts: Sequence[int],
    item_ids: Sequence[str],
    max_new: int,
    evidence: bool = True,
) -> dict[str, Any]:
    """:func:`output_schema` restricted to these rollouts, these item ids and at most ``max_new`` new items.

    ``evidence``: whether updates name rollouts.
    """
    schema = output_schema(model)
    new, updates = schema["properties"]["new"], schema["properties"]["updates"]
    new["maxItems"] = max_new
    if not evidence:
        del updates["items"]["properties"]["rollouts"]
        updates["items"]["required"].remove("rollouts")
    for entry in (new["items"]["properties"], updates["items"]["properties"]):
        if "rollouts" in entry:
            entry["rollouts"] |= {"items": {"type": "integer", "enum": [*rollouts]}, "maxItems": len(rollouts)}
    updates["maxItems"] = len(item_ids)
    if item_ids:
        updates["items"]["properties"]["id"] = {"type": "string", "enum": [*item_ids]}
    return schema


def _strict(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    node = definitions[node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node
    kept = {key: node[key] for key in ("type", "enum", "maxItems") if key in node}
    if "items" in node:
        kept["items"] = _strict(node["items"], definitions)
    if "properties" in node:
        kept["properties"] = {name: _strict(value, definitions) for name, value in node["properties"].items()}
        kept |= {"required": list(node["properties"]), "additionalProperties": False}
    return kept
