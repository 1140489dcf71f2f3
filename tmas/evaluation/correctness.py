"""Which answers are correct: by rule, by judge, and how far both, and the judge's passes, agree."""

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
from tmas.records.evaluation_files import Disagreement, JudgeCounts, PassAgreement, RuleAndJudge, RuleCounts
from tmas.records.run_files import Prediction

Correct = Mapping[Pair, bool | None]
"""Whether each answer is equivalent to its gold answer; None where that could not be decided."""
Scoring = Sequence[Correct]
"""One :data:`Correct` for each pass of a judge, one in all for the rule. A metric is its mean over the passes."""
_SAID: tuple[str, ...] = ("equivalent", "different", "split", "failed")
_SHOWN = 100
"""Disagreements listed in evaluation.json."""


async def rule_verdicts(pairs: Collection[Pair], checker: AnswerChecker) -> dict[Pair, Comparison]:
    """The verdict of math-verify on each pair."""
    ordered = sorted(pairs)
    return dict(zip(ordered, await gather_all(checker.compare(*pair) for pair in ordered), strict=True))


async def answer_classes(line: Prediction, rule: Mapping[Pair, Comparison], checker: AnswerChecker) -> dict[str, int]:
    """The class of equivalent answers that each answer belongs to; those equal to the gold answer are class 0."""
    pairs = pairs_of(line)
    others = sorted(answer for gold, answer in pairs if not rule[gold, answer].equal)
    classes = await group_equivalent(others, checker)
    return {answer: 0 for _, answer in pairs} | {a: c + 1 for a, c in zip(others, classes, strict=True)}


def is_identical(pair: Pair) -> bool:
    """Equal as text, typesetting aside: no judge is asked."""
    gold, answer = pair
    return normalise(gold) == normalise(answer)


def by_rule(rule: Mapping[Pair, Comparison]) -> Scoring:
    decided = {Equivalence.EQUAL: True, Equivalence.DIFFERENT: False, Equivalence.UNDECIDED: None}
    return [{pair: decided[verdict.equivalence] for pair, verdict in rule.items()}]


def by_judge(judged: Mapping[Pair, Sequence[Outcome]], rule: Mapping[Pair, Comparison]) -> Scoring:
    """What no judge was asked about (identical answers; what the rule had decided) is scored by the rule."""
    [decided] = by_rule(rule)
    passes = max(map(len, judged.values()), default=1)
    return [
        {**decided, **{pair: None if isinstance(o := all_[p], Failure) else o for pair, all_ in judged.items()}}
        for p in range(passes)
    ]


def counts(rule: Mapping[Pair, Comparison]) -> RuleCounts:
    """Verdicts of the rule by kind, and why those that are undecided are."""
    kinds = Counter(verdict.equivalence.value for verdict in rule.values())
    reasons = Counter(verdict.reason for verdict in rule.values() if verdict.reason)
    return RuleCounts(**{kind.value: kinds[kind] for kind in Equivalence}, reasons=dict(reasons.most_common()))


def judge_counts(judged: Mapping[Pair, Sequence[Outcome]], not_asked: int) -> JudgeCounts:
    """Verdicts of the judge by kind, one a pass, failed ones by reason; and the answers that it was not asked about."""
    outcomes = [outcome for passes in judged.values() for outcome in passes]
    return JudgeCounts(
        equivalent=sum(outcome is True for outcome in outcomes),
        different=sum(outcome is False for outcome in outcomes),
        failed=dict(Counter(o.reason.value for o in outcomes if isinstance(o, Failure))),
        not_asked=not_asked,
    )


def agreement_between_passes(judged: Mapping[Pair, Sequence[Outcome]]) -> PassAgreement:
    """Over answers with two verdicts or more. ``kappa``: what the pairwise agreement is beyond chance, of what it
    could be; None where all verdicts are the same."""
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
    """The rule's verdicts against the majority of the judge's passes (``split``: as many for as against)."""
    table = {kind.value: dict.fromkeys(_SAID, 0) for kind in Equivalence}
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
    return RuleAndJudge(table=table, agreement=agreement, disagreements=tuple(against[:_SHOWN]))


def _verdicts(passes: Sequence[Outcome]) -> list[float]:
    return [float(outcome) for outcome in passes if not isinstance(outcome, Failure)]


def _majority(share: float | None) -> str:
    if share is None:
        return "failed"
    return "split" if share == 0.5 else "equivalent" if share > 0.5 else "different"
