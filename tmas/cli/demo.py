"""``tmas demo``: compares TMAS with two baselines at equal generated tokens, with the policy in the package."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import orjson
import uvloop
from pydantic import Field, model_validator
from rich.console import Console
from rich.text import Text

from tmas.agents.settings import AgentSettings
from tmas.cli.composing import validated
from tmas.cli.runs import exit_when_stopped, run_with_progress
from tmas.errors import UserError
from tmas.evaluation.equal_tokens import Costs
from tmas.evaluation.evaluate import EvaluateSettings, evaluate
from tmas.files import text_digest
from tmas.methods import MethodSettings
from tmas.methods.best_of_n import BestOfNSettings
from tmas.methods.majority_vote import MajorityVoteSettings
from tmas.methods.tmas import TMASSettings
from tmas.miniature import POLICY, PROBLEMS, PROMPTS, read_manifest
from tmas.miniature.shown import print_demo
from tmas.problems.loader import load_problems
from tmas.records import Problem
from tmas.records.reading import read_records
from tmas.records.run_files import Prediction
from tmas.report.report import ReportSettings, make_report
from tmas.run.models import SharedServers
from tmas.settings import RunSettings


class DemoSettings(RunSettings):
    """All settings of ``tmas demo``."""

    output_dir: Path = Field(description="Folder for a run directory of each method and report.html.")
    max_problems: int = Field(ge=1, description="Number of problems, from those that ship with the package.")

    @model_validator(mode="after")
    def _has_one_server(self) -> Self:
        if self.on_ray:
            raise ValueError("serving.replicas: the demo has one server, on this machine")
        return self

    @property
    def tmas(self) -> TMASSettings:
        """The settings of the method. It is TMAS: no other method has all the settings that conf/demo.yaml sets."""
        return cast(TMASSettings, self.method)


def demo_command(config: dict[str, Any], console: Console) -> None:
    """``tmas demo``: three runs on one vLLM server, their evaluation, a report, and a summary for the terminal."""
    manifest = read_manifest()
    shipped = {"model": with_policy(config["model"], manifest), "prompts": str(PROMPTS)}
    settings = validated(DemoSettings.model_validate, {**config, **shipped})
    problems = load_problems(PROBLEMS).problems[: settings.max_problems]
    with exit_when_stopped(settings.output_dir):
        runs = uvloop.run(_Demo(settings, problems, console).all_runs())
    evaluations = uvloop.run(evaluate(EvaluateSettings(runs=tuple(runs))))
    page = make_report(ReportSettings(runs=tuple(runs), output=settings.output_dir / "report.html"))
    print_demo(console, evaluations, manifest["parameters"], page)


def with_policy(model: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``model`` with the policy that is part of the package.

    The model's name contains the policy's hash, so that a run is not resumed with another version of the policy.
    """
    if model["path"]:
        raise UserError(
            "the demo runs the policy that comes with the package",
            where="model.path",
            remedy="tmas solve runs other policies.",
        )
    version = text_digest(orjson.dumps(manifest["files"]), 8)
    return {**model, "path": str(POLICY), "name": f"{model['name']}-{version}"}


@dataclass(frozen=True)
class _Demo:
    settings: DemoSettings
    problems: Sequence[Problem]
    console: Console

    async def all_runs(self) -> list[Path]:
        """Run TMAS and the baselines and return their run directories. A finished run starts no server."""
        self.settings.output_dir.mkdir(parents=True, exist_ok=True)
        async with SharedServers(self.settings.output_dir) as servers:
            ours = self.settings.tmas
            size = f"{len(self.problems)} problems, {ours.max_iterations} iterations of {ours.n_candidates} candidates"
            self.console.print(Text(f"TMAS: {size}"))
            tmas = await self._run(ours, servers)
            costs = Costs.measured(read_records(tmas / "predictions.jsonl", Prediction))
            self.console.print(Text(str(costs)))
            return [tmas, *[await self._run(method, servers) for method in _baselines(ours, costs)]]

    async def _run(self, method: MethodSettings, servers: SharedServers) -> Path:
        settings = self.settings.model_copy(update={"method": method})
        directory = settings.output_dir / method.name
        config = {**settings.model_dump(mode="json"), "problems": str(PROBLEMS), "output_dir": str(directory)}
        await run_with_progress(
            self.problems, settings, directory, config=config, console=self.console, servers=servers
        )
        return directory


def _baselines(ours: TMASSettings, costs: Costs) -> list[MethodSettings]:
    """The settings of the baselines. They share the agent settings of TMAS that have an effect on them."""

    def agents(roles: Collection[str]) -> AgentSettings:
        return AgentSettings(**ours.agents.model_dump(include=AgentSettings.names_for(roles)))

    return [
        BestOfNSettings(
            n_candidates=costs.best_of_n, n_verifications=ours.n_verifications, agents=agents(BestOfNSettings.roles)
        ),
        MajorityVoteSettings(n_candidates=costs.majority_vote, agents=agents(MajorityVoteSettings.roles)),
    ]
