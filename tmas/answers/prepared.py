"""What a worker of the checker needs before its first comparison. The process that workers are forked from imports it.

The first comparison with math-verify takes a third of a second of CPU more than the next ones: it reads the tables of
its grammar and fills caches of SymPy. Here this is done once, for all workers.
"""

from __future__ import annotations

import logging

import tmas.answers.checker  # noqa: F401 - the functions that workers call
from tmas.answers.equivalence import decide

logging.disable(logging.WARNING)  # math-verify warns that it has no time limit; the pool has one
decide("x+1", r"\frac{2x+4}{2}")
