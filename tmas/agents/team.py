"""The team of agents that work on one problem: solution, verification, summary, experience and guideline.

Each agent is one prompt, one call and one parse. It returns its record, or a :class:`~tmas.records.Failure`. The
baselines call those agents that they have in common with TMAS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from tmas.agents.base import Caller, Session
from tmas.agents.context import all_items, attempts_of, fewer_items, graded
from tmas.agents.packing import Prompt, cut_middle, replace_by
from tmas.agents.settings import AgentSettings
from tmas.answers.extract import extract_boxed, extract_stated
from tmas.memory.bank import item_line
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.prompts.parsing import Unparsable, parse_json, parse_verification, whole_sentences
from tmas.prompts.schemas import VerificationOutput, bank_schema, output_schema
from tmas.records import (
    BankChange,
    CallKey,
    Completion,
    Failure,
    FailureReason,
    Mode,
    Problem,
    Rollout,
    Solution,
    Verification,
)

BankT = TypeVar("BankT", ExperienceBank, GuidelineBank)
ParseSolution = Callable[[int, int, Mode, Completion], Solution]
"""Makes the record of a candidate from (iteration, index, mode, completion). Raises
:class:`~tmas.prompts.parsing.Unparsable` if the completion contains no candidate."""


MAX_SUMMARY_LENGTH_FACTOR = 4
"""A summary that was cut at ``max_tokens`` is kept if it has at most this factor times ``summary_words`` words."""


class _Summary(NamedTuple):
    """A summary. ``cut``: the failure to record if the summary reached ``max_tokens`` and was shortened."""

    text: str
    cut: Failure | None = None


@dataclass(frozen=True)
class Evolved(Generic[BankT]):
    """A bank after an iteration. ``change``: what its agent changed. ``failure``: why the agent failed, if it did."""

    bank: BankT
    change: BankChange | None = None
    failure: Failure | None = None


class Team(Caller):
    """The agents of one problem. Each is one prompt, one call and one parse.

    The methods ``solution``, ``verification`` and ``summary`` call the agents of these roles. ``evolve`` calls the
    experience agent or the guideline agent, depending on the bank.
    """

    def __init__(self, problem: Problem, session: Session, settings: AgentSettings) -> None:
        super().__init__(problem, session)
        self.settings = settings
        self._prompts: list[tuple[tuple[object, ...], Prompt | Failure]] = []

    def render(self, name: str, **values: object) -> str:
        """Render the prompt ``name`` for this problem and task."""
        return self.session.prompts.render(name, question=self.problem.question, task=self.settings.task, **values)

    def solution_prompt(
        self,
        rollouts: Sequence[Rollout] = (),
        experience: ExperienceBank | None = None,
        guidelines: GuidelineBank | None = None,
    ) -> Prompt | Failure:
        """The prompt of the solution agent: A_sol(Q), A_sol(Q, R, E) or A_sol(Q, G) in the paper's notation.

        All candidates of one mode get the same prompt, so the last two prompts are cached: one for exploiting and one
        for exploring candidates. A :class:`~tmas.records.Failure` if the prompt does not fit the context.
        """
        inputs = (rollouts, experience, guidelines)
        for known, prompt in self._prompts:
            # The same objects, not equal ones: a comparison of all their texts would be slow.
            if all(a is b for a, b in zip(known, inputs, strict=True)):
                return prompt
        prompt = self._packed_solution_prompt(rollouts, experience, guidelines)
        self._prompts = [*self._prompts[-1:], (inputs, prompt)]
        return prompt

    def _packed_solution_prompt(
        self, rollouts: Sequence[Rollout], experience: ExperienceBank | None, guidelines: GuidelineBank | None
    ) -> Prompt | Failure:
        attempts = attempts_of(rollouts, self.session.prompts)
        banks = {"experience": experience, "guidelines": guidelines}
        pieces = {**attempts.full, **{name: all_items(bank) for name, bank in banks.items()}}
        fewer = [(name, fewer_items(bank)) for name, bank in banks.items() if bank]
        # The best attempt is worth more than the bank items, so it is left out last.
        steps = [*attempts.shorten, *attempts.drop[:-1], *fewer, *attempts.drop[-1:]]

        def render_prompt(texts: Mapping[str, str]) -> str:
            memory = {name: texts[name] for name in banks}
            return self.render("solution", attempts=attempts.texts(texts), **memory)

        packed = self.pack("solution", render_prompt, pieces, steps)
        if isinstance(packed, Failure):
            return packed
        items = [item for bank in banks.values() if bank for item in bank.items]
        return packed.model_copy(update={"shown": tuple(i.item_id for i in items if item_line(i) in packed.text)})

    async def solution(
        self,
        iteration: int,
        index: int,
        mode: Mode,
        prompt: Prompt | Failure,
        parents: tuple[tuple[int, int], ...] = (),
        parse: ParseSolution | None = None,
    ) -> Rollout:
        """Write one candidate. Returns a rollout without verifications or summary.

        A completion that was cut short or cannot be parsed is never requested again.

        ``parents``: the (iteration, index) of the candidates that this one is derived from. ``parse``: turns the
        completion into a solution record; the default is :meth:`parse_solution`.
        """
        key = self.key(iteration, "solution", index)
        parse = parse or self.parse_solution
        [found] = await self.ask(key, prompt, lambda completion: parse(iteration, index, mode, completion))
        shown = self.session.shown_items(key, prompt) if isinstance(prompt, Prompt) else ()
        return Rollout(iteration=iteration, index=index, mode=mode, parents=parents, solution=found, shown=shown)

    def parse_solution(self, iteration: int, index: int, mode: Mode, completion: Completion) -> Solution:
        """Make a solution record from the completion, with the final answer that its text states."""
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

    def verification_prompt(self, solution: str, structured: bool) -> Prompt | Failure:
        """The prompt that asks for a critique and a grade of a candidate's text.

        ``structured``: it asks for JSON instead of free text. A candidate that is too long loses its middle.
        """
        return self.pack(
            "verification",
            lambda texts: self.render("verification", structured=structured, **texts),
            {"solution": solution},
            [("solution", cut_middle(solution))],
        )

    async def verification(self, rollout: Rollout, count: int) -> Rollout:
        """Return the rollout with ``count`` more independent verifications of its candidate, if it has a candidate.

        One call requests all of them, so that the server processes the prompt once.
        """
        solution = rollout.solution
        if isinstance(solution, Failure):
            return rollout
        earlier = len(rollout.verifications)
        prompt_for = partial(self.verification_prompt, solution.text)
        structured = self.settings.structured_verification
        sends_schema = structured is not False and self.settings.sends_schema(solution.thinking)
        retries_as_json = structured == "retry" and sends_schema
        found = await self.ask(
            self.key(rollout.iteration, "verification", rollout.index, offset=earlier),
            prompt_for(structured=structured is True),
            lambda c: parse_verification(c.text),
            n=count,
            schema=output_schema(VerificationOutput) if sends_schema else None,
            max_calls=self.settings.parse_attempts,
            as_json=partial(prompt_for, structured=True) if retries_as_json else None,
        )
        verifications = tuple(
            v if isinstance(v, Failure) else Verification(index=i, grade=v.grade, critique=v.critique)
            for i, v in enumerate(found, earlier)
        )
        return rollout.model_copy(update={"verifications": (*rollout.verifications, *verifications)})

    async def summary(self, rollout: Rollout) -> Rollout:
        """Return the rollout with a summary of its verifications: what is right in the candidate, and what is wrong."""
        if isinstance(rollout.solution, Failure):
            return rollout
        found = await self._summary_of(rollout, rollout.solution)
        if isinstance(found, Failure):
            return rollout.model_copy(update={"summary": found})
        return rollout.model_copy(update={"summary": found.text, "cut_summary": found.cut})

    async def _summary_of(self, rollout: Rollout, solution: Solution) -> _Summary | Failure:
        verifications = [v for v in rollout.verifications if isinstance(v, Verification)]
        grades = {f"verification {v.index}": f"Grade: {v.grade:g}" for v in verifications}
        pieces = {f"verification {v.index}": graded(v) for v in verifications}

        def render_prompt(texts: Mapping[str, str]) -> str:
            verification_texts = [texts[name] for name in pieces]
            words = self.settings.summary_words
            return self.render("summary", solution=texts["solution"], verifications=verification_texts, words=words)

        key = self.key(rollout.iteration, "summary", rollout.index)
        if not verifications:
            return Failure(reason=rollout.failures[0].reason, message="no verification to summarise", key=key)
        steps = [(name, replace_by(grades[name])) for name in reversed(pieces)]
        steps.append(("solution", cut_middle(solution.text)))
        packed = self.pack("summary", render_prompt, {**pieces, "solution": solution.text}, steps)
        keeps = self.settings.cut_summaries == "keep"
        [found] = await self.ask(
            key,
            packed,
            lambda c: _Summary(c.text),
            max_calls=self.settings.parse_attempts,
            parse_cut=partial(self._parse_cut_summary, solution) if keeps else None,
        )
        return found

    def _parse_cut_summary(self, solution: Solution, completion: Completion, key: CallKey) -> _Summary:
        """The whole sentences of a summary that reached ``max_tokens``.

        Raises :class:`Unparsable` if the text has no whole sentence, or is not a summary. It is not one if it is far
        too long (the model repeats itself), or if it is unfinished thinking. The chat template may have written the
        opening tag of the thinking, so the text has no tag; ``solution`` shows whether the model thinks between tags.
        """
        if solution.thinking == "tags" and completion.thinking == "none":
            raise Unparsable("unfinished thinking")
        text = whole_sentences(completion.text)
        if not text or len(text.split()) > MAX_SUMMARY_LENGTH_FACTOR * self.settings.summary_words:
            raise Unparsable("no whole sentence, or too many words")
        message = "the summary reached max_tokens; it was kept up to its last whole sentence"
        return _Summary(text, Failure(reason=FailureReason.SHORTENED, message=message, key=key))

    async def evolve(self, bank: BankT, iteration: int, rollouts: Sequence[Rollout]) -> Evolved[BankT]:
        """Let the bank's agent update the bank from ``rollouts``: with findings (experience) or strategies (guideline).

        If the agent fails, the bank stays unchanged.
        """
        attempts = attempts_of(rollouts, self.session.prompts)
        key = self.key(iteration, bank.role, 0)
        if not attempts.full:  # no rollout has a solution
            cause = rollouts[0].failures[0]
            return Evolved(bank, failure=Failure(reason=cause.reason, message="no rollout to learn from", key=key))

        limits = {"max_new": self.settings.max_new_items, "max_chars": self.settings.max_item_chars}

        def render_prompt(texts: Mapping[str, str]) -> str:
            shown = {"attempts": attempts.texts(texts), "bank": texts["bank"]}
            return self.render(bank.role, **shown, **limits)

        steps = [*attempts.shorten, *attempts.drop, ("bank", fewer_items(bank))]
        packed = self.pack(bank.role, render_prompt, {**attempts.full, "bank": all_items(bank)}, steps)
        [reply] = await self.ask(
            key,
            packed,
            lambda completion: parse_json(completion.text, bank.output_type),
            schema=self._bank_schema(bank, rollouts),
            max_calls=self.settings.parse_attempts,
        )
        if isinstance(reply, Failure):
            return Evolved(bank, failure=reply)
        output = self._without_example(reply.record, bank.role, limits)
        evolved, change = bank.evolve(output, iteration, rollouts, **limits)
        copied = len(reply.record.new) - len(output.new)
        counts = {"unreadable": reply.dropped, "repaired": reply.repaired, "copied": copied}
        return Evolved(evolved, change.model_copy(update=counts))

    def _without_example(self, output: Any, role: str, limits: Mapping[str, int]) -> Any:
        """The reply without the new items that it copied from the example in the prompt, as small models do."""
        # The prompt without the problem's own texts is the instructions with the example.
        no_texts = {"question": "", "attempts": [], "bank": ""}
        example = self.session.prompts.render(role, task=self.settings.task, **no_texts, **limits)
        not_copied = [new for new in output.new if not any(f'"{text}"' in example for text in new.texts)]
        return output.model_copy(update={"new": tuple(not_copied)})

    def _bank_schema(self, bank: ExperienceBank | GuidelineBank, rollouts: Sequence[Rollout]) -> dict[str, Any] | None:
        """The JSON schema of the reply.

        It allows only indices of rollouts with a solution, and ids of items that are not refuted.
        """
        solutions = [r.solution for r in rollouts if isinstance(r.solution, Solution)]
        if not self.settings.sends_schema("tags" if any(s.thinking == "tags" for s in solutions) else "none"):
            return None
        ids = [item.item_id for item in bank.items if item.refuted is None]
        evidence = bank.settings.support == "rollouts"
        indices = [s.index for s in solutions]
        return bank_schema(bank.output_type, indices, ids, self.settings.max_new_items, evidence=evidence)
