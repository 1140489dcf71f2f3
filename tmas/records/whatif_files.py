"""Records of ``tmas whatif``: the figures of a run beside those that it would have had with other settings."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from tmas.records.calls import SCHEMA_VERSION, Record
from tmas.records.evaluation_files import Estimate
from tmas.records.reading import Version

Certainty = Literal["exact", "approximate", "lower_bound", "open"]
"""How well a figure is known.

- ``exact``: a run with the other settings would have had this figure.
- ``approximate``: recorded replies or counts stand in for others.
- ``lower_bound``: some problems would have used more; only what is recorded counts.
- ``open``: some problems would have continued, with an unknown result; their last recorded result counts.
"""


class WhatIfRow(Record):
    """A figure, as mean over problems: in the run, with the other settings, and the difference, paired by problem.

    ``reasons``: why the figure is not exact.
    """

    name: str
    recorded: float | None
    whatif: float | None
    difference: Estimate
    certainty: Certainty
    reasons: tuple[str, ...]


class WhatIf(Record):
    """The JSON file of ``tmas whatif``. ``changes``: the changed settings, by dotted key.

    ``subsets``: number of random subsets of the recorded verifications that the figures are averaged over; None: the
    first verifications were taken. ``problems``: number of problems in the rows. ``not_replayed``: ids of problems
    whose replay by this version of tmas does not give the recorded result. ``not_recorded``: ids of problems whose
    recorded calls are not enough for one whole iteration with the other settings.
    """

    v: Version = SCHEMA_VERSION
    run: str
    changes: dict[str, JsonValue]
    scoring: str
    subsets: int | None
    problems: int
    not_replayed: tuple[str, ...]
    not_recorded: tuple[str, ...]
    rows: tuple[WhatIfRow, ...]
