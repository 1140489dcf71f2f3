"""The five agents of TMAS. Each is one prompt, one call and one parse.

An agent never raises on what a model or a server did: it returns its record, or a :class:`~tmas.records.Failure`.
Agents reach the outside only through :class:`Session`, so that the same code runs live, from a recorded trace, and
in distillation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tmas.boxed import extract_boxed, extract_stated
from tmas.contexts import all_items, attempts_of, fewer_items
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.packing import DoesNotFit, Prompt, Shorten, Window, cut_middle, pack, replace_by
from tmas.parsing import Parsed, Unparsable, parse_json, parse_verification
from tmas.prompts import render
from tmas.records import (
    BankChange,
    CallKey,
    Completion,
    Failure,
    FailureReason,
    Mode,
    Problem,
    Reply,
    Rollout,
    Solution,
    Verification,
)
from tmas.wire import ExperienceOutput, GuidelineOutput, VerificationOutput, bank_schema, output_schema

T = TypeVar("T")
Output = TypeVar("Output", bound=BaseModel)
BankOutput = TypeVar("BankOutput", ExperienceOutput, GuidelineOutput)
Bank = TypeVar("Bank", ExperienceBank, GuidelineBank)


class Session(Protocol):
    """What an agent may do: know its model's window, and make calls under keys."""

    @property
    def stopped(self) -> bool:
        """True once a token budget is used up: every further call is a ``budget`` failure."""
        ...

    def draw(self, name: str) -> float:
        """A number in [0, 1) that is a function of (seed, problem, name) alone."""
        ...

    def window(self, role: str) -> Window: ...

    async def decide(self, name: str, compute: Callable[[], Awaitable[Output]], output: type[Output]) -> Output:
        """The outcome of something that may depend on time or order: computed once, written down, then replayed."""
        ...

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure: ...


class AgentSettings(BaseModel):
    """What all agents of one run share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["answer", "proof"] = Field(
        default="answer", description="answer: the final answer goes in \\boxed{}; proof: there is none"
    )
    answer_format: Literal["boxed", "stated"] = Field(
        default="boxed", description="stated: without a box, the number in the last 'answer is 12' counts"
    )
    parse_attempts: int = Field(default=3, ge=1, description="calls made in all for a reply that can be read")
    structured_outputs: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="send the JSON schema with the call. auto: not to a model seen to think between tags, which a "
        "schema would keep from thinking",
    )
    structured_verification: bool = Field(
        default=False, description="verifications as JSON too; free text is kinder to LaTeX"
    )
    summary_words: int = Field(default=250, ge=10)
    max_new_items: int = Field(default=8, ge=1, description="new bank items per iteration that the prompts ask for")


@dataclass(frozen=True)
class Evolved(Generic[Bank]):
    """A bank after its agent ran, and what that changed; or the failure that left it as it was."""

    bank: Bank
    change: BankChange | None = None
    failure: Failure | None = None


class Agents:
    """The team for one problem."""

    def __init__(self, problem: Problem, session: Session, settings: AgentSettings) -> None:
        self.problem, self.session, self.settings = problem, session, settings

    def solution_prompt(
        self,
        rollouts: Sequence[Rollout] = (),
        experience: ExperienceBank | None = None,
        guidelines: GuidelineBank | None = None,
    ) -> Prompt | Failure:
        """A_sol(Q), A_sol(Q, R, E) or A_sol(Q, G): the same for every candidate that draws the mode."""
        attempts = attempts_of(rollouts)
        banks = {"experience": experience, "guidelines": guidelines}
        pieces = {**attempts.full, **{name: all_items(bank) for name, bank in banks.items()}}
        fewer = [(name, fewer_items(bank)) for name, bank in banks.items() if bank]
        steps = [*attempts.shorten, *attempts.drop[:-1], *fewer, *attempts.drop[-1:]]

        def prompt(texts: Mapping[str, str]) -> str:
            return render(
                "solution",
                question=self.problem.question,
                attempts=attempts.texts(texts),
                experience=texts["experience"],
                guidelines=texts["guidelines"],
                task=self.settings.task,
            )

        return self._pack("solution", prompt, pieces, steps)

    async def solution(self, iteration: int, index: int, mode: Mode, prompt: Prompt | Failure) -> Solution | Failure:
        """One candidate."""

        def parse(completion: Completion) -> Solution:
            return Solution(
                iteration=iteration,
                index=index,
                mode=mode,
                text=completion.text,
                answer=self._answer(completion.text),
                thinking=completion.thinking,
            )

        key = self._key(iteration, "solution", index)
        return (await self._ask(key, prompt, parse, attempts=1))[0]

    async def verifications(self, solution: Solution, count: int) -> tuple[Verification | Failure, ...]:
        """M independent verifications of one candidate, asked for in one call so that the prompt is computed once."""
        structured = self.settings.structured_verification

        def prompt(texts: Mapping[str, str]) -> str:
            return render(
                "verification", question=self.problem.question, task=self.settings.task, structured=structured, **texts
            )

        packed = self._pack(
            "verification", prompt, {"solution": solution.text}, [("solution", cut_middle(solution.text))]
        )
        key = self._key(solution.iteration, "verification", solution.index)
        schema = output_schema(VerificationOutput) if structured and self._takes_schema(solution.thinking) else None
        found = await self._ask(key, packed, lambda c: parse_verification(c.text), n=count, schema=schema)
        return tuple(
            v if isinstance(v, Failure) else Verification(index=i, grade=v.grade, critique=v.critique)
            for i, v in enumerate(found)
        )

    async def summary(self, solution: Solution, verifications: Sequence[Verification | Failure]) -> str | Failure:
        """Folds the verifications of one candidate into a short account of what holds and what does not."""
        checks = [v for v in verifications if isinstance(v, Verification)]
        grades = {f"verification {v.index}": f"Grade: {v.grade:g}" for v in checks}
        pieces = {f"verification {v.index}": f"{v.critique}\nGrade: {v.grade:g}" for v in checks}

        def prompt(texts: Mapping[str, str]) -> str:
            return render(
                "summary",
                question=self.problem.question,
                solution=texts["solution"],
                verifications=[texts[name] for name in pieces],
                words=self.settings.summary_words,
            )

        key = self._key(solution.iteration, "summary", solution.index)
        if not checks:
            return Failure(reason=FailureReason.UNPARSABLE, message="no verification to summarise", key=key)
        steps = [(name, replace_by(grades[name])) for name in reversed(pieces)]
        steps.append(("solution", cut_middle(solution.text)))
        packed = self._pack("summary", prompt, {**pieces, "solution": solution.text}, steps)
        return (await self._ask(key, packed, lambda completion: completion.text))[0]

    async def experience(
        self, iteration: int, rollouts: Sequence[Rollout], bank: ExperienceBank
    ) -> Evolved[ExperienceBank]:
        """Evolves the experience bank with what the rollouts show; a failure leaves it as it was."""
        found = await self._memory("experience", iteration, rollouts, bank, ExperienceOutput)
        if isinstance(found, Failure):
            return Evolved(bank, failure=found)
        return Evolved(*_evolved(found, bank.evolve(found.record, iteration, len(rollouts))))

    async def guideline(
        self, iteration: int, rollouts: Sequence[Rollout], bank: GuidelineBank
    ) -> Evolved[GuidelineBank]:
        """Evolves the guideline bank with the strategies that the rollouts followed; as :meth:`experience`."""
        found = await self._memory("guideline", iteration, rollouts, bank, GuidelineOutput)
        if isinstance(found, Failure):
            return Evolved(bank, failure=found)
        return Evolved(*_evolved(found, bank.evolve(found.record, iteration, len(rollouts))))

    async def _memory(
        self,
        role: str,
        iteration: int,
        rollouts: Sequence[Rollout],
        bank: ExperienceBank | GuidelineBank,
        output: type[BankOutput],
    ) -> Parsed[BankOutput] | Failure:
        attempts = attempts_of(rollouts)
        key = self._key(iteration, role, 0)
        if not attempts.full:
            return Failure(reason=FailureReason.UNPARSABLE, message="no rollout to learn from", key=key)

        def prompt(texts: Mapping[str, str]) -> str:
            return render(
                role,
                question=self.problem.question,
                attempts=attempts.texts(texts),
                bank=texts["bank"],
                max_new=self.settings.max_new_items,
            )

        steps = [*attempts.shorten, *attempts.drop, ("bank", fewer_items(bank))]
        packed = self._pack(role, prompt, {**attempts.full, "bank": all_items(bank)}, steps)
        solutions = [r.solution for r in rollouts if isinstance(r.solution, Solution)]
        ids = [item.item_id for item in bank.items]
        schema = bank_schema(output, [s.index for s in solutions], ids, self.settings.max_new_items)
        schema = (
            schema if self._takes_schema("tags" if any(s.thinking == "tags" for s in solutions) else "none") else None
        )
        return (await self._ask(key, packed, lambda c: parse_json(c.text, output), schema=schema))[0]

    def _answer(self, text: str) -> str | None:
        if self.settings.task == "proof":
            return None
        return extract_boxed(text) if self.settings.answer_format == "boxed" else extract_stated(text)

    def _takes_schema(self, thinking: str) -> bool:
        return {"on": True, "off": False, "auto": thinking != "tags"}[self.settings.structured_outputs]

    def _key(self, iteration: int, role: str, index: int) -> CallKey:
        return CallKey(problem_id=self.problem.problem_id, iteration=iteration, role=role, index=index)

    def _pack(
        self,
        role: str,
        prompt: Callable[[Mapping[str, str]], str],
        pieces: Mapping[str, str],
        steps: Sequence[tuple[str, Shorten]],
    ) -> Prompt | Failure:
        try:
            return pack(prompt, pieces, steps, self.session.window(role))
        except DoesNotFit as error:
            return Failure(reason=FailureReason.CONTEXT, message=f"{role}: {error}")

    async def _ask(
        self,
        key: CallKey,
        prompt: Prompt | Failure,
        parse: Callable[[Completion], T],
        n: int = 1,
        schema: dict[str, Any] | None = None,
        attempts: int | None = None,
    ) -> list[T | Failure]:
        """``n`` parsed replies by index. Those that cannot be read are asked for again, ``attempts`` calls in all."""
        if isinstance(prompt, Failure):
            return [prompt.model_copy(update={"key": key})] * n
        found: list[T | Failure] = []
        missing = list(range(n))
        for attempt in range(attempts or self.settings.parse_attempts):
            key = key.model_copy(update={"attempt": attempt})
            reply = await self.session.ask(key, prompt, len(missing), schema)
            new = _outcomes(reply, len(missing), parse, key)
            found = new if attempt == 0 else _filled(found, missing, new)
            missing = [i for i, value in enumerate(found) if isinstance(value, Failure)]
            if not missing or isinstance(reply, Failure):
                break
        return found


def _evolved(found: Parsed[Any], evolved: tuple[Bank, BankChange]) -> tuple[Bank, BankChange]:
    bank, change = evolved
    return bank, change.model_copy(update={"unreadable": found.dropped, "repaired": found.repaired})


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
