"""Makes one comparison when it is imported, so that the next ones are fast.

The first comparison with math-verify takes a third of a second more CPU time than the next ones: it reads the tables of
its grammar and fills caches of SymPy. The process that the checker's workers are forked from imports this module, so
that this is done once, for all workers.
"""

from __future__ import annotations

import logging

from tmas.answers.equivalence import decide

logging.disable(logging.WARNING)  # math-verify warns that it has no time limit
decide("x+1", r"\frac{2x+4}{2}")
logging.disable(logging.NOTSET)
