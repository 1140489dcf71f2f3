"""The hybrid reward (paper, section "Hybrid reward"; its formulas are not published): docs/rewards.md has ours.

``correctness``, ``experience`` and ``novelty`` are the components, ``hybrid`` puts them together and fills in what was
masked, ``scorer`` asks for them, and ``verl_entry`` is what verl sees.
"""
