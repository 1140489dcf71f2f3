"""A run directory read again: its finished problems, and their trajectories from the traces alone.

No model and no tokenizer is needed, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, KeysView
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from pydantic import BaseModel, TypeAdapter

from tmas.agents.packing import Prompt, Window
from tmas.answers.checker import AnswerChecker
from tmas.errors import UserError
from tmas.files import complete_lines, digest
from tmas.memory.settings import OLDER_RULES
from tmas.methods import METHODS, AnyMethodSettings
from tmas.prompts import BUILT_IN, Prompts
from tmas.records import CallKey, Failure, FailureReason, Problem, Reply, Trajectory
from tmas.records.reading import parsed, read_record
from tmas.records.run_files import Manifest, Prediction
from tmas.records.trace_lines import CallLine, DecisionLine
from tmas.run.session import keyed_hash
from tmas.run.trace import TraceError, read_trace, trace_path

Output = TypeVar("Output", bound=BaseModel)


class RecordedRun:
    """The run directory ``path``. ``problem_ids`` are those of its finished problems, in the order of finishing.

    Raises ``UserError`` where ``path`` is no run directory of this schema version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "manifest.json").is_file():
            raise UserError("holds no manifest.json, so it is no run directory", where=path)
        self.manifest = read_record(path / "manifest.json", Manifest)
        self._offsets = _offsets(path / "predictions.jsonl")

    @property
    def problem_ids(self) -> KeysView[str]:
        return self._offsets.keys()

    @cached_property
    def prompts(self) -> Prompts:
        """The prompts of this version, with those that the run replaced."""
        folder = self.path / "prompts"
        return Prompts.load(folder) if folder.is_dir() else BUILT_IN

    def changed_prompts(self, prompts: Prompts) -> dict[str, tuple[str, str]]:
        """The prompt files that the run had otherwise: the hash in the run and the hash in ``prompts``."""
        recorded, now = self.manifest.prompts, prompts.hashes()
        return {name: (recorded[name], now[name]) for name in now if recorded.get(name, now[name]) != now[name]}

    def prediction(self, problem_id: str) -> Prediction:
        """The line of a finished problem."""
        with (self.path / "predictions.jsonl").open("rb") as file:
            file.seek(self._offsets[problem_id])
            return parsed(file.readline(), Prediction, f"{file.name}: problem {problem_id!r}")

    def trace(self, problem_id: str) -> Path:
        """The file of a problem's trace; raises :class:`TraceError` where it is missing."""
        path = trace_path(self.path, problem_id)
        if not path.is_file():
            raise TraceError(f"{path}: the trace of problem {problem_id!r} is missing")
        return path

    def check(self, problem: Problem) -> None:
        """Raise ``UserError`` if the problem with this id had another question or answer in the run."""
        if self.manifest.problems[problem.problem_id] != digest([problem.question, problem.answer]):
            raise UserError(f"problem {problem.problem_id!r} was run with another question or answer", where=self.path)

    def trajectory(self, problem: Problem) -> Trajectory:
        """The method's trajectory for ``problem``, after :meth:`check`. For callers without an event loop."""
        self.check(problem)
        prediction = self.prediction(problem.problem_id)
        terms = prediction.terms.method | {"max_iterations": len(prediction.iterations)}
        if "summary" in METHODS[prediction.method].settings_type.roles:  # before this setting, all were asked for again
            agents = terms.get("agents")
            terms["agents"] = {"cut_summaries": None, **(agents if isinstance(agents, dict) else {})}
        terms |= {  # the rules of the banks before they were settings
            bank: {**OLDER_RULES, **rules}
            for bank in ("experience", "guidelines")
            if isinstance(rules := terms.get(bank), dict)
        }
        settings = TypeAdapter(AnyMethodSettings).validate_python(terms)
        seed = self.manifest.seed
        session = Replay(problem.problem_id, self.trace(problem.problem_id), seed, self.prompts)
        return uvloop.run(METHODS[settings.name](settings, AnswerChecker()).solve(problem, session))


class Replay:
    """Implements :class:`tmas.agents.base.Session` over a recorded trace.

    Calls are looked up by key alone, so that prompts may stay unpacked. One that is not there was not made: it did not
    fit the context, or the budget was used up.
    """

    stopped = None  # how many iterations there are is known

    def __init__(self, problem_id: str, trace: Path, seed: int, prompts: Prompts) -> None:
        self._problem_id, self._seed, self.prompts = problem_id, seed, prompts
        self._calls: dict[str, Reply | Failure] = {}
        self._decisions: dict[str, Any] = {}
        self._sent: dict[str, str] = {}
        for line in read_trace(trace):
            if isinstance(line, DecisionLine):
                self._decisions[line.name] = line.value
            elif isinstance(line, CallLine):
                self._calls[str(line.key)] = _without_reasoning(line.outcome)
                if line.key.role == "solution":
                    self._sent[str(line.key)] = line.messages[-1].content

    def draw(self, name: str) -> float:
        return keyed_hash(self._seed, self._problem_id, name) / 2**56

    def window(self, role: str) -> Window:
        return _Endless()

    def shown(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        sent = self._sent.get(str(key), "")
        return tuple(item_id for item_id in prompt.shown if f"\n- [{item_id}, " in sent)

    async def decide(self, name: str, compute: Callable[[], Awaitable[Output]], output: type[Output]) -> Output:
        noted = self._decisions.get(name)
        return await compute() if noted is None else output.model_validate(noted)

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure:
        reason = FailureReason.BUDGET if "budget" in self._decisions else FailureReason.CONTEXT
        return self._calls.get(str(key)) or Failure(reason=reason, message="this call was not made", key=key)


class _Endless:
    def fits(self, prompt: str) -> bool:
        return True

    def count(self, text: str) -> int:
        return 0


def _without_reasoning(outcome: Reply | Failure) -> Reply | Failure:
    """No later prompt sees the reasoning, and it is most of a trace."""
    if isinstance(outcome, Failure):
        return outcome
    kept = tuple(completion.model_copy(update={"reasoning": None}) for completion in outcome.completions)
    return outcome.model_copy(update={"completions": kept})


class _Named(BaseModel):
    """A prediction's id, read alone: the whole lines are read when they are asked for."""

    problem_id: str


def _offsets(predictions: Path) -> dict[str, int]:
    """Where the line of each problem starts; empty if there is no file yet."""
    if not predictions.exists():
        return {}
    return {
        parsed(line.content, _Named, f"{predictions}:{line.number}").problem_id: line.start
        for line in complete_lines(predictions)
    }
