"""The hybrid reward (paper, section "Hybrid reward"). The paper does not publish its formulas; docs/rewards.md has
ours.

``correctness``, ``experience`` and ``novelty`` score the parts of the reward of an answer, and ``verification`` those
of the reward of a verification. ``hybrid`` combines the parts and fills in masked ones, ``scorer`` scores a response,
and ``verl_entry`` is the function that verl calls.
"""
