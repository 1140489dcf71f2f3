"""Reads a run directory: its finished problems, and their trajectories, which are replayed from the traces.

No model and no tokenizer is needed, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, KeysView
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

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
from tmas.records.run_files import REMEDY, Manifest, Prediction
from tmas.records.trace_lines import CallLine, DecisionLine
from tmas.run.session import keyed_hash
from tmas.run.trace import TraceError, read_trace, trace_path

Output = TypeVar("Output", bound=BaseModel)


class RecordedRun:
    """The run directory ``path``. ``problem_ids``: ids of its finished problems, in the order of ``predictions.jsonl``.

    Raises ``UserError`` if ``path`` is not a run directory of this schema version.
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
        """The built-in prompts of the installed tmas, except those that the run replaced."""
        folder = self.path / "prompts"
        return Prompts.load(folder) if folder.is_dir() else BUILT_IN

    def changed_prompts(self, prompts: Prompts) -> dict[str, tuple[str, str]]:
        """The prompt files that differ from those of the run. Values: the hash in the run, the hash in ``prompts``."""
        recorded, now = self.manifest.prompts, prompts.hashes()
        return {name: (recorded[name], now[name]) for name in now if recorded.get(name, now[name]) != now[name]}

    def prediction(self, problem_id: str) -> Prediction:
        """The line of a finished problem."""
        with (self.path / "predictions.jsonl").open("rb") as file:
            file.seek(self._offsets[problem_id])
            return parsed(file.readline(), Prediction, f"{file.name}: problem {problem_id!r}")

    def trace(self, problem_id: str) -> Path:
        """The file of a problem's trace. Raises :class:`TraceError` if it is missing."""
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
        # A problem may have stopped before the last iteration. Only its recorded iterations are replayed.
        method_settings = prediction.terms.method | {"max_iterations": len(prediction.iterations)}
        if "summary" in METHODS[prediction.method].settings_type.roles:  # before this setting, all were asked for again
            agents = method_settings.get("agents")
            method_settings["agents"] = {"cut_summaries": None, **(agents if isinstance(agents, dict) else {})}
        method_settings |= {  # the rules of the banks before they were settings
            bank: {**OLDER_RULES, **rules}
            for bank in ("experience", "guidelines")
            if isinstance(rules := method_settings.get(bank), dict)
        }
        settings = TypeAdapter(AnyMethodSettings).validate_python(method_settings)
        seed = self.manifest.seed
        session = Replay(problem.problem_id, self.trace(problem.problem_id), seed, self.prompts)
        return uvloop.run(METHODS[settings.name](settings, AnswerChecker()).solve(problem, session))


class Replay:
    """Implements :class:`tmas.agents.base.Session` over a recorded trace.

    Calls are looked up by key and not by request, because this session does not shorten prompts. A call that is not in
    the trace was not made: its prompt did not fit the context, or the budget was exhausted.
    """

    stopped = None  # a replay is never stopped: ``max_iterations`` is the number of recorded iterations

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
        return _UnlimitedWindow()

    def shown(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        sent = self._sent.get(str(key), "")
        return tuple(item_id for item_id in prompt.shown if f"\n- [{item_id}, " in sent)

    async def decide(self, name: str, compute: Callable[[], Awaitable[Output]], output: type[Output]) -> Output:
        recorded = self._decisions.get(name)
        return await compute() if recorded is None else output.model_validate(recorded)

    async def may_begin(self, iteration: int, stalled: int) -> bool:
        return True  # only iterations that began are replayed

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure:
        reason = FailureReason.BUDGET if "budget" in self._decisions else FailureReason.CONTEXT
        return self._calls.get(str(key)) or Failure(reason=reason, message="this call was not made", key=key)


class _UnlimitedWindow:
    """A context window into which every prompt fits."""

    def fits(self, prompt: str) -> bool:
        return True

    def count(self, text: str) -> int:
        return 0


def _without_reasoning(outcome: Reply | Failure) -> Reply | Failure:
    """Drop the reasoning, to save memory: no later prompt contains it, and it is the largest part of a trace."""
    if isinstance(outcome, Failure):
        return outcome
    kept = tuple(completion.model_copy(update={"reasoning": None}) for completion in outcome.completions)
    return outcome.model_copy(update={"completions": kept})


class _PredictionId(BaseModel):
    """The id in a prediction line. :meth:`RecordedRun.prediction` parses the whole line when it is needed."""

    remedy: ClassVar[str] = REMEDY

    problem_id: str


def _offsets(predictions: Path) -> dict[str, int]:
    """Where the line of each problem starts; empty if there is no file yet."""
    if not predictions.exists():
        return {}
    return {
        parsed(line.content, _PredictionId, f"{predictions}:{line.number}").problem_id: line.start
        for line in complete_lines(predictions)
    }
