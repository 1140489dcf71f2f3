"""Prints the outcome of ``tmas check``: the server, the roles, the planned run, and what to change."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tmas.cli.health import advice, missing_answer_advice
from tmas.data_prep.cost import CostEstimate, Expected, Length, cost_line, expected_estimate
from tmas.methods.tmas import TMASSettings
from tmas.records import Failure, Problem, ReplyCounts, Usage
from tmas.records.token_counts import UNREPORTED
from tmas.run.check import CheckResult
from tmas.run.health import UNREADABLE
from tmas.run.progress import clock
from tmas.settings import RunSettings

MAX_NAMES, MAX_NAME_CHARACTERS = 8, 100
"""Maximum number of names of models that are shown, and of characters of each."""
CHAIN = frozenset({"solution", "verification", "summary"})
"""Roles of TMAS that are called for every candidate, one after the other."""
MAX_EXCERPT = 160
"""Maximum number of characters shown of a reply that could not be read."""
NOTES = {
    "seed_refused": "The server refuses the field seed: another run gives other replies. model.send_seed=false stops"
    " sending it.",
    "n_refused": "The server gives one completion per call: TMAS makes a call for each, which repeats the prompt.",
    "schema_refused": "The server refuses JSON schemas: replies in JSON depend on the model alone.",
    "usage_missing": "The server reports no token counts: the figures above count its replies as 0 tokens. Budgets use"
    " TMAS's own counts.",
    "usage_implausible": "The server reports token counts that cannot be true: the figures above count those replies as"
    " 0 tokens. Budgets use TMAS's own counts.",
}
"""What the notes on replies mean for a run."""


def print_check(
    console: Console, checked: CheckResult, settings: RunSettings, time_limit: float, problems: int | None
) -> None:
    """Print the outcome for a terminal. Model text is shown as data, without markup.

    ``time_limit``: seconds that the check was allowed to take. ``problems``: number of problems of the planned run.
    """
    for line in [*_servers(checked, settings), *_thinking(checked)]:
        console.print(Text(line), soft_wrap=True)
    console.print(_roles(checked, settings))
    for line in [
        *_planned_run(checked, settings, problems),
        *_advice(checked, settings, time_limit),
        *_excerpts(checked),
    ]:
        console.print(Text(line), soft_wrap=True)


def _servers(checked: CheckResult, settings: RunSettings) -> Iterator[str]:
    """For each model: its roles, its window, and the names that its server lists."""
    models = settings.role_models()
    by_model: dict[tuple[str, str], list[str]] = {}
    for role, model in models.items():
        urls = [model.base_url] if isinstance(model.base_url, str) else list(model.base_url or ())
        by_model.setdefault((model.name, ", ".join(urls) or "its own vLLM server"), []).append(role)
    for (name, where), roles in by_model.items():
        role = roles[0]
        yield f"{name} at {where} plays {', '.join(roles)}"
        yield (
            f"  context {checked.context_lengths[role]:,} tokens: prompts of up to {checked.prompt_limits[role]:,},"
            f" completions of up to {models[role].sampling.max_tokens:,}"
        )
        if names := checked.served[role]:
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            shown = ", ".join(name[:MAX_NAME_CHARACTERS] for name in names[:MAX_NAMES])
            yield f"  the server lists {shown}{more}"


def _thinking(checked: CheckResult) -> Iterator[str]:
    counts = checked.replies.values()
    tags, server = sum(c.thinking_tags for c in counts), sum(c.thinking_field for c in counts)
    total = sum(c.replies for c in counts)
    forms = [f"{tags} between <think> tags"] * bool(tags) + [f"{server} in the server's own field"] * bool(server)
    yield f"  thinking in {tags + server} of {total} replies" + (f": {' and '.join(forms)}" if forms else "")


def _roles(checked: CheckResult, settings: RunSettings) -> Table:
    title = f"One small iteration in {checked.seconds:.0f} s"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SQUARE, padding=0)
    table.add_column("role")
    for name in ("replies", "readable", "at limit", "tokens each", "tokens/s"):
        table.add_column(name, justify="right")
    for role in settings.method.roles:
        counts, usage = checked.replies.get(role, ReplyCounts(role=role)), checked.usage.get(role, Usage())
        table.add_row(
            role,
            str(counts.replies),
            f"{counts.readable / counts.replies:.0%}" if counts.replies else "-",
            str(counts.truncated),
            f"{usage.completion_tokens / counts.replies:,.0f}" if counts.replies else "-",
            f"{usage.completion_tokens / usage.seconds:,.1f}" if usage.seconds else "-",
        )
    return table


def _planned_run(checked: CheckResult, settings: RunSettings, problems: int | None) -> Iterator[str]:
    """Tokens and time of the run that the same settings would start."""
    if not isinstance(settings.method, TMASSettings):
        yield f"There is no estimate for method={settings.method.name}; there is one for TMAS."
        return
    if CHAIN - checked.replies.keys():
        yield "There is no estimate of the planned run, because not every role gave a reply."
        return
    if checked.notes & UNREPORTED:
        yield "There is no estimate of the planned run, because the server reported no plausible token counts for some"
        " replies."
        return
    count = problems or 1
    estimate = _estimate(checked, settings.method, count)
    usage = estimate.usage
    yield (
        f"The planned run ({f'{count:,} problems' if problems else 'one problem'}): {usage.calls:,} calls, about"
        f" {_two_digits(usage.prompt_tokens)} tokens in prompts and {_two_digits(usage.completion_tokens)} in replies,"
        " if its replies are as long as here. Hard problems need longer replies."
    )
    yield f"  {cost_line(estimate, settings)}"
    rate = checked.tokens_per_second
    steps = settings.method.max_iterations * checked.seconds
    yield (
        f"  time: {clock(steps)} if the server runs all calls of an iteration at once, each as fast as here;"
        f" {clock(usage.completion_tokens / max(rate, 1e-9))} at {rate:,.0f} tokens/s, the speed of this check"
    )


def _estimate(checked: CheckResult, method: TMASSettings, problems: int) -> CostEstimate:
    """The estimate of ``tmas distill``, with the lengths of this check."""

    def length(role: str) -> Length:
        counts, usage = checked.replies.get(role), checked.usage.get(role, Usage())
        reply = usage.completion_tokens / counts.replies if counts and counts.replies else 0
        return Length(reply=round(reply), text=round(min(reply, checked.text_tokens.get(role, 0))))

    expected = Expected.model_validate({role: length(role) for role in method.roles})
    question = checked.result.problem.question
    planned = [Problem(problem_id=str(i), question=question) for i in range(problems)]
    return expected_estimate(planned, method, expected, lambda text: len(text) // 4, checked.prompt_limits)


def _two_digits(number: int) -> str:
    """``number`` with two significant digits."""
    return f"{round(number, 2 - len(str(number))):,}"


def _advice(checked: CheckResult, settings: RunSettings, time_limit: float) -> Iterator[str]:
    found = [f"{role}: {text}" for role, counts in checked.replies.items() for text in advice(counts, settings)]
    if checked.result.trajectory.stop == "budget":
        found.append(
            f"The check was ended after {time_limit:g} s, at {checked.tokens_per_second:,.1f} tokens/s. Raise"
            f" check.seconds, or lower model.sampling.max_tokens (now {settings.model.sampling.max_tokens:,})."
        )
    found += [*missing_answer_advice(*checked.unanswered, settings), *_about_size(checked, settings)]
    found += [text for note, text in NOTES.items() if note in checked.notes]
    if found:
        yield "Advice:"
        yield from (f"  {text}" for text in found)


def _about_size(checked: CheckResult, settings: RunSettings) -> Iterator[str]:
    """Advice if replies may be unreadable only because the check had fewer candidates than the planned run has."""
    planned = getattr(settings.method, "n_candidates", 0)
    asked = sum(len(iteration.rollouts) for iteration in checked.result.trajectory.iterations[:1])
    if any(counts.unreadable for counts in checked.replies.values()) and 0 < asked < planned:
        yield (
            f"The check had {asked} candidates, the run has {planned}. For a model that was trained for TMAS, give"
            f" check.candidates={planned}."
        )


def _excerpts(checked: CheckResult) -> Iterator[str]:
    """The beginning of the last reply of each role that could not be read, and why."""
    replies = {str(call.key): call.reply for call in checked.calls if call.reply}
    shown: dict[str, tuple[Failure, str]] = {}
    for failure in checked.result.failures:
        if failure.key and failure.reason in UNREADABLE and (reply := replies.get(str(failure.key))):
            shown[failure.key.role] = failure, reply.completions[failure.completion].text
    for role, (failure, text) in shown.items():
        line = " ".join(text.split())
        yield f"{role}, {failure.message}: {line[:MAX_EXCERPT]}{'…' if len(line) > MAX_EXCERPT else ''}"
