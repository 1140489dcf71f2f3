"""Training curves by step, as logged by verl and the reward. All runs share each chart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import filter as matching
from statistics import fmean

from tmas.report.items import Choice, ItemRow, Lines, Option, Point, Section, Series, Stack
from tmas.report.training_runs import TrainingRun
from tmas.report.training_tables import masked, non_finite_values, parts, seconds_by_part, summary

SOURCES = ("all", "normal", "experience", "guideline", "verification")
REWARD = ("score", "acc", "correctness", "experience", "novelty", "critique", "false_accept", "false_reject", "half")
REPLIES = ("truncated", "response_tokens", "overlong_penalty", "outcome/*")
MASKED = ("*_masked", "masked", "samples")
"""SOURCES to MASKED: names from :func:`tmas.training.rl.reward_metrics.reward_metrics`. ``*`` matches any text."""
LABELS = {
    "acc": "accuracy",
    "experience": "experience utilisation",
    "false_accept": "false accepts",
    "false_reject": "false rejects",
    "half": "grades of 0.5",
}
SHARES = ("acc", "correctness", "truncated", "outcome/*", "false_accept", "false_reject", "half")
OPTIMISATION = {
    "actor/grad_norm": "gradient norm",
    "actor/entropy": "entropy",
    "actor/pg_clipfrac": "share of tokens that the objective clips",
    "actor/ppo_kl": "KL of the policy before the step and during its updates",
    "rollout_corr/kl": "KL of rollout and trained policy",
    "rollout_corr/rollout_is_mean": "importance ratio of trained and rollout policy, mean",
    "rollout_corr/rollout_is_std": "importance ratio, standard deviation",
    "rollout_corr/rollout_is_ratio_fraction_high": "share of tokens with a ratio above the limit",
    "rollout_corr/rollout_is_oob_ratio": "share of tokens that IcePop leaves out",
    "rollout_corr/rollout_rs_masked_fraction": "share of tokens that are rejected",
    "training/rollout_actor_probs_pearson_corr": "correlation of rollout and trained probabilities",
    "training/filter_groups/evicted_samples": "prompts that dynamic sampling dropped",
    "training/off_policy/trajectory_staleness/mean": "age of a response in steps, mean",
    "critic/grad_norm": "gradient norm of the critic",
    "critic/vf_loss": "loss of the critic",
}
ACCURACY = re.compile(r"val-core/(?P<data>.+)/acc/(?P<measure>[^/]+)(/mean)?")
INTRO = (
    "By step. A reward is the mean over the samples of a step; a component is the mean over those in which it was "
    "scored. A run without a curve in a chart did not log that value."
)


def training_section(runs: Sequence[TrainingRun], smooth: int) -> Section | None:
    """Return the tab, or None without runs. Each point of a noisy curve is the mean of ``smooth`` steps."""
    if not runs:
        return None
    smoothed, plain = Charts(runs, smooth), Charts(runs, 1)
    items = [
        summary(runs),
        *non_finite_values(runs),
        *smoothed.by_source("Reward in training", "Training", "reward", REWARD),
        *smoothed.by_source("Replies in training", "Training", "reward", REPLIES),
        *plain.accuracies("Validation, by data source"),
        *plain.by_source("Validation, by kind of row", "Validation", "val-reward", (*REWARD, *REPLIES)),
        *masked(runs),
        *plain.by_source("Masked in training", "Training", "reward", MASKED),
        *smoothed.optimisation(),
        *plain.seconds(),
    ]
    return Section("training", "Training", items, INTRO)


@dataclass(frozen=True)
class Charts:
    """Charts of ``runs``. There is no chart for values that no run logged."""

    runs: Sequence[TrainingRun]
    smooth: int

    def of(
        self, name: str, title: str, label: str, percent: bool = False, zero_if_logged: str | None = None
    ) -> Iterator[Lines]:
        """Yield a chart with a curve of each run.

        Runs without the value are included, so that every chart has the same legend.
        """
        x_label = f"step (dots: single steps, line: mean of up to {self.smooth})" if self.smooth > 1 else "step"
        series = [Series(r.name, r.color, self._points(r.values(name, zero_if_logged))) for r in self.runs]
        if any(one.points for one in series):
            yield Lines(title, x_label, label, series, percent)

    def _points(self, values: Mapping[int, float]) -> list[Point]:
        """Return the points with six significant digits, more than a chart can show."""
        if self.smooth == 1:
            return [Point(step, _rounded(value)) for step, value in values.items()]
        reach = self.smooth // 2
        near = {step: [values[s] for s in range(step - reach, step + reach + 1) if s in values] for step in values}
        return [Point(step, _rounded(y), trend=_rounded(fmean(near[step]))) for step, y in values.items()]

    def by_source(self, label: str, phase: str, prefix: str, patterns: Sequence[str]) -> Iterator[Choice]:
        """Yield a choice of sources, each with the values that match ``patterns`` under ``prefix/SOURCE/``."""
        options = [
            Option(f"{source} rows", ItemRow(charts))
            for source in SOURCES
            if (charts := list(self._of_source(phase, prefix, source, patterns)))
        ]
        if options:
            yield Choice(label, options)

    def _of_source(self, phase: str, prefix: str, source: str, patterns: Sequence[str]) -> Iterator[Lines]:
        under = f"{prefix}/{source}/"
        logged = sorted(name.removeprefix(under) for name in self._names() if name.startswith(under))
        for name in (name for pattern in patterns for name in matching(logged, pattern)):
            label = LABELS.get(name) or name.replace("/", ": ").replace("_", " ")
            percent = any(matching([name], pattern) for pattern in SHARES)
            zero_if_logged = f"{under}samples" if name.startswith("outcome/") else None
            yield from self.of(under + name, f"{phase} {label}, {source} rows", label, percent, zero_if_logged)

    def accuracies(self, label: str) -> Iterator[Choice]:
        """Yield a choice of data sources, each with verl's accuracies over the N samples of a problem."""
        found: dict[str, list[Lines]] = {}
        for name in self._names():
            if match := ACCURACY.fullmatch(name):
                data, measure = match["data"], f"accuracy, {match['measure']}"
                found.setdefault(data, []).extend(self.of(name, f"Validation {measure} on {data}", measure, True))
        if found:
            yield Choice(label, [Option(data, ItemRow(charts)) for data, charts in found.items()])

    def optimisation(self) -> Iterator[ItemRow]:
        charts = [c for name, label in OPTIMISATION.items() for c in self.of(name, f"Training {label}", label)]
        if charts:
            yield ItemRow(charts)

    def seconds(self) -> Iterator[Stack]:
        """Yield the seconds of a whole step and of its parts."""
        whole = [*self.of("timing_s/step", "Seconds a step", "seconds"), *seconds_by_part(self.runs)]
        options = [
            Option(part, chart)
            for part in parts(self.runs)
            for chart in self.of(f"timing_s/{part}", f"Seconds a step: {part}", "seconds")
        ]
        if whole:
            yield Stack([ItemRow(whole), *([Choice("Part", options)] if options else [])])

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for run in self.runs for name in run.names))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
