"""The hybrid reward (paper, section "Hybrid reward"). The paper does not publish its formulas; docs/rewards.md has
ours.

``correctness``, ``experience`` and ``novelty`` are the components of an answer's reward, and ``verification`` has those
of a verification's. ``hybrid`` combines them and fills in masked ones, ``scorer`` computes them, and ``verl_entry`` is
the function that verl calls.
"""
