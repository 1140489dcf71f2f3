"""From public problem sets and a teacher to training rows: ``tmas collect``, ``filter``, ``distill`` and ``build``.

See README.md beside this file for the steps and docs/data.md for what they decide.
"""
