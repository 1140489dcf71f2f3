"""Helpers for tests of ``tmas filter`` and ``tmas distill`` with a scripted team."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tmas.api import run
from tmas.data_prep.difficulty import FilterSettings
from tmas.data_prep.distill import DistillSettings
from tmas.files import write_lines
from tmas.methods.majority_vote import MajorityVoteSettings
from tmas.records import Problem
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer
from tmas.training.contexts import TrainingProblem


def runner(problems: Sequence[Problem], settings: RunSettings, directory: Path) -> None:
    """Run problems as the commands do, without a progress display."""
    asyncio.run(run(problems, settings, directory))


def silent(_: str) -> None:
    """Show nothing."""


def problem_file(folder: Path, count: int, **changes: Any) -> Path:
    """Write ``count`` problems. About a third of the scripted solutions are right."""
    problems = [
        TrainingProblem(
            problem_id=f"p{i}", question=f"What is {i} mod 3?", answer=str(i % 3), origin="made up", licence="CC0"
        )
        for i in range(count)
    ]
    path = folder / "asked.jsonl"
    write_lines(path, [problem.model_copy(update=changes) for problem in problems])
    return path


def filter_settings(server: ScriptedServer, folder: Path, problems: Path, **changes: Any) -> FilterSettings:
    """Settings of ``tmas filter`` with 4 samples per problem."""
    method = MajorityVoteSettings(n_candidates=4)
    given = {"model": team.model(server.base_url), "method": method, "problems": problems, "output_dir": folder}
    return FilterSettings.model_validate(given | changes)


def distill_settings(server: ScriptedServer, folder: Path, problems: Path, **changes: Any) -> DistillSettings:
    """Settings of ``tmas distill`` with N = 3 candidates, M = 2 verifications and T = 3 iterations."""
    given = {"model": team.model(server.base_url), "method": team.method(), "problems": problems, "output_dir": folder}
    return DistillSettings.model_validate(given | changes)
