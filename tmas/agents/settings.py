"""Settings of the agents, shared by all methods."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class AgentSettings(BaseModel):
    """How the agents of a method are prompted and how their replies are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["answer", "proof"] = Field(
        default="answer", description="answer: the final answer goes in \\boxed{}; proof: there is no final answer"
    )
    answer_format: Literal["boxed", "stated"] = Field(
        default="boxed",
        description="boxed: only the content of \\boxed{} is an answer; stated: without a box, the number in the last "
        "sentence such as 'the answer is 12' counts",
    )
    parse_attempts: int = Field(
        default=3, ge=1, description="maximum number of calls for a reply that cannot be parsed, the first included"
    )
    structured_outputs: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="whether to send the JSON schema with a call that asks for JSON; auto: not to a model that writes "
        "its thinking between tags, because the schema would keep it from thinking",
    )
    structured_verification: Literal["retry"] | bool = Field(
        default="retry",
        description="false: ask for verifications in free text, where LaTeX needs no escaping; true: as JSON; retry: "
        "in free text, and again as JSON after a reply that cannot be parsed, if structured_outputs sends the schema",
    )
    summary_words: int = Field(default=250, ge=10, description="length in words that the summary prompt asks for")
    cut_summaries: Literal["keep"] | None = Field(
        default="keep",
        description="what to do with a summary that reaches max_tokens; keep: keep it up to its last whole sentence "
        "and record the cut, but retry it if it has no whole sentence or far more than summary_words; null: always "
        "retry it, as older versions did",
    )
    max_new_items: int = Field(
        default=8,
        ge=1,
        description="maximum number of new items of a bank per iteration; the first ones of a reply are added",
    )
    max_item_chars: int = Field(
        default=600,
        ge=40,
        description="maximum length of a bank item in characters; a longer text is cut at the end of a word",
    )

    READ_BY: ClassVar[dict[str, frozenset[str]]] = {
        "task": frozenset({"solution"}),
        "answer_format": frozenset({"solution"}),
        "parse_attempts": frozenset(
            {"verification", "summary", "experience", "guideline", "feedback", "distill", "comparison"}
        ),
        "structured_outputs": frozenset({"verification", "experience", "guideline", "distill"}),
        "structured_verification": frozenset({"verification"}),
        "summary_words": frozenset({"summary"}),
        "cut_summaries": frozenset({"summary"}),
        "max_new_items": frozenset({"experience", "guideline"}),
        "max_item_chars": frozenset({"experience", "guideline"}),
    }
    """The roles that each setting has an effect on."""

    @classmethod
    def names_for(cls, roles: Collection[str]) -> set[str]:
        """The settings that have an effect on at least one of ``roles``."""
        return {name for name, readers in cls.READ_BY.items() if readers & set(roles)}

    def sends_schema(self, thinking: str) -> bool:
        """Whether to send a JSON schema with a call to a model whose ``thinking`` came in this form.

        ``thinking`` is the field of :class:`~tmas.records.Completion`: server, tags or none.
        """
        return {"on": True, "off": False, "auto": thinking != "tags"}[self.structured_outputs]
