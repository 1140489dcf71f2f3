"""Decides which answers are correct, by rule and by judge, and measures how far these agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

from tmas.answers.checker import AnswerChecker, group_equivalent
from tmas.answers.equivalence import Comparison, Equivalence, normalise
from tmas.concurrency import gather_all
from tmas.evaluation.estimators import mean
from tmas.evaluation.judgements import Outcome
from tmas.evaluation.runs import Pair, pairs_of
from tmas.records import Failure
from tmas.records.judgements import Disagreement, JudgeCounts, PassAgreement, RuleAndJudge, RuleCounts
from tmas.records.run_files import Prediction

Correct = Mapping[Pair, bool | None]
"""Whether each answer is equivalent to its gold answer. None: undecided."""
Scoring = Sequence[Correct]
"""One :data:`Correct` per pass of the judge, or a single one for the rule. A metric is averaged over the passes.

Where a ``scoring`` is a string, it is the name of one: ``rule`` or ``judge``.
"""
_JUDGE_MAJORITIES: tuple[str, ...] = ("equivalent", "different", "split", "failed")
_MAX_DISAGREEMENTS = 100
"""Maximum number of disagreements listed in evaluation.json."""


async def rule_verdicts(pairs: Collection[Pair], checker: AnswerChecker) -> dict[Pair, Comparison]:
    """Compare each pair with math-verify."""
    ordered = sorted(pairs)
    return dict(zip(ordered, await gather_all(checker.compare(*pair) for pair in ordered), strict=True))


async def answer_classes(line: Prediction, checker: AnswerChecker) -> dict[str, int]:
    """Group the answers of a problem into classes of equivalent answers, by rule. The gold answer plays no part.

    Returns the class of each answer.
    """
    answers = sorted({answer for _, answer in pairs_of(line)})
    return dict(zip(answers, await group_equivalent(answers, checker), strict=True))


def is_identical(pair: Pair) -> bool:
    """Whether both answers are the same text, ignoring typesetting. The judge is not asked about such a pair."""
    gold, answer = pair
    return normalise(gold) == normalise(answer)


def by_rule(rule: Mapping[Pair, Comparison]) -> Scoring:
    decided = {Equivalence.EQUAL: True, Equivalence.DIFFERENT: False, Equivalence.UNDECIDED: None}
    return [{pair: decided[verdict.equivalence] for pair, verdict in rule.items()}]


def by_judge(judged: Mapping[Pair, Sequence[Outcome]], rule: Mapping[Pair, Comparison]) -> Scoring:
    """Score each pass of the judge. Pairs that the judge was not asked about are scored by the rule."""
    [decided] = by_rule(rule)
    passes = max(map(len, judged.values()), default=1)
    return [
        {**decided, **{pair: None if isinstance(o := all_[p], Failure) else o for pair, all_ in judged.items()}}
        for p in range(passes)
    ]


def rule_counts(rule: Mapping[Pair, Comparison]) -> RuleCounts:
    """Count the verdicts of the rule by kind, and the undecided ones by reason."""
    kinds = Counter(verdict.equivalence.value for verdict in rule.values())
    reasons = Counter(verdict.reason for verdict in rule.values() if verdict.reason)
    return RuleCounts(**{kind.value: kinds[kind] for kind in Equivalence}, reasons=dict(reasons.most_common()))


def judge_counts(judged: Mapping[Pair, Sequence[Outcome]], not_asked: int) -> JudgeCounts:
    """Count the verdicts of the judge by kind, one per answer and pass, and the failures by reason.

    ``not_asked``: number of answers that the judge was not asked about.
    """
    outcomes = [outcome for passes in judged.values() for outcome in passes]
    return JudgeCounts(
        equivalent=sum(outcome is True for outcome in outcomes),
        different=sum(outcome is False for outcome in outcomes),
        failed=dict(Counter(o.reason.value for o in outcomes if isinstance(o, Failure))),
        not_asked=not_asked,
    )


def agreement_between_passes(judged: Mapping[Pair, Sequence[Outcome]]) -> PassAgreement:
    """Measure the agreement between passes, over the answers with at least two verdicts.

    ``kappa`` is (pairwise - chance) / (1 - chance), where chance = s^2 + (1 - s)^2 and s is the mean share of
    ``equivalent`` verdicts. It is None if all verdicts are the same or if there are no such answers. With the same
    number of verdicts for every answer it is Fleiss' kappa.
    """
    given = [verdicts for passes in judged.values() if len(verdicts := _verdicts(passes)) > 1]
    pairwise = mean([mean([float(a == b) for a, b in combinations(v, 2)]) for v in given])
    share = mean([mean(v) for v in given])
    chance = None if share is None else share**2 + (1 - share) ** 2
    return PassAgreement(
        pairs=len(given),
        unanimous=mean([float(len(set(v)) == 1) for v in given]),
        pairwise=pairwise,
        kappa=None if pairwise is None or chance in (None, 1.0) else (pairwise - chance) / (1 - chance),
    )


def agreement_of_rule_and_judge(
    judged: Mapping[Pair, Sequence[Outcome]], rule: Mapping[Pair, Comparison]
) -> RuleAndJudge:
    """Compare the verdicts of the rule with the majority of the judge's passes.

    The majority is ``split`` if as many passes say ``equivalent`` as ``different``, and ``failed`` if no pass gave a
    verdict. ``agreement`` covers only answers that both decided; it is None if there are none.
    """
    table = {kind.value: dict.fromkeys(_JUDGE_MAJORITIES, 0) for kind in Equivalence}
    against = []
    for pair, passes in sorted(judged.items()):
        share = mean(_verdicts(passes))
        says = _majority(share)
        table[rule[pair].equivalence][says] += 1
        if (rule[pair].equivalence, says) in (("equal", "different"), ("different", "equivalent")):
            against.append(Disagreement(gold=pair[0], answer=pair[1], rule=rule[pair].equivalence.value, judge=share))
    agree = table["equal"]["equivalent"] + table["different"]["different"]
    both = agree + len(against)
    agreement = agree / both if both else None
    return RuleAndJudge(table=table, agreement=agreement, disagreements=tuple(against[:_MAX_DISAGREEMENTS]))


def _verdicts(passes: Sequence[Outcome]) -> list[float]:
    return [float(outcome) for outcome in passes if not isinstance(outcome, Failure)]


def _majority(share: float | None) -> str:
    if share is None:
        return "failed"
    return "split" if share == 0.5 else "equivalent" if share > 0.5 else "different"
