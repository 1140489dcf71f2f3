"""From problems, and from what a team made of them, to training rows.

Prompts come from :class:`tmas.agents.team.Team`, as in inference: a row's prompt is the one that ``tmas solve``
sends in that iteration and mode. Contexts come out of run directories by replay, so R, E and G are those that the run
had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple, cast

import orjson

from tmas.agents.base import Session
from tmas.agents.packing import Prompt, Window
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.errors import UserError
from tmas.memory.bank import line
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.prompts import BUILT_IN, Prompts
from tmas.records import Experience, Failure, FailureReason, Guideline, Problem, Record, Rollout
from tmas.records.run_files import Prediction
from tmas.run.replay import RecordedRun
from tmas.run.session import keyed_hash
from tmas.training.rows import (
    STYLES,
    UNKNOWN_PASS_RATE,
    DataSource,
    ExtraInfo,
    PassRate,
    RewardModel,
    Source,
    Split,
    Text,
    TrainingRow,
)

PUBLISHED: Mapping[Source, int] = {"experience": 1600, "guideline": 600}
"""Rows with memory in the paper's set, beside 2,200 ``normal`` ones."""


class TrainingProblem(Problem):
    """A problem with all that its rows say of it. ``baseline_pass_rate``: of the policy without memory, -1: unknown."""

    answer: Text  # type: ignore[assignment]  # no row without one
    data_source: DataSource = "math"
    split: Split = "train"
    origin: str = ""
    licence: str = ""
    baseline_pass_rate: PassRate = UNKNOWN_PASS_RATE


class Context(Record):
    """What ``iteration`` starts from: the rollouts of the one before, and both banks after it."""

    iteration: int
    rollouts: tuple[Rollout, ...] = ()
    experiences: tuple[Experience, ...] = ()
    guidelines: tuple[Guideline, ...] = ()


_AS_PUBLISHED = AgentSettings()


def normal_row(
    problem: TrainingProblem, window: Window, agents: AgentSettings = _AS_PUBLISHED, prompts: Prompts = BUILT_IN
) -> TrainingRow | Failure:
    """A_sol(Q). All three give a ``context`` failure where nothing that fits ``window`` would be left to show."""
    return _row(problem, "normal", -1, _team(problem, window, agents, prompts).solution_prompt())


def experience_row(
    problem: TrainingProblem,
    context: Context,
    window: Window,
    agents: AgentSettings = _AS_PUBLISHED,
    prompts: Prompts = BUILT_IN,
) -> TrainingRow | Failure:
    """A_sol(Q, R, E): the prompt of a candidate that exploits."""
    bank = ExperienceBank(items=context.experiences)
    prompt = _team(problem, window, agents, prompts).solution_prompt(rollouts=context.rollouts, experience=bank)
    return _row(problem, "experience", context.iteration, prompt, context.experiences)


def guideline_row(
    problem: TrainingProblem,
    context: Context,
    window: Window,
    agents: AgentSettings = _AS_PUBLISHED,
    prompts: Prompts = BUILT_IN,
) -> TrainingRow | Failure:
    """A_sol(Q, G): the prompt of a candidate that explores."""
    prompt = _team(problem, window, agents, prompts).solution_prompt(guidelines=GuidelineBank(items=context.guidelines))
    return _row(problem, "guideline", context.iteration, prompt, context.guidelines)


def contexts_of(run: RecordedRun, problem: Problem) -> list[Context]:
    """What a finished problem of ``run`` leaves to each next iteration, one that was not run included."""
    return [
        Context(iteration=i.index + 1, rollouts=i.rollouts, experiences=i.experiences, guidelines=i.guidelines)
        for i in run.trajectory(problem).iterations
    ]


def row_prompts(run: RecordedRun, given: Prompts | None = None) -> Prompts:
    """The prompts that rows are rendered with: the run's own; ``given`` has to be equal to them.

    Raises ``UserError`` where a file that rows are rendered with is another one in the run. That is so too where a
    built-in prompt has changed since the run was made.
    """
    prompts = run.prompts if given is None else given
    rendered = prompts.files_of("solution") | prompts.files_of("attempt")
    changed = {name: hashes for name, hashes in run.changed_prompts(prompts).items() if name in rendered}
    if changed:
        lines = [f"{prompts.place(name)}: {then!r} in the run, {now!r} now" for name, (then, now) in changed.items()]
        told = f"{run.path}: rows have to be rendered with the run's own prompts, and these are others:"
        remedy = None if given is None else "Leave out prompts=FOLDER: the run's own prompts are then taken."
        raise UserError("\n  ".join([told, *lines]), remedy=remedy)
    return prompts


def rows_from_run(
    run: RecordedRun,
    problems: Iterable[TrainingProblem],
    window: Window,
    *,
    per_problem: int,
    wanted: Mapping[Source, int] = PUBLISHED,
    iterations: Collection[int] | None = None,
    seed: int = 0,
    prompts: Prompts | None = None,
    on_skip: Callable[[Failure], None] = lambda _: None,
) -> Iterator[TrainingRow]:
    """Rows with memory out of a recorded run of the method ``tmas``, until there are as many as ``wanted``.

    Problems come in an order drawn by ``seed``. Each gives at most ``per_problem`` rows, the next always of the source
    that is the furthest behind, from iterations drawn likewise among ``iterations`` (those whose prompts are made;
    None: all). ``prompts``: see :func:`row_prompts`. A row that cannot be made goes to ``on_skip``. Raises
    ``UserError`` if ``run`` is a run of another method, or ran another question or answer under a problem's id.
    """
    prompts = row_prompts(run, prompts)
    made: Counter[Source] = Counter()
    finished = {p.problem_id: p for p in problems if p.problem_id in run.problem_ids}
    for problem_id in sorted(finished, key=lambda name: keyed_hash(seed, name, "order of rows")):
        prediction = run.prediction(problem_id)
        offers, taken = _offers(prediction, iterations, seed), 0
        make = _maker(run, prediction, finished[problem_id], window, prompts)
        while taken < per_problem and (offer := _next(offers, made, wanted)):
            offers.remove(offer)
            row = make(offer)
            if isinstance(row, Failure):
                on_skip(row)
                continue
            taken += 1
            made[offer.source] += 1
            yield row


class _Offer(NamedTuple):
    """A row that could be made of a problem: ``source``'s prompt for ``iteration``."""

    iteration: int
    source: Source


def _offers(prediction: Prediction, iterations: Collection[int] | None, seed: int) -> list[_Offer]:
    """All rows that the problem has a filled bank for, in drawn order."""
    offers: list[_Offer] = []
    for i in prediction.iterations:
        offers += [_Offer(i.iteration + 1, "experience")] if i.experience_bank else []
        offers += [_Offer(i.iteration + 1, "guideline")] if i.guideline_bank else []
    allowed = [offer for offer in offers if iterations is None or offer.iteration in iterations]
    return sorted(allowed, key=lambda offer: keyed_hash(seed, prediction.problem_id, f"row/{offer}"))


def _next(offers: Sequence[_Offer], made: Mapping[Source, int], wanted: Mapping[Source, int]) -> _Offer | None:
    """The first offer of the source that is the furthest behind; None where none is wanted."""
    open_ = [offer for offer in offers if made.get(offer.source, 0) < wanted.get(offer.source, 0)]
    return min(open_, key=lambda offer: made.get(offer.source, 0) / wanted[offer.source], default=None)


def _maker(
    run: RecordedRun, prediction: Prediction, problem: TrainingProblem, window: Window, prompts: Prompts
) -> Callable[[_Offer], TrainingRow | Failure]:
    """Makes the rows of one problem; its trace is replayed when the first is made."""
    if prediction.method != "tmas":
        raise UserError(f"is a run of {prediction.method}, and contexts come from runs of tmas", where=run.path)
    agents = AgentSettings.model_validate(prediction.terms.method["agents"])
    contexts = cache(lambda: {context.iteration: context for context in contexts_of(run, problem)})
    builders = {"experience": experience_row, "guideline": guideline_row}
    return lambda offer: builders[offer.source](problem, contexts()[offer.iteration], window, agents, prompts)


def _team(problem: TrainingProblem, window: Window, agents: AgentSettings, prompts: Prompts) -> Team:
    return Team(problem, cast(Session, _PromptsOnly(window, prompts)), agents)


class _PromptsOnly(NamedTuple):
    """A session for agents that make prompts and no calls."""

    room: Window
    prompts: Prompts

    def window(self, role: str) -> Window:
        return self.room


def _row(
    problem: TrainingProblem,
    source: Source,
    iteration: int,
    prompt: Prompt | Failure,
    bank: Sequence[Experience | Guideline] = (),
) -> TrainingRow | Failure:
    if isinstance(prompt, Failure):
        return prompt
    shown = [item for item in bank if line(item) in prompt.text]
    if source != "normal" and not shown:
        return Failure(reason=FailureReason.CONTEXT, message=f"{source}: no item of the bank fits, or it is empty")
    return TrainingRow(
        prompt=prompt.messages,
        data_source=problem.data_source,
        reward_model=RewardModel(style=STYLES[problem.data_source], ground_truth=problem.answer),
        extra_info=ExtraInfo(
            index=0,
            split=problem.split,
            problem_id=problem.problem_id,
            question=problem.question,
            source=source,
            iteration=iteration,
            experience=_json(shown, Experience),
            guidelines=_json(shown, Guideline),
            baseline_pass_rate=problem.baseline_pass_rate,
            origin=problem.origin,
            licence=problem.licence,
        ),
        source=source,
    )


def _json(items: Sequence[Experience | Guideline], kind: type[Experience | Guideline]) -> str:
    return orjson.dumps([item.model_dump() for item in items if isinstance(item, kind)]).decode()
