"""LLM judges for evaluation and rewards. A judge gives several independent verdicts on one question.

A judge reads text that models wrote. :func:`fence` returns a mark that delimits such text in a prompt. A verdict can be
required to repeat a code that only the judge was shown, so that a verdict copied from such text does not count. Every
failure is a record.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tmas.files import text_digest
from tmas.llm.client import OpenAIChat
from tmas.llm.descriptors import TooManyFiles, allow_open_files
from tmas.llm.endpoint import EndpointDown, EndpointSettings, RetrySettings
from tmas.prompts import BUILT_IN, Prompts
from tmas.prompts.parsing import Unparsable, parse_json
from tmas.prompts.schemas import output_schema, storable
from tmas.records import Completion, Failure, FailureReason, Message, Reply, Request, Sampling, Usage

V = TypeVar("V", bound=BaseModel)

MAX_CONSECUTIVE_FAILURES = 5
"""Number of consecutive failed calls that opens the :class:`CircuitBreaker`."""
CODE = "code"
"""Field of a verdict that repeats the code of its prompt."""
COOLDOWN = 30.0
"""Seconds for which an open circuit breaker lets no call through."""


class JudgeSettings(BaseModel):
    """A model that judges, behind an OpenAI-compatible server."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(description="The model's name, as the judge's server lists it.")
    base_url: str = Field(
        description="OpenAI-compatible server of the judge, such as http://HOST:8000/v1. null, in tmas train only: the"
        " judge that verl hosts.",
    )
    api_key_env: str | None = Field(
        default=None,
        description="NAME of the environment variable that holds the key; never the key itself. null: no key.",
    )
    sampling: Sampling = Field(default=Sampling(max_tokens=8192), description="Decoding settings of the judge.")
    passes: int = Field(
        default=1, ge=1, description="Independent verdicts on each question; scores are means over them."
    )
    timeout: float = Field(
        default=300.0,
        gt=0,
        description="Seconds for all verdicts on a question, retries included. Waiting for a free slot of concurrency"
        " does not count.",
    )
    concurrency: int = Field(
        default=64,
        ge=1,
        description="Questions in flight at once; in tmas train, for each of verl's reward.num_workers.",
    )
    parse_attempts: int = Field(
        default=2,
        ge=1,
        description="Maximum number of calls per question. There is no further call once all verdicts can be parsed.",
    )
    structured_outputs: bool = Field(
        default=True,
        description="Send the JSON schema of a verdict. false: for a model that thinks between tags on a server that"
        " does not separate the thinking, since the schema would keep it from thinking.",
    )
    stream: bool = Field(
        default=True,
        description="Receive replies piece by piece. false: for a server that can only send whole replies.",
    )
    patience: RetrySettings = Field(
        default=RetrySettings(max_attempts=3, backoff_max=10.0), description="Time limits and retries of single calls."
    )

    @property
    def identity(self) -> str:
        """Hash of the settings that verdicts depend on. The address and the retry settings are not part of it."""
        chosen = self.model_dump_json(include={"name", "sampling", "structured_outputs"})
        return text_digest(chosen, 16)


def fence(*texts: str) -> str:
    """Return a mark that occurs in none of ``texts``, so that no text can end its own quotation.

    The mark is deterministic. A prompt puts it around each text and says that the text between the marks is data.
    """
    digest = hashlib.sha256()
    while True:
        digest.update("\0".join(texts).encode(errors="replace"))
        mark = f"DATA-{digest.hexdigest()[:16]}"
        if not any(mark in text for text in texts):
            return mark


def fresh_code(prompt: str) -> str:
    """Return eight random hexadecimal digits that do not occur in ``prompt``.

    They come from the system's random numbers, so that no model can learn or derive them. A derived code would repeat
    for the same solution, and could be computed by whoever knows the derivation.
    """
    while (code := secrets.token_hex(4)) in prompt:
        pass
    return code


class EquivalenceVerdict(BaseModel):
    """Whether two final answers are equivalent. The reasoning comes first, so that the verdict follows from it."""

    reasoning: Annotated[str, AfterValidator(storable)] = ""
    verdict: Annotated[Literal["equivalent", "different"], BeforeValidator(lambda value: str(value).strip().lower())]


def equivalence_prompt(
    prompts: Prompts, gold: str, answer: str, question: str = "", approximation_digits: int | None = None
) -> str:
    """Render the question that an :class:`EquivalenceVerdict` answers.

    It shows the two answers and the problem ``question``, if it is known: multiple choice, units and the order of a
    tuple need it. It never shows a solution. ``approximation_digits``: the policy about decimals, as for
    :class:`tmas.answers.checker.AnswerChecker`.
    """
    mark = fence(gold, answer)
    if mark in question:
        mark = fence(question, gold, answer)
    return prompts.render(
        "judge_equivalence",
        question=question,
        gold=gold,
        answer=answer,
        approximation_digits=approximation_digits,
        fence=mark,
    )


class CircuitBreaker:
    """Stops calls after consecutive failures. Then it admits one call every :data:`COOLDOWN` s, until one succeeds."""

    def __init__(self) -> None:
        self._failed = 0
        self._shut_until = 0.0

    def admits(self) -> bool:
        if self._failed < MAX_CONSECUTIVE_FAILURES:
            return True
        if time.monotonic() < self._shut_until:
            return False
        self._shut_until = time.monotonic() + COOLDOWN
        return True

    def record(self, served: bool) -> None:
        self._failed = 0 if served else self._failed + 1
        if not served:
            self._shut_until = time.monotonic() + COOLDOWN


class Judge:
    """Client of a judge; an async context manager for one event loop. It raises only for wrong settings.

    ``prompts``: the prompts of its questions. ``counts``: number of verdicts (``verdicts``), of failed verdicts by
    reason, and of verdicts that an open circuit breaker prevented (``not_asked``; they also count as failed).
    ``usage``: tokens and calls of the answers. ``approximation_digits``: the policy about decimals
    (:func:`equivalence_prompt`).
    """

    def __init__(
        self, settings: JudgeSettings, prompts: Prompts = BUILT_IN, approximation_digits: int | None = None
    ) -> None:
        self.settings, self.prompts = settings, prompts
        self.approximation_digits = approximation_digits
        self.counts: Counter[str] = Counter()
        self.usage = Usage()
        patience = settings.patience.model_dump()
        endpoint = EndpointSettings(
            base_url=settings.base_url, api_key_env=settings.api_key_env, stream=settings.stream, **patience
        )
        self._chat = OpenAIChat(endpoint)
        allow_open_files(settings.concurrency)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._breaker = CircuitBreaker()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._chat.close()

    async def ask(
        self, prompt: str, output: type[V], passes: int | None = None, *, coded: bool = False
    ) -> list[V | Failure]:
        """Return ``passes`` (default: that of the settings) independent verdicts of type ``output``, failures last.

        If the server can, all verdicts are choices of one request, so that the server processes the prompt once. The
        reason of a failure is ``timeout``, ``endpoint``, ``unparsable``, or ``judge`` for a truncated reply or a prompt
        too long.

        ``coded``: each request ends with a new :func:`fresh_code`, which the verdict must repeat in the field ``code``.
        A reply whose verdicts have another code or none is a failure with the reason ``code``.
        """
        wanted = passes or self.settings.passes
        verdicts: list[V] = []
        async with self._slots:
            failure = await self._ask_within_timeout(prompt, output, wanted, verdicts, coded)
        failures = [] if failure is None else [failure] * (wanted - len(verdicts))
        self.counts.update(["verdicts"] * len(verdicts) + [missing.reason.value for missing in failures])
        return [*verdicts, *failures]

    async def _ask_within_timeout(
        self, prompt: str, output: type[V], wanted: int, verdicts: list[V], coded: bool
    ) -> Failure | None:
        """Fill ``verdicts`` within the time limit. Returns the reason why some are missing, if any are."""
        if not self._breaker.admits():
            self.counts["not_asked"] += wanted
            return _failure(FailureReason.ENDPOINT, "not asked: the judge's endpoint failed repeatedly")
        try:
            async with asyncio.timeout(self.settings.timeout):
                failure = await self._collect(prompt, output, wanted, verdicts, coded)
        except TimeoutError:
            failure = _failure(FailureReason.TIMEOUT, f"no verdict within {self.settings.timeout:g} s")
        except (EndpointDown, TooManyFiles) as error:
            failure = _failure(FailureReason.ENDPOINT, str(error))
        unserved = failure is not None and failure.reason in (FailureReason.TIMEOUT, FailureReason.ENDPOINT)
        self._breaker.record(served=bool(verdicts) or not unserved)
        return failure

    async def _collect(
        self, prompt: str, output: type[V], wanted: int, verdicts: list[V], coded: bool
    ) -> Failure | None:
        failure = None
        for _ in range(self.settings.parse_attempts):
            required = {CODE: fresh_code(prompt)} if coded else {}
            reply = await self._chat.complete(self._request(prompt, output, wanted - len(verdicts), required))
            if isinstance(reply, Failure):
                context = reply.reason is FailureReason.CONTEXT
                return _failure(FailureReason.JUDGE, reply.message) if context else reply
            self.usage += reply.usage
            failure = _read(reply, output, verdicts, required)
            if failure is None:
                break
        return failure

    def _request(self, prompt: str, output: type[BaseModel], n: int, required: Mapping[str, str]) -> Request:
        """Build a request without a seed: a later pass must not repeat an earlier one.

        The schema does not contain the values of ``required``. A server that enforces the schema would otherwise write
        them itself, also into a verdict that the judge has merely copied from the text that it judges.
        """
        schema = output_schema(output)
        if required:
            prompt = f"{prompt}\n\n{self.prompts.render('judge_code', **required)}"
            schema = _with_text_fields(schema, [*required])
        return Request(
            model=self.settings.name,
            messages=(Message(role="user", content=prompt.encode(errors="replace").decode()),),
            sampling=self.settings.sampling,
            n=n,
            output_schema=schema if self.settings.structured_outputs else None,
        )


def _with_text_fields(schema: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """``schema`` with further text fields before its own."""
    texts = {name: {"type": "string"} for name in names}
    return {**schema, "properties": {**texts, **schema["properties"]}, "required": [*names, *schema["required"]]}


def _read(reply: Reply, output: type[V], verdicts: list[V], required: Mapping[str, str]) -> Failure | None:
    """Add the verdicts in ``reply`` that can be parsed. Returns the failure of the last one that cannot."""
    failure = None
    for completion in reply.completions:
        verdict = _verdict(completion, output, required)
        if isinstance(verdict, Failure):
            failure = verdict
        else:
            verdicts.append(verdict)
    return failure


def _verdict(completion: Completion, output: type[V], required: Mapping[str, str]) -> V | Failure:
    if completion.finish_reason == "length":
        return _failure(FailureReason.JUDGE, "the judge's reply reached max_tokens")
    try:
        return parse_json(completion.text, output, required).record
    except Unparsable as error:
        failure = _failure(FailureReason.UNPARSABLE, str(error))
    with suppress(Unparsable):
        parse_json(completion.text, output)
        failure = _failure(FailureReason.CODE, "the verdict does not repeat the code of its prompt")
    return failure


def _failure(reason: FailureReason, message: str) -> Failure:
    return Failure(reason=reason, message=message)
