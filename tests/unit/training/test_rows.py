"""Training rows: the file contract, and prompts that are those of inference to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from tmas import solve_all
from tmas.agents.packing import Prompt
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.errors import UserError
from tmas.llm.tokens import ContextWindow, token_counter
from tmas.records import Failure, Guideline, Message, Result
from tmas.rewards.verification import VerificationTruth
from tmas.run.replay import RecordedRun
from tmas.run.trace import TraceError
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer, run_in_thread
from tmas.training.contexts import (
    MemorySnapshot,
    TrainingProblem,
    experience_row,
    guideline_row,
    normal_row,
    rows_from_run,
    snapshots_of,
    verification_row,
)
from tmas.training.rows import SCHEMA, RowFileError, TrainingRow, read_rows, validate_rows, write_rows

PROBLEMS = [
    TrainingProblem(
        problem_id=f"p{i}",
        question=f"What is {i} + {i}?",
        answer=f"CANARY-{i}",
        origin="made up",
        licence="CC0",
        baseline_pass_rate=0.25,
    )
    for i in range(3)
]


def room(tokens: int) -> ContextWindow:
    return ContextWindow(token_counter("estimate"), tokens, 0)


WIDE = room(100_000)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result]]:
    """A real run, whose gold answers are canaries."""
    path = tmp_path_factory.mktemp("rows") / "run"
    with run_in_thread(ScriptedServer(team.reply)) as server:
        return path, solve_all(PROBLEMS, team.model(server.base_url), team.method(), output_dir=path)


# --- prompts


def sent_prompts(run: tuple[Path, list[Result]], mode: str) -> dict[tuple[str, int], list[Any]]:
    """Messages of the solution calls of a mode, as the trace has them, by problem and iteration."""
    calls = team.recorded_calls(run[0])
    return {
        (result.problem.problem_id, rollout.iteration): calls[
            f"{result.problem.problem_id}/{rollout.iteration}/solution/{rollout.index}/0"
        ]["messages"]
        for result in run[1]
        for iteration in result.trajectory.iterations
        for rollout in iteration.rollouts
        if rollout.mode == mode
    }


def messages(row: TrainingRow | Failure) -> list[Any]:
    assert isinstance(row, TrainingRow)
    return [message.model_dump() for message in row.prompt]


def test_a_normal_row_has_the_prompt_of_the_first_iteration(run: tuple[Path, list[Result]]):
    sent = sent_prompts(run, "initial")
    assert len(sent) == len(PROBLEMS)
    for problem in PROBLEMS:
        assert messages(normal_row(problem, WIDE)) == sent[problem.problem_id, 0]


@pytest.mark.parametrize(("mode", "build"), [("exploit", experience_row), ("explore", guideline_row)])
def test_a_row_with_memory_has_the_prompt_that_solve_sent(
    run: tuple[Path, list[Result]], mode: str, build: Callable[..., TrainingRow | Failure]
):
    sent = sent_prompts(run, mode)
    assert len(sent) >= 4
    recorded = RecordedRun(run[0])
    for problem in PROBLEMS:
        for snapshot in snapshots_of(recorded, problem):
            if (problem.problem_id, snapshot.iteration) in sent:
                row = build(problem, snapshot, WIDE)
                assert messages(row) == sent[problem.problem_id, snapshot.iteration]


def test_a_replayed_trajectory_is_the_one_that_was_run(run: tuple[Path, list[Result]]):
    recorded = RecordedRun(run[0])
    assert set(recorded.problem_ids) == {p.problem_id for p in PROBLEMS}
    for result in run[1]:
        assert recorded.trajectory(result.problem) == result.trajectory


def test_a_prompt_is_packed_to_the_token_limit_and_the_row_keeps_what_it_shows(run: tuple[Path, list[Result]]):
    snapshot = snapshots_of(RecordedRun(run[0]), PROBLEMS[0])[-1]
    whole = experience_row(PROBLEMS[0], snapshot, WIDE)
    assert isinstance(whole, TrainingRow)
    assert whole.experiences == list(snapshot.experiences)
    count = token_counter("estimate")
    size = count(whole.prompt[0].content)
    sizes = range(size, 0, -10)
    packed = [experience_row(PROBLEMS[0], snapshot, room(64 + limit)) for limit in sizes]
    made = [row for row in packed if isinstance(row, TrainingRow)]
    assert all(count(row.prompt[0].content) <= limit for row, limit in zip(made, sizes, strict=False))
    kept = [[item.item_id for item in row.experiences] for row in made]
    assert kept[-1] == [max(snapshot.experiences, key=lambda e: (e.support + e.last_seen, e.created)).item_id]
    assert all(f"[{item.item_id}, " in row.prompt[0].content for row in made for item in row.experiences)
    assert [row.reason for row in packed if isinstance(row, Failure)] == ["context"] * (len(packed) - len(made))
    assert len(made) < len(packed)


TRUTH = VerificationTruth(right=False, gold="CANARY-0", candidate="It is \\boxed{1}. " * 40)


def test_a_verification_row_has_the_verifiers_prompt_and_the_truth_apart_from_it():
    row = verification_row(PROBLEMS[0], 2, TRUTH, WIDE)
    assert isinstance(row, TrainingRow)
    assert (row.source, row.data_source, row.extra_info.iteration) == ("verification", "verification", 2)
    assert row.truth == TRUTH
    assert TRUTH.candidate.strip() in row.prompt[0].content
    assert row.prompt[0].content.endswith("\\boxed{1}")  # the last of the grades to choose from
    assert b"CANARY" not in orjson.dumps(row.model_dump(exclude={"reward_model"}))
    structured = verification_row(PROBLEMS[0], 2, TRUTH, WIDE, AgentSettings(structured_verification=True))
    assert isinstance(structured, TrainingRow)
    assert "Reply with one JSON object" in structured.prompt[0].content


def test_a_verification_row_shows_the_whole_candidate_or_is_not_made():
    row = verification_row(PROBLEMS[0], 0, TRUTH, WIDE)
    assert isinstance(row, TrainingRow)
    size = token_counter("estimate")(row.prompt[0].content)
    fits, cut, tight = (verification_row(PROBLEMS[0], 0, TRUTH, room(n)) for n in (size + 64, size + 54, 100))
    assert isinstance(fits, TrainingRow)
    assert isinstance(cut, Failure)
    assert isinstance(tight, Failure)
    assert (cut.reason, tight.reason) == ("shortened", "context")


@pytest.mark.parametrize("truth", ["1", "{}", '{"right": true, "gold": "", "candidate": "x"}'])
def test_a_verification_row_without_a_readable_truth_is_refused(truth: str):
    row = verification_row(PROBLEMS[0], 0, TRUTH, WIDE)
    assert isinstance(row, TrainingRow)
    values = row.model_dump(by_alias=True)
    values["reward_model"]["ground_truth"] = truth
    with pytest.raises(ValidationError, match=r"field reward_model\.ground_truth"):
        TrainingRow.model_validate(values)


def test_an_empty_bank_makes_no_row():
    snapshot = MemorySnapshot(iteration=1)
    assert isinstance(experience_row(PROBLEMS[0], snapshot, WIDE), Failure)
    assert isinstance(guideline_row(PROBLEMS[0], snapshot, WIDE), Failure)


def test_the_gold_answer_is_nowhere_but_in_the_reward_model(run: tuple[Path, list[Result]]):
    rows = [*map(normal, PROBLEMS), *rows_from_run(RecordedRun(run[0]), PROBLEMS, WIDE, per_problem=9)]
    assert {row.source for row in rows} == {"normal", "experience", "guideline"}
    for row in rows:
        assert row.reward_model.ground_truth.startswith("CANARY-")
        without = row.model_dump(exclude={"reward_model"})
        assert b"CANARY" not in orjson.dumps(without)


# --- rows from runs


def normal(problem: TrainingProblem) -> TrainingRow:
    row = normal_row(problem, WIDE)
    assert isinstance(row, TrainingRow)
    return row


def test_rows_from_a_run_keep_proportions_and_limits_and_are_the_same_each_time(run: tuple[Path, list[Result]]):
    def rows(**options: Any) -> list[TrainingRow]:
        return list(rows_from_run(RecordedRun(run[0]), PROBLEMS, WIDE, **{"per_problem": 9, **options}))

    assert len(rows()) == 3 * 3 * 2  # problems x snapshots x sources
    some = rows(wanted={"experience": 4, "guideline": 2})
    assert [row.source for row in some].count("experience") == 4
    assert len(some) == 6
    assert rows(wanted={"experience": 4, "guideline": 2}) == some
    assert {row.source for row in rows(per_problem=2)} == {"experience", "guideline"}
    assert [row.extra_info.problem_id for row in rows(per_problem=1)].count("p0") == 1
    assert {row.extra_info.iteration for row in rows(iterations={2})} == {2}
    assert rows(seed=1, per_problem=1) != rows(seed=2, per_problem=1)


def test_a_run_with_other_problems_or_without_its_trace_is_refused(run: tuple[Path, list[Result]], tmp_path: Path):
    changed = [PROBLEMS[0].model_copy(update={"question": "What is 0?"})]
    with pytest.raises(UserError, match="'p0' was run with another question or answer"):
        list(rows_from_run(RecordedRun(run[0]), changed, WIDE, per_problem=1))
    with pytest.raises(UserError, match="not a run directory"):
        list(rows_from_run(RecordedRun(tmp_path), PROBLEMS, WIDE, per_problem=1))
    for name in ("manifest.json", "predictions.jsonl"):
        (tmp_path / name).write_bytes((run[0] / name).read_bytes())
    with pytest.raises(TraceError, match="the trace of problem"):
        list(rows_from_run(RecordedRun(tmp_path), PROBLEMS, WIDE, per_problem=1))


# --- files


@pytest.fixture(scope="module")
def rows(run: tuple[Path, list[Result]]) -> list[TrainingRow]:
    return [*map(normal, PROBLEMS), *rows_from_run(RecordedRun(run[0]), PROBLEMS, WIDE, per_problem=2)]


def test_a_file_has_the_announced_columns_and_reads_back(rows: list[TrainingRow], tmp_path: Path):
    path = tmp_path / "new" / "train.parquet"
    assert write_rows(path, iter(rows)) == len(rows) == validate_rows(path)
    table = parquet.read_table(path)
    assert table.schema.equals(SCHEMA)
    assert table.column_names == ["prompt", "data_source", "ability", "reward_model", "extra_info", "_source"]
    numbered = [
        row.model_copy(update={"extra_info": row.extra_info.model_copy(update={"index": i})})
        for i, row in enumerate(rows)
    ]
    assert list(read_rows(path)) == numbered
    assert [p.name for p in path.parent.iterdir()] == ["train.parquet"]
    one = next(row for row in read_rows(path) if row.source == "guideline")
    assert all(isinstance(item, Guideline) for item in one.guidelines)
    assert one.experiences == []


def test_a_row_may_have_a_system_message(rows: list[TrainingRow], tmp_path: Path):
    system = Message(role="system", content="Think step by step.")
    given = [row.model_copy(update={"prompt": (system, *row.prompt)}) for row in rows]
    write_rows(tmp_path / "train.parquet", given)
    assert [row.prompt for row in read_rows(tmp_path / "train.parquet")] == [row.prompt for row in given]


def test_items_of_a_bank_in_the_system_message_are_in_the_row(
    run: tuple[Path, list[Result]], monkeypatch: pytest.MonkeyPatch
):
    snapshot = snapshots_of(RecordedRun(run[0]), PROBLEMS[0])[-1]
    plain = experience_row(PROBLEMS[0], snapshot, WIDE)
    assert isinstance(plain, TrainingRow)
    bank = Prompt(text="2 + 2", system=plain.prompt[0].content)
    monkeypatch.setattr(Team, "solution_prompt", lambda *_, **__: bank)
    row = experience_row(PROBLEMS[0], snapshot, WIDE)
    assert isinstance(row, TrainingRow)
    assert [message.role for message in row.prompt] == ["system", "user"]
    assert row.experiences == plain.experiences


def test_a_file_appears_whole_or_not_at_all(rows: list[TrainingRow], tmp_path: Path):
    def interrupted() -> Iterator[TrainingRow]:
        yield rows[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / "train.parquet", interrupted())
    assert not (tmp_path / "train.parquet").exists()


Change = Callable[[dict[str, Any]], None]


def changed(*path: str, to: Any) -> Change:
    def change(row: dict[str, Any]) -> None:
        for key in path[:-1]:
            row = row[key]
        row[path[-1]] = to

    return change


USER = {"role": "user", "content": "2 + 2"}
NOT_A_BANK = orjson.dumps([{"item_id": "E1"}]).decode()
DEFECTS = [
    (changed("reward_model", "ground_truth", to=" "), "field reward_model.ground_truth: is empty"),
    (
        changed("reward_model", "ground_truth", to=None),
        "field reward_model.ground_truth: Input should be",
    ),
    (changed("reward_model", "style", to="model"), "field reward_model.style: 'model' for 'math'"),
    (changed("data_source", to="chess"), "field data_source: Input should be 'math', 'math_grm' or 'verification'"),
    (changed("data_source", to="verification"), "field data_source: 'verification' in a 'experience' row"),
    (changed("_source", to="guideline"), "field _source: 'guideline', but extra_info.source is 'experience'"),
    (changed("extra_info", "experience", to="[{"), "field extra_info.experience: not a JSON list of bank items"),
    (changed("extra_info", "experience", to=NOT_A_BANK), "field extra_info.experience: not a JSON list of bank items"),
    (changed("extra_info", "experience", to="[]"), "field extra_info.experience: must have items in 'experience' rows"),
    (changed("extra_info", "iteration", to=-1), "field extra_info.iteration: -1 in a 'experience' row"),
    (changed("extra_info", "baseline_pass_rate", to=2.0), "field extra_info.baseline_pass_rate: "),
    (changed("extra_info", "index", to=0), "field extra_info.index: row 1 also has the index 0"),
    (changed("prompt", to=[]), "field prompt: "),
    (changed("prompt", to=[{"role": "user", "content": " "}]), "field prompt: contains an empty message"),
    (changed("prompt", to=[USER, {"role": "system", "content": "Think."}]), "field prompt: only the first message"),
    (changed("prompt", to=[USER, {"role": "assistant", "content": "4"}]), "field prompt: only the first message"),
    (changed("prompt", to=[{"role": "system", "content": "Think."}]), "field prompt: only the first message"),
    (changed("prompt", to=[{"role": "robot", "content": "x"}]), "field prompt.0.role: "),
]


@pytest.mark.parametrize(("change", "message"), DEFECTS)
def test_a_bad_row_is_named_with_file_row_and_field(
    rows: list[TrainingRow], tmp_path: Path, change: Change, message: str
):
    values = [row.model_dump(by_alias=True) for row in rows if row.source == "experience"][:3]
    for index, value in enumerate(values):
        value["extra_info"]["index"] = index
    change(values[1])
    path = tmp_path / "train.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(values, SCHEMA), path)
    with pytest.raises(RowFileError) as caught:
        validate_rows(path)
    assert len(caught.value.defects) == 1
    assert caught.value.defects[0].startswith(f"{path}: row 2: {message}")


def test_every_bad_row_is_listed(rows: list[TrainingRow], tmp_path: Path):
    values = [row.model_dump(by_alias=True) for row in rows] * 10
    path = tmp_path / "train.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(values, SCHEMA), path)
    with pytest.raises(RowFileError, match=r"and \d+ more") as caught:
        validate_rows(path)
    assert len(caught.value.defects) == len(values) - 1  # all have index 0


def without_a_column() -> pyarrow.Schema:
    return pyarrow.schema([field for field in SCHEMA if field.name != "_source"])


def with_other_types() -> pyarrow.Schema:
    info = pyarrow.struct([f.with_type(pyarrow.string()) if f.name == "index" else f for f in SCHEMA.field(4).type])
    return SCHEMA.set(4, pyarrow.field("extra_info", info)).append(pyarrow.field("note", pyarrow.string()))


@pytest.mark.parametrize(
    ("schema", "messages"),
    [
        (without_a_column(), ["field _source: the column is missing"]),
        (with_other_types(), ["field extra_info.index: is string, must be int64", "field note: unknown column"]),
    ],
)
def test_missing_and_mistyped_columns_are_named(tmp_path: Path, schema: pyarrow.Schema, messages: list[str]):
    path = tmp_path / "train.parquet"
    parquet.write_table(schema.empty_table(), path)
    with pytest.raises(RowFileError) as caught:
        validate_rows(path)
    assert list(caught.value.defects) == [f"{path}: {message}" for message in messages]


def test_a_broken_an_empty_and_a_missing_file_are_refused(rows: list[TrainingRow], tmp_path: Path):
    path = tmp_path / "train.parquet"
    with pytest.raises(RowFileError, match="cannot be read as parquet"):
        validate_rows(path)
    write_rows(path, [])
    with pytest.raises(RowFileError, match="contains no rows"):
        validate_rows(path)
    write_rows(path, rows)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RowFileError, match="cannot be read as parquet"):
        list(read_rows(path))


def test_a_damaged_page_in_the_middle_is_refused(rows: list[TrainingRow], tmp_path: Path):
    path = tmp_path / "train.parquet"
    write_rows(path, rows)
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    with pytest.raises(RowFileError, match="cannot be read as parquet"):
        validate_rows(path)


def test_extra_info_holds_what_the_problem_brought(rows: list[TrainingRow]):
    info = rows[-1].extra_info
    assert (info.origin, info.licence, info.baseline_pass_rate, info.split) == ("made up", "CC0", 0.25, "train")
    assert info.question == PROBLEMS[int(info.problem_id[1])].question
