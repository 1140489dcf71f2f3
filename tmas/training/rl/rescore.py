"""``tmas rescore``: applies another reward to the kept rollouts of a training run (docs/training.md).

No response is generated. A judge's verdict is reused where it was given on the same text; a response that needs
another verdict is counted and left out, unless a judge is configured.
"""

from __future__ import annotations

from asyncio import gather
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, Self

from pydantic import Field

from tmas.errors import UserError
from tmas.judge import JudgeSettings
from tmas.records import SCHEMA_VERSION, Record
from tmas.records.reading import Version
from tmas.rewards.hybrid import is_masked
from tmas.rewards.scorer import Scorer
from tmas.rewards.settings import WITHOUT_JUDGE, AdvantageSettings, RewardSettings
from tmas.settings import Paths, Settings, flatten
from tmas.training.rl.group_advantages import GROUP_ESTIMATORS, group_advantages
from tmas.training.rl.rollouts import UNKEPT, KeptPrompt, KeptResponse, KeptStep, existing_files, read_step
from tmas.training.rl.settings import REWARD_KEY

Progress = Callable[[int, int], None]
"""Called with the number of finished steps and of all steps."""
_ZERO = 1e-6


class AlgorithmSettings(Settings):
    """How verl turns scores into advantages."""

    adv_estimator: str | None = Field(
        default=None,
        description="verl's estimator: grpo, grpo_vectorized, rloo or rloo_vectorized. null: as in training.",
    )
    norm_adv_by_std_in_grpo: bool | None = Field(
        default=None, description="Divide by the standard deviation of the group. null: as in training."
    )


class RescoreSettings(Settings):
    """The settings of ``tmas rescore``."""

    rollouts: Paths = Field(
        min_length=1, description="Output directories of training runs, their folders rollouts/, or files in them."
    )
    output: Path | None = Field(
        default=None, description="The JSON file with the result. null: rescored.json in the first folder of rollouts."
    )
    algorithm: AlgorithmSettings = Field(
        default=AlgorithmSettings(), description="How verl turns scores into advantages."
    )
    judge: JudgeSettings | None = Field(
        default=None,
        description="A judge that is asked for verdicts that were not kept. Without judge.name no judge is asked.",
    )
    reward: RewardSettings = Field(
        alias=REWARD_KEY, description="The settings of the reward, with the keys of tmas train (docs/rewards.md)."
    )

    @classmethod
    def composed(cls, config: Mapping[str, Any]) -> Self:
        """Create the settings from the composed configuration. No judge is required: its verdicts were kept."""
        reward: dict[str, Any] = config["reward"]["custom_reward_function"]["reward_kwargs"]["settings"]
        judge = reward["judge"] if (reward["judge"] or {}).get("name") is not None else None
        given = {key: config[key] for key in ("rollouts", "output", "algorithm")}
        values = {**given, "judge": judge, REWARD_KEY: {**reward, "judge": judge}}
        return cls.model_validate(values, context=WITHOUT_JUDGE)


class Change(Record):
    """A number under the training's reward and under the new one. None: there is nothing to compute it from."""

    before: float | None
    after: float | None


class RescoredSource(Record):
    """What would have changed for the responses of one source.

    ``responses``: their number. ``needs_judge``: those that need a verdict which was not kept; they are left out of all
    other numbers. ``score``: mean over the responses without a masked component. ``with_bonus``: share of the responses
    whose bonus adds to their score. ``compared``: responses with an advantage before and after. If one response to a
    prompt needs a judge, no response to that prompt is compared. ``advantage``: mean absolute value of the advantages
    of compared responses. ``sign_changes``: number of compared responses whose advantage has a different sign
    (positive, negative or 0) after than before.
    ``outcomes``: number of responses by change of outcome, such as ``wrong -> right``.
    """

    responses: int
    needs_judge: int
    score: Change
    with_bonus: Change
    compared: int
    advantage: Change
    sign_changes: int
    outcomes: dict[str, int]


class ChangedSettings(Record):
    """Settings that differ from those of the training in the same way for all ``files``.

    ``settings``: each with the value in training and now.
    """

    files: tuple[str, ...]
    settings: dict[str, tuple[Any, Any]]


class Rescoring(Record):
    """The result of ``tmas rescore``: ``rescored.json``.

    ``files``: number of files. ``steps``: the first and the last step. ``changed``: the settings that differ from those
    of the training. Files with the same differences share an entry, and files without a difference are in none.
    ``sources``: by source, and ``all``.
    """

    schema_version: Version = SCHEMA_VERSION
    rollouts: tuple[str, ...]
    files: int
    steps: tuple[int, int]
    changed: tuple[ChangedSettings, ...]
    sources: dict[str, RescoredSource]


class Pair(NamedTuple):
    """The reports of the reward for a response, before and after.

    ``prompt``: the prompt's uid. ``after``: None if the response needs a judge. ``advantages``: before and after; None
    if they are not known.
    """

    prompt: str
    before: Mapping[str, Any]
    after: Mapping[str, Any] | None
    advantages: tuple[float, float] | None = None


async def rescore(settings: RescoreSettings, progress: Progress) -> Rescoring:
    """Reward all kept responses again. Raises ``UserError`` for folders and files that cannot be read."""
    files = existing_files(settings.rollouts)
    changed: list[dict[str, tuple[Any, Any]]] = []
    numbers: list[int] = []
    pairs: list[Pair] = []
    async with Scorer(settings.reward) as scorer:
        for done, file in enumerate(files):
            progress(done, len(files))
            step, lines = read_step(file)
            if settings.reward.overlong.penalty and not step.max_response_tokens:
                raise UserError(
                    "was kept by an earlier version, without max_response_tokens, so the overlong penalty cannot be"
                    " computed again",
                    where=str(file),
                    remedy=f"Set {REWARD_KEY}.overlong.penalty=0, or leave out this file.",
                )
            prompts = [*lines]
            changed.append(_changed(step, settings))
            numbers.append(step.step)
            scored = await gather(*(_rescored(scorer, prompt, step.max_response_tokens) for prompt in prompts))
            pairs += _with_advantages([pair for members in scored for pair in members], step, settings)
    progress(len(files), len(files))
    sources: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        sources["all"].append(pair)
        sources[pair.before["source"]].append(pair)
    return Rescoring(
        rollouts=tuple(map(str, settings.rollouts)),
        files=len(files),
        steps=(min(numbers), max(numbers)),
        changed=tuple(_by_change(files, changed)),
        sources={source: _summary(members) for source, members in sorted(sources.items())},
    )


async def _rescored(scorer: Scorer, prompt: KeptPrompt, max_response_tokens: int) -> list[Pair]:
    async def pair(response: KeptResponse) -> Pair:
        questions = scorer.questions(response.verdicts)
        given = prompt.reward_input(response, max_response_tokens)
        report = await scorer.score(prompt.data_source, response.text, prompt.gold, given, questions)
        after = None if questions.unanswered else {key: report[key] for key in response.reward}
        return Pair(prompt.uid, response.reward, after)

    return await gather(*map(pair, prompt.responses))


def _with_advantages(pairs: Sequence[Pair], step: KeptStep, settings: RescoreSettings) -> list[Pair]:
    """Add the advantages to the ``pairs`` of one step.

    Prompts with a response that needs a judge get none. No prompt gets any if an estimator needs more than the scores.
    """
    was, now = _algorithms(step, settings)
    incomplete = {pair.prompt for pair in pairs if pair.after is None}
    whole = [pair for pair in pairs if pair.prompt not in incomplete]
    if not whole or not {was[0], now[0]} <= {*GROUP_ESTIMATORS}:
        return [*pairs]
    prompts = [pair.prompt for pair in whole]
    kept = {key.removeprefix("advantage."): v for key, v in step.reward.items() if key.startswith("advantage.")}
    before = group_advantages([p.before for p in whole], prompts, AdvantageSettings.model_validate(kept), *was)
    after = group_advantages([p.after or {} for p in whole], prompts, settings.reward.advantage, *now)
    found = iter(zip(before, after, strict=True))
    return [pair if pair.prompt in incomplete else pair._replace(advantages=next(found)) for pair in pairs]


def _algorithms(step: KeptStep, settings: RescoreSettings) -> tuple[tuple[str, bool], tuple[str, bool]]:
    """The estimator, and whether it divides by the standard deviation, before and after."""
    was = str(step.algorithm.get("adv_estimator")), step.algorithm.get("norm_adv_by_std_in_grpo") is not False
    new = settings.algorithm
    by_std = was[1] if new.norm_adv_by_std_in_grpo is None else new.norm_adv_by_std_in_grpo
    if new.adv_estimator not in (None, *GROUP_ESTIMATORS):
        raise UserError(f"must be one of {', '.join(GROUP_ESTIMATORS)}", where="algorithm.adv_estimator")
    return was, (new.adv_estimator or was[0], by_std)


def _changed(step: KeptStep, settings: RescoreSettings) -> dict[str, tuple[Any, Any]]:
    """The settings of the reward and of the advantage that differ from those of the training."""
    now = flatten(settings.reward.model_dump(mode="json", exclude=set(UNKEPT)))
    now |= {f"algorithm.{key}": value for key, value in settings.algorithm if value is not None}
    was = step.reward | {f"algorithm.{key}": value for key, value in step.algorithm.items()}
    return {key: (was[key], now[key]) for key in sorted(was.keys() & now.keys()) if was[key] != now[key]}


def _by_change(files: Sequence[Path], changed: Sequence[dict[str, tuple[Any, Any]]]) -> Iterator[ChangedSettings]:
    """Group files with the same changed settings. ``changed``: those of each file."""
    for number, settings in enumerate(changed):
        if settings and settings not in changed[:number]:
            same = tuple(str(file) for file, other in zip(files, changed, strict=True) if other == settings)
            yield ChangedSettings(files=same, settings=settings)


def _summary(pairs: Sequence[Pair]) -> RescoredSource:
    scored = [(pair.before, pair.after) for pair in pairs if pair.after is not None]
    before, after = [one for one, _ in scored], [other for _, other in scored]
    advantages = [pair.advantages for pair in pairs if pair.advantages is not None]
    outcomes = Counter(f"{a} -> {b}" for a, b in ((_outcome(a), _outcome(b)) for a, b in scored) if a != b)
    return RescoredSource(
        responses=len(pairs),
        needs_judge=len(pairs) - len(scored),
        score=Change(before=_score(before), after=_score(after)),
        with_bonus=Change(before=_with_bonus(before), after=_with_bonus(after)),
        compared=len(advantages),
        advantage=Change(before=_mean([abs(a) for a, _ in advantages]), after=_mean([abs(b) for _, b in advantages])),
        sign_changes=sum(_sign(a) != _sign(b) for a, b in advantages),
        outcomes=dict(outcomes.most_common()),
    )


def _outcome(report: Mapping[str, Any]) -> str:
    """The outcome; instead of ``answered``, whether the answer is ``right``, ``wrong`` or ``masked``."""
    if report["outcome"] != "answered":
        return str(report["outcome"])
    return "masked" if report["correctness_state"] == "masked" else "right" if report["correctness"] == 1 else "wrong"


def _score(reports: Sequence[Mapping[str, Any]]) -> float | None:
    return _mean([report["score"] for report in reports if not is_masked(report)])


def _with_bonus(reports: Sequence[Mapping[str, Any]]) -> float | None:
    return _mean([float(report["bonus_weight"] * report["bonus"] > 0) for report in reports])


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _sign(advantage: float) -> int:
    return 0 if abs(advantage) < _ZERO else 1 if advantage > 0 else -1
