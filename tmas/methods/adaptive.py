"""The adaptive parts of TMAS that make calls: verification in rounds, and full verification of the selected candidate.

:mod:`tmas.methods.stopping` and :mod:`tmas.methods.allocation` have the rules. They use the grades of earlier
iterations, which are complete. They do not use the other candidates of the same iteration: how many of those have
grades depends on the timing of the calls, and a replay must make the same decisions.
"""

from __future__ import annotations

from collections.abc import Sequence

from tmas.agents.team import Team
from tmas.answers.checker import AnswerChecker
from tmas.answers.normalize import normalise
from tmas.methods.base import Round
from tmas.methods.selection import SelectionSettings, select_and_record
from tmas.methods.stopping import VerificationSettings, accepted, next_checks
from tmas.records import Failure, FailureReason, Rollout, Verification

REFUSED = (FailureReason.BUDGET, FailureReason.WORKER)
"""Failure reasons of calls that the session refuses to make. It refuses all later calls, too."""


async def verify_in_rounds(
    team: Team,
    rollout: Rollout,
    n_verifications: int,
    settings: VerificationSettings,
    earlier_iterations: Sequence[Round],
    selection: SelectionSettings,
) -> Rollout:
    """Verify the candidate in rounds, until :func:`~tmas.methods.stopping.next_checks` asks for no further round.

    ``n_verifications``: M, the number of verifications after which a candidate is fully verified.
    """
    if isinstance(rollout.solution, Failure):
        return rollout
    best_grade = grade_to_reach(rollout, n_verifications, earlier_iterations, selection)
    earlier_grades = grades_of_answer(rollout, earlier_iterations)
    while count := next_checks(grades_of(rollout), n_verifications, settings, best_grade, earlier_grades):
        rollout = await team.verification(rollout, count)
        if any(isinstance(v, Failure) and v.reason in REFUSED for v in rollout.verifications[-count:]):
            # session.stopped must not be used here. Another candidate can set it at any time, so a replay could make
            # a different number of rounds.
            break
    return rollout


async def verify_selected_in_full(
    team: Team,
    iterations: list[Round],
    n_verifications: int,
    selection: SelectionSettings,
    checker: AnswerChecker,
) -> None:
    """Make the remaining verifications of the selected candidate, so that it has all M.

    Its new mean grade may change which candidate is selected. This repeats until the selected candidate has all M.
    Updates ``iterations`` in place. The new critiques are removed, because no later prompt shows them.
    """
    while iterations and team.session.stopped is None:
        chosen = await select_and_record(team.session, iterations, selection, checker)
        if chosen is None:
            return
        rollouts = list(iterations[chosen.iteration])
        remaining = n_verifications - len(rollouts[chosen.candidate].verifications)
        if remaining <= 0:
            return
        rollouts[chosen.candidate] = (
            await team.verification(rollouts[chosen.candidate], remaining)
        ).without_critiques()
        iterations[chosen.iteration] = tuple(rollouts)


def grades_of(rollout: Rollout) -> list[float | None]:
    """The grades of the candidate's verifications in their order; None for a failed verification."""
    return [v.grade if isinstance(v, Verification) else None for v in rollout.verifications]


def grades_of_answer(rollout: Rollout, earlier_iterations: Sequence[Round]) -> list[float | None]:
    """The grades that candidates with the same answer, up to typesetting, received in earlier iterations."""
    if rollout.answer is None:
        return []
    answer = normalise(rollout.answer)
    rollouts = (r for iteration in earlier_iterations for r in iteration)
    same = (r for r in rollouts if r.answer is not None and normalise(r.answer) == answer)
    return [grade for r in same for grade in grades_of(r)]


def grade_to_reach(
    rollout: Rollout, n_verifications: int, earlier_iterations: Sequence[Round], selection: SelectionSettings
) -> float | None:
    """The best grade so far: a candidate with a lower mean grade cannot be selected.

    It is the highest mean grade among the earlier candidates with M verifications. None if there is no such candidate,
    or if the final answer is not selected by grades over all iterations.
    """
    if selection.rule != "grade" or selection.scope != "all":
        return None
    verified = [r for rs in earlier_iterations for r in rs if len(r.verifications) >= n_verifications and r.grades]
    # A candidate without an answer is never preferred to one with an answer.
    competitors = [r for r in verified if r.answer is not None or rollout.answer is None]
    return max((r.mean_grade or 0.0 for r in competitors), default=None)


def is_accepted(rollout: Rollout, n_verifications: int, settings: VerificationSettings) -> bool:
    """Whether the candidate has all M verifications and they agree that it is right."""
    return accepted(grades_of(rollout), n_verifications, settings)
