"""Makes training rows from problems and from recorded runs of TMAS.

:class:`tmas.agents.team.Team` renders the prompts, as in inference. Each row belongs to an iteration and a mode, or to
a candidate. It has the prompt that ``tmas solve`` sends to the solution agent in this iteration and mode, or to the
verification agent for this candidate. A recorded run is replayed, so that the rollouts R, the experience E and the
guidelines G in a prompt are those of the run.
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
from tmas.memory.bank import item_line
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.prompts import BUILT_IN, Prompts
from tmas.records import Experience, Failure, FailureReason, Guideline, Problem, Record, Rollout
from tmas.records.run_files import Prediction
from tmas.rewards.verification import VerificationTruth
from tmas.run.replay import RecordedRun
from tmas.run.session import keyed_hash
from tmas.training.rows import (
    STYLES,
    UNKNOWN_PASS_RATE,
    AnswerSource,
    DataSource,
    ExtraInfo,
    PassRate,
    RewardModel,
    Source,
    Split,
    Text,
    TrainingRow,
)

PUBLISHED_COUNTS: Mapping[Source, int] = {"experience": 1600, "guideline": 600}
"""Number of rows with memory in the paper's training set. It also has 2,200 ``normal`` rows."""

OWN_PROMPTS_REMEDY = "Leave out prompts=FOLDER to use the run's own prompts."


class TrainingProblem(Problem):
    """A problem with the data that all its rows share.

    ``baseline_pass_rate``: pass rate of the policy without memory; -1: unknown.
    """

    answer: Text  # type: ignore[assignment]  # a row needs an answer
    data_source: AnswerSource = "math"
    split: Split = "train"
    origin: str = ""
    licence: str = ""
    baseline_pass_rate: PassRate = UNKNOWN_PASS_RATE


class MemorySnapshot(Record):
    """The memory at the start of ``iteration``: the rollouts of the previous iteration, and both banks after it."""

    iteration: int
    rollouts: tuple[Rollout, ...] = ()
    experiences: tuple[Experience, ...] = ()
    guidelines: tuple[Guideline, ...] = ()


_DEFAULT_AGENTS = AgentSettings()


def normal_row(
    problem: TrainingProblem, window: Window, agents: AgentSettings = _DEFAULT_AGENTS, prompts: Prompts = BUILT_IN
) -> TrainingRow | Failure:
    """Make a row with the prompt A_sol(Q), the bare problem.

    Returns a failure with the reason ``context`` if the prompt does not fit ``window``.
    """
    return _row(problem, "normal", -1, _team(problem, window, agents, prompts).solution_prompt())


def experience_row(
    problem: TrainingProblem,
    snapshot: MemorySnapshot,
    window: Window,
    agents: AgentSettings = _DEFAULT_AGENTS,
    prompts: Prompts = BUILT_IN,
) -> TrainingRow | Failure:
    """Make a row with the prompt A_sol(Q, R, E), which asks for a candidate that exploits.

    Returns a failure with the reason ``context`` if no experience is left in a prompt that fits ``window``.
    """
    bank = ExperienceBank(items=snapshot.experiences)
    prompt = _team(problem, window, agents, prompts).solution_prompt(rollouts=snapshot.rollouts, experience=bank)
    return _row(problem, "experience", snapshot.iteration, prompt, snapshot.experiences)


def guideline_row(
    problem: TrainingProblem,
    snapshot: MemorySnapshot,
    window: Window,
    agents: AgentSettings = _DEFAULT_AGENTS,
    prompts: Prompts = BUILT_IN,
) -> TrainingRow | Failure:
    """Make a row with the prompt A_sol(Q, G), which asks for a candidate that explores.

    Returns a failure with the reason ``context`` if no guideline is left in a prompt that fits ``window``.
    """
    prompt = _team(problem, window, agents, prompts).solution_prompt(
        guidelines=GuidelineBank(items=snapshot.guidelines)
    )
    return _row(problem, "guideline", snapshot.iteration, prompt, snapshot.guidelines)


def verification_row(
    problem: TrainingProblem,
    iteration: int,
    truth: VerificationTruth,
    window: Window,
    agents: AgentSettings = _DEFAULT_AGENTS,
    prompts: Prompts = BUILT_IN,
) -> TrainingRow | Failure:
    """Make a row with the prompt of the verification agent for ``truth.candidate``, a candidate of ``iteration``.

    Returns a failure with the reason ``context`` if the prompt does not fit ``window``, and with the reason
    ``shortened`` if only a part of the candidate fits: the part that decides the grade may be missing.
    """
    team = _team(problem, window, agents, prompts)
    prompt = team.verification_prompt(truth.candidate, structured=agents.structured_verification is True)
    if isinstance(prompt, Failure):
        return prompt
    if prompt.notes:
        return Failure(reason=FailureReason.SHORTENED, message="verification: only a part of the candidate fits")
    return _training_row(problem, "verification", iteration, prompt, "verification", truth.model_dump_json())


def snapshots_of(run: RecordedRun, problem: Problem) -> list[MemorySnapshot]:
    """The memory snapshots of a finished problem, one per iteration of the run, in order.

    The snapshot after iteration i is the memory at the start of iteration i + 1, also if i was the last iteration. The
    banks are those that the run wrote, because the rules by which they evolve may have changed since.
    """
    written = run.prediction(problem.problem_id).iterations
    return [
        MemorySnapshot(
            iteration=after.iteration + 1,
            rollouts=replayed.rollouts,
            experiences=after.experience_bank,
            guidelines=after.guideline_bank,
        )
        for replayed, after in zip(run.trajectory(problem).iterations, written, strict=True)
    ]


def row_prompts(run: RecordedRun, given: Prompts | None = None) -> Prompts:
    """Return the prompts to render rows with: ``given``, or the run's own prompts if it is None.

    Raises ``UserError`` if a prompt file of the solution agent differs from the file that the run used.
    """
    prompts = run.prompts if given is None else given
    remedy = None if given is None else OWN_PROMPTS_REMEDY
    # "attempt" renders each rollout that the prompt "solution" shows.
    check_prompts(run, prompts, ("solution", "attempt"), remedy)
    return prompts


def check_prompts(run: RecordedRun, prompts: Prompts, names: Iterable[str], remedy: str | None) -> None:
    """Raise ``UserError`` if one of the prompts ``names``, or a file that it includes, differs from that of the run.

    This includes a built-in prompt that has changed since the run.
    """
    rendered = {file for name in names for file in prompts.files_of(name)}
    changed = {name: hashes for name, hashes in run.changed_prompts(prompts).items() if name in rendered}
    if changed:
        lines = [f"{prompts.place(name)}: {then!r} in the run, {now!r} now" for name, (then, now) in changed.items()]
        message = f"{run.path}: rows must be rendered with the run's own prompts, and these prompts differ:"
        raise UserError("\n  ".join([message, *lines]), remedy=remedy)


def rows_from_run(
    run: RecordedRun,
    problems: Iterable[TrainingProblem],
    window: Window,
    *,
    per_problem: int,
    wanted: Mapping[Source, int] = PUBLISHED_COUNTS,
    iterations: Collection[int] | None = None,
    seed: int = 0,
    prompts: Prompts | None = None,
    on_skip: Callable[[Failure], None] = lambda _: None,
) -> Iterator[TrainingRow]:
    """Yield rows with memory from a recorded run of the method ``tmas``, up to the number ``wanted`` of each source.

    ``seed`` decides the order of the problems, and of the iterations of a problem. ``iterations``: the iterations whose
    prompts may become rows; None: all. A problem gives at most ``per_problem`` rows. The next row has the source that
    has reached the smallest share of its wanted number. ``prompts``: see :func:`row_prompts`. ``on_skip`` is called
    with the failure of each row that cannot be made.

    Raises ``UserError`` if ``run`` used another method, if it had another question or answer for one of the problems,
    or if the prompts differ from its own.
    """
    prompts = row_prompts(run, prompts)
    made: Counter[Source] = Counter()
    finished = {p.problem_id: p for p in problems if p.problem_id in run.problem_ids}
    for problem_id in sorted(finished, key=lambda name: keyed_hash(seed, name, "order of rows")):
        prediction = run.prediction(problem_id)
        options, taken = _options(prediction, iterations, seed), 0
        make_row = _row_maker(run, prediction, finished[problem_id], window, prompts)
        while taken < per_problem and (option := _next_option(options, made, wanted)):
            options.remove(option)
            row = make_row(option)
            if isinstance(row, Failure):
                on_skip(row)
                continue
            taken += 1
            made[option.source] += 1
            yield row


class _RowOption(NamedTuple):
    """A row that a problem could give: the prompt of ``source`` in ``iteration``."""

    iteration: int
    source: Source


def _options(prediction: Prediction, iterations: Collection[int] | None, seed: int) -> list[_RowOption]:
    """The rows that the problem could give: one for each allowed iteration and each bank that is not empty.

    ``seed`` determines their order.
    """
    options: list[_RowOption] = []
    for i in prediction.iterations:
        options += [_RowOption(i.iteration + 1, "experience")] if i.experience_bank else []
        options += [_RowOption(i.iteration + 1, "guideline")] if i.guideline_bank else []
    allowed = [option for option in options if iterations is None or option.iteration in iterations]
    # These texts are hashed to draw the order. They contain the former name of _RowOption, so that a command gives the
    # same rows as in earlier versions.
    names = {option: f"row/_Offer(iteration={option.iteration}, source={option.source!r})" for option in allowed}
    return sorted(allowed, key=lambda option: keyed_hash(seed, prediction.problem_id, names[option]))


def _next_option(
    options: Sequence[_RowOption], made: Mapping[Source, int], wanted: Mapping[Source, int]
) -> _RowOption | None:
    """The first option of the source with the smallest share of its wanted rows; None if no option is wanted."""
    useful = [option for option in options if made.get(option.source, 0) < wanted.get(option.source, 0)]
    return min(useful, key=lambda option: made.get(option.source, 0) / wanted[option.source], default=None)


def _row_maker(
    run: RecordedRun, prediction: Prediction, problem: TrainingProblem, window: Window, prompts: Prompts
) -> Callable[[_RowOption], TrainingRow | Failure]:
    """Return a function that makes the rows of one problem. It replays the problem's trace at its first call."""
    if prediction.method != "tmas":
        raise UserError(f"is a run of {prediction.method}, but rows need a run of tmas", where=run.path)
    agents = AgentSettings.model_validate(prediction.terms.method["agents"])
    snapshots = cache(lambda: {snapshot.iteration: snapshot for snapshot in snapshots_of(run, problem)})
    builders = {"experience": experience_row, "guideline": guideline_row}
    return lambda option: builders[option.source](problem, snapshots()[option.iteration], window, agents, prompts)


def _team(problem: TrainingProblem, window: Window, agents: AgentSettings, prompts: Prompts) -> Team:
    return Team(problem, cast(Session, _PromptSession(window, prompts)), agents)


class _PromptSession(NamedTuple):
    """A session for agents that only render prompts and make no calls."""

    shared_window: Window
    prompts: Prompts

    def window(self, role: str) -> Window:
        return self.shared_window


def _row(
    problem: TrainingProblem,
    source: Source,
    iteration: int,
    prompt: Prompt | Failure,
    bank: Sequence[Experience | Guideline] = (),
) -> TrainingRow | Failure:
    if isinstance(prompt, Failure):
        return prompt
    shown = [item for item in bank if item_line(item) in prompt.content]
    if source != "normal" and not shown:
        return Failure(
            reason=FailureReason.CONTEXT,
            message=f"{source}: the bank is empty, or none of its items fits into the prompt",
        )
    return _training_row(problem, source, iteration, prompt, problem.data_source, problem.answer, shown)


def _training_row(
    problem: TrainingProblem,
    source: Source,
    iteration: int,
    prompt: Prompt,
    data_source: DataSource,
    ground_truth: str,
    shown: Sequence[Experience | Guideline] = (),
) -> TrainingRow:
    return TrainingRow(
        prompt=prompt.messages,
        data_source=data_source,
        reward_model=RewardModel(style=STYLES[data_source], ground_truth=ground_truth),
        extra_info=ExtraInfo(
            index=0,  # write_rows() sets the row's position in its file
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
