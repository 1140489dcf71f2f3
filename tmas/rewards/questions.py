"""The judge's verdicts on one response. They are kept with the response, so that it can be rewarded again later.

The judge is asked two kinds of questions: whether an answer is equivalent to the gold answer, and those that decide
the bonus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from tmas.files import text_digest
from tmas.judge import Judge
from tmas.prompts import Prompts
from tmas.records import Failure, FailureReason, Record
from tmas.rewards.settings import RewardSettings

V = TypeVar("V", bound=BaseModel)


class KeptVerdicts(Record):
    """The verdicts on one question.

    ``about``: hash of the kind of the question and of the texts that it is about. It does not cover the judge, its
    prompts and its sampling: a kept verdict is one of the judge that was asked in training. ``verdicts`` and
    ``failures``: one entry for each pass of the judge. The judge's ``reasoning`` is left out.
    """

    about: str
    verdicts: tuple[dict[str, JsonValue], ...] = ()
    failures: tuple[FailureReason, ...] = ()


_LIST = TypeAdapter(tuple[KeptVerdicts, ...])


def unpacked(text: str) -> tuple[KeptVerdicts, ...]:
    """The verdicts in a report's ``verdicts`` (:meth:`Questions.packed`)."""
    return _LIST.validate_json(text)


class Questions:
    """Asks the judge about one response and keeps the verdicts.

    ``judge``: opens the judge. None: there is no judge. ``kept``: verdicts that are used instead of asking. None: this
    is a new response. ``can_be_answered``: whether there is a judge or a list of kept verdicts. ``unanswered``: number
    of questions for which there was neither a kept verdict nor a judge.
    """

    def __init__(
        self, settings: RewardSettings, judge: Callable[[], Judge] | None, kept: Iterable[KeptVerdicts] | None = None
    ) -> None:
        self.prompts: Prompts = settings.prompts
        self.approximation_digits = settings.answer.approximation_digits
        self.can_be_answered = judge is not None or kept is not None
        self.unanswered = 0
        self._judge = judge
        self._kept = {one.about: one for one in kept or ()}
        self._used: list[KeptVerdicts] = []

    async def ask(self, prompt: str, output: type[V], *about: str) -> list[V | Failure]:
        """Return the verdicts on ``prompt``, failures last. ``about``: the texts that identify the question."""
        key = text_digest("\0".join((output.__name__, *about)).encode(errors="replace"), 16)
        answers = _read(self._kept.get(key), output)
        if answers is None:
            if self._judge is None:
                self.unanswered += 1
                return [Failure(reason=FailureReason.JUDGE, message="no verdict was kept, and no judge is configured")]
            answers = await self._judge().ask(prompt, output, coded=True)
        self._used.append(_written(key, answers))
        return answers

    def packed(self) -> str:
        """The verdicts that were used, as a JSON list of :class:`KeptVerdicts`."""
        plain = [one.model_dump(mode="json") for one in self._used]
        return json.dumps(plain, ensure_ascii=False).encode(errors="replace").decode()


def _read(kept: KeptVerdicts | None, output: type[V]) -> list[V | Failure] | None:
    """The verdicts as records; None if there are none, or if they have the form of another version."""
    if kept is None:
        return None
    try:
        verdicts: list[V | Failure] = [output.model_validate(one) for one in kept.verdicts]
    except ValidationError:
        return None
    return [*verdicts, *(Failure(reason=reason, message="kept") for reason in kept.failures)]


def _written(about: str, answers: Iterable[BaseModel | Failure]) -> KeptVerdicts:
    verdicts: list[dict[str, Any]] = []
    failures: list[FailureReason] = []
    for answer in answers:
        if isinstance(answer, Failure):
            failures.append(answer.reason)
        else:
            verdicts.append(answer.model_dump(mode="json", exclude={"reasoning"}))
    return KeptVerdicts(about=about, verdicts=tuple(verdicts), failures=tuple(failures))
