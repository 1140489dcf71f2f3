from __future__ import annotations

import json
import os
import re
import tracemalloc
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import ValidationError

from tests.support.benchmarks import DATA, needs_data
from tmas.answers.checker import AnswerChecker
from tmas.problems.files import FileTooLarge, read_content
from tmas.problems.loader import SAMPLE, ProblemFields, ProblemFileError, load_problems

GOOD: dict[str, object] = {"problem_id": "p", "question": "What is 1+1?", "answer": "2"}


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(content: bytes | str, name: str = "in.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def defects(path: Path, fields: ProblemFields | None = None) -> list[str]:
    """What refusing the file says, without its folder."""
    with pytest.raises(ProblemFileError) as error:
        load_problems(path, fields)
    return [defect.removeprefix(f"{path.parent}/") for defect in error.value.defects]


ROWS: list[dict[str, object]] = [
    {**GOOD, "problem_id": "a"},
    {**GOOD, "problem_id": "b", "question": 'Zwölf\nmal, "zwei"?', "answer": "24"},
]


def as_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


CSV = 'problem_id,question,answer\na,What is 1+1?,2\n\nb,"Zwölf\nmal, ""zwei""?",24\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.jsonl", jsonl(ROWS[0]) + b"\n" + jsonl(ROWS[1])),
        ("in.jsonl", b"\xef\xbb\xbf" + jsonl(*ROWS).replace(b"\n", b"\r\n")),
        ("in.json", json.dumps(ROWS, indent=2).encode()),
        ("in.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("in.csv", CSV.encode()),
        ("in.CSV", CSV.encode("utf-8-sig")),
    ],
)
def test_every_text_format_gives_the_same_problems(written: Callable[..., Path], name: str, content: bytes) -> None:
    loaded = load_problems(written(content, name))
    assert [p.model_dump(exclude={"metadata"}) for p in loaded.problems] == ROWS
    assert loaded.skipped == ()


def test_parquet_gives_the_same_problems(tmp_path: Path) -> None:
    loaded = load_problems(as_parquet(tmp_path / "in.parquet", ROWS))
    assert [p.model_dump(exclude={"metadata"}) for p in loaded.problems] == ROWS


def test_columns_are_mapped_and_metadata_kept(written: Callable[..., Path]) -> None:
    path = written(jsonl({"id": 7, "prompt": " Q? ", "gold": 2.5, "level": {"n": 3}, "other": 1}))
    fields = ProblemFields(problem_id="id", question="prompt", answer="gold", metadata=("level",))
    [problem] = load_problems(path, fields).problems
    assert (problem.problem_id, problem.question, problem.answer) == ("7", "Q?", "2.5")
    assert problem.metadata == {"level": {"n": 3}}


def test_rows_without_ids_are_numbered_the_same_in_both_modes(written: Callable[..., Path]) -> None:
    path = written(jsonl({"question": "a"}, {"question": ""}, {"question": "c"}), "set.jsonl")
    loaded = load_problems(path, ProblemFields(problem_id=None), "skip")
    assert [p.problem_id for p in loaded.problems] == ["set-1", "set-3"]


def test_a_huge_whole_number_is_an_answer(written: Callable[..., Path]) -> None:
    [problem] = load_problems(written(jsonl({**GOOD, "answer": 10**400}))).problems
    assert problem.answer == "1" + "0" * 400


def test_the_last_match_of_the_answer_regex_is_the_answer(written: Callable[..., Path]) -> None:
    path = written(jsonl({**GOOD, "answer": "#### 1\nno:\n#### 1,234 "}))
    [problem] = load_problems(path, ProblemFields(answer_regex=r"####\s*(.+)$")).problems
    assert problem.answer == "1,234"
    assert defects(written(jsonl(GOOD)), ProblemFields(answer_regex=r"#### (.+)")) == [
        "in.jsonl:1: field 'answer': nothing matches '#### (.+)'"
    ]


@pytest.mark.parametrize("pattern", ["(", "####"])
def test_an_answer_regex_that_cannot_work_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="answer_regex"):
        ProblemFields(answer_regex=pattern)


def test_an_answer_may_be_absent_unless_required(written: Callable[..., Path]) -> None:
    path = written(jsonl({**GOOD, "answer": None}, {**GOOD, "problem_id": "q"}))
    assert [p.answer for p in load_problems(path).problems] == [None, "2"]
    assert defects(path, ProblemFields(answer_required=True)) == ["in.jsonl:1: field 'answer': missing"]


NOT_UTF8 = jsonl(GOOD).replace(b"What", b"Wh\xe4t")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (jsonl({**GOOD, "question": " "}), "field 'question': empty"),
        (jsonl({**GOOD, "answer": ""}), "field 'answer': empty"),
        (jsonl({**GOOD, "problem_id": "\t"}), "field 'problem_id': empty"),
        (jsonl({**GOOD, "question": None}), "field 'question': missing"),
        (jsonl({"question": "Q?", "answer": "2"}), "field 'problem_id': missing"),
        (jsonl({**GOOD, "question": ["Q?"]}), "field 'question': is list, not text"),
        (jsonl({**GOOD, "question": 7}), "field 'question': is int, not text"),
        (jsonl({**GOOD, "answer": {"a": 1}}), "field 'answer': is dict, not text"),
        (jsonl({**GOOD, "answer": True}), "field 'answer': is bool, not text"),
        (jsonl({**GOOD, "answer": float("nan")}), "field 'answer': is float, not text"),
        (jsonl({**GOOD, "question": "\ud800"}), "field 'question': not valid UTF-8"),
        (jsonl({**GOOD, "problem_id": "first"}), "field 'problem_id': 'first' is already the id at in.jsonl:1"),
        (NOT_UTF8, "not valid UTF-8"),
        (b"[1, 2]\n", "not a JSON object"),
        (b'{"problem_id": "p", \n', "invalid JSON: Expecting property name"),
        (b"[" * 100_000 + b"\n", "invalid JSON: maximum recursion depth"),
        (b'{"answer": ' + b"9" * 5000 + b"}\n", "invalid JSON: Exceeds the limit"),
    ],
)
def test_a_bad_row_is_named_or_left_out(written: Callable[..., Path], row: bytes, message: str) -> None:
    first, last = {**GOOD, "problem_id": "first"}, {**GOOD, "problem_id": "last"}
    path = written(jsonl(first) + row + jsonl(last))
    [defect] = defects(path)
    assert defect.startswith(f"in.jsonl:2: {message}")
    loaded = load_problems(path, on_bad="skip")
    assert [p.problem_id for p in loaded.problems] == ["first", "last"]
    assert loaded.skipped == (f"{path.parent}/{defect}",)


def test_every_defect_of_every_row_is_listed_up_to_twenty_lines(written: Callable[..., Path]) -> None:
    rows = [{"problem_id": str(i), "question": "", "answer": ""} for i in range(15)]
    path = written(jsonl(*rows))
    with pytest.raises(ProblemFileError) as error:
        load_problems(path)
    lines = str(error.value).splitlines()
    assert lines[:2] == [f"{path}:1: field 'question': empty", f"{path}:1: field 'answer': empty"]
    assert len(lines) == 21
    assert lines[-1] == "and 10 more"
    assert len(error.value.defects) == 30


def test_a_missing_column_is_said_once(written: Callable[..., Path]) -> None:
    path = written(jsonl({"id": "1", "prompt": "Q"}, {"id": "2", "prompt": "Q"}))
    assert defects(path, ProblemFields(problem_id="id")) == [
        "in.jsonl:1: field 'question': no such column (the columns are 'id', 'prompt')"
    ]


HEAD = "problem_id,question,answer\n"
SHIFTED = "but the header has 3 columns. A misplaced quote or comma may have shifted the values."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('b,"Two\nlines,7"\n', f"the row has 2 values, {SHIFTED} First missing column: 'answer'."),
        ("b\n", f"the row has 1 value, {SHIFTED} First missing column: 'question'."),
        ("b,Q,7,8\n", f"the row has 4 values, {SHIFTED}"),
        ('b,"Q"x\n', "broken CSV: ',' expected after '\"'"),
        ('b,"Q" x,7\n', "broken CSV: ',' expected after '\"'"),
        ("b,Q,\n", "field 'answer': empty"),
        (f"b,{'Q' * 200_000},7\n", "broken CSV: field larger than field limit"),
    ],
)
def test_a_broken_csv_row_is_named_by_the_line_it_begins_in(
    written: Callable[..., Path], row: str, message: str
) -> None:
    path = written(f'{HEAD}a,"one\ntwo",1\n{row}c,Q,3\n', "in.csv")
    [defect] = defects(path)
    assert defect.startswith(f"in.csv:4: {message}")
    assert [p.problem_id for p in load_problems(path, on_bad="skip").problems] == ["a", "c"]


def test_an_unclosed_quote_does_not_swallow_the_rest_silently(written: Callable[..., Path]) -> None:
    path = written(f'{HEAD}a,Q,1\nb,Q,"2\nc,Q,3\n', "in.csv")
    assert defects(path) == ["in.csv:3: broken CSV: unexpected end of data"]


def test_an_unclosed_quote_in_a_row_with_too_few_values_is_named(written: Callable[..., Path]) -> None:
    path = written(f'{HEAD}a,Q,1\n"b,Q,2\nc,Q,3\n', "in.csv")
    assert defects(path) == ["in.csv:3: broken CSV: unexpected end of data"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('"problem_id"x,question,answer\n', "broken CSV: ',' expected after '\"'"),
        ('problem_id,question,"answer\n', "broken CSV: unexpected end of data"),
        ("problem_id,question,answer,answer\n", "several columns are named 'answer'; rename all but one"),
    ],
)
@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
def test_a_csv_header_that_cannot_be_used_is_one_error(
    written: Callable[..., Path], header: str, message: str, on_bad: Literal["refuse", "skip"]
) -> None:
    path = written(f"{header}a,Q,1,2\nb,Q,1,2\n", "in.csv")
    with pytest.raises(ProblemFileError) as error:
        load_problems(path, on_bad=on_bad)
    assert error.value.defects == (f"{path}:1: the header cannot be used: {message}",)


def test_csv_columns_without_a_name_may_repeat(written: Callable[..., Path]) -> None:
    path = written("problem_id,question,answer,,\na,Q,1,,\n", "in.csv")
    assert [p.problem_id for p in load_problems(path).problems] == ["a"]


def test_bytes_that_are_not_utf8_are_reported_in_csv(written: Callable[..., Path]) -> None:
    path = written(HEAD.encode() + b"a,Q\xe4,1\n", "in.csv")
    assert defects(path) == ["in.csv:2: field 'question': not valid UTF-8"]


def test_lines_of_a_json_list_are_counted(written: Callable[..., Path]) -> None:
    rows = [{**GOOD, "problem_id": "a"}, {**GOOD, "question": ""}, ["x", {"problem_id": "inner"}]]
    path = written("\n" + json.dumps(rows, indent=1), "in.json")
    assert defects(path) == ["in.json:8: field 'question': empty", "in.json:13: not a JSON object"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", b"", ": holds no problems"),
        ("in.jsonl", b"\n \n", ": holds no problems"),
        ("in.json", b"[]", ": holds no problems"),
        ("in.csv", HEAD.encode(), ": holds no problems"),
        ("in.json", b"", ":1: invalid JSON"),
        ("in.json", b'[\n{"problem_id": "a"},\n', ":3: invalid JSON"),
        ("in.json", b'{"problem_id": "a"}', ":1: not a list of objects"),
        ("in.jsonl", json.dumps(GOOD).encode("utf-16"), ":1: not valid UTF-8"),
        ("in.jsonl", jsonl({**GOOD, "question": ""}), ":1: field 'question': empty"),
        ("in.parquet", b"PAR1 and nothing else", ":row 1: broken parquet"),
        ("in.txt", b"x", ": its suffix is none of .jsonl, .json, .csv, .parquet"),
    ],
)
@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
def test_a_file_without_a_good_row_is_refused_in_both_modes(
    written: Callable[..., Path], name: str, content: bytes, message: str, on_bad: str
) -> None:
    path = written(content, name)
    with pytest.raises(ProblemFileError) as error:
        load_problems(path, on_bad=on_bad)  # type: ignore[arg-type]
    assert str(error.value).startswith(f"{path}{message}")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemFileError, match=r"No such file or directory\. Give the path of a problem file"):
        load_problems(tmp_path / "none.jsonl")


def test_a_truncated_parquet_file_is_refused_and_bad_rows_are_numbered(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "in.parquet", [*ROWS, {**GOOD, "question": None}])
    assert defects(path) == ["in.parquet:row 3: field 'question': missing"]
    path.write_bytes(path.read_bytes()[:-20])
    assert defects(path)[0].startswith("in.parquet:row 1: broken parquet")


# --- files that are not what they seem


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "fifo"])
def test_a_link_to_a_device_or_a_fifo_is_refused_without_reading_it(tmp_path: Path, suffix: str, device: str) -> None:
    if device == "fifo":
        os.mkfifo(tmp_path / "fifo")
    path = tmp_path / f"in.{suffix}"
    path.symlink_to(device)
    assert defects(path) == [f"in.{suffix}: is not a regular file, but a device, a FIFO or the like"]


def test_a_link_to_a_file_is_read(tmp_path: Path, written: Callable[..., Path]) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(written(jsonl(GOOD)))
    assert len(load_problems(link).problems) == 1


@pytest.mark.parametrize("name", ["in.jsonl", "in"])
def test_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ProblemFileError, match=f"{name}: is a folder. Give a problem file"):
        load_problems(tmp_path / name)


def peak_of(refused: Callable[[], object]) -> int:
    """Bytes of Python objects at the peak."""
    tracemalloc.start()
    try:
        refused()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_small_parquet_file_of_very_many_rows_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    columns = {name: pyarrow.array([value]).dictionary_encode() for name, value in GOOD.items()}
    indices = pyarrow.array(np.zeros(2_000_000, dtype=np.int32))
    parquet.write_table(
        pyarrow.table({n: pyarrow.DictionaryArray.from_arrays(indices, c.dictionary) for n, c in columns.items()}), path
    )
    assert path.stat().st_size < 100_000
    found: list[str] = []
    assert peak_of(lambda: found.extend(defects(path))) < 10_000_000
    assert found == ["in.parquet: has 2,000,000 rows, more than 1,000,000"]
    with pytest.raises(ProblemFileError, match=r"Raise max_rows \(data\.max_rows for tmas solve\) to read it"):
        load_problems(path)


def test_a_small_parquet_file_of_very_long_equal_texts_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    question = pyarrow.DictionaryArray.from_arrays(np.zeros(20_000, dtype=np.int32), ["?" * 100_000])
    ids = pyarrow.array([str(number) for number in range(20_000)])
    parquet.write_table(pyarrow.table({"problem_id": ids, "question": question}), path)
    assert path.stat().st_size < 1_000_000
    fields = ProblemFields(max_bytes=20_000_000)
    found: list[str] = []
    assert peak_of(lambda: found.extend(defects(path, fields))) < 200_000_000
    assert found == ["in.parquet:row 200: the rows up to here have more than 20,000,000 bytes of text"]


def with_list(path: Path, name: str) -> Path:
    """A parquet file with one good row, whose column ``name`` is a list of five million zeros."""
    zeros = pyarrow.array(np.zeros(5_000_000, dtype=np.int64))
    lists = pyarrow.ListArray.from_arrays(pyarrow.array([0, len(zeros)], pyarrow.int32()), zeros)
    parquet.write_table(pyarrow.table({**{n: [value] for n, value in GOOD.items()}, name: lists}), path)
    assert path.stat().st_size < 10_000
    return path


@pytest.mark.parametrize("name", ["note", "question"])
def test_a_small_parquet_file_of_a_very_long_list_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    path = with_list(tmp_path / "in.parquet", name)
    fields = ProblemFields(metadata=("note",) if name == "note" else (), max_bytes=20_000_000)
    found: list[str] = []
    assert peak_of(lambda: found.extend(defects(path, fields))) < 10_000_000
    assert found == ["in.parquet: has lists with 4,999,999 values in total, which need more than 20,000,000 bytes"]


def test_a_column_that_is_not_kept_is_not_read(tmp_path: Path) -> None:
    path = with_list(tmp_path / "in.parquet", "other")
    assert peak_of(lambda: load_problems(path, ProblemFields(max_bytes=20_000_000))) < 10_000_000


def test_a_missing_column_of_a_parquet_file_is_named_with_all_columns(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "in.parquet", [{"id": 1, "other": "x"}])
    assert defects(path) == [
        f"in.parquet: field '{name}': no such column (the columns are 'id', 'other')"
        for name in ("problem_id", "question")
    ]


def test_a_file_over_the_limit_of_bytes_is_refused(written: Callable[..., Path]) -> None:
    path = written(jsonl(*ROWS))
    size = path.stat().st_size
    assert defects(path, ProblemFields(max_bytes=size - 1)) == [f"in.jsonl: has {size} bytes, more than {size - 1}"]
    assert len(load_problems(path, ProblemFields(max_bytes=size)).problems) == 2


def test_a_file_that_reports_a_smaller_size_than_it_has_is_not_read_beyond_the_limit() -> None:
    status = Path("/proc/self/status")
    assert status.stat().st_size == 0
    assert read_content(status).startswith(b"Name:")
    with pytest.raises(FileTooLarge, match="has more than 10 bytes"):
        read_content(status, 10)


@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "in.csv"])
def test_rows_over_the_limit_are_refused_with_the_line(written: Callable[..., Path], name: str) -> None:
    content = {"in.jsonl": jsonl(*ROWS), "in.json": json.dumps(ROWS, indent=0).encode(), "in.csv": CSV.encode()}
    [defect] = defects(written(content[name], name), ProblemFields(max_rows=1))
    assert re.fullmatch(rf"{name}:\d+: more than 1 rows", defect)


def test_a_very_long_question_is_refused_with_file_line_and_field(written: Callable[..., Path]) -> None:
    path = written(jsonl(GOOD, {**GOOD, "problem_id": "long", "question": "?" * 50_000_000}))
    message = "in.jsonl:2: field 'question': 50,000,000 characters, more than 1,000,000 (data.max_characters)"
    assert defects(path) == [message]


def test_the_limit_of_characters_can_be_raised(written: Callable[..., Path]) -> None:
    path = written(jsonl(GOOD, {**GOOD, "problem_id": "long", "question": "?" * 1_000_001}))
    [skipped] = load_problems(path, on_bad="skip").skipped
    assert ":2: field 'question': 1,000,001 characters" in skipped
    raised = load_problems(path, ProblemFields(max_characters=1_000_001))
    assert len(raised.problems[1].question) == 1_000_001


def test_a_long_kept_column_is_refused_too(written: Callable[..., Path]) -> None:
    fields = ProblemFields(metadata=("note",), max_characters=20)
    found = defects(written(jsonl({**GOOD, "note": "x" * 21, "other": "x" * 99, "answer": "y" * 30})), fields)
    assert [defect.split(" characters")[0] for defect in found] == [
        "in.jsonl:1: field 'answer': 30",
        "in.jsonl:1: field 'note': 21",
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), min_size=1, unique=True))
def test_any_text_is_an_id_and_a_question(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / "in.jsonl"
    rows = [json.dumps({"problem_id": name, "question": name}, ensure_ascii=False) for name in ids]
    path.write_bytes("\n".join(rows).encode())
    problems = load_problems(path).problems
    assert [p.problem_id for p in problems] == ids
    assert [p.question for p in problems] == [name.strip() for name in ids]


ANSWERBENCH = {"problem_id": "Problem ID", "question": "Problem", "answer": "Short Answer", "answer_required": True}


@needs_data
def test_the_misquoted_row_of_answerbench_is_found() -> None:
    path, fields = DATA / "imo-answerbench" / "answerbench_v2.csv", ProblemFields.model_validate(ANSWERBENCH)
    [defect] = defects(path, fields)
    assert defect == "answerbench_v2.csv:150: broken CSV: ',' expected after '\"'"
    loaded = load_problems(path, fields, "skip")
    assert len(loaded.problems) == 399
    assert "imo-bench-algebra-036" not in {p.problem_id for p in loaded.problems}


def halved(board: tuple[int, ...]) -> bool:
    corners = [row * 4 + column for row in range(3) for column in range(3)]
    return all(board[c] + board[c + 1] + board[c + 4] + board[c + 5] == 2 for c in corners)


async def test_the_sample_problems_load_and_their_answers_hold() -> None:
    problems = load_problems(SAMPLE).problems
    computed = [
        2 + 3,
        7 + 5,
        4 * 5,
        sum((n * n + n + 1) % 7 == 0 for n in range(1, 1001)),
        sum(map(halved, product((0, 1), repeat=16))),
        sum(sum(subset) % 16 == 0 for subset in combinations(range(1, 17), 8)),
    ]
    assert [p.problem_id for p in problems] == [f"sample-{i}" for i in range(1, 7)]
    async with AnswerChecker(timeout=20.0) as checker:
        for problem, value in zip(problems, computed, strict=True):
            assert (await checker.compare(problem.answer or "", f"{value}.0")).equal, problem.problem_id
