"""The metrics of ``tmas serve`` in Prometheus' format, at ``/metrics`` (docs/serve.md lists them)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tmas.llm.chat_model import NO_HINT, ChatModel, RoutingHint
from tmas.llm.connection import ProgressCallback
from tmas.records import Failure, Reply, Request, Result, Usage
from tmas.run.solver import ProblemSolver

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
"""Upper bounds of the histograms' buckets: a request takes from seconds to hours."""


class ServerMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "tmas_requests",
            "Chat completion requests that have ended, by model and by outcome: answered, client_left, or the code of"
            " the error.",
            ["model", "outcome"],
            registry=registry,
        )
        self.running = Gauge("tmas_requests_running", "Requests that are being solved.", registry=registry)
        self.waiting = Gauge("tmas_requests_waiting", "Requests that wait for a slot.", registry=registry)
        self.first_byte = Histogram(
            "tmas_time_to_first_byte_seconds",
            "Seconds from the header of a request to the first byte of its answer. A stream begins at once, and any"
            " other answer when it is complete.",
            ["stream"],
            buckets=SECONDS,
            registry=registry,
        )
        self.first_content = Histogram(
            "tmas_time_to_first_content_seconds",
            "Seconds from the header of a request to the first byte of the solution.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "tmas_tokens",
            "Tokens of calls that have ended, by model, role and kind: prompt, cached_prompt (a part of prompt) or"
            " completion.",
            ["model", "role", "kind"],
            registry=registry,
        )
        self._failures = Counter(
            "tmas_failures",
            "Failures of calls and replies in requests that were solved, by model and reason.",
            ["model", "reason"],
            registry=registry,
        )

    def page(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def counted(self, solver: ProblemSolver, model: str) -> ProblemSolver:
        """``solver`` with chat clients that count the tokens of each call as soon as it has ended.

        So the counters grow while a request runs, and include requests that end without an answer.
        """
        roles = {
            role: replace(played, chat=_CountedChat(played.chat, self, model, role))
            for role, played in solver.state.roles.items()
        }
        return replace(solver, state=replace(solver.state, roles=roles))

    def count_tokens(self, model: str, role: str, usage: Usage) -> None:
        counts = {
            "prompt": usage.prompt_tokens,
            "cached_prompt": usage.cached_prompt_tokens,
            "completion": usage.completion_tokens,
        }
        for kind, tokens in counts.items():
            self._tokens.labels(model, role, kind).inc(tokens)

    def count_failures(self, result: Result, model: str) -> None:
        for failure in result.failures:
            self._failures.labels(model, failure.reason.value).inc()


@dataclass(frozen=True)
class _CountedChat:
    """A :class:`~tmas.llm.chat_model.ChatModel` that counts the tokens of the replies of ``chat``."""

    chat: ChatModel
    metrics: ServerMetrics
    model: str
    role: str

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply | Failure:
        outcome = await self.chat.complete(request, on_progress, hint)
        if isinstance(outcome, Reply):
            self.metrics.count_tokens(self.model, self.role, outcome.usage)
        return outcome
