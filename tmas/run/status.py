"""The status of a run: of its live process if there is one, otherwise from its files."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tmas.errors import UserError
from tmas.records import Usage
from tmas.records.live import ControlLine, LimitChanges, RecentBankChange, RoleStatus, RunStatus
from tmas.records.prices import cost_of
from tmas.records.reading import read_record, read_records
from tmas.records.run_files import FailureLine, Manifest, PredictedIteration, Prediction
from tmas.run.control import CONTROL_FILE
from tmas.run.directory import last_lock_holder
from tmas.run.live_socket import NotLive, ask_live
from tmas.run.rounds import MAX_BANK_CHANGES, recent_changes


def run_status(directory: Path) -> RunStatus:
    """The status of the run in ``directory``, or of the live server whose ``serve.output_dir`` it is.

    Raises ``UserError`` if it is neither.
    """
    try:
        return live_status(directory)
    except NotLive:
        if (directory / "manifest.json").exists():
            return recorded_status(directory)
        raise UserError(
            "no manifest.json, and no live process",
            where=directory,
            remedy="Give the output_dir of tmas solve or tmas distill, or the serve.output_dir of a server that runs.",
        ) from None


def live_status(directory: Path) -> RunStatus:
    """The status of the live run in ``directory``. Raises :class:`NotLive` if no process works on it."""
    return RunStatus.model_validate(ask_live(directory, {})["status"])


def change_limits(directory: Path, changes: LimitChanges) -> RunStatus:
    """Change the limits of the live run in ``directory``, and return its status after that.

    Raises :class:`NotLive` if no process works on it, and ``UserError`` if the run refuses the change.
    """
    request: dict[str, Any] = {"changes": changes.model_dump(mode="json", include=changes.model_fields_set)}
    return RunStatus.model_validate(ask_live(directory, request)["status"])


def recorded_status(directory: Path) -> RunStatus:
    """The status of a run that no process works on, from its files.

    Raises :class:`~tmas.records.reading.DefectiveFile` for a file that cannot be read.
    """
    manifest = read_record(directory / "manifest.json", Manifest)
    usage: defaultdict[str, Usage] = defaultdict(Usage)
    by_iteration: Counter[int] = Counter()
    changes: list[RecentBankChange] = []
    for line in read_records(directory / "predictions.jsonl", Prediction):
        by_iteration[max(0, len(line.iterations) - 1)] += 1
        for entry in line.usage:
            usage[entry.role] += entry.usage
        changes += [change for step in line.iterations for change in _bank_changes(line.problem_id, step)]
        changes = changes[-MAX_BANK_CHANGES:]
    failures = Counter(line.reason.value for line in read_records(directory / "failures.jsonl", FailureLine))
    finished = by_iteration.total()
    cost = cost_of(usage, manifest.prices or {})
    return RunStatus(
        state="finished" if finished == len(manifest.problems) else "unfinished",
        process=last_lock_holder(directory),
        problems=len(manifest.problems),
        finished=finished,
        by_iteration=dict(sorted(by_iteration.items())),
        calls=sum(used.calls for used in usage.values()),
        roles={role: RoleStatus(calls=used.calls, tokens=used.completion_tokens) for role, used in usage.items()},
        failures=dict(failures),
        currency=cost.currency if cost.total is not None else None,
        money_spent=cost.total,
        bank_changes=tuple(changes),
        changes=tuple(read_records(directory / CONTROL_FILE, ControlLine)),
    )


def _bank_changes(problem_id: str, step: PredictedIteration) -> tuple[RecentBankChange, ...]:
    sizes = len(step.experience_bank), len(step.guideline_bank)
    return recent_changes(problem_id, step.iteration, sizes, (step.experience_change, step.guideline_change))
