"""The cold-start set: replies of the teacher in every role, as chats for supervised fine-tuning.

By default only successful replies become chats. The gold answer decides afterwards what is a success:

- a solution with the right answer;
- a verification that grades a right candidate 1 or a wrong candidate 0;
- a summary of a right candidate whose mean grade is above 0.5, or of a wrong one whose mean grade is below 0.5;
- a bank update that parses without repairs and changes something, on a problem that was solved.

Replies of other roles (comparison, feedback, distill) are never successes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import pyarrow
from pyarrow import parquet
from pydantic import Field, NonNegativeInt, field_validator

from tmas.files import whole_file
from tmas.llm.tokens import CHAT_TEMPLATE_TOKENS, Count
from tmas.methods import all_roles
from tmas.prompts.parsing import Unparsable, parse_json, parse_verification
from tmas.prompts.schemas import ExperienceOutput, GuidelineOutput
from tmas.records import CallKey, Completion, Message, Mode, Record
from tmas.records.run_files import Prediction
from tmas.run.replay import RecordedRun
from tmas.run.session import keyed_hash
from tmas.run.trace import read_calls
from tmas.settings import Settings
from tmas.training.contexts import TrainingProblem

_MESSAGE = pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()})
SCHEMA = pyarrow.schema(
    {
        "messages": pyarrow.list_(_MESSAGE),
        "role": pyarrow.string(),
        "problem_id": pyarrow.string(),
        "iteration": pyarrow.int64(),
        "origin": pyarrow.string(),
        "licence": pyarrow.string(),
    }
)
_OUTPUTS = {"experience": ExperienceOutput, "guideline": GuidelineOutput}
_BATCH = 256
MODES = get_args(Mode)


class SFTDataSettings(Settings):
    """Which of the teacher's replies become chats of the cold-start data set."""

    per_role: NonNegativeInt | dict[str, NonNegativeInt] = Field(
        default=2,
        description="Maximum number of chats per role from one problem of a run: a number for all roles, or a "
        "mapping by role. A mode as a key limits solutions by mode, as in {initial: 1, exploit: 6, "
        "explore: 2, verification: 4}. Roles and modes that are not in the mapping give no chats.",
    )
    keep: Literal["successful", "readable"] = Field(
        default="successful",
        description="successful: correct solutions, verifications and summaries that agree with the gold answer, and,"
        " on solved problems, bank updates that change something; no replies of other roles. readable: all replies that"
        " can be parsed.",
    )
    max_tokens: int = Field(default=32_768, ge=1, description="Longest chat in tokens; longer chats are left out.")
    reasoning: bool = Field(
        default=True, description="Put the teacher's thinking before its reply, between <think> tags."
    )

    @field_validator("per_role")
    @classmethod
    def _keys_exist(cls, per_role: int | dict[str, int]) -> int | dict[str, int]:
        keys = set() if isinstance(per_role, int) else per_role.keys()
        if unknown := sorted(keys - {*all_roles(), *MODES}):
            raise ValueError(
                f"no such role or mode: {', '.join(unknown)} (choose from {', '.join([*all_roles(), *MODES])})"
            )
        if "solution" in keys and not keys.isdisjoint(MODES):
            raise ValueError(f"limit solutions either as the role solution or by mode ({', '.join(MODES)})")
        return per_role

    def limit_for(self, kind: str) -> int:
        """Maximum number of chats of a role, or of a solution's mode, from one problem of a run."""
        return self.per_role if isinstance(self.per_role, int) else self.per_role.get(kind, 0)


class Chat(Record):
    """One example: the prompt as it was sent, and the teacher's reply. ``role`` is the role of the agent."""

    messages: tuple[Message, ...]
    role: str
    problem_id: str
    iteration: int
    origin: str
    licence: str


class _TeacherReply(NamedTuple):
    """A chat, the name of its call, and the mode of the candidate if the chat is a solution."""

    name: str
    mode: str | None
    chat: Chat


def chats(
    run: RecordedRun,
    problems: Iterable[TrainingProblem],
    settings: SFTDataSettings,
    count_tokens: Count,
    seed: int,
    tally: Counter[str],
    template_tokens: int = CHAT_TEMPLATE_TOKENS,
) -> Iterator[Chat]:
    """Yield the chats of all ``problems`` in order. The run must have each of them.

    ``template_tokens``: tokens of the chat template, which are part of a chat's length. Adds to ``tally`` the number of
    chats by role (or mode), and the number of chats that were ``too long``. Raises ``UserError`` if the run has another
    question or answer under a problem's id.
    """
    for problem in problems:
        run.check(problem)
        found = (
            _drawn(_kept(run, problem, settings), settings, count_tokens, seed, tally, template_tokens)
            if settings.per_role
            else {}
        )
        for kind in sorted(found):
            tally[kind] += len(found[kind])
            yield from (chat for _, chat in found[kind])


def write_chats(path: Path, chats: Iterable[Chat]) -> int:
    """Write the chats to a parquet file, which appears only when it is complete. Returns the number of chats."""
    total, remaining = 0, iter(chats)
    with whole_file(path) as file, parquet.ParquetWriter(file, SCHEMA) as writer:
        while values := [chat.model_dump() for chat in islice(remaining, _BATCH)]:
            writer.write_table(pyarrow.Table.from_pylist(values, SCHEMA))
            total += len(values)
    return total


def _drawn(
    found: Iterable[_TeacherReply],
    settings: SFTDataSettings,
    count_tokens: Count,
    seed: int,
    tally: Counter[str],
    template_tokens: int,
) -> dict[str, list[tuple[int, Chat]]]:
    """At most ``limit_for`` chats of each role or mode, drawn by ``seed`` and the call's name.

    Only the chats drawn so far are in memory, because a trace can be long.
    """
    drawn: defaultdict[str, list[tuple[int, Chat]]] = defaultdict(list)
    by_mode = isinstance(settings.per_role, dict) and not settings.per_role.keys().isdisjoint(MODES)
    for name, mode, chat in found:
        kind = mode if mode and by_mode else chat.role
        limit = settings.limit_for(kind)
        if not limit:
            continue
        if sum(count_tokens(m.content) for m in chat.messages) + template_tokens > settings.max_tokens:
            tally["too long"] += 1
            continue
        candidates = [*drawn[kind], (keyed_hash(seed, chat.problem_id, name), chat)]
        drawn[kind] = sorted(candidates, key=lambda pair: pair[0])[:limit]
    return drawn


def _kept(run: RecordedRun, problem: TrainingProblem, settings: SFTDataSettings) -> Iterator[_TeacherReply]:
    """Yield every reply to the problem that ``settings.keep`` allows."""
    prediction = run.prediction(problem.problem_id)
    for call in read_calls(run.trace(problem.problem_id)):
        key = call.key
        for choice, completion in enumerate(call.reply.completions if call.reply else ()):
            text = completion.text
            if completion.finish_reason == "length" or not _is_readable(key.role, text):
                continue
            if settings.keep == "readable" or _is_success(key, text, prediction):
                yield _TeacherReply(
                    "/".join(map(str, (key.role, key.iteration, key.index, *_offset(key), key.attempt, choice))),
                    _mode(key, prediction),
                    Chat(
                        messages=(
                            *call.messages,
                            Message(role="assistant", content=_content(completion, settings)),
                        ),
                        role=key.role,
                        problem_id=problem.problem_id,
                        iteration=key.iteration,
                        origin=problem.origin,
                        licence=problem.licence,
                    ),
                )


def _offset(key: CallKey) -> tuple[int, ...]:
    """The offset of a call as a part of its name. Calls without one have the same names as in older versions."""
    return (key.offset,) if key.offset else ()


def _mode(key: CallKey, prediction: Prediction) -> str | None:
    if key.role != "solution":
        return None
    return prediction.iterations[key.iteration].candidates[key.index].mode


def _is_readable(role: str, text: str) -> bool:
    if role in _OUTPUTS:
        return _bank_update(text, role) is not None
    return _grade(text) is not None if role == "verification" else bool(text.strip())


def _is_success(key: CallKey, text: str, prediction: Prediction) -> bool:
    if key.role in _OUTPUTS:
        update = _bank_update(text, key.role)
        return prediction.correct == "equal" and update is not None and bool(update.new or update.updates)
    if key.role not in ("solution", "verification", "summary"):
        return False  # no rule says what a success is, and the index of a comparison is not that of a candidate
    candidate = prediction.iterations[key.iteration].candidates[key.index]
    # a missing answer counts as wrong
    right = None if candidate.correct == "undecided" else candidate.correct == "equal"
    match key.role:
        case "solution":
            return right is True
        case "verification":
            return right is not None and _grade(text) == float(right)
        case _:
            grade = candidate.mean_grade
            return right is not None and grade is not None and grade != 0.5 and (grade > 0.5) == right


def _grade(text: str) -> float | None:
    try:
        return parse_verification(text).grade
    except Unparsable:
        return None


def _bank_update(text: str, role: str) -> ExperienceOutput | GuidelineOutput | None:
    """The bank update, or None if it does not parse without repairs."""
    try:
        parsed = parse_json(text, _OUTPUTS[role])
    except Unparsable:
        return None
    return None if parsed.repaired or parsed.dropped else parsed.record


def _content(completion: Completion, settings: SFTDataSettings) -> str:
    return whole_reply(completion) if settings.reasoning else completion.text


def whole_reply(completion: Completion) -> str:
    """The text of a recorded completion, with its thinking, if any, before it in <think> tags."""
    if not completion.reasoning:
        return completion.text
    return f"<think>\n{completion.reasoning.strip()}\n</think>\n\n{completion.text}"
