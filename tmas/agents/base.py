"""The session that a method works in, and the class that makes the calls of agents.

An agent packs a prompt into the model's window, makes a call under a key, and parses the reply. It never raises
because of what a model or a server did: it returns a :class:`~tmas.records.Failure`. It reaches the outside only
through :class:`Session`, so the same code runs live, from a recorded trace, and in distillation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel

from tmas.agents.packing import DoesNotFit, Prompt, Render, Step, Window, pack
from tmas.prompts import Prompts
from tmas.prompts.parsing import Unparsable
from tmas.records import CallKey, Completion, Failure, FailureReason, Problem, Reply

T = TypeVar("T")
Output = TypeVar("Output", bound=BaseModel)


class Session(Protocol):
    """All that a method can reach: named random draws, model windows, prompts, and calls under keys."""

    @property
    def stopped(self) -> Literal["budget", "worker"] | None:
        """The reason why every further call fails; None while calls are made."""
        ...

    def draw(self, name: str) -> float:
        """A number in [0, 1) that is a function of (seed, problem, name) alone."""
        ...

    def window(self, role: str) -> Window:
        """The context window of the model that plays ``role``."""
        ...

    @property
    def prompts(self) -> Prompts:
        """The prompts of the run; every agent renders its own from them."""
        ...

    def shown_items(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        """The ids of the bank items that the prompt of a call shows.

        A replay looks for them in the recorded prompt, because it does not shorten ``prompt``.
        """
        ...

    async def decide(self, name: str, compute: Callable[[], Awaitable[Output]], output: type[Output]) -> Output:
        """The result of ``compute``, which may depend on time or order: computed once, recorded, then replayed."""
        ...

    async def share_allows(self, iteration: int, stalled: int) -> bool:
        """Whether the problem's share of the run's token budget allows ``iteration``. If not, the session is stopped.

        ``stalled``: number of consecutive iterations without progress, up to the latest one. The result may depend on
        other problems; it is recorded.
        """
        ...

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure:
        """One call for ``n`` completions of ``prompt``; a recorded call is answered from the trace."""
        ...


def shuffled(session: Session, name: str, items: Sequence[T]) -> list[T]:
    """``items`` in random order. The order is a function of (seed, problem, name) and of the number of items."""
    order = sorted(range(len(items)), key=lambda i: session.draw(f"{name}/{i}"))
    return [items[i] for i in order]


class Caller:
    """Packs prompts, makes the calls of one problem, and parses the replies."""

    def __init__(self, problem: Problem, session: Session) -> None:
        self.problem, self.session = problem, session

    def key(self, iteration: int, role: str, index: int, offset: int = 0) -> CallKey:
        """The key of the first attempt at a call of this problem. ``offset``: see :class:`~tmas.records.CallKey`."""
        return CallKey(problem_id=self.problem.problem_id, iteration=iteration, role=role, index=index, offset=offset)

    def pack(
        self,
        role: str,
        render: Render,
        pieces: Mapping[str, str] | None = None,
        steps: Sequence[Step | list[Step]] = (),
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
        max_calls: int = 1,
        as_json: Callable[[], Prompt | Failure] | None = None,
        parse_cut: Callable[[Completion, CallKey], T] | None = None,
    ) -> list[T | Failure]:
        """``n`` parsed completions by index. One call asks for all of them.

        A completion that cannot be parsed is requested again, in at most ``max_calls`` calls in total. A failed call is
        not repeated here, because the session has retried it already.

        Without ``as_json``, every call sends ``schema``. With it, the first call asks for free text and has no schema.
        Later calls send the prompt that ``as_json`` makes, together with the schema. If that prompt does not fit, they
        repeat the first call without a schema.

        ``parse_cut`` parses a completion that reached ``max_tokens``; without it such a completion counts as one that
        cannot be parsed.
        """
        if isinstance(prompt, Failure):
            return [prompt.model_copy(update={"key": key})] * n
        found: dict[int, T | Failure] = {}
        missing = list(range(n))
        sent = None if as_json else schema
        for attempt in range(max_calls):
            key = key.model_copy(update={"attempt": attempt})
            if attempt == 1 and as_json and isinstance(packed := as_json(), Prompt):
                prompt, sent = packed, schema
            reply = await self.session.ask(key, prompt, len(missing), sent)
            if isinstance(reply, Failure):
                found.update(dict.fromkeys(missing, reply))
                break
            for number, (i, completion) in enumerate(zip(missing, reply.completions, strict=True)):
                parsed = _parsed(completion, key, parse, parse_cut)
                is_failure = isinstance(parsed, Failure)
                found[i] = parsed.model_copy(update={"completion": number}) if is_failure else parsed
            missing = [i for i in range(n) if isinstance(found[i], Failure)]
            if not missing:
                break
        return [found[i] for i in range(n)]


def _parsed(
    completion: Completion,
    key: CallKey,
    parse: Callable[[Completion], T],
    parse_cut: Callable[[Completion, CallKey], T] | None,
) -> T | Failure:
    if completion.finish_reason == "length":
        with suppress(Unparsable):
            if parse_cut:
                return parse_cut(completion, key)
        return Failure(reason=FailureReason.TRUNCATED, message="the reply reached max_tokens", key=key)
    if not completion.text.strip():
        return Failure(reason=FailureReason.UNPARSABLE, message="the reply has no text after the thinking", key=key)
    try:
        return parse(completion)
    except Unparsable as error:
        return Failure(reason=FailureReason.UNPARSABLE, message=str(error), key=key)
