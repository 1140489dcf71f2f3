"""The adaptive parts of TMAS that make calls: checks in rounds, and the full check of the selected candidate.

:mod:`tmas.methods.stopping` and :mod:`tmas.methods.allocation` have the rules. The rules see the candidates of earlier
iterations, which are complete, but not the siblings of a candidate: which of their grades exist depends on time.
"""

from __future__ import annotations

from collections.abc import Sequence

from tmas.agents.team import Team
from tmas.answers.checker import AnswerChecker
from tmas.answers.normalize import normalise
from tmas.methods.base import Round
from tmas.methods.selection import SelectionSettings, selected
from tmas.methods.stopping import VerificationSettings, accepted, next_checks
from tmas.records import Failure, FailureReason, Rollout, Verification

REFUSED = (FailureReason.BUDGET, FailureReason.WORKER)
"""Reasons of checks that the session refused to make. It would refuse further checks as well."""


async def verify_in_rounds(
    team: Team,
    rollout: Rollout,
    full: int,
    settings: VerificationSettings,
    rounds: Sequence[Round],
    selection: SelectionSettings,
) -> Rollout:
    """Check the candidate in rounds, until :func:`~tmas.methods.stopping.next_checks` asks for no further round.

    ``full``: M. ``rounds``: the earlier iterations.
    """
    best, earlier = grade_to_reach(rollout, full, rounds, selection), grades_of_answer(rollout, rounds)
    if isinstance(rollout.solution, Failure):
        return rollout
    while count := next_checks(grades_of(rollout), full, settings, best, earlier):
        rollout = await team.verification(rollout, count)
        if any(isinstance(v, Failure) and v.reason in REFUSED for v in rollout.verifications[-count:]):
            break  # session.stopped is not read, because it depends on the siblings and on time
    return rollout


async def check_selected_in_full(
    team: Team,
    rounds: list[Round],
    full: int,
    selection: SelectionSettings,
    checker: AnswerChecker,
) -> None:
    """Give the selected candidate all M checks. Its grade may change the selection: repeat for the new one.

    Changes ``rounds``. The critiques of these checks are in no prompt, as all other calls have been made.
    """
    while rounds and team.session.stopped is None:
        chosen = await selected(team.session, rounds, selection, checker)
        if chosen is None:
            return
        rollouts = list(rounds[chosen.iteration])
        left = full - len(rollouts[chosen.candidate].verifications)
        if left <= 0:
            return
        rollouts[chosen.candidate] = (await team.verification(rollouts[chosen.candidate], left)).folded()
        rounds[chosen.iteration] = tuple(rollouts)


def grades_of(rollout: Rollout) -> list[float | None]:
    """The grades of the candidate's checks in their order; None for a failed check."""
    return [v.grade if isinstance(v, Verification) else None for v in rollout.verifications]


def grades_of_answer(rollout: Rollout, rounds: Sequence[Round]) -> list[float | None]:
    """The grades that candidates with the same answer, up to typesetting, received in earlier iterations."""
    if rollout.answer is None:
        return []
    answer = normalise(rollout.answer)
    same = (r for rollouts in rounds for r in rollouts if r.answer is not None and normalise(r.answer) == answer)
    return [grade for r in same for grade in grades_of(r)]


def grade_to_reach(rollout: Rollout, full: int, rounds: Sequence[Round], selection: SelectionSettings) -> float | None:
    """The mean grade below which the candidate cannot be selected: the best one of an earlier candidate with M checks.

    None if there is no such candidate, or if the selection does not go by grades over all iterations.
    """
    if selection.rule != "grade" or selection.scope != "all":
        return None
    preferred = [r for rollouts in rounds for r in rollouts if r.answer is not None or rollout.answer is None]
    return max((r.mean_grade or 0.0 for r in preferred if len(r.verifications) >= full and r.grades), default=None)


def is_accepted(rollout: Rollout, full: int, settings: VerificationSettings) -> bool:
    """Whether the candidate has all M checks and they agree that it is right."""
    return accepted(grades_of(rollout), full, settings)
