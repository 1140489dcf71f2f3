"""The vocabulary: records of all values that modules exchange or write to disk. The files are versioned.

``calls.py`` holds the records of model calls, ``values.py`` what agents and methods exchange. The modules
``*_files.py``, ``trace_lines.py``, ``judgements.py`` and ``live.py`` hold the records of the files that runs and
commands write; ``reading.py`` reads these files. ``prices.py`` holds prices and costs.
"""

from tmas.records.calls import (
    NOT_SAMPLED,
    SCHEMA_VERSION,
    CallKey,
    Completion,
    Failure,
    FailureReason,
    Message,
    PackingNote,
    Problem,
    Record,
    Reply,
    Request,
    Sampling,
    Usage,
)
from tmas.records.values import (
    BankChange,
    Experience,
    Grade,
    Guideline,
    Iteration,
    Mode,
    ReplyCounts,
    Result,
    Rollout,
    Selection,
    Solution,
    StopReason,
    Trajectory,
    UsageEntry,
    Verification,
)

__all__ = [
    "NOT_SAMPLED",
    "SCHEMA_VERSION",
    "BankChange",
    "CallKey",
    "Completion",
    "Experience",
    "Failure",
    "FailureReason",
    "Grade",
    "Guideline",
    "Iteration",
    "Message",
    "Mode",
    "PackingNote",
    "Problem",
    "Record",
    "Reply",
    "ReplyCounts",
    "Request",
    "Result",
    "Rollout",
    "Sampling",
    "Selection",
    "Solution",
    "StopReason",
    "Trajectory",
    "Usage",
    "UsageEntry",
    "Verification",
]
