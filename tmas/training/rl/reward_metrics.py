"""Metrics of the reward's components by ``_source``, which verl itself does not log."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tmas.rewards.hybrid import BONUS, is_masked

COMPONENTS = ("correctness", *BONUS.values())


def reward_metrics(prefix: str, rewards: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Compute the metrics of a batch. ``rewards`` has the reward function's result for each sample.

    The keys are ``{prefix}/{source}/{name}``. The source ``all`` stands for the samples of all sources. The names are:

    - ``samples``: number of samples;
    - ``truncated``, ``response_tokens``: means over all samples;
    - ``overlong_penalty``: mean over all samples. The key is missing if no sample has a penalty;
    - ``acc``: mean over the samples whose correctness was scored;
    - ``score``: mean over the samples without a masked component. A failed judge changes neither ``score`` nor
      ``acc``;
    - ``outcome/NAME``: share of the samples with this outcome;
    - ``COMPONENT``: mean over the samples in which the component was scored. The key is missing if there are none;
    - ``COMPONENT_masked``, ``COMPONENT_masked/REASON``: number of samples in which the component was masked;
    - ``false_accept``, ``false_reject``: of verifications, the share of wrong candidates graded 1, and of right ones
      graded 0; ``half``: the share graded 0.5. All are over the verifications with a readable grade.
    """
    by_source: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for reward in rewards:
        by_source["all"].append(reward)
        by_source[reward["source"]].append(reward)
    return {
        f"{prefix}/{source}/{name}": value
        for source, members in sorted(by_source.items())
        for name, value in _metrics(members)
    }


def _metrics(rewards: Sequence[dict[str, Any]]) -> Iterable[tuple[str, float]]:
    yield "samples", float(len(rewards))
    for name in ("truncated", "response_tokens"):
        yield name, _mean([reward[name] for reward in rewards])
    if any(penalties := [reward.get("overlong_penalty", 0.0) for reward in rewards]):
        yield "overlong_penalty", _mean(penalties)
    if compared := [reward["acc"] for reward in rewards if reward["correctness_state"] == "scored"]:
        yield "acc", _mean(compared)
    if unmasked := [reward["score"] for reward in rewards if not is_masked(reward)]:
        yield "score", _mean(unmasked)
    for outcome, count in Counter(reward["outcome"] for reward in rewards).items():
        yield f"outcome/{outcome}", count / len(rewards)
    yield from _grade_metrics([reward for reward in rewards if reward["outcome"] == "graded"])
    for component in (name for name in COMPONENTS if f"{name}_state" in rewards[0]):  # older reports have fewer
        states = [reward[f"{component}_state"] for reward in rewards]
        if scored := [r[component] for r, state in zip(rewards, states, strict=True) if state == "scored"]:
            yield component, _mean(scored)
        if set(states) != {"absent"}:
            yield f"{component}_masked", float(states.count("masked"))
        masked = (r[f"{component}_why"] for r, state in zip(rewards, states, strict=True) if state == "masked")
        for reason, count in Counter(masked).items():
            yield f"{component}_masked/{reason}", float(count)


def _grade_metrics(graded: Sequence[dict[str, Any]]) -> Iterable[tuple[str, float]]:
    for name, label, grade in (("false_accept", "wrong", "1"), ("false_reject", "right", "0")):
        if grades := [reward["pred"] for reward in graded if reward["label"] == label]:
            yield name, grades.count(grade) / len(grades)
    if graded:
        yield "half", [reward["pred"] for reward in graded].count("0.5") / len(graded)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
