"""The table of ``tmas whatif``: figures of a run beside those with other settings, and how well each is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tmas.evaluation.estimators import BootstrapSettings, estimate, mean
from tmas.evaluation.facts import usage_by_role
from tmas.evaluation.intervals import DIFFERENCE, Bounds
from tmas.records.run_files import Prediction
from tmas.records.whatif_files import Certainty, WhatIfRow
from tmas.run.whatif import Gaps

UNBOUNDED: Bounds = (float("-inf"), float("inf"))
SPLIT = (
    "The recorded calls are divided or joined. A call's prompt counts in full, whatever its number of completions: a"
    " server processes it once. Its completion tokens are divided in proportion to the characters of its completions."
)
REDRAWN = (
    "For {} of {} problems, a real run would have sampled some completions with other seeds: a later round of"
    " verifications has its own seeds, and a random subset contains other verifications than the first ones. The"
    " recorded completions are just as likely."
)
ENDED_BY = {"budget": "the budget", "worker": "processes that died"}
"""What ended a problem, by the reason why it stopped."""

Figures = dict[str, float | None]
"""The figures of a problem, by the name of their row. Tokens of a role that was not called are missing."""
OUTCOMES, TOKENS, OF_ROLE = ("selected", "pass_at_1"), "tokens", "tokens of "


def figures(line: Prediction) -> Figures:
    """The figures of a problem. ``pass_at_1``: of the last iteration that sampled a candidate."""
    has_gold, usage = line.gold is not None, line.total_usage
    last = line.rounds[-1].samples if line.rounds else ()
    return {
        "selected": float(line.correct == "equal") if has_gold else None,
        "pass_at_1": mean([float(candidate.correct == "equal") for candidate in last]) if has_gold else None,
        "iterations": float(len(line.iterations)),
        "calls": float(usage.calls),
        TOKENS: float(usage.total_tokens),
        **{f"{OF_ROLE}{role}": float(used.total_tokens) for role, used in usage_by_role(line.usage).items()},
    }


@dataclass(frozen=True)
class ReplayedPair:
    """The figures of a problem in the run and, for each subset of its verifications, with the other settings.

    ``others``: None in place of the figures if no whole iteration is recorded. ``ended_by``: the budget, or dead
    workers, if they ended the problem and the other settings make other calls.
    """

    problem_id: str
    recorded: Figures
    others: tuple[Figures | None, ...]
    gaps: Gaps
    ended_by: str | None

    @property
    def is_known(self) -> bool:
        return None not in self.others

    def other(self, name: str) -> float | None:
        """A figure with the other settings, as mean over the subsets."""
        missing = 0.0 if name.startswith(OF_ROLE) else None
        return mean([found.get(name, missing) for found in self.others if found])


def whatif_rows(pairs: Sequence[ReplayedPair], bootstrap: BootstrapSettings) -> Iterator[WhatIfRow]:
    """The rows of the table: outcomes, counts of calls, and tokens. ``pairs``: at least one."""
    roles = sorted({name for pair in pairs for name in pair.recorded if name.startswith(OF_ROLE)})
    names = [name for name in pairs[0].recorded if not name.startswith(OF_ROLE)]
    for name in [*names, *roles]:
        recorded = [pair.recorded.get(name, 0.0) for pair in pairs]
        others = [pair.other(name) for pair in pairs]
        certainty, reasons = _certainty(name, pairs)
        is_share = name in OUTCOMES
        yield WhatIfRow(
            name=name,
            recorded=mean(recorded),
            whatif=mean(others),
            difference=estimate(
                [None if a is None or b is None else b - a for a, b in zip(recorded, others, strict=True)],
                bootstrap if is_share else bootstrap.model_copy(update={"interval": "t"}),
                DIFFERENCE if is_share else UNBOUNDED,
            ),
            certainty=certainty,
            reasons=tuple(reasons),
        )


def _certainty(name: str, pairs: Sequence[ReplayedPair]) -> tuple[Certainty, list[str]]:
    """How well the figure ``name`` is known, and why not exactly: a sentence or two for each reason."""
    if reasons := _reasons_of_missing_calls(pairs):
        certainty: Certainty = "open" if name in OUTCOMES else "lower_bound"
    else:
        certainty = "exact"
    approximations = _approximations(name, pairs)
    if approximations and certainty == "exact":
        certainty = "approximate"
    return certainty, reasons + approximations


def _reasons_of_missing_calls(pairs: Sequence[ReplayedPair]) -> list[str]:
    reasons: list[str] = []
    if ended := [key for pair in pairs if (key := pair.gaps.not_recorded)]:
        reasons.append(
            f"{len(ended)} of {len(pairs)} problems would have continued where the record ends (the first one with the"
            f" {ended[0].role} agent in iteration {ended[0].iteration}). Only their recorded iterations are counted."
        )
    if stopped := [pair.ended_by for pair in pairs if pair.ended_by]:
        causes = " or ".join(text for stop, text in ENDED_BY.items() if stop in stopped)
        reasons.append(
            f"{len(stopped)} of {len(pairs)} problems were ended by {causes}. With other settings they might have"
            " continued. Only their recorded iterations are counted."
        )
    return reasons


def _approximations(name: str, pairs: Sequence[ReplayedPair]) -> list[str]:
    counts_tokens, role = name.startswith(TOKENS), name.removeprefix(OF_ROLE) if name.startswith(OF_ROLE) else None

    def concerns(roles: frozenset[str]) -> bool:
        return counts_tokens and (bool(roles) if role is None else role in roles)

    reasons: list[str] = []
    others = [
        key
        for pair in pairs
        if (key := pair.gaps.other_prompt)
        and (pair.gaps.has_other_candidates or concerns(pair.gaps.roles_with_other_prompts))
    ]
    if others:
        first = min(others, key=lambda key: key.iteration)
        reasons.append(
            f"{len(others)} of {len(pairs)} problems would have sent other prompts, first those of the {first.role}"
            f" agent in iteration {first.iteration}. What the model would have replied is not known: the recorded"
            " replies stand in from there on. Prompt tokens are scaled with the length of the prompt."
        )
    if redrawn := sum(pair.gaps.is_redrawn for pair in pairs):
        reasons.append(REDRAWN.format(redrawn, len(pairs)))
    if any(concerns(pair.gaps.split_roles) for pair in pairs):
        reasons.append(SPLIT)
    return reasons
