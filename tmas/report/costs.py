"""Costs and failures of runs: tokens by role, and failures by reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tmas.records import Usage
from tmas.records.prices import Cost, money
from tmas.report.items import Bars, Cell, Item, Note, Parts, Section, Table
from tmas.report.runs import ReportedRun


def costs_section(runs: Sequence[ReportedRun]) -> Section:
    """Return the tab of costs and failures. Each run is listed separately, and seeds are not pooled."""
    usage = [run.evaluation.roles for run in runs]
    roles = list(dict.fromkeys(role for by_role in usage for role in by_role))
    bars = Bars(
        title="Tokens by role, prompt and completion",
        x_label="tokens of the run",
        rows=[run.name for run in runs],
        series=[Parts(r, i, [by_role.get(r, Usage()).total_tokens for by_role in usage]) for i, r in enumerate(roles)],
    )
    return Section("cost", "Cost and failures", [bars, _cost_table(runs, usage), _failure_table(runs)])


def _cost_table(runs: Sequence[ReportedRun], usage: Sequence[Mapping[str, Usage]]) -> Table:
    rows: list[Sequence[str | Cell]] = []
    is_priced = any(run.evaluation.cost for run in runs)
    for run, by_role in zip(runs, usage, strict=True):
        everything = sum(by_role.values(), Usage())
        rows.append([run.name])
        for role, one in [*by_role.items(), ("all", everything)]:
            spent = [_money(run.evaluation.cost, role)] if is_priced else []
            rows.append([role, *_counts(one, everything.total_tokens), *spent])
    columns = ["Role", "Calls", "Prompt tokens", "of them cached", "Completion tokens", "Share", "Hours of calls"]
    return Table(
        title="Cost by role",
        columns=[*columns, "Cost"] if is_priced else columns,
        rows=rows,
        note="Tokens as the server counted them. Hours are summed over calls, which ran side by side."
        + (" Cost: at the prices in evaluation.json; unknown for a model without a price." if is_priced else ""),
    )


def _counts(usage: Usage, all_tokens: int) -> list[str]:
    counts = (usage.calls, usage.prompt_tokens, usage.cached_prompt_tokens, usage.completion_tokens)
    share = f"{usage.total_tokens / all_tokens:.1%}" if all_tokens else "–"
    return [*(f"{count:,}" for count in counts), share, f"{usage.seconds / 3600:.2f}"]


def _money(cost: Cost | None, role: str) -> str:
    if cost is None:
        return money(None)
    return money(cost.total if role == "all" else cost.by_role[role], cost.currency)


def _failure_table(runs: Sequence[ReportedRun]) -> Item:
    failures = [run.failure_counts for run in runs]
    reasons = sorted({reason for found in failures for _, reason in found})
    if not reasons:
        return Note("No failures: every reply could be used.")
    rows: list[Sequence[str | Cell]] = []
    for run, found in zip(runs, failures, strict=True):
        rows.append([run.name])
        for role in sorted({role for role, _ in found}):
            counts = [found[role, reason] for reason in reasons]
            rows.append([role, *(f"{count:,}" for count in (*counts, sum(counts)))])
    return Table("Failures by reason", ["Role", *reasons, "all"], rows, note="Each one is a line of failures.jsonl.")
