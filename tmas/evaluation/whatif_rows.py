"""The table of ``tmas whatif``: figures of a run beside those with other settings, and how well each is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tmas.evaluation.estimators import BootstrapSettings, estimate, mean
from tmas.evaluation.facts import usage_by_role
from tmas.evaluation.intervals import DIFFERENCE, Bounds
from tmas.records import CallKey
from tmas.records.run_files import Prediction
from tmas.records.whatif_files import Certainty, WhatIfRow
from tmas.run.whatif import ReplayedProblem

UNBOUNDED: Bounds = (float("-inf"), float("inf"))
SPLIT = (
    "The recorded calls are divided or joined. A call's prompt counts in full, whatever its number of completions: a"
    " server processes it once. Its completion tokens are divided in proportion to the characters of its completions."
)
REDRAWN = (
    "{} of {} problems would have had other random draws of the same completions: a later round of verifications has"
    " seeds of its own, and random subsets are not the first ones. The recorded ones are just as likely."
)


@dataclass(frozen=True)
class ReplayedPair:
    """A problem of the run and, for each subset of its verifications, with the other settings.

    ``ended_by``: the budget, or dead workers, if they ended the problem and the other settings make other calls.
    """

    recorded: Prediction
    others: tuple[ReplayedProblem, ...]
    ended_by: str | None

    @property
    def lines(self) -> list[Prediction]:
        return [other.line for other in self.others if other.line]

    @property
    def first_not_recorded(self) -> CallKey | None:
        return next((key for other in self.others if (key := other.first_not_recorded)), None)

    @property
    def approximate(self) -> CallKey | None:
        """The first call with another prompt, if the candidates or grades of an iteration depend on it."""
        for other in self.others:
            since = other.approximate_from
            if since is not None and other.line and since < len(other.line.iterations):
                return other.first_other_prompt
        return None

    @property
    def is_redrawn(self) -> bool:
        """Whether completions stand in for others of the same prompt, with other seeds."""
        return any(other.session.redrawn for other in self.others)

    def is_split(self, role: str | None) -> bool:
        """Whether calls of ``role`` (None: any role) are parts of recorded calls."""
        return any(other.session.split if role is None else role in other.session.split for other in self.others)

    def sends_other_prompts(self, role: str | None) -> bool:
        """Whether a call of ``role`` (None: any role) has another prompt than in the run."""
        return any(role in (None, key.role) for other in self.others for key in other.session.other_prompts)


@dataclass(frozen=True)
class _Figure:
    """A row of the table. ``of`` gives a problem's value. ``role``: whose tokens it counts; None: those of all roles.

    ``kind``: ``outcome`` depends on what was selected, ``count`` on how many calls were made, ``tokens`` on their size.
    """

    name: str
    of: Callable[[Prediction], float | None]
    kind: Literal["outcome", "count", "tokens"]
    role: str | None = None
    bounds: Bounds = UNBOUNDED


def whatif_rows(pairs: Sequence[ReplayedPair], bootstrap: BootstrapSettings) -> Iterator[WhatIfRow]:
    """The rows of the table: outcomes, counts of calls, and tokens. ``pairs``: at least one."""
    roles = usage_by_role(entry for pair in pairs for entry in pair.recorded.usage)
    figures = [
        _Figure("selected", _selected, "outcome", bounds=DIFFERENCE),
        _Figure("pass_at_1", _pass_at_1, "outcome", bounds=DIFFERENCE),
        _Figure("iterations", lambda line: float(len(line.iterations)), "count"),
        _Figure("calls", lambda line: float(line.total_usage.calls), "count"),
        _Figure("tokens", lambda line: float(line.total_usage.total_tokens), "tokens"),
        *(_Figure(f"tokens of {role}", _tokens_of(role), "tokens", role) for role in roles),
    ]
    for figure in figures:
        recorded = [figure.of(pair.recorded) for pair in pairs]
        others = [mean([figure.of(line) for line in pair.lines]) for pair in pairs]
        certainty, reasons = _certainty(figure, pairs)
        yield WhatIfRow(
            name=figure.name,
            recorded=mean(recorded),
            whatif=mean(others),
            difference=estimate(
                [None if a is None or b is None else b - a for a, b in zip(recorded, others, strict=True)],
                bootstrap if figure.kind == "outcome" else bootstrap.model_copy(update={"interval": "t"}),
                figure.bounds,
            ),
            certainty=certainty,
            reasons=reasons,
        )


def _selected(line: Prediction) -> float | None:
    return None if line.gold is None else float(line.correct == "equal")


def _pass_at_1(line: Prediction) -> float | None:
    """Share of right candidates in the last iteration that sampled any."""
    if line.gold is None or not line.rounds:
        return None
    return mean([float(candidate.correct == "equal") for candidate in line.rounds[-1].samples])


def _tokens_of(role: str) -> Callable[[Prediction], float]:
    return lambda line: float(sum(entry.usage.total_tokens for entry in line.usage if entry.role == role))


def _certainty(figure: _Figure, pairs: Sequence[ReplayedPair]) -> tuple[Certainty, tuple[str, ...]]:
    """How well a figure is known, and why not exactly: one sentence or two for each reason."""
    reasons: list[str] = []
    ended = [key for pair in pairs if (key := pair.first_not_recorded)]
    stopped = [pair for pair in pairs if pair.ended_by]
    if ended:
        reasons.append(
            f"{len(ended)} of {len(pairs)} problems would have continued where the record ends (the first one with the"
            f" {ended[0].role} agent in iteration {ended[0].iteration}). They count as they were there."
        )
    if stopped:
        reasons.append(
            f"{len(stopped)} of {len(pairs)} problems were ended by {stopped[0].ended_by}. With other settings they"
            " might have come further. They count as they were there."
        )
    is_open = bool(reasons)
    approximate = [key for pair in pairs if (key := pair.approximate)]
    if not approximate and figure.kind == "tokens":
        approximate = [pair for pair in pairs if pair.sends_other_prompts(figure.role)]
    others = [o for pair in pairs for o in pair.others if o.first_other_prompt]
    if approximate:
        first = min((key for o in others if (key := o.first_other_prompt)), key=lambda key: key.iteration)
        reasons.append(
            f"{len(approximate)} of {len(pairs)} problems would have sent other prompts, first those of the"
            f" {first.role} agent in iteration {first.iteration}. What the model would have replied is not known: the"
            " recorded replies stand in, from there on. Prompt tokens are scaled with the length of the prompt."
        )
    redrawn = sum(pair.is_redrawn for pair in pairs)
    if redrawn:
        reasons.append(REDRAWN.format(redrawn, len(pairs)))
    is_split = figure.kind == "tokens" and any(pair.is_split(figure.role) for pair in pairs)
    if is_split:
        reasons.append(SPLIT)
    if is_open:
        return "open" if figure.kind == "outcome" else "lower_bound", tuple(reasons)
    return "approximate" if reasons else "exact", tuple(reasons)
