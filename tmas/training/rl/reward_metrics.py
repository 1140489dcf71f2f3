"""Component rewards as curves: one number a component, state and ``_source``, which verl itself does not log."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tmas.rewards.hybrid import is_masked

COMPONENTS = ("correctness", "experience", "novelty")


def reward_metrics(prefix: str, rewards: Sequence[dict[str, Any]]) -> dict[str, float]:
    """``rewards``: what the reward function returned for each sample. Keys are ``{prefix}/{source}/{name}``; the source
    ``all`` is all of them together.

    ``truncated`` and ``response_tokens`` are means over samples; ``acc`` is over those whose correctness was scored and
    ``score`` over those of which nothing was masked, so that a judge that failed moves neither; a component is the mean
    over the samples in which it was scored, with the number of those in which it was ``masked`` beside it, by reason;
    ``outcome/NAME`` is the share of an outcome. A component that nothing was scored in has no value, not 0.
    """
    by_source: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for reward in rewards:
        by_source["all"].append(reward)
        by_source[reward["source"]].append(reward)
    return {
        f"{prefix}/{source}/{name}": value
        for source, members in sorted(by_source.items())
        for name, value in _of_source(members)
    }


def _of_source(rewards: Sequence[dict[str, Any]]) -> Iterable[tuple[str, float]]:
    yield "samples", float(len(rewards))
    for name in ("truncated", "response_tokens"):
        yield name, _mean([reward[name] for reward in rewards])
    if compared := [reward["acc"] for reward in rewards if reward["correctness_state"] == "scored"]:
        yield "acc", _mean(compared)
    if whole := [reward["score"] for reward in rewards if not is_masked(reward)]:
        yield "score", _mean(whole)
    for outcome, count in Counter(reward["outcome"] for reward in rewards).items():
        yield f"outcome/{outcome}", count / len(rewards)
    for component in COMPONENTS:
        states = [reward[f"{component}_state"] for reward in rewards]
        if scored := [r[component] for r, state in zip(rewards, states, strict=True) if state == "scored"]:
            yield component, _mean(scored)
        if set(states) != {"absent"}:
            yield f"{component}_masked", float(states.count("masked"))
        masked = (r[f"{component}_why"] for r, state in zip(rewards, states, strict=True) if state == "masked")
        for why, count in Counter(masked).items():
            yield f"{component}_masked/{why}", float(count)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
