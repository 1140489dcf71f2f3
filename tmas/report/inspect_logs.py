"""Writes runs as ``.eval`` logs, which the viewer of inspect_ai opens. Needs inspect_ai (the extra ``inspect``).

One run is one log, and one problem is one sample. Its transcript has a span for each iteration, and in it a span for
each candidate and each memory agent. Every recorded call is a model event. Failures are the error of their model event,
or an info event if the call had a reply that could not be used.

The logs are built as plain data, which inspect_ai's own records validate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

from tmas.evaluation.facts import usage_by_role
from tmas.records import Completion, Usage
from tmas.records.evaluation_files import EvaluatedProblem
from tmas.records.run_files import FailureLine, Prediction
from tmas.records.trace_lines import CallLine
from tmas.report.figures import file_name
from tmas.report.runs import ReportedRun

MEMORY_ROLES = ("experience", "guideline")
Data = dict[str, Any]
VALUES = {"equal": "C", "different": "I", "undecided": "N", None: "N"}
"""inspect's values of a verdict: correct, incorrect, and no answer, which counts as incorrect."""
STOP_REASONS = {"stop": "stop", "length": "max_tokens"}
WORKERS_DIED = "The processes that worked on the problem died, one after the other."
NO_TRACEBACK = {"traceback": "", "traceback_ansi": ""}
SHOWN_METRICS = ("selected", "pass_at_1")


def write_logs(runs: Sequence[ReportedRun], scoring: str, folder: Path, wanted: Sequence[str] | None) -> list[Path]:
    """Write one log per run into ``folder`` and return the files. ``wanted``: ids of the problems, None for all.

    The log of one run is held in memory. inspect_ai has to be installed.
    """
    from inspect_ai.log import (  # pyright: ignore[reportMissingImports]
        EvalLog,
        EvalSample,
        condense_sample,
        write_eval_log,
    )

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for run in runs:
        scored = {problem.problem_id: problem for problem in run.evaluation.by_problem}
        samples = [
            condense_sample(EvalSample.model_validate(_sample(run, line, scored.get(line.problem_id), scoring)))
            for line in run.predictions()
            if wanted is None or line.problem_id in wanted
        ]
        log = EvalLog.model_validate(_header(run, scoring, samples)).model_copy(update={"samples": samples})
        name = file_name(run.name)
        while folder / f"{name}.eval" in files:  # names can differ only in characters that file names cannot have
            name += "-other"
        files.append(folder / f"{name}.eval")
        write_eval_log(log, files[-1].as_posix(), format="eval")
    return files


def _header(run: ReportedRun, scoring: str, samples: Sequence[Any]) -> Data:
    """Everything in the log of a run except its samples."""
    about = run.evaluation.run
    ids = [sample.id for sample in samples]
    by_model: Data = {}
    for model, usage in (pair for sample in samples for pair in sample.model_usage.items()):
        by_model[model] = by_model[model] + usage if model in by_model else usage
    begun = min((sample.started_at for sample in samples), default=_time(0.0))
    ended = max((sample.completed_at for sample in samples), default=_time(0.0))
    benchmark = about.benchmark or "problems"
    return {
        "status": "success",
        "eval": {
            "created": begun,
            "task": benchmark,
            "task_args": {"method": about.method, "seed": about.seed, "run": run.path.name},
            "solver": about.method,
            "solver_args": {key: value for key, value in about.settings.items() if key.startswith("method.")},
            "dataset": {"name": benchmark, "samples": len(ids), "sample_ids": ids},
            "model": about.models.get("solution", "unknown"),
            "config": {},
            "packages": {"tmas": metadata.version("tmas")},
            "metadata": {"name in the report": run.name, "directory": str(run.path), "models by role": about.models},
        },
        "results": {
            "total_samples": len(ids),
            "completed_samples": len(ids),
            "scores": [_metrics(run, metric, scoring) for metric in SHOWN_METRICS if run.evaluation.by_problem],
        },
        "stats": {
            "started_at": begun,
            "completed_at": ended,
            "model_usage": by_model,
            "role_usage": {role: _usage(usage) for role, usage in run.evaluation.roles.items()},
        },
    }


def _metrics(run: ReportedRun, metric: str, scoring: str) -> Data:
    """The estimate of a metric after the last iteration, with its interval and upper bound as metrics of their own."""
    found = run.evaluation.iterations[-1].scores[scoring][metric]
    values = {"mean": found.value, "low": found.low, "high": found.high, "upper": found.upper}
    known = {name: {"name": name, "value": value} for name, value in values.items() if value is not None}
    return {"name": metric, "scorer": scoring, "metrics": known}


def _sample(run: ReportedRun, line: Prediction, scored: EvaluatedProblem | None, scoring: str) -> Data:
    calls = sorted(run.calls(line.problem_id), key=lambda call: (call.key.iteration, call.started))
    answer = {"role": "assistant", "content": line.solution or ""}
    limit = line.terms.tokens_per_problem
    begun = min((call.started for call in calls), default=0.0)
    ended = max((call.started + _seconds(call) for call in calls), default=0.0)
    return {
        "id": line.problem_id,
        "epoch": 1,
        "input": line.question or "",
        "target": line.gold or "",
        "messages": [{"role": "user", "content": line.question or ""}, answer],
        "output": {"choices": [{"message": answer, "stop_reason": "stop"}]},
        "scores": _scores(line, scored, scoring) if line.gold is not None else None,
        "metadata": {
            "stop": line.stop,
            "iterations": len(line.iterations),
            "selected": line.selected and line.selected.model_dump(mode="json"),
        },
        "events": list(_events(line, calls, run.failures.get(line.problem_id, ()))),
        "model_usage": {model: _usage(usage) for model, usage in _by_model(calls).items()},
        "role_usage": {role: _usage(usage) for role, usage in usage_by_role(line.usage).items()},
        "started_at": _time(begun),
        "completed_at": _time(ended),
        "total_time": ended - begun,
        "limit": {"type": "token", "limit": limit} if _reached_token_limit(line) else None,
        "token_limit": limit,
        "error": {**NO_TRACEBACK, "message": WORKERS_DIED} if line.stop == "worker" else None,
    }


def _reached_token_limit(line: Prediction) -> bool:
    """Whether the problem's own budget in tokens ended it. A limit in money, or a limit of the run, can end it, too.

    Tokens that no server reported count against the budget, but are not in the usage.
    """
    limit = line.terms.tokens_per_problem
    is_only_limit = [name for name, value in line.terms.limits.items() if value is not None] == ["tokens_per_problem"]
    return line.stop == "budget" and limit is not None and (is_only_limit or line.total_usage.total_tokens >= limit)


def _scores(line: Prediction, scored: EvaluatedProblem | None, scoring: str) -> dict[str, Data]:
    """The selected answer by rule, and the metrics of the report's scoring after the last iteration."""
    undecided = "The rule could not compare the answer with the gold answer." if line.correct == "undecided" else None
    found: dict[str, Data] = {"rule": {"value": VALUES[line.correct], "answer": line.answer, "explanation": undecided}}
    values = scored.iterations[-1].scores[scoring] if scored else {}
    for metric in SHOWN_METRICS:
        if values.get(metric) is not None:
            explanation = f"after the last iteration, by {scoring}"
            found[metric] = {"value": values[metric], "answer": line.answer, "explanation": explanation}
    return found


def _events(line: Prediction, calls: Sequence[CallLine], failures: Sequence[FailureLine]) -> Iterator[Data]:
    """Yield the transcript: a span per iteration, and in it one per candidate and memory agent, in order of time."""
    for t, of_iteration in groupby(calls, key=lambda call: call.key.iteration):
        found = list(of_iteration)
        outer, ended = f"iteration {t}", max(call.started + _seconds(call) for call in found)
        spans: dict[str, list[CallLine]] = {}
        for call in found:
            is_memory = call.key.role in MEMORY_ROLES
            spans.setdefault(call.key.role if is_memory else f"candidate {call.key.index}", []).append(call)
        yield {**_event("span_begin", outer, found[0].started), "id": outer, "name": outer, "type": "iteration"}
        for name, members in spans.items():
            span = f"{outer}, {name}"
            begin = _event("span_begin", span, members[0].started)
            yield {**begin, "id": span, "parent_id": outer, "name": name, "type": "agent"}
            for call in members:
                yield _model_event(call, span)
                yield from _unusable(call, failures, span)
            yield {**_event("span_end", span, members[-1].started + _seconds(members[-1])), "id": span}
        if bank := _banks(line, t):
            yield {**_event("info", outer, ended), "source": "memory banks after the iteration", "data": bank}
        yield {**_event("span_end", outer, ended), "id": outer}


def _event(kind: str, span: str, time: float) -> Data:
    return {"event": kind, "span_id": span, "timestamp": _time(time)}


def _model_event(call: CallLine, span: str) -> Data:
    request, reply = call.request, call.reply
    notes = {"packing": [note.model_dump() for note in call.packing], "notes": list(reply.notes) if reply else []}
    return {
        **_event("model", span, call.started),
        "model": request.model,
        "role": call.key.role,
        "input": [message.model_dump() for message in call.messages],
        "tools": [],
        "tool_choice": "none",
        "config": {
            **request.sampling.model_dump(include={"temperature", "top_p", "max_tokens"}),
            "num_choices": request.n,
            "seed": request.seed,
        },
        "output": {
            "model": request.model,
            "choices": [_choice(completion, request.model) for completion in reply.completions] if reply else [],
            "usage": _usage(reply.usage) if reply else None,
            "time": _seconds(call),
        },
        "error": f"{call.failure.reason.value}: {call.failure.message}" if call.failure else None,
        "metadata": {"call": str(call.key), **{name: value for name, value in notes.items() if value}},
        "completed": _time(call.started + _seconds(call)),
        "working_time": _seconds(call),
    }


def _unusable(call: CallLine, failures: Sequence[FailureLine], span: str) -> Iterator[Data]:
    """Yield the failures of a call that has a reply, for example one that could not be parsed."""
    key = call.key.model_dump(exclude={"problem_id"})
    for failure in failures if call.reply else ():
        if failure.call and failure.call.model_dump() == key:
            text = f"**{failure.reason.value}**: {failure.message}"
            yield {**_event("info", span, call.started + _seconds(call)), "source": "failure", "data": text}


def _banks(line: Prediction, t: int) -> str:
    """The items of both banks after iteration ``t``, as a Markdown list; "" if they are empty."""
    if t >= len(line.iterations):
        return ""
    iteration = line.iterations[t]
    items = [*iteration.experience_bank, *iteration.guideline_bank]
    return "\n".join(f"- {item.item_id} (support {item.support}): {item.text}" for item in items)


def _choice(completion: Completion, model: str) -> Data:
    reasoning = [{"type": "reasoning", "reasoning": completion.reasoning}] if completion.reasoning else []
    content = [*reasoning, {"type": "text", "text": completion.text}]
    return {
        "message": {"role": "assistant", "content": content, "model": model, "source": "generate"},
        "stop_reason": STOP_REASONS.get(completion.finish_reason, "unknown"),
    }


def _usage(usage: Usage) -> Data:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_prompt_tokens,
        "input_tokens_cache_read": usage.cached_prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _by_model(calls: Sequence[CallLine]) -> dict[str, Usage]:
    totals: dict[str, Usage] = {}
    for call in calls:
        if call.reply:
            totals[call.request.model] = totals.get(call.request.model, Usage()) + call.reply.usage
    return totals


def _seconds(call: CallLine) -> float:
    return call.reply.usage.seconds if call.reply else 0.0


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
