"""Replays a finished problem with other settings of its method, from its recorded calls and without a model.

The method's own code runs, so it decides which calls it makes, when it stops and what it selects. A call is answered by
the completions that the run recorded for the same iteration, role and index. Two things cannot be known:

- *The reply to another prompt.* With fewer verifications, for example, a summary's prompt has fewer critiques. The
  recorded reply stands in for the reply to such a prompt, and the replay is approximate from there on.
- *A call that the run did not make.* The replay ends, and the iteration of this call is left out. It is kept if it
  lacks only further verifications of a candidate that has some.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel

from tmas.agents.packing import Prompt
from tmas.answers.checker import AnswerChecker
from tmas.files import text_digest
from tmas.methods import METHODS
from tmas.methods.base import MethodSettings
from tmas.prompts import Prompts
from tmas.records import CallKey, Failure, FailureReason, Problem, Reply, Result, Usage, UsageEntry
from tmas.records.run_files import Correctness, Prediction
from tmas.run.budget import CANCELLED_PREFIX, recorded_usage
from tmas.run.replay import RecordedCall, RecordedCalls, RecordedRun, Replay
from tmas.run.results import prediction_line

Output = TypeVar("Output", bound=BaseModel)

FEEDS_LATER_ITERATIONS = frozenset({"summary", "experience", "guideline", "distill"})
"""Roles whose replies only change later iterations: no candidate or grade of their own iteration depends on them."""
UNKNOWN_QUESTION = "?"
"""Replaces the question of a problem whose run did not record it. Only prompts contain it, and they are only compared
with each other."""


class Place(NamedTuple):
    """The key of a call without its offset. Calls with the same place ask for more completions of the same prompt."""

    iteration: int
    role: str
    candidate: int
    attempt: int

    @classmethod
    def of(cls, key: CallKey) -> Place:
        return cls(key.iteration, key.role, key.index, key.attempt)


PromptsByPlace = dict[Place, tuple[str, int]]
"""The digest of each place's prompt, and the length of the prompt in characters."""


class RecordedCompletion(NamedTuple):
    """The completion with index ``number`` of a recorded call."""

    call: RecordedCall
    number: int


def completions_by_place(recorded: RecordedCalls) -> dict[Place, list[RecordedCompletion]]:
    """The recorded completions of each place, in the order in which they were requested."""
    found: dict[Place, list[RecordedCompletion]] = {}
    for call in sorted(recorded.calls.values(), key=lambda call: call.key.offset):
        found.setdefault(Place.of(call.key), []).extend(RecordedCompletion(call, number) for number in range(call.n))
    return found


class WhatIfSession(Replay):
    """Answers calls with recorded completions, by their place.

    ``baseline``: the prompts of the replay with the recorded settings; None for that replay itself.
    ``repeats_selections``: use the recorded outcomes of selections. ``subset``: which verifications of a candidate are
    used if not all are. None: the first ones. A number: random ones; it seeds the draw.

    ``prompts_by_place``: the prompt of each place. ``other_prompts``: calls whose prompt is not that of the baseline.
    ``not_recorded``: calls that the run did not make. ``split``: roles with a call whose completions are not exactly
    those of one recorded call. ``redrawn``: whether a real run would have sampled some completions with other seeds
    than the recorded ones.
    """

    def __init__(
        self,
        problem_id: str,
        recorded: RecordedCalls,
        seed: int,
        prompts: Prompts,
        baseline: PromptsByPlace | None = None,
        repeats_selections: bool = True,
        subset: int | None = None,
    ) -> None:
        super().__init__(problem_id, recorded, seed, prompts)
        self._baseline, self._repeats_selections, self._subset = baseline, repeats_selections, subset
        self.stopped: Literal["budget", "worker"] | None = None
        self._completions = completions_by_place(recorded)
        self._used: dict[Place, int] = {}
        self._usage: dict[tuple[str, int], Usage] = {}
        self.prompts_by_place: PromptsByPlace = {}
        self.other_prompts: list[CallKey] = []
        self.not_recorded: list[CallKey] = []
        self.split: set[str] = set()
        self.redrawn = False

    @property
    def usage(self) -> tuple[UsageEntry, ...]:
        """Usage by role and iteration. ``seconds`` are left out: it is unknown how long other calls would take."""
        entries = sorted(self._usage.items(), key=lambda entry: (entry[0][1], entry[0][0]))
        return tuple(UsageEntry(role=role, iteration=t, usage=usage) for (role, t), usage in entries)

    async def decide(self, name: str, compute: Callable[[], Awaitable[Output]], output: type[Output]) -> Output:
        return await (super().decide(name, compute, output) if self._repeats_selections else compute())

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure:
        place = Place.of(key)
        length = self._relative_length(place, key, prompt)
        if cancelled := self._recorded.decisions.get(f"{CANCELLED_PREFIX}{key}"):
            self._add_usage(key, recorded_usage(cancelled).usage)  # a budget cancelled the call, but it cost tokens
        if place not in self._completions:
            # If the replay with the recorded settings asks for the call as well, the run could not make it (context or
            # budget), and its failure is repeated. Otherwise only the other settings ask for it: its reply is unknown.
            was_asked = self._baseline is None or place in self._baseline
            return self._not_made(key) if was_asked else self._end(key)
        used = self._used.get(place, 0)
        taken = self._in_order(place)[used : used + n]
        if len(taken) < n:
            return self._end(key)
        self._used[place] = used + n
        if failed := next((s.call.outcome for s in taken if isinstance(s.call.outcome, Failure)), None):
            return failed
        usage, is_split = _usage(taken)
        scaled = {name: round(length * getattr(usage, name)) for name in ("prompt_tokens", "cached_prompt_tokens")}
        self._add_usage(key, usage.model_copy(update=scaled))
        if is_split:
            self.split.add(key.role)
        if any(str(one.call.key) != str(key) or one.number != i for i, one in enumerate(taken)):
            self.redrawn = True
        completions = tuple(s.call.outcome.completions[s.number] for s in taken if isinstance(s.call.outcome, Reply))
        return Reply(completions=completions, usage=usage)

    def _relative_length(self, place: Place, key: CallKey, prompt: Prompt) -> float:
        """Record the prompt. Returns its length in characters, divided by the length of the baseline's prompt."""
        digest, length = text_digest(prompt.content), len(prompt.content)
        self.prompts_by_place[place] = (digest, length)
        recorded = self._baseline.get(place) if self._baseline else None
        if recorded is None or recorded[0] == digest:
            return 1.0
        self.other_prompts.append(key)
        return length / recorded[1]

    def _in_order(self, place: Place) -> Sequence[RecordedCompletion]:
        """The completions of a place in the order in which they are used."""
        recorded = self._completions[place]
        if self._subset is None or place.role != "verification" or place.attempt:
            return recorded
        return random.Random(f"{self._subset}/{self._problem_id}/{place}").sample(recorded, len(recorded))

    def _end(self, key: CallKey) -> Failure:
        """End the replay at a call whose reply is unknown. ``stopped`` makes the method begin no further iteration."""
        self.not_recorded.append(key)
        self.stopped = "budget"
        return Failure(reason=FailureReason.BUDGET, message="the run did not make this call", key=key)

    def _add_usage(self, key: CallKey, usage: Usage) -> None:
        role_and_iteration = (key.role, key.iteration)
        before = self._usage.get(role_and_iteration, Usage())
        self._usage[role_and_iteration] = before + usage.model_copy(update={"seconds": 0.0})


def _usage(taken: Sequence[RecordedCompletion]) -> tuple[Usage, bool]:
    """The usage of one call for these completions, and whether it had to be divided.

    A server processes the prompt of a call once, whatever its number of completions, so the prompt counts in full. If
    the server refused ``n``, each completion had its own request, and the prompt counts once for each completion. The
    completion tokens of a recorded call are divided in proportion to the characters of its completions, including their
    reasoning.
    """
    calls = list({id(one.call): one.call for one in taken}.values())
    if len(calls) == 1 and len(taken) == calls[0].n:
        assert isinstance(calls[0].outcome, Reply)
        return calls[0].outcome.usage, False
    requests = prompt = cached = completion = 0.0
    for call in calls:
        assert isinstance(call.outcome, Reply)
        usage, mine = call.outcome.usage, [one.number for one in taken if one.call is call]
        sizes = call.characters if any(call.characters) else (1,) * call.n
        completion += usage.completion_tokens * sum(sizes[number] for number in mine) / sum(sizes)
        share = len(mine) / call.n if "n_refused" in call.outcome.notes else float(call is calls[0])
        requests += share * usage.calls
        prompt += share * usage.prompt_tokens
        cached += share * usage.cached_prompt_tokens
    counts = (round(number) for number in (requests, prompt, cached, completion))
    names = ("calls", "prompt_tokens", "cached_prompt_tokens", "completion_tokens")
    return Usage(**dict(zip(names, counts, strict=True))), True


@dataclass(frozen=True)
class RecordedProblem:
    """A finished problem. ``settings``: those of its method in the run. ``correct``: the verdict on each answer."""

    run: RecordedRun
    prediction: Prediction
    calls: RecordedCalls
    settings: MethodSettings
    correct: Mapping[str, Correctness]

    @classmethod
    def read(cls, run: RecordedRun, prediction: Prediction, correct: Mapping[str, Correctness]) -> RecordedProblem:
        calls = RecordedCalls(run.trace(prediction.problem_id))
        return cls(run, prediction, calls, run.method_settings(prediction), correct)

    @property
    def problem(self) -> Problem:
        recorded = self.prediction
        question = recorded.question or UNKNOWN_QUESTION
        return Problem(problem_id=recorded.problem_id, question=question, answer=recorded.gold)


@dataclass(frozen=True)
class Gaps:
    """What the replay of a problem could not take from the record. :meth:`of_all` joins several replays.

    ``other_prompt``: the first call whose prompt differs from the baseline's. ``has_other_candidates``: candidates or
    grades depend on such a call. ``roles_with_other_prompts``: the roles of such calls. ``not_recorded``: the first
    call that the run did not make. ``split_roles`` and ``is_redrawn``: see :class:`WhatIfSession`.
    """

    other_prompt: CallKey | None
    has_other_candidates: bool
    roles_with_other_prompts: frozenset[str]
    not_recorded: CallKey | None
    split_roles: frozenset[str]
    is_redrawn: bool

    @classmethod
    def of(cls, session: WhatIfSession, iterations: int) -> Gaps:
        """``iterations``: number of iterations that the replay has."""
        others = session.other_prompts
        # The first iteration whose candidates or grades depend on a call with another prompt.
        since = min((key.iteration + (key.role in FEEDS_LATER_ITERATIONS) for key in others), default=iterations)
        return cls(
            other_prompt=_first(others),
            has_other_candidates=since < iterations,
            roles_with_other_prompts=frozenset(key.role for key in others),
            not_recorded=_first(session.not_recorded),
            split_roles=frozenset(session.split),
            is_redrawn=session.redrawn,
        )

    @classmethod
    def of_all(cls, gaps: Sequence[Gaps]) -> Gaps:
        return cls(
            other_prompt=_first([one.other_prompt for one in gaps if one.other_prompt]),
            has_other_candidates=any(one.has_other_candidates for one in gaps),
            roles_with_other_prompts=frozenset[str]().union(*(one.roles_with_other_prompts for one in gaps)),
            not_recorded=_first([one.not_recorded for one in gaps if one.not_recorded]),
            split_roles=frozenset[str]().union(*(one.split_roles for one in gaps)),
            is_redrawn=any(one.is_redrawn for one in gaps),
        )


def _first(keys: Sequence[CallKey]) -> CallKey | None:
    return min(keys, key=lambda key: key.iteration, default=None)


@dataclass(frozen=True)
class ReplayedProblem:
    """A problem as the replay solved it. ``line``: its prediction; None if no iteration could be replayed."""

    line: Prediction | None
    prompts: PromptsByPlace
    gaps: Gaps


async def replay(
    recorded: RecordedProblem,
    settings: MethodSettings,
    checker: AnswerChecker,
    baseline: PromptsByPlace | None = None,
    subset: int | None = None,
) -> ReplayedProblem:
    """Solve a recorded problem again with ``settings``. ``baseline`` and ``subset``: see :class:`WhatIfSession`."""
    run, repeats = recorded.run, settings.selection == recorded.settings.selection
    session = WhatIfSession(
        recorded.prediction.problem_id, recorded.calls, run.manifest.seed, run.prompts, baseline, repeats, subset
    )
    trajectory = await METHODS[settings.name](settings, checker).solve(recorded.problem, session)
    # A missing call leaves out its own iteration. There are two exceptions. A missing bank update only leaves out the
    # iterations after its own; a problem that ended early has none in its last iteration. Missing further verifications
    # of a candidate (offset > 0) leave out nothing.
    bank_roles = FEEDS_LATER_ITERATIONS - {"summary"}
    missing = (key.iteration + (key.role in bank_roles) for key in session.not_recorded if not key.offset)
    kept = min(missing, default=len(trajectory.iterations))
    result = Result(
        problem=recorded.problem,
        method=settings.name,
        trajectory=trajectory.model_copy(update={"iterations": trajectory.iterations[:kept]}),
        usage=tuple(entry for entry in session.usage if entry.iteration < kept),
    )
    terms = {**recorded.prediction.terms.model_dump(), "method": settings.model_dump(mode="json")}
    line = prediction_line(result, terms, recorded.correct) if kept else None
    return ReplayedProblem(line, session.prompts_by_place, Gaps.of(session, kept))
