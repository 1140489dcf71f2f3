"""Checks whether a model can play every role: runs one small iteration of the method on a sample problem."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from tmas.methods.base import MethodSettings
from tmas.methods.pacore import PaCoReSettings
from tmas.records import Failure, Problem, ReplyCounts, Result, Rollout, Usage
from tmas.records.trace_lines import CallLine
from tmas.run.activity import Activity
from tmas.run.health import replies_by_role
from tmas.run.runtime import open_runtime
from tmas.run.trace import read_calls, trace_path
from tmas.settings import Limits, RunSettings, Settings

NEED_SECOND_ITERATION = frozenset({"feedback", "distill"})
"""Roles that are called for the first time between the first two iterations."""


class CheckOptions(Settings):
    """How a model is checked."""

    question: str = Field(
        default="How many positive divisors does 360 have?",
        min_length=1,
        description="The problem of the check. An easy one shows the same defects as a hard one, and takes less time.",
    )
    problem: str | None = Field(
        default=None,
        description="Id of a problem in the file problems that is asked instead of question, for a model that was"
        " trained only for such problems. null: question is asked.",
    )
    candidates: int = Field(
        default=2, ge=1, description="Maximum number of candidates in the check. A method with fewer keeps its number."
    )
    verifications: int = Field(
        default=2,
        ge=1,
        description="Maximum number of verifications of a candidate in the check. A method with fewer keeps its "
        "number.",
    )
    seconds: float = Field(
        default=120.0,
        gt=0,
        description="Seconds after which calls in flight are cancelled, not counting the start of vLLM.",
    )
    min_readable: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of readable replies that every role must reach, and share of candidates with an answer.",
    )


@dataclass(frozen=True)
class CheckResult:
    """The outcome of a check. ``served``: names of the models that the server of each role lists, if any.

    ``prompt_limits``: the longest prompt of each role in tokens. ``text_tokens``: mean length of a reply of each role
    without thinking. ``seconds``: duration of the check.
    """

    result: Result
    calls: tuple[CallLine, ...]
    served: Mapping[str, tuple[str, ...]]
    context_lengths: Mapping[str, int]
    prompt_limits: Mapping[str, int]
    text_tokens: Mapping[str, float]
    seconds: float

    @property
    def notes(self) -> frozenset[str]:
        """The notes on the replies, such as ``seed_refused``."""
        return frozenset(note for call in self.calls if call.reply for note in call.reply.notes)

    @property
    def replies(self) -> dict[str, ReplyCounts]:
        return replies_by_role(self.result.replies)

    @property
    def usage(self) -> dict[str, Usage]:
        usage: dict[str, Usage] = {}
        for entry in self.result.usage:
            usage[entry.role] = usage.get(entry.role, Usage()) + entry.usage
        return usage

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens of all calls per second of the check."""
        return sum(usage.completion_tokens for usage in self.usage.values()) / max(self.seconds, 1e-9)

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for iteration in self.result.trajectory.iterations for rollout in iteration.rollouts]

    @property
    def unanswered(self) -> tuple[int, int]:
        """Number of candidates without a final answer, and number of candidates that were written."""
        written = [rollout for rollout in self.rollouts if not isinstance(rollout.solution, Failure)]
        return sum(rollout.answer is None for rollout in written), len(written)


def unfit_roles(checked: CheckResult, settings: RunSettings, min_readable: float) -> list[str]:
    """A line for each role with too few readable replies, and one if too few candidates have an answer.

    ``min_readable``: see :class:`CheckOptions`.
    """
    found: list[str] = []
    for role in settings.method.roles:
        counts = checked.replies.get(role, ReplyCounts(role=role))
        was_called_or_blocked = role in checked.usage or found or checked.result.trajectory.stop == "budget"
        if not counts.replies:
            # Otherwise the settings of the method leave the role out.
            found += [f"{role} gave no reply"] * bool(was_called_or_blocked)
        elif counts.readable < min_readable * counts.replies:
            found.append(f"{role} has {counts.readable} readable of {counts.replies} replies")
    missing, written = checked.unanswered
    if settings.method.agents.task == "answer" and written - missing < min_readable * written:
        found.append(f"{missing} of {written} candidates have no final answer")
    return found


async def check_model(settings: RunSettings, options: CheckOptions, directory: Path, activity: Activity) -> CheckResult:
    """Run a small form of the method on the question. ``directory``: for the trace and the servers' logs.

    Raises :class:`~tmas.llm.endpoint.EndpointDown`, :class:`~tmas.engines.vllm.ServerFailed` and ``UserError``.
    """
    # A budget that is never reached, so that the calls in flight can be ended like those of an exhausted budget.
    limits = Limits(tokens_per_run=sys.maxsize)
    small = settings.model_copy(update={"method": small_method(settings.method, options), "limits": limits})
    problem = Problem(problem_id="check", question=options.question)
    async with open_runtime(small, directory, activity, files=1) as runtime:
        solver = await runtime.solver(small, directory, activity)
        timer = asyncio.get_running_loop().call_later(options.seconds, solver.state.budget.close)
        started = time.monotonic()
        result = await solver.solve(0, problem)
        seconds = time.monotonic() - started
        timer.cancel()
        calls = tuple(read_calls(trace_path(directory, problem.problem_id)))
        windows = {role: model.window for role, model in solver.state.roles.items()}
        return CheckResult(
            result=result,
            calls=calls,
            served=await runtime.served_models(),
            context_lengths={role: window.context_length for role, window in windows.items()},
            prompt_limits={role: window.limit for role, window in windows.items()},
            text_tokens={role: _text_tokens(role, calls, window.count) for role, window in windows.items()},
            seconds=seconds,
        )


def small_method(method: MethodSettings, options: CheckOptions) -> MethodSettings:
    """The method with few candidates, and with as many iterations as it takes to call every role."""
    sizes: dict[str, int] = {
        "n_candidates": options.candidates,
        "n_aggregated": options.candidates,
        "n_best": options.candidates,
        "n_compared": max(2, options.candidates),
        "n_verifications": options.verifications,
        "n_votes": 1,
        "n_summaries": 1,
        "max_iterations": 2 if NEED_SECOND_ITERATION & set(method.roles) else 1,
    }
    fields = type(method).model_fields
    # These settings could end the problem before every role has been called.
    off: dict[str, Any] = {"early_stop": "none", "allocation": None}
    smaller = {name: value for name, value in off.items() if name in fields} | {
        name: min(size, value) for name, size in sizes.items() if name in fields and (value := getattr(method, name))
    }
    if isinstance(method, PaCoReSettings):
        smaller["widths"] = tuple(min(options.candidates, width) for width in method.widths)
    return method.model_copy(update=smaller)


def _text_tokens(role: str, calls: Sequence[CallLine], count: Callable[[str], int]) -> float:
    texts = [c.text for call in calls if call.key.role == role and call.reply for c in call.reply.completions]
    return sum(map(count, texts)) / len(texts) if texts else 0.0
