"""The commands ``tmas status`` and ``tmas control``: a live run, seen and changed from a second terminal."""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tmas.cli.composing import validated
from tmas.errors import UserError
from tmas.records.live import LimitChanges, RunStatus
from tmas.records.prices import money
from tmas.run.live_socket import NotLive
from tmas.run.status import change_limits, run_status
from tmas.settings import Settings


class StatusSettings(Settings):
    """All settings of ``tmas status``."""

    run: Path = Field(description="Run directory, or serve.output_dir of a server. tmas status DIR sets it.")
    json_output: bool = Field(
        default=False, alias="json", description="Print one line of JSON instead of tables (record RunStatus)."
    )
    every: float | None = Field(
        default=None, gt=0, description="Print the status again after this many seconds, as long as the run is live."
        " null: print it once.",
    )  # fmt: skip


class ControlSettings(Settings):
    """All settings of ``tmas control``."""

    run: Path = Field(description="Run directory, or serve.output_dir of a server. tmas control DIR sets it.")
    concurrency: int | Literal["keep"] = Field(
        default="keep", description="Completions in flight at once from now on. keep: no change."
    )
    active_problems: int | Literal["keep"] = Field(
        default="keep",
        description="Problems that are worked on at once from now on. keep: no change. On Ray it can only be lowered.",
    )
    tokens_per_run: int | Literal["keep"] | None = Field(
        default="keep", description="Token budget of the run from now on. null: no limit. keep: no change."
    )
    money_per_run: float | Literal["keep"] | None = Field(
        default="keep",
        description="Budget of the run in money from now on, in the currency of the prices. It needs the price of"
        " every role's model. null: no limit. keep: no change.",
    )
    pause: bool | Literal["keep"] = Field(
        default="keep",
        description="true: start no new call; calls in flight finish and are recorded. false: continue. keep: no"
        " change.",
    )

    def changes(self) -> LimitChanges:
        """The changes that are asked for. Raises ``UserError`` if there are none, or one is wrong."""
        given = {name: getattr(self, name) for name in LimitChanges.model_fields}
        changed = {name: value for name, value in given.items() if value != "keep"}
        if not changed:
            raise UserError("nothing to change", remedy=f"Give one of {', '.join(given)}.")
        return validated(LimitChanges.model_validate, changed)


def status_command(config: dict[str, Any], console: Console) -> None:
    """``tmas status DIR``: show what a live run is doing, or what another run has done.

    Ctrl-C is the usual end of a repeated status, so it is not an error.
    """
    settings = validated(StatusSettings.model_validate, config)
    try:
        _print_until_ended(settings, console)
    except KeyboardInterrupt:
        if settings.every is None:
            raise


def _print_until_ended(settings: StatusSettings, console: Console) -> None:
    """Print the status; again every ``settings.every`` seconds, if that is set, as long as the run is live."""
    while True:
        status = run_status(settings.run)
        if settings.json_output:
            print(status.model_dump_json(), flush=True)
        else:
            print_status(console, settings.run, status)
        if settings.every is None or not status.is_live:
            return
        time.sleep(settings.every)


def control_command(config: dict[str, Any], console: Console) -> None:
    """``tmas control DIR``: change the limits of a live run, pause it, or let it continue."""
    settings = validated(ControlSettings.model_validate, config)
    try:
        status = change_limits(settings.run, settings.changes())
    except NotLive as error:
        remedy = "Only a live run can be changed. Set the limits of this run when you resume it."
        raise UserError(error.what, where=error.where, remedy=remedy) from None
    print_status(console, settings.run, status)


def print_status(console: Console, directory: Path, status: RunStatus) -> None:
    """Print the status as lines and tables."""
    lines = [f"{directory}: {status.state}", *_facts(status)]
    console.print(Text("\n".join(lines)), soft_wrap=True)
    if status.roles:
        table = Table("role", *(["in flight"] if status.is_live else []), "calls", title="Roles", title_justify="left")
        for name in ("failed", "tokens/s") if status.is_live else ():
            table.add_column(name)
        table.add_column("completion tokens")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, role in status.roles.items():
            live = [f"{role.in_flight:,}"] if status.is_live else []
            rates = [f"{role.failed or 0:,}", f"{role.tokens_per_second or 0:,.0f}"] if status.is_live else []
            table.add_row(name, *live, f"{role.calls:,}", *rates, f"{role.tokens:,}")
        console.print(table)
    if status.bank_changes:
        table = Table("problem", "iteration", "bank", "change", title="Latest bank changes", title_justify="left")
        for change in status.bank_changes:
            table.add_row(Text(change.problem_id), str(change.iteration), change.bank, change.summary)
        console.print(table)


def _facts(status: RunStatus) -> list[str]:
    """One line for each fact about the run."""
    verb = "in" if status.is_live else "ended in"
    where = ", ".join(f"{count} {verb} it {t}" for t, count in status.by_iteration.items())
    facts = [f"problems: {status.finished:,} of {status.problems:,} finished{f' ({where})' if where else ''}"]
    if status.waits_for:
        facts.append(f"waits for: {status.waits_for}")
    if status.is_live:
        facts.append(f"calls: {status.in_flight:,} in flight, {status.calls:,} made, {status.replayed:,} from the"
                     f" trace, {status.failed:,} failed")  # fmt: skip
        facts.append(f"limits: concurrency={status.concurrency} active_problems={status.active_problems}"
                     f" tokens_per_run={_as_setting(status.tokens_per_run)}"
                     f" money_per_run={_as_setting(status.money_per_run)}")  # fmt: skip
    if status.failures:
        facts.append(f"failures: {', '.join(f'{count:,} {reason}' for reason, count in status.failures.items())}")
    if status.seconds is not None:
        left = "?" if status.seconds_left is None else _clock(status.seconds_left)
        tokens = "?" if status.completion_tokens_left is None else f"{status.completion_tokens_left:,}"
        facts.append(f"time: {_clock(status.seconds)} since the start, about {left} left (estimate)")
        facts.append(f"completion tokens left: about {tokens} (estimate)")
    if status.tokens_per_run is not None and status.tokens_spent is not None:
        facts.append(f"token budget: {status.tokens_spent:,} of {status.tokens_per_run:,} used")
    if status.money_spent is not None:
        facts.append(f"money: {_money(status)}")
    facts += [
        f"changed {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(line.time))}:"
        f" {line.setting} from {_as_setting(line.before)} to {_as_setting(line.after)}"
        for line in status.changes
    ]
    if status.process:
        facts.append(f"last opened by: {status.process}")
    if status.state == "unfinished":
        elsewhere = status.process and not status.process.endswith(f" on {socket.gethostname()}")
        facts.append(
            "It may be live on that host: run tmas status there." if elsewhere else "Run its command again to resume."
        )
    return facts


def _money(status: RunStatus) -> str:
    """What the run has cost, what is left of its budget, and what the rest of the work costs."""
    assert status.money_spent is not None
    spent = f"{money(status.money_spent, status.currency)} spent"
    if not status.is_live:
        return f"{spent} for the finished problems"
    if status.money_per_run is not None:
        left = max(0.0, status.money_per_run - status.money_spent)
        spent += f" of {money(status.money_per_run)}, {money(left)} left"
    rest = "?" if status.money_left is None else money(status.money_left)
    end = ", so the budget will end the run first" if status.exceeds_budget else ""
    return f"{spent}; the rest of the work costs about {rest} (estimate){end}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def _as_setting(value: Any) -> str:
    """A value as the command line takes it: ``null``, ``true``, ``800``."""
    return orjson.dumps(value).decode()
