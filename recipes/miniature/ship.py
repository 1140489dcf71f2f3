"""Copies a trained policy into the package: ``python -m recipes.miniature.ship POLICY_FOLDER PROBLEMS``.

It writes to ``tmas/miniature``: the policy's files, the first test problems, the built-in prompts of the agents, and a
manifest. The policy must have been trained on these prompts. The manifest has the SHA-256 of each file, the settings of
the task, and the recorded settings of each training stage.
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from safetensors import safe_open

from recipes.miniature.task import Task
from tmas.miniature import FOLDER, MANIFEST, POLICY, PROBLEMS, PROMPTS, hashes
from tmas.prompts.texts import JUDGE, built_in_texts

FILES = (
    *("config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
)
"""The files of a Hugging Face folder that vLLM needs."""
MAX_BYTES = 4_000_000
"""Largest allowed size of all shipped files together, in bytes."""
PROBLEM_COUNT = 30
"""Number of shipped problems."""


def ship(policy: Path, problems: Path, target: Path = FOLDER) -> dict[str, Any]:
    """Write policy, problems, prompts and manifest to ``target``; returns the manifest.

    Raises ``ValueError`` if the files have more than ``MAX_BYTES`` bytes, if there are fewer than ``PROBLEM_COUNT``
    problems, or if ``policy`` is the folder that would be replaced. In these cases nothing is written.
    """
    if policy.resolve() == (target / POLICY.name).resolve():
        raise ValueError(f"{policy} is the shipped policy itself: give the folder that the recipe made")
    with problems.open("rb") as file:
        lines = list(islice(file, PROBLEM_COUNT))
    if len(lines) < PROBLEM_COUNT:
        raise ValueError(f"{problems} has {len(lines)} problems: {PROBLEM_COUNT} are shipped")
    prompts = {name: text.encode() for name, text in built_in_texts().items() if not name.startswith(JUDGE)}
    size = sum((policy / name).stat().st_size for name in FILES) + sum(map(len, [*lines, *prompts.values()]))
    if size > MAX_BYTES:
        raise ValueError(
            f"{policy}, the problems and the prompts have {size:,} bytes: at most {MAX_BYTES:,} are shipped"
        )
    copy = target / f"{POLICY.name}.new"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(policy / name, copy / name)  # does not copy the file mode, so that everyone can read the copy
    stages = list(_stages(policy))[::-1]
    shutil.rmtree(target / POLICY.name, ignore_errors=True)
    copy.rename(target / POLICY.name)
    (target / PROBLEMS.name).write_bytes(b"".join(lines))
    shutil.rmtree(target / PROMPTS.name, ignore_errors=True)
    (target / PROMPTS.name).mkdir()
    for name, text in prompts.items():
        (target / PROMPTS.name / f"{name}.jinja").write_bytes(text)
    manifest = {
        "made_by": "recipes/miniature/run.sh, then python -m recipes.miniature.ship (docs/miniature.md)",
        "parameters": _parameters(target / POLICY.name / "model.safetensors"),
        "bytes": size,
        "task": asdict(Task()),
        "stages": stages,
        "files": hashes(target),
    }
    (target / MANIFEST.name).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return manifest


def _parameters(file: Path) -> int:
    with safe_open(file, "np") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 - no mapping


def _stages(policy: Path) -> Iterator[dict[str, Any]]:
    """The settings of each training stage, the last stage first. Paths are left out."""
    run = policy.parent
    recorded = [
        run / "manifest.json",
        *sorted(run.glob("starts/*/identity.json")),
    ]  # written by tmas sft and by tmas train
    for file in [file for file in recorded if file.exists()][-1:]:
        settings = orjson.loads(file.read_bytes())
        before = settings.pop("model.path", None) or settings.pop("actor_rollout_ref.model.path", None)
        yield settings
        if before:
            yield from _stages(Path(before))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, help="a Hugging Face folder")
    parser.add_argument("problems", type=Path, help="the test problems, as JSONL")
    given = parser.parse_args()
    done = ship(given.policy, given.problems)
    print(f"{FOLDER}: {done['parameters']:,} parameters, {done['bytes']:,} bytes")
