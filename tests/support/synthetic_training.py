"""Writes run directories of ``tmas train`` without training, for tests of the report.

The lines have the form of verl's file logger. The real ``reward_metrics`` computes their reward metrics from random
rewards. ``python -m tests.support.synthetic_training FOLDER --steps 1000`` writes a run to FOLDER.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml

from tmas.training.rl.reward_metrics import reward_metrics

SOURCES = ["normal"] * 8 + ["experience"] * 6 + ["guideline"] * 2
VALIDATION_INTERVAL = 10
"""Steps between two validations."""


def make(run: Path, starts: Sequence[range], hybrid: bool = True, seed: int = 0) -> Path:
    """Write a run to ``run``. ``starts``: the steps of each start of the training command.

    As in ``tmas train``, each start begins with a validation of its initial policy.
    """
    for number, steps in enumerate(starts, start=1):
        draw = random.Random(f"{seed} {number}")
        lines = [(steps[0] - 1, _validation(draw, steps[0] - 1, hybrid))]
        lines += [(step, _step(draw, step, hybrid)) for step in steps]
        config = {"env": {"SECRET": "key"}, "reward": "hybrid" if hybrid else "vanilla", "data": {"seed": seed}}
        write(run, number, lines, config)
    return run


def write(
    run: Path, number: int, lines: Iterable[tuple[int, Mapping[str, Any]]], config: Mapping[str, Any] | None = None
) -> Path:
    """Write the start with this number, and return the path of its ``metrics.jsonl``."""
    file = run / "starts" / f"{number:04d}" / "metrics.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"".join(orjson.dumps({"step": step, "data": data}) + b"\n" for step, data in lines))
    if config is not None:
        file.with_name("config.yaml").write_text(yaml.safe_dump(dict(config)))
    return file


def _step(draw: random.Random, step: int, hybrid: bool) -> dict[str, float | None]:
    gen, update = draw.uniform(3, 4) + 14 * (step == 1), draw.uniform(1, 2)
    return {
        "timing_s/gen": gen,
        "timing_s/update_actor": update,
        "timing_s/step": gen + update + 0.5,
        "actor/grad_norm": draw.uniform(0.1, 0.5),
        "actor/entropy": 0.6 - 0.2 * _skill(step) + draw.uniform(-0.05, 0.05),
        **reward_metrics("reward", _rewards(draw, step, hybrid, 128)),
        "reward/all/masked": 0.0,
        "training/global_step": step,
        **(_validation(draw, step, hybrid) | {"timing_s/testing": 21.0} if step % VALIDATION_INTERVAL == 0 else {}),
    }


def _validation(draw: random.Random, step: int, hybrid: bool) -> dict[str, float | None]:
    found = reward_metrics("val-reward", _rewards(draw, step, hybrid, 128))
    accuracy = found["val-reward/all/acc"]
    own = {"mean@4": accuracy, "best@4/mean": min(1.0, accuracy + 0.2), "best@4/std": 0.1, "maj@4/mean": accuracy}
    return {**{f"val-core/math/acc/{name}": value for name, value in own.items()}, **found}


def _skill(step: int) -> float:
    """Probability of a right answer. It starts at 0.25 and rises ever more slowly towards 0.85."""
    return 0.25 + 0.6 * step / (step + 20)


def _rewards(draw: random.Random, step: int, hybrid: bool, samples: int) -> list[dict[str, Any]]:
    return [_reward(draw, draw.choice(SOURCES), _skill(step), hybrid) for _ in range(samples)]


def _reward(draw: random.Random, source: str, skill: float, hybrid: bool) -> dict[str, Any]:
    right, truncated = float(draw.random() < skill), draw.random() > 0.7 + 0.3 * skill
    outcome = "truncated" if truncated else "answered" if draw.random() < 0.9 else "no_answer"
    bonus = {name: hybrid and source == bonus_source for name, bonus_source in BONUSES.items()}
    masked = draw.random() < 0.03
    return {
        "source": source,
        "score": right + 0.3 * skill * any(bonus.values()),
        "acc": right,
        "truncated": float(truncated),
        "response_tokens": draw.randrange(8, 48),
        "outcome": outcome,
        "bonus_state": ("masked" if masked else "scored") if any(bonus.values()) else "absent",
        **_component("correctness", right, "scored"),
        **{
            key: value
            for name, counts in bonus.items()
            for key, value in _component(
                name, skill, ("masked" if masked else "scored") if counts else "absent"
            ).items()
        },
    }


BONUSES = {"experience": "experience", "novelty": "guideline"}
"""For each bonus of the reward, the source of the rows in which it is scored."""


def _component(name: str, value: float, state: str) -> dict[str, Any]:
    return {name: value, f"{name}_state": state, f"{name}_why": "judge: timeout" if state == "masked" else ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vanilla", action="store_true", help="correctness alone")
    given = parser.parse_args()
    make(given.folder, [range(1, given.steps + 1)], hybrid=not given.vanilla, seed=given.seed)


if __name__ == "__main__":
    main()
