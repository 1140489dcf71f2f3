"""What every agent is made of: a call under a key, a prompt that fits, and replies that are read or else a failure.

Agents never raise on what a model or a server did: what did not come about is a :class:`~tmas.records.Failure`. They
reach the outside only through :class:`Session`, so that the same code runs live, from a recorded trace, and in
distillation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel

from tmas.agents.packing import DoesNotFit, Prompt, Render, Shorten, Window, pack
from tmas.prompts import Prompts
from tmas.prompts.parsing import Unparsable
from tmas.records import CallKey, Completion, Failure, FailureReason, Problem, Reply

T = TypeVar("T")
Output = TypeVar("Output", bound=BaseModel)


class Session(Protocol):
    """What a method may do: draw by name, know its models' windows, render its prompts, and make calls under keys."""

    @property
    def stopped(self) -> Literal["budget", "worker"] | None:
        """Why every further call is a failure of this kind; None while calls are made."""
        ...

    def draw(self, name: str) -> float:
        """A number in [0, 1) that is a function of (seed, problem, name) alone."""
        ...

    def window(self, role: str) -> Window: ...

    @property
    def prompts(self) -> Prompts:
        """The prompts of the run; every agent renders its own from them."""
        ...

    async def decide(self, name: str, compute: Callable[[], Awaitable[Output]], output: type[Output]) -> Output:
        """The outcome of something that may depend on time or order: computed once, written down, then replayed."""
        ...

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure: ...


def shuffled(session: Session, name: str, items: Sequence[T]) -> list[T]:
    """``items`` in an order that is a function of (seed, problem, name) and of how many there are."""
    order = sorted(range(len(items)), key=lambda i: session.draw(f"{name}/{i}"))
    return [items[i] for i in order]


class Caller:
    """Makes the calls of one problem."""

    def __init__(self, problem: Problem, session: Session) -> None:
        self.problem, self.session = problem, session

    def key(self, iteration: int, role: str, index: int) -> CallKey:
        return CallKey(problem_id=self.problem.problem_id, iteration=iteration, role=role, index=index)

    def pack(
        self,
        role: str,
        render: Render,
        pieces: Mapping[str, str] | None = None,
        steps: Sequence[tuple[str, Shorten]] = (),
        system: Render | None = None,
    ) -> Prompt | Failure:
        """:func:`tmas.agents.packing.pack` into the window of ``role``; a ``context`` failure where it does not fit."""
        try:
            return pack(render, pieces or {}, steps, self.session.window(role), system)
        except DoesNotFit as error:
            return Failure(reason=FailureReason.CONTEXT, message=f"{role}: {error}")

    async def ask(
        self,
        key: CallKey,
        prompt: Prompt | Failure,
        parse: Callable[[Completion], T],
        n: int = 1,
        schema: dict[str, Any] | None = None,
        attempts: int = 1,
    ) -> list[T | Failure]:
        """``n`` parsed replies by index. Those that cannot be read are asked for again, ``attempts`` calls in all."""
        if isinstance(prompt, Failure):
            return [prompt.model_copy(update={"key": key})] * n
        found: list[T | Failure] = []
        missing = list(range(n))
        for attempt in range(attempts):
            key = key.model_copy(update={"attempt": attempt})
            reply = await self.session.ask(key, prompt, len(missing), schema)
            new = _outcomes(reply, len(missing), parse, key)
            found = new if attempt == 0 else _filled(found, missing, new)
            missing = [i for i, value in enumerate(found) if isinstance(value, Failure)]
            if not missing or isinstance(reply, Failure):
                break
        return found


def _outcomes(reply: Reply | Failure, n: int, parse: Callable[[Completion], T], key: CallKey) -> list[T | Failure]:
    if isinstance(reply, Failure):
        return [reply] * n
    return [_read(completion, parse, key) for completion in reply.completions]


def _filled(found: list[T | Failure], missing: list[int], new: Sequence[T | Failure]) -> list[T | Failure]:
    latest = dict(zip(missing, new, strict=True))
    return [latest.get(i, value) for i, value in enumerate(found)]


def _read(completion: Completion, parse: Callable[[Completion], T], key: CallKey) -> T | Failure:
    if completion.finish_reason == "length":
        return Failure(reason=FailureReason.TRUNCATED, message="the reply ran into max_tokens", key=key)
    if not completion.text.strip():
        return Failure(reason=FailureReason.UNPARSABLE, message="nothing was written after the thinking", key=key)
    try:
        return parse(completion)
    except Unparsable as error:
        return Failure(reason=FailureReason.UNPARSABLE, message=str(error), key=key)
