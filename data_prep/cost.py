"""Estimates the calls, tokens and money of ``tmas distill``, and of a dry run of ``tmas solve``.

The estimate uses the mean usage of the finished problems. If there are none, it uses expected lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from pydantic import Field

from tmas.llm.tokens import ContextWindow, Count, token_counter
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem, Record, Usage
from tmas.records.prices import Cost, Price, cost_of, money
from tmas.records.run_files import Terms
from tmas.run.directory import check_resumable
from tmas.run.metrics import metrics
from tmas.run.replay import RecordedRun
from tmas.run.runner import is_finished
from tmas.settings import ModelSettings, RunSettings, Settings

INSTRUCTIONS = 200
"""Tokens of the instructions in a prompt. The estimate counts the other parts separately."""


class Length(Settings):
    """Expected length of the replies of one role."""

    reply: int = Field(ge=0, description="Expected tokens of a reply, thinking included.")
    text: int = Field(
        default=0, ge=0, description="Expected tokens after the thinking. 0: no later prompt contains them."
    )


class Expected(Settings):
    """Expected lengths in tokens, for the estimate before any problem is finished."""

    solution: Length = Field(default=Length(reply=12_000, text=1_000), description="Lengths of solutions.")
    verification: Length = Field(default=Length(reply=6_000, text=600), description="Lengths of verifications.")
    summary: Length = Field(default=Length(reply=2_000, text=350), description="Lengths of summaries.")
    experience: Length = Field(default=Length(reply=4_000), description="Lengths of updates of the experience bank.")
    guideline: Length = Field(default=Length(reply=3_000), description="Lengths of updates of the guideline bank.")
    bank: int = Field(default=1_500, ge=0, description="Expected tokens of a filled memory bank in a prompt.")

    def within(self, model: ModelSettings) -> Expected:
        """The expected lengths, none of them longer than the limit of its role."""

        def limited(role: str) -> Length:
            length, limit = getattr(self, role), model.for_role(role).sampling.max_tokens
            return Length(reply=min(length.reply, limit), text=min(length.text, limit))

        return self.model_copy(update={role: limited(role) for role in TMASSettings.roles})


class CostEstimate(Record):
    """Estimated usage by role for a number of ``problems``.

    ``measured``: the estimate comes from finished problems, not from expected lengths.
    """

    problems: int
    by_role: dict[str, Usage]
    measured: bool

    @property
    def usage(self) -> Usage:
        return sum(self.by_role.values(), Usage())

    @property
    def tokens(self) -> int:
        return self.usage.total_tokens

    def costs(self, prices: Mapping[str, Price]) -> tuple[Cost, Cost]:
        """The lowest and the highest estimated cost. ``prices``: the price of each role's model.

        They are equal for a measured estimate. Otherwise nothing is known about cached prompt tokens: the lowest cost
        assumes that all of them are cached, the highest that none are.
        """
        highest = cost_of(self.by_role, prices)
        if self.measured:
            return highest, highest
        cached = {
            role: usage.model_copy(update={"cached_prompt_tokens": usage.prompt_tokens})
            for role, usage in self.by_role.items()
        }
        return cost_of(cached, prices), highest


def estimate_run(
    problems: Sequence[Problem], settings: RunSettings, directory: Path, expected: Expected
) -> CostEstimate | None:
    """Estimate for those of ``problems`` that are not finished in the run directory ``directory``.

    It uses the mean usage of the finished ones, or expected lengths if there are none. Returns None if it would need
    expected lengths for another method than TMAS. A problem that a resumed run would continue, as after a raised
    budget, is not finished. Raises :class:`~tmas.run.directory.RunRefused` if the run in ``directory`` cannot be
    resumed with ``settings``.
    """
    finished: list[Mapping[str, Usage]] = []
    if (directory / "manifest.json").exists():
        check_resumable(directory, settings.identity(), problems, settings.prompts)
        recorded, terms = RecordedRun(directory), Terms.model_validate(settings.terms())
        names = [problem.problem_id for problem in problems if problem.problem_id in recorded.problem_ids]
        lines = [line for line in map(recorded.prediction, names) if is_finished(line, terms)]
        finished = [metrics([line]).usage for line in lines]
    if finished:
        return measured_estimate(len(problems) - len(finished), finished)
    if not isinstance(settings.method, TMASSettings):
        return None
    tokenizer = settings.model.tokenizer if settings.model.tokenizer != "auto" else "estimate"
    count = token_counter(tokenizer)
    limits = {
        role: ContextWindow(count, model.context_length, model.sampling.max_tokens, model.max_window_tokens).limit
        for role, model in settings.role_models().items()
        if model.context_length
    }
    return expected_estimate(problems, settings.method, expected.within(settings.model), count, limits)


def measured_estimate(remaining: int, finished: Sequence[Mapping[str, Usage]]) -> CostEstimate:
    """Estimate for ``remaining`` problems at the mean usage of the ``finished`` ones, by role. Needs at least one."""
    factor = remaining / len(finished)
    totals: dict[str, Usage] = {}
    for by_role in finished:
        for role, usage in by_role.items():
            totals[role] = totals.get(role, Usage()) + usage
    return CostEstimate(
        problems=remaining,
        by_role={role: _scaled(usage, factor) for role, usage in totals.items()},
        measured=True,
    )


def _scaled(usage: Usage, factor: float) -> Usage:
    counts = usage.model_dump(exclude={"seconds"})
    return Usage(**{name: round(count * factor) for name, count in counts.items()}, seconds=usage.seconds * factor)


def expected_estimate(
    problems: Sequence[Problem],
    method: TMASSettings,
    expected: Expected,
    count: Count,
    prompt_limits: Mapping[str, int] | None = None,
) -> CostEstimate:
    """Estimate for all calls of the method on ``problems``, from the expected lengths of replies and prompts.

    ``prompt_limits``: the longest prompt of each role in tokens, to which prompts are packed. A role without one has no
    limit.
    """
    question = round(fmean(count(problem.question) for problem in problems)) + INSTRUCTIONS if problems else 0
    by_role = _usage_of_one(question, method, expected, prompt_limits or {})
    return CostEstimate(
        problems=len(problems),
        by_role={role: _scaled(usage, len(problems)) for role, usage in by_role.items()},
        measured=False,
    )


def _usage_of_one(
    question: int, method: TMASSettings, expected: Expected, prompt_limits: Mapping[str, int]
) -> dict[str, Usage]:
    """The usage of one problem by role. The prompt of the M verifications is counted M times.

    ``question``: tokens of the question and of the instructions.
    """

    def prompt(role: str, *parts: int) -> int:
        return min(question + sum(parts), prompt_limits.get(role, question + sum(parts)))

    n, m, t = method.n_candidates, method.n_verifications, method.max_iterations
    candidate, summary, bank = expected.solution.text, expected.summary, expected.bank
    attempts = n * (candidate + summary.text)
    exploit = prompt("solution", attempts, bank if method.use_experience else 0)
    explore = prompt("solution", bank if method.use_guidelines else 0)
    later = (1 - method.epsilon) * exploit + method.epsilon * explore
    counts = {  # role -> calls, prompt tokens, tokens of a completion, completions
        "solution": (t * n, round(n * (prompt("solution") + (t - 1) * later)), expected.solution.reply, t * n),
        "verification": (
            t * n,
            t * n * m * prompt("verification", candidate),
            expected.verification.reply,
            t * n * m,
        ),
        "summary": (
            t * n,
            t * n * prompt("summary", candidate, m * expected.verification.text),
            summary.reply,
            t * n,
        ),
        "experience": (t, t * prompt("experience", attempts, bank), expected.experience.reply, t),
        "guideline": (t, t * prompt("guideline", attempts, bank), expected.guideline.reply, t),
    }
    unused = {"experience": not method.use_experience, "guideline": not method.use_guidelines}
    return {
        role: Usage(calls=calls, prompt_tokens=prompt_tokens, completion_tokens=reply * completions)
        for role, (calls, prompt_tokens, reply, completions) in counts.items()
        if not unused.get(role)
    }


def estimate_lines(estimate: CostEstimate, settings: RunSettings, verb: str) -> list[str]:
    """The estimate, its basis and the budgets of the run as lines for the user. ``verb``: such as distill."""
    usage, limits = estimate.usage, settings.limits
    low, _ = estimate.costs(settings.role_prices())
    lines = [
        f"{estimate.problems:,} problems to {verb}, about {usage.calls:,} calls: "
        f"{usage.prompt_tokens:,} tokens in prompts, {usage.completion_tokens:,} in replies",
        "measured on the problems already finished" if estimate.measured else "estimated from the expected lengths",
        cost_line(estimate, settings),
    ]
    budgets = [] if limits.tokens_per_run is None else [f"{limits.tokens_per_run:,} tokens"]
    if limits.money_per_run is not None:
        budgets.append(money(limits.money_per_run, low.currency))
    lines.append(f"hard budget: {' and '.join(budgets) or 'none'}")
    too_few_tokens = limits.tokens_per_run is not None and estimate.tokens > limits.tokens_per_run
    if too_few_tokens or (limits.money_per_run is not None and (low.total or 0) > limits.money_per_run):
        lines.append("the budget is below the estimate: problems will stop early. Raise the budget to resume them")
    return lines


def cost_line(estimate: CostEstimate, settings: RunSettings) -> str:
    """The estimated cost as a line for the user, or the roles whose price is missing."""
    if missing := settings.roles_without_price():
        return f"cost: unknown, without a price of {', '.join(missing)} (model.price.input, model.price.output)"
    low, high = estimate.costs(settings.role_prices())
    if low.total == high.total:
        return f"cost: about {money(high.total, high.currency)}"
    return f"cost: {money(low.total)} to {money(high.total, high.currency)}, with all prompt tokens cached or none"
