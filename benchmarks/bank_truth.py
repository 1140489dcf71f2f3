"""How much of the experience bank is true, over 20 iterations of a scripted team.

``python -m benchmarks.bank_truth [SVG]`` prints a table and draws the figure of docs/decisions.md. It needs no model.

A problem has topics. Each has a true finding and its opposite ("P3 is reducible", "P3 is irreducible"), in three
wordings. In each iteration, eight rollouts state four findings each. A rollout derives a finding, with an error rate
that depends on the topic, or takes one over from the bank that its prompt showed. The verifier judges each finding. It
errs with the given noise, accepts many findings that are wrong in a convincing way, and checks only some of those that
were taken over. The agent decides about each finding by the majority of its verdicts: a rejected one drops its item; an
accepted one confirms its item, if the agent recognises it, or is new. Both sets of rules get the same team.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from tmas.memory.experience import ExperienceBank
from tmas.memory.settings import OLDER_RULES, BankSettings
from tmas.prompts.schemas import ExperienceOutput
from tmas.records import Experience, Rollout, Solution, Verification

RULES: dict[str, dict[str, Any]] = {"before": {**OLDER_RULES, "similarity": 0.7}, "now": {}}
NOISE = (0.0, 0.05, 0.2)
ITERATIONS, CANDIDATES, VERIFICATIONS, FINDINGS, TOPICS = 20, 8, 4, 4, 40
EXPLORES, TAKES_OVER, CHECKS_TAKEN_OVER, RECOGNISES = 0.2, 0.5, 0.3, 0.8
CAPACITY, MOST_NEW = 24, 8
WORDINGS = (
    "The polynomial P{} is {} over the field of all rational numbers",
    "Over the field of all rational numbers the polynomial P{} is {}",
    "P{} turns out to be {} when one tries to factor it with rational coefficients",
)


class World(NamedTuple):
    """How often rollouts and verifier err.

    ``errors``: probability that a derived finding is wrong. For the share ``hard`` of the topics it is ``hard_errors``.
    ``convincing``: share of the topics whose wrong finding the verifier accepts with the probability ``accepts``.
    """

    errors: float
    hard: float
    hard_errors: float
    convincing: float
    accepts: float


WORLDS = {"hard": World(0.2, 0.3, 0.5, 0.4, 0.8), "easy": World(0.1, 0.25, 0.6, 0.3, 0.5)}


class Claim(NamedTuple):
    """A finding about a topic, or its opposite."""

    topic: int
    is_true: bool

    def text(self, wording: int) -> str:
        return WORDINGS[wording].format(self.topic, "reducible" if self.is_true else "irreducible")


class Stated(NamedTuple):
    """A claim in a rollout. ``taken_over``: it was not derived. ``accepted``: the verifier's verdict."""

    rollout: int
    claim: Claim
    taken_over: bool
    accepted: bool


CLAIMS: Mapping[str, Claim] = {
    claim.text(wording): claim
    for topic in range(TOPICS)
    for claim in (Claim(topic, True), Claim(topic, False))
    for wording in range(len(WORDINGS))
}


class Team:
    """Writes the rollouts and the agent's replies of one problem. ``noise``: the verifier's error rate."""

    def __init__(self, world: World, noise: float, seed: int) -> None:
        self.world, self.noise, self.draw = world, noise, random.Random(seed)
        hard = [self.draw.random() < world.hard for _ in range(TOPICS)]
        self.errors = [world.hard_errors if is_hard else world.errors for is_hard in hard]
        self.convincing = [self.draw.random() < world.convincing for _ in range(TOPICS)]

    def iteration(self, bank: ExperienceBank, t: int) -> tuple[list[Rollout], ExperienceOutput]:
        live = [item for item in bank.items if item.refuted is None]
        stated: list[Stated] = []
        rollouts: list[Rollout] = []
        for index in range(CANDIDATES):
            exploits = t > 0 and self.draw.random() >= EXPLORES
            found = [self._statement(index, live if exploits else []) for _ in range(FINDINGS)]
            shown = tuple(item.item_id for item in bank.items) if exploits else ()
            rollouts.append(self._rollout(t, index, all(s.claim.is_true for s in found), shown))
            stated += found
        return rollouts, self._reply(stated, live)

    def _statement(self, index: int, shown: list[Experience]) -> Stated:
        taken_over = bool(shown) and self.draw.random() < TAKES_OVER
        if taken_over:
            [item] = self.draw.choices(shown, [max(1, item.support - item.contradictions) for item in shown])
            claim = CLAIMS[item.statement]
        else:
            topic = self.draw.randrange(TOPICS)
            claim = Claim(topic, self.draw.random() >= self.errors[topic])
        return Stated(index, claim, taken_over, self._accepts(claim, taken_over))

    def _accepts(self, claim: Claim, taken_over: bool) -> bool:
        if taken_over and self.draw.random() >= CHECKS_TAKEN_OVER:
            return True
        deceived = not claim.is_true and self.convincing[claim.topic] and self.draw.random() < self.world.accepts
        return (claim.is_true or deceived) != (self.draw.random() < self.noise)

    def _rollout(self, t: int, index: int, right: bool, shown: tuple[str, ...]) -> Rollout:
        grades = [float(right != (self.draw.random() < self.noise)) for _ in range(VERIFICATIONS)]
        return Rollout(
            iteration=t,
            index=index,
            mode="exploit" if shown else "explore",
            solution=Solution(iteration=t, index=index, mode="explore", text="A solution.", answer=None),
            verifications=tuple(Verification(index=i, grade=grade, critique=None) for i, grade in enumerate(grades)),
            shown=shown,
        )

    def _reply(self, stated: list[Stated], live: list[Experience]) -> ExperienceOutput:
        """One action for each claim, by the majority of its verdicts: drop or confirm its item, or add one."""
        new: list[dict[str, Any]] = []
        updates: list[dict[str, Any]] = []
        for claim in dict.fromkeys(one.claim for one in stated):
            found = [one for one in stated if one.claim == claim]
            accepted = [one.rollout for one in found if one.accepted]
            rejected = [one.rollout for one in found if not one.accepted]
            known = [item for item in live if CLAIMS[item.statement] == claim]
            if len(accepted) <= len(rejected):
                updates += [{"id": item.item_id, "action": "drop", "rollouts": rejected} for item in known[:1]]
            elif known and self.draw.random() < RECOGNISES:
                updates.append({"id": known[0].item_id, "action": "confirm", "rollouts": accepted})
            else:
                text = claim.text(self.draw.randrange(len(WORDINGS)))
                new.append({"kind": "conclusion", "statement": text, "rollouts": accepted})
        return ExperienceOutput.model_validate({"new": new, "updates": updates})


class Truth(NamedTuple):
    """After an iteration: the share of the bank's findings that is true, and that share weighted by support."""

    share: float
    by_support: float


def history(world: str, rules: str, noise: float, seed: int, iterations: int = ITERATIONS) -> list[Truth]:
    """The truth of a bank with ``rules`` after each iteration."""
    bank = ExperienceBank(settings=BankSettings.model_validate({"capacity": CAPACITY, **RULES[rules]}))
    team = Team(WORLDS[world], noise, seed)
    truths: list[Truth] = []
    for t in range(iterations):
        rollouts, reply = team.iteration(bank, t)
        bank, _ = bank.evolve(reply, t, rollouts, MOST_NEW)
        live = [item for item in bank.items if item.refuted is None]
        true = [CLAIMS[item.statement].is_true for item in live]
        weights = [max(1, item.support - item.contradictions) for item in live]
        trusted = sum(weight for weight, right in zip(weights, true, strict=True) if right)
        truths.append(Truth(mean(true), trusted / sum(weights)))
    return truths


def means(world: str, rules: str, noise: float, problems: int) -> list[Truth]:
    """The means over ``problems`` problems, by iteration."""
    runs = [history(world, rules, noise, seed) for seed in range(problems)]
    return [Truth(mean(r[t].share for r in runs), mean(r[t].by_support for r in runs)) for t in range(ITERATIONS)]


def main(svg: Path | None, problems: int = 40) -> None:
    shown = (0, 4, 9, 14, 19)
    print(f"Share of the bank's findings that is true / weighted by support; {problems} problems\n")
    print(f"| world | noise | rules | {' | '.join(f'it {t}' for t in shown)} |\n|{' --- |' * (3 + len(shown))}")
    for world in WORLDS:
        found = {(rules, noise): means(world, rules, noise, problems) for noise in NOISE for rules in RULES}
        for (rules, noise), truths in found.items():
            cells = (f"{truths[t].share:.1%} / {truths[t].by_support:.1%}" for t in shown)
            print(f"| {world} | {noise:.0%} | {rules} | {' | '.join(cells)} |")
        if svg and world == "hard":
            draw(found, svg)


def draw(found: Mapping[tuple[str, float], list[Truth]], svg: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bank_truth"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(NOISE), figsize=(10, 3.2), sharey=True)
    for axis, noise in zip(axes, NOISE, strict=True):
        for rules, color in (("before", "#b03a2e"), ("now", "#1f618d")):
            truths = found[rules, noise]
            axis.plot([truth.share for truth in truths], color=color, label=f"{rules}: items")
            axis.plot([truth.by_support for truth in truths], color=color, linestyle="--", label=f"{rules}: by support")
        axis.set_title(f"verification noise {noise:.0%}")
        axis.set_xlabel("iteration")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share that is true")
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(svg, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
