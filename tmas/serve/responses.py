"""Responses to clients: a chat completion or its chunks, with details of the run in the field ``tmas``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tmas.records import Failure, Result, Usage
from tmas.serve.errors import ApiError
from tmas.serve.service import Job

Json = dict[str, Any]


class Responses:
    """Builds the responses to one request. Methods that take a result raise :class:`ApiError` if it has no solution."""

    def __init__(self, job: Job) -> None:
        self._job, self._created = job, int(time.time())

    def completion(self, result: Result, progress: Sequence[str] = ()) -> Json:
        """``progress``: progress lines, which become the reasoning of the message."""
        message: Json = {"role": "assistant", "content": self._content(result), "refusal": None}
        if progress:
            message["reasoning_content"] = "".join(f"{line}\n" for line in progress)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(result)}
        members = {"choices": [choice], "usage": usage(result), "tmas": self._details(result)}
        return self._envelope("chat.completion") | members

    def chunk(self, delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._envelope("chat.completion.chunk") | {"choices": [choice]}

    def chunks(self, result: Result, include_usage: bool) -> Iterator[Json]:
        """The chunks of the solution, line by line, the last chunk, and the usage if ``include_usage`` is true."""
        for line in self._content(result).splitlines(keepends=True):
            yield self.chunk({"content": line})
        yield self.chunk({}, _finish_reason(result)) | {"tmas": self._details(result)}
        if include_usage:
            yield self._envelope("chat.completion.chunk") | {"choices": [], "usage": usage(result)}

    def _content(self, result: Result) -> str:
        if result.solution is None:
            rollouts = [rollout for iteration in result.trajectory.iterations for rollout in iteration.rollouts]
            failed = [rollout.solution for rollout in rollouts if isinstance(rollout.solution, Failure)]
            reasons = ", ".join(f"{count} {reason}" for reason, count in _by_reason(failed).items())
            message = f"no candidate has a solution: {len(failed)} of {len(rollouts)} failed"
            if failed:
                message += f": {reasons} (the last: {failed[-1].message})"
            details = {"usage": usage(result), "tmas": self._details(result)}
            raise ApiError(422, "no_answer", message, details=details)
        return result.solution

    def _envelope(self, kind: str) -> Json:
        return {"id": self._job.request_id, "object": kind, "created": self._created, "model": self._job.model}

    def _details(self, result: Result) -> Json:
        chosen = result.trajectory.selected
        return {
            "request_id": self._job.request_id,
            "method": result.method,
            "answer": result.answer,
            "mean_grade": chosen.mean_grade if chosen else None,
            "iterations": len(result.trajectory.iterations),
            "stop": result.trajectory.stop,
            "failures": _by_reason(result.failures),
            "seed": self._job.settings.seed,
            "ignored": list(self._job.ignored),
        }


def usage(result: Result) -> Json:
    """The tokens of all calls. A reply for which no plausible token counts were reported counts as 0 tokens."""
    total = sum((entry.usage for entry in result.usage), Usage())
    return {
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "total_tokens": total.total_tokens,
        "prompt_tokens_details": {"cached_tokens": total.cached_prompt_tokens},
    }


def _finish_reason(result: Result) -> str:
    return "length" if result.trajectory.stop == "budget" else "stop"


def _by_reason(failures: Iterable[Failure]) -> dict[str, int]:
    return dict(Counter(failure.reason.value for failure in failures))
