"""Makes training data from public problems: ``tmas collect``, ``tmas filter``, ``tmas distill`` and ``tmas build``.

README.md in this folder describes the steps, and docs/data.md their criteria.
"""
