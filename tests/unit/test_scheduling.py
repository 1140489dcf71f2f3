"""The order of calls, as benchmarks/scheduling.py measures it, at a size for tests."""

from __future__ import annotations

from benchmarks.scheduling import UNBOUNDED, StageByStage, measure
from tmas.concurrency import PriorityLimiter
from tmas.methods.tmas import TMASSettings

SMALL = TMASSettings(max_iterations=4, n_candidates=3, n_verifications=3)


def test_a_run_ends_near_the_bound_and_long_before_one_that_goes_stage_by_stage():
    critical, work = measure(PriorityLimiter, UNBOUNDED, 12, SMALL)
    bound = max(critical, work / 16)
    (ours, _), (stages, _) = (measure(order, 16, 12, SMALL) for order in (PriorityLimiter, StageByStage))
    assert 1 <= ours / bound < 1.25  # so few problems leave slots empty at their ends
    assert ours < 0.8 * stages


def test_a_run_on_the_virtual_clock_repeats_exactly():
    small = SMALL.model_copy(update={"max_iterations": 2})
    assert measure(PriorityLimiter, 9, 3, small) == measure(PriorityLimiter, 9, 3, small)
