"""The agents: the solver and the verifier, which any method can have, and the team of five that TMAS has.

Each is one prompt, one call and one parse; it returns its record, or a :class:`~tmas.records.Failure`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tmas.agents.base import Caller, Session
from tmas.agents.context import all_items, attempts_of, fewer_items, graded
from tmas.agents.packing import Prompt, cut_middle, replace_by
from tmas.answers.extract import extract_boxed, extract_stated
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.prompts.parsing import Parsed, parse_json, parse_verification
from tmas.prompts.schemas import ExperienceOutput, GuidelineOutput, VerificationOutput, bank_schema, output_schema
from tmas.records import (
    BankChange,
    Completion,
    Failure,
    Mode,
    Problem,
    Rollout,
    Solution,
    Verification,
)

BankOutput = TypeVar("BankOutput", ExperienceOutput, GuidelineOutput)
Bank = TypeVar("Bank", ExperienceBank, GuidelineBank)


class SolverSettings(BaseModel):
    """How candidates are asked for and read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["answer", "proof"] = Field(
        default="answer", description="answer: the final answer goes in \\boxed{}; proof: there is none"
    )
    answer_format: Literal["boxed", "stated"] = Field(
        default="boxed", description="stated: without a box, the number in the last 'answer is 12' counts"
    )


class ReplySettings(SolverSettings):
    """How often and in which form other replies are asked for."""

    parse_attempts: int = Field(default=3, ge=1, description="calls made in all for a reply that can be read")
    structured_outputs: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="send the JSON schema with the call. auto: not to a model seen to think between tags, which a "
        "schema would keep from thinking",
    )

    def takes_schema(self, thinking: str) -> bool:
        """Whether a schema goes with a call to a model that was seen to think like this."""
        return {"on": True, "off": False, "auto": thinking != "tags"}[self.structured_outputs]


class VerifierSettings(ReplySettings):
    """What a method with a verifier has."""

    structured_verification: bool = Field(
        default=False, description="verifications as JSON too; free text is kinder to LaTeX"
    )


class AgentSettings(VerifierSettings):
    """What the five agents of TMAS share."""

    summary_words: int = Field(default=250, ge=10)
    max_new_items: int = Field(default=8, ge=1, description="new bank items per iteration that the prompts ask for")


SettingsT = TypeVar("SettingsT", bound=SolverSettings)
VerifierT = TypeVar("VerifierT", bound=VerifierSettings)


class Solver(Caller, Generic[SettingsT]):
    """Writes candidates for one problem."""

    def __init__(self, problem: Problem, session: Session, settings: SettingsT) -> None:
        super().__init__(problem, session)
        self.settings = settings

    def render(self, name: str, **values: object) -> str:
        """The prompt ``name`` for this problem and task."""
        return self.session.prompts.render(name, question=self.problem.question, task=self.settings.task, **values)

    def bare_prompt(self) -> Prompt | Failure:
        """The problem alone."""
        return self.pack("solution", lambda _: self.render("solution", attempts=[], experience="", guidelines=""))

    async def solution(
        self,
        iteration: int,
        index: int,
        mode: Mode,
        prompt: Prompt | Failure,
        parents: tuple[tuple[int, int], ...] = (),
    ) -> Rollout:
        """One candidate: a rollout that has nothing but its solution yet. It is never asked for again."""
        key = self.key(iteration, "solution", index)
        [found] = await self.ask(key, prompt, lambda c: self.candidate(iteration, index, mode, c))
        return Rollout(iteration=iteration, index=index, mode=mode, parents=parents, solution=found)

    def candidate(self, iteration: int, index: int, mode: Mode, completion: Completion) -> Solution:
        """What was written, as a record; raises :class:`~tmas.prompts.parsing.Unparsable` where it is no candidate."""
        return Solution(
            iteration=iteration,
            index=index,
            mode=mode,
            text=completion.text,
            answer=self._answer(completion.text),
            thinking=completion.thinking,
        )

    def _answer(self, text: str) -> str | None:
        if self.settings.task == "proof":
            return None
        return extract_boxed(text) if self.settings.answer_format == "boxed" else extract_stated(text)


class Verifier(Solver[VerifierT]):
    """Writes candidates, and verifies them."""

    async def verification(self, rollout: Rollout, count: int) -> Rollout:
        """The rollout with M independent verifications of its candidate, if it has one.

        They are asked for in one call, so that the prompt is computed once.
        """
        solution = rollout.solution
        if isinstance(solution, Failure):
            return rollout
        structured = self.settings.structured_verification

        def prompt(texts: Mapping[str, str]) -> str:
            return self.render("verification", structured=structured, **texts)

        schema = structured and self.settings.takes_schema(solution.thinking)
        found = await self.ask(
            self.key(rollout.iteration, "verification", rollout.index),
            self.pack("verification", prompt, {"solution": solution.text}, [("solution", cut_middle(solution.text))]),
            lambda c: parse_verification(c.text),
            n=count,
            schema=output_schema(VerificationOutput) if schema else None,
            attempts=self.settings.parse_attempts,
        )
        verifications = tuple(
            v if isinstance(v, Failure) else Verification(index=i, grade=v.grade, critique=v.critique)
            for i, v in enumerate(found)
        )
        return rollout.model_copy(update={"verifications": verifications})


@dataclass(frozen=True)
class Evolved(Generic[Bank]):
    """A bank after its agent ran, and what that changed; or the failure that left it as it was."""

    bank: Bank
    change: BankChange | None = None
    failure: Failure | None = None


class Agents(Verifier[AgentSettings]):
    """The team of TMAS for one problem."""

    def solution_prompt(
        self,
        rollouts: Sequence[Rollout] = (),
        experience: ExperienceBank | None = None,
        guidelines: GuidelineBank | None = None,
    ) -> Prompt | Failure:
        """A_sol(Q), A_sol(Q, R, E) or A_sol(Q, G): the same for every candidate that draws the mode."""
        attempts = attempts_of(rollouts, self.session.prompts)
        banks = {"experience": experience, "guidelines": guidelines}
        pieces = {**attempts.full, **{name: all_items(bank) for name, bank in banks.items()}}
        fewer = [(name, fewer_items(bank)) for name, bank in banks.items() if bank]
        steps = [*attempts.shorten, *attempts.drop[:-1], *fewer, *attempts.drop[-1:]]

        def prompt(texts: Mapping[str, str]) -> str:
            memory = {name: texts[name] for name in banks}
            return self.render("solution", attempts=attempts.texts(texts), **memory)

        return self.pack("solution", prompt, pieces, steps)

    async def summary(self, rollout: Rollout) -> Rollout:
        """The rollout with a short account, folded from its verifications, of what holds in it and what does not."""
        if isinstance(rollout.solution, Failure):
            return rollout
        return rollout.model_copy(update={"summary": await self._folded(rollout, rollout.solution)})

    async def _folded(self, rollout: Rollout, solution: Solution) -> str | Failure:
        checks = [v for v in rollout.verifications if isinstance(v, Verification)]
        grades = {f"verification {v.index}": f"Grade: {v.grade:g}" for v in checks}
        pieces = {f"verification {v.index}": graded(v) for v in checks}

        def prompt(texts: Mapping[str, str]) -> str:
            checked = [texts[name] for name in pieces]
            words = self.settings.summary_words
            return self.render("summary", solution=texts["solution"], verifications=checked, words=words)

        key = self.key(rollout.iteration, "summary", rollout.index)
        if not checks:
            return Failure(reason=rollout.failures[0].reason, message="no verification to summarise", key=key)
        steps = [(name, replace_by(grades[name])) for name in reversed(pieces)]
        steps.append(("solution", cut_middle(solution.text)))
        packed = self.pack("summary", prompt, {**pieces, "solution": solution.text}, steps)
        return (await self.ask(key, packed, lambda c: c.text, attempts=self.settings.parse_attempts))[0]

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
        attempts = attempts_of(rollouts, self.session.prompts)
        key = self.key(iteration, role, 0)
        if not attempts.full:
            return Failure(reason=rollouts[0].failures[0].reason, message="no rollout to learn from", key=key)

        def prompt(texts: Mapping[str, str]) -> str:
            shown = {"attempts": attempts.texts(texts), "bank": texts["bank"]}
            return self.render(role, **shown, max_new=self.settings.max_new_items)

        steps = [*attempts.shorten, *attempts.drop, ("bank", fewer_items(bank))]
        packed = self.pack(role, prompt, {**attempts.full, "bank": all_items(bank)}, steps)
        solutions = [r.solution for r in rollouts if isinstance(r.solution, Solution)]
        schema = None
        if self.settings.takes_schema("tags" if any(s.thinking == "tags" for s in solutions) else "none"):
            ids = [item.item_id for item in bank.items]
            schema = bank_schema(output, [s.index for s in solutions], ids, self.settings.max_new_items)
        calls = self.settings.parse_attempts
        return (await self.ask(key, packed, lambda c: parse_json(c.text, output), schema=schema, attempts=calls))[0]


def _evolved(found: Parsed[Any], evolved: tuple[Bank, BankChange]) -> tuple[Bank, BankChange]:
    bank, change = evolved
    return bank, change.model_copy(update={"unreadable": found.dropped, "repaired": found.repaired})
