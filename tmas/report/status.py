"""The first tab of ``tmas view``: the status of the run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

import orjson

from tmas.records.live import ControlLine, RunStatus
from tmas.records.prices import money
from tmas.report.items import Item, Note, Section, Table, Tile, Tiles

STATES = {
    "starting": "The run is starting.",
    "running": "The run is live.",
    "paused": "The run is paused: it starts no new calls.",
    "finished": "The run is finished.",
    "unfinished": "The run is not finished, and no process on this machine works on it.",
}


def status_section(status: RunStatus) -> Section:
    """Return the tab. The page shows all texts as plain text."""
    items: list[Item] = [Tiles(_tiles(status))]
    if status.waits_for:
        items.append(Note(f"It waits for: {status.waits_for}"))
    items += [
        table
        for table in (_roles(status), _failures(status), _banks(status), limit_changes(status.changes))
        if table.rows
    ]
    return Section("status", "Status", items, STATES[status.state])


def _tiles(status: RunStatus) -> list[Tile]:
    verb = "in" if status.is_live else "ended in"
    where = ", ".join(f"{count} {verb} it {t}" for t, count in status.by_iteration.items())
    tiles = [Tile("Problems finished", f"{status.finished:,} of {status.problems:,}", where)]
    if not status.is_live:
        return tiles
    rate = sum(role.tokens_per_second or 0 for role in status.roles.values())
    time_left = "?" if status.seconds_left is None else _clock(status.seconds_left)
    tokens_left = "?" if status.completion_tokens_left is None else f"{status.completion_tokens_left:,}"
    tiles += [
        Tile("Calls in flight", f"{status.in_flight:,}", f"at most {status.concurrency:,} completions"),
        Tile("Calls made", f"{status.calls:,}", f"{status.replayed:,} from the trace, {status.failed:,} failed"),
        Tile("Tokens per second", f"{rate:,.0f}", "completion tokens, last minute"),
        Tile("Running for", _clock(status.seconds or 0)),
        Tile("Time left", time_left, "an estimate"),
        Tile("Tokens left", tokens_left, "completion tokens, an estimate"),
    ]
    if status.tokens_per_run is not None:
        tiles.append(Tile("Token budget", f"{status.tokens_per_run:,}", f"{status.tokens_spent or 0:,} used"))
    if status.money_spent is not None:
        tiles += _money(status)
    return tiles


def _money(status: RunStatus) -> list[Tile]:
    rest = "?" if status.money_left is None else money(status.money_left, status.currency)
    end = "more than the budget has left" if status.exceeds_budget else "an estimate"
    budget = "" if status.money_per_run is None else f"of {money(status.money_per_run)}, the budget"
    return [
        Tile("Money spent", money(status.money_spent, status.currency), budget),
        Tile("Cost of the rest", rest, end),
    ]


def _roles(status: RunStatus) -> Table:
    columns = ["In flight", "Failed", "Tokens/s"] if status.is_live else []
    rows: list[list[str]] = []
    for name, role in status.roles.items():
        live = [f"{role.in_flight:,}", f"{role.failed or 0:,}", f"{role.tokens_per_second or 0:,.0f}"]
        rows.append([name, *live[: len(columns)], f"{role.calls:,}", f"{role.tokens:,}"])
    return Table("Roles", ["Role", *columns, "Calls", "Completion tokens"], rows)


def _failures(status: RunStatus) -> Table:
    rows = [[reason, f"{count:,}"] for reason, count in status.failures.items()]
    return Table("Failures of finished iterations", ["Reason", "Count"], rows)


def _banks(status: RunStatus) -> Table:
    rows = [
        [change.problem_id, str(change.iteration), change.bank, change.summary]
        for change in reversed(status.bank_changes)
    ]
    return Table("Latest bank changes", ["Problem", "Iteration", "Bank", "Change"], rows, text_columns=4)


def limit_changes(lines: Iterable[ControlLine]) -> Table:
    """Return the table of limits that changed while a run was live. It has no rows if none did."""
    rows = [
        [
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.time)),
            line.setting,
            orjson.dumps(line.before).decode(),
            orjson.dumps(line.after).decode(),
        ]
        for line in lines
    ]
    return Table("Limits changed while the run was live", ["Time", "Setting", "Before", "After"], rows, text_columns=4)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
