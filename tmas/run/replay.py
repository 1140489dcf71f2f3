"""Reads a run directory: its finished problems, and their trajectories, which are replayed from the traces.

No model and no tokenizer is needed, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, KeysView
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import uvloop
from pydantic import BaseModel, TypeAdapter

from tmas.agents.packing import Prompt, Window
from tmas.answers.checker import AnswerChecker
from tmas.errors import UserError
from tmas.files import complete_lines, digest
from tmas.memory.settings import OLDER_RULES
from tmas.methods import METHODS, AnyMethodSettings
from tmas.methods.base import MethodSettings
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
            remedy = "Give the output_dir of tmas solve or tmas distill."
            raise UserError("not a run directory: manifest.json is missing", where=path, remedy=remedy)
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
        """Replay ``problem`` from its trace and return its trajectory. Only for callers without an event loop.

        Calls :meth:`check` first.
        """
        self.check(problem)
        settings = self.method_settings(self.prediction(problem.problem_id))
        calls = RecordedCalls(self.trace(problem.problem_id))
        session = Replay(problem.problem_id, calls, self.manifest.seed, self.prompts)
        return uvloop.run(METHODS[settings.name](settings, AnswerChecker()).solve(problem, session))

    def method_settings(self, prediction: Prediction) -> MethodSettings:
        """The method's settings for a replay of a finished problem.

        The problem may have stopped before the last iteration. Only its recorded iterations are replayed.
        """
        method_settings = prediction.terms.method | {"max_iterations": len(prediction.iterations)}
        # Older versions had no setting ``cut_summaries``, and asked again for every truncated summary.
        if "summary" in METHODS[prediction.method].settings_type.roles:
            agents = method_settings.get("agents")
            method_settings["agents"] = {"cut_summaries": None, **(agents if isinstance(agents, dict) else {})}
        method_settings |= {  # the rules of the banks before they were settings
            bank: {**OLDER_RULES, **rules}
            for bank in ("experience", "guidelines")
            if isinstance(rules := method_settings.get(bank), dict)
        }
        return TypeAdapter(AnyMethodSettings).validate_python(method_settings)


class RecordedCall(NamedTuple):
    """A call in a trace. ``n``: number of completions that were asked for.

    ``outcome`` has no reasoning, to save memory: no later prompt contains it, and it is the largest part of a trace.
    ``characters``: length of each completion, reasoning included; empty for a failure.
    """

    key: CallKey
    n: int
    outcome: Reply | Failure
    characters: tuple[int, ...]


class RecordedCalls:
    """The calls and decisions in the trace of one problem.

    ``calls``: by the text of their key. ``sent``: the prompt of each solution call, as it was sent, with the system
    message.
    """

    def __init__(self, trace: Path) -> None:
        self.calls: dict[str, RecordedCall] = {}
        self.decisions: dict[str, Any] = {}
        self.sent: dict[str, str] = {}
        for line in read_trace(trace):
            if isinstance(line, DecisionLine):
                self.decisions[line.name] = line.value
            elif isinstance(line, CallLine):
                self.calls[str(line.key)] = _recorded_call(line)
                if line.key.role == "solution":
                    self.sent[str(line.key)] = "\n\n".join(message.content for message in line.messages)


def _recorded_call(line: CallLine) -> RecordedCall:
    outcome = line.outcome
    if isinstance(outcome, Failure):
        return RecordedCall(line.key, line.request.n, outcome, ())
    kept = tuple(completion.model_copy(update={"reasoning": None}) for completion in outcome.completions)
    characters = tuple(len(c.text) + len(c.reasoning or "") for c in outcome.completions)
    return RecordedCall(line.key, line.request.n, outcome.model_copy(update={"completions": kept}), characters)


class Replay:
    """Implements :class:`tmas.agents.base.Session` over a recorded trace.

    Calls are looked up by key and not by request, because this session does not shorten prompts. A call that is not in
    the trace was not made: its prompt did not fit the context, or the budget was exhausted.
    """

    # A replay is never stopped: ``max_iterations`` is the number of recorded iterations.
    stopped: Literal["budget", "worker"] | None = None

    def __init__(self, problem_id: str, recorded: RecordedCalls, seed: int, prompts: Prompts) -> None:
        self._problem_id, self._recorded, self._seed, self.prompts = problem_id, recorded, seed, prompts

    def draw(self, name: str) -> float:
        return keyed_hash(self._seed, self._problem_id, name) / 2**56

    def window(self, role: str) -> Window:
        return _UnlimitedWindow()

    def shown_items(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        sent = self._recorded.sent.get(str(key), "")
        if prompt.lines:
            sent_lines = frozenset(sent.split("\n"))
            return tuple(item_id for item_id, line in prompt.lines.items() if line in sent_lines)
        return tuple(item_id for item_id in prompt.shown if f"\n- [{item_id}, " in sent)

    async def decide(self, name: str, compute: Callable[[], Awaitable[Output]], output: type[Output]) -> Output:
        recorded = self._recorded.decisions.get(name)
        return await compute() if recorded is None else output.model_validate(recorded)

    async def share_allows(self, iteration: int, stalled: int) -> bool:
        return True  # only iterations that began are replayed

    async def ask(
        self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None
    ) -> Reply | Failure:
        found = self._recorded.calls.get(str(key))
        return found.outcome if found else self._not_made(key)

    def _not_made(self, key: CallKey) -> Failure:
        reason = FailureReason.BUDGET if "budget" in self._recorded.decisions else FailureReason.CONTEXT
        return Failure(reason=reason, message="this call was not made", key=key)


class _UnlimitedWindow:
    """A context window into which every prompt fits."""

    def fits(self, prompt: str) -> bool:
        return True

    def count(self, text: str) -> int:
        return 0


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
