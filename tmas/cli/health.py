"""Says how many replies of each role could be read, and which setting to change if many could not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tmas.records import ReplyCounts
from tmas.records.run_files import Prediction
from tmas.settings import RunSettings

TOLERATED = 0.1
"""Share of unreadable replies, and of candidates without an answer, up to which no advice is given."""
JSON_ROLES = frozenset({"experience", "guideline", "distill"})
"""Roles that always reply in JSON."""
MAX_TOKENS_KEY = "model.sampling.max_tokens"
SHORT_SUMMARY = 60
"""Words of a summary that a small model can write."""


def health_lines(replies: Mapping[str, ReplyCounts], settings: RunSettings) -> list[str]:
    """How many replies were readable, with advice for roles where too many were not. Empty if there are no replies."""
    total = sum(counts.replies for counts in replies.values())
    with_unreadable = {role: counts for role, counts in replies.items() if counts.unreadable}
    if total and not with_unreadable:
        return [f"All {total:,} replies were readable."]
    return [
        "; ".join([f"{role}: {counts.readable:,} of {counts.replies:,} replies readable", *advice(counts, settings)])
        for role, counts in with_unreadable.items()
    ]


def advice(counts: ReplyCounts, settings: RunSettings) -> list[str]:
    """What to change so that more replies of a role can be read. Empty if few were unreadable."""
    cut = min(counts.truncated, counts.unreadable)
    found = list(_about_length(counts.role, cut, settings)) if cut > TOLERATED * counts.replies else []
    if counts.unreadable - cut > TOLERATED * counts.replies:
        found.append(_about_form(counts, settings))
    return found


def answer_advice(predictions: Sequence[Prediction], settings: RunSettings) -> list[str]:
    """Advice if many candidates were written, but state no final answer that can be found."""
    candidates = [c for p in predictions for iteration in p.iterations for c in iteration.candidates if not c.failure]
    return missing_answer_advice(sum(c.answer is None for c in candidates), len(candidates), settings)


def missing_answer_advice(missing: int, candidates: int, settings: RunSettings) -> list[str]:
    """The advice of :func:`answer_advice`, from the number of candidates without an answer."""
    agents = settings.method.agents
    if agents.task == "proof" or missing <= TOLERATED * candidates:
        return []
    remedy = "; try method.agents.answer_format=stated" if agents.answer_format == "boxed" else ""
    return [f"{missing:,} of {candidates:,} candidates have no final answer{remedy}"]


def _about_length(role: str, cut: int, settings: RunSettings) -> Iterator[str]:
    model = settings.model.for_role(role)
    key = f"model.roles.{role}.sampling.max_tokens" if model.sampling != settings.model.sampling else MAX_TOKENS_KEY
    yield f"{cut:,} unreadable replies reached max_tokens: raise {key} (now {model.sampling.max_tokens:,})"
    if role == "summary" and settings.method.agents.summary_words > SHORT_SUMMARY:
        yield f"or ask for shorter summaries: method.agents.summary_words={SHORT_SUMMARY}"


def _about_form(counts: ReplyCounts, settings: RunSettings) -> str:
    """What helps if replies do not have the form that the prompt asks for."""
    role, agents = counts.role, settings.method.agents
    if role == "verification" and agents.structured_verification is not True:
        return "try method.agents.structured_verification=true"
    if role in JSON_ROLES | {"verification"}:
        if counts.thinking_tags and agents.structured_outputs == "auto":
            return (
                "let the server separate the thinking, so that it can enforce JSON (vLLM: --reasoning-parser),"
                " or try method.agents.structured_outputs=on"
            )
        if agents.structured_outputs == "off":
            return "try method.agents.structured_outputs=on"
    return f"the model may be too small for this role: try method=tmas_small, or another model.roles.{role}.name"
