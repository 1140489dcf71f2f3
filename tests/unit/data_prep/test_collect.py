"""`tmas collect`: reading sources of every shape, copies, and the cleaning with its record of removals."""

from __future__ import annotations

import asyncio
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pyarrow import parquet

from tests.support.installed import needs_datasketch
from tmas.data_prep.clean import CleanSettings, clean
from tmas.data_prep.collect import CollectSettings, collect, collect_source
from tmas.data_prep.decontaminate import Benchmark, Benchmarks, DecontaminationSettings
from tmas.data_prep.pool import read_problems
from tmas.data_prep.source_files import read_source
from tmas.data_prep.sources import Source, SourceDefect, answers_of, question_of
from tmas.files import read_lines, whole_file
from tmas.problems.files import FileRow
from tmas.problems.ids import read_ids
from tmas.problems.loader import ProblemFields, ProblemFileError
from tmas.training.contexts import TrainingProblem

pytestmark = needs_datasketch
CONF = Path(__file__).parents[3] / "conf"
DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{}\n\nRemember to put your answer on its "
    'own line after "Answer:".'
)


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("collect", overrides=["benchmarks_dir=B", *overrides])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


def preset(name: str, **changes: Any) -> Source:
    return Source.model_validate(composed(f"source=[{name}]")["source"][name] | changes)


def local(*files: Path, **changes: Any) -> Source:
    return Source(files=files, origin="made up", licence="CC0", **changes)


def rows(source: Source) -> list[tuple[str, tuple[str, ...]]]:
    return [(question_of(row, source), answers_of(row, source)) for row in read_source(source)]


def verl_row(content: str, truth: str) -> dict[str, Any]:
    return {"prompt": [{"content": content, "role": "user"}], "reward_model": {"ground_truth": truth, "style": "rule"}}


# --- sources


def test_the_instruction_that_dapo_bakes_in_is_taken_out(tmp_path: Path):
    file = tmp_path / "dapo.parquet"
    question = "Find $x$ with $x + 1 = 3$.\n\nRemember that x is real."
    parquet.write_table(pyarrow.Table.from_pylist([verl_row(DAPO.format(question), "2")]), file)
    assert rows(preset("dapo_math_17k", files=[file])) == [(question, ("2",))]


def test_skywork_gives_all_accepted_answers_once(tmp_path: Path):
    file = tmp_path / "skywork.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([verl_row("Q", '["1/2", "0.5", "1/2"]')]), file)
    assert rows(preset("skywork_or1_math", files=[file])) == [("Q", ("1/2", "0.5"))]


@pytest.mark.parametrize("truth", ["1/2", "[]", '["1", 2]', '[" "]'])
def test_a_list_of_answers_that_is_none_is_a_defect(truth: str):
    with pytest.raises(SourceDefect, match=r"'reward_model.ground_truth': not a JSON list of answers"):
        answers_of(FileRow("1", verl_row("Q", truth)), preset("skywork_or1_math", files=["x.parquet"]))


def test_gsm8k_and_math_give_the_answer_out_of_their_solutions():
    gsm8k, math = preset("gsm8k"), preset("math")
    assert answers_of(FileRow("1", {"answer": "She has <<3+4=7>>7.\n#### 1,007"}), gsm8k) == ("1,007",)
    assert answers_of(FileRow("1", {"solution": r"So $\boxed{1}$, no: $\boxed{\frac{1}{2}}$."}), math) == (
        r"\frac{1}{2}",
    )
    with pytest.raises(SourceDefect, match="contains no answer"):
        answers_of(FileRow("1", {"solution": "So it is 2."}), math)


def test_a_data_set_of_the_hub_is_read_through_datasets(tmp_path: Path):
    """A folder laid out as a repository of the hub; `datasets` finds its configurations and splits."""
    for subset, answers in (("algebra", "12"), ("geometry", "3")):
        folder = tmp_path / "repository" / subset
        folder.mkdir(parents=True)
        values = [{"problem": f"{subset} {a}", "solution": f"\\boxed{{{a}}}", "level": "5"} for a in answers]
        parquet.write_table(pyarrow.Table.from_pylist(values), folder / "train-00000-of-00001.parquet")
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train-*\n"
        for name in ("algebra", "geometry")
    )
    (tmp_path / "repository" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    source = preset("math", dataset=str(tmp_path / "repository"), subsets=["algebra", "geometry"])
    assert rows(source) == [("algebra 1", ("1",)), ("algebra 2", ("2",)), ("geometry 3", ("3",))]
    with pytest.raises(ProblemFileError, match="has no split 'test'"):
        rows(source.model_copy(update={"split": "test"}))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_local_files_of_every_format(tmp_path: Path, suffix: str):
    file = tmp_path / f"mine{suffix}"
    values = [{"q": "What is 1 + 1?", "a": "2"}, {"q": "What is 2 + 2?", "a": "4"}]
    if suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(values), file)
    elif suffix == ".csv":
        file.write_text("q,a\n" + "".join(f"{v['q']},{v['a']}\n" for v in values))
    else:
        file.write_text("".join(json.dumps(v) + "\n" for v in values))
    assert rows(local(file, question="q", answer="a")) == [("What is 1 + 1?", ("2",)), ("What is 2 + 2?", ("4",))]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"files": ()}, "needs files, or a dataset"),
        ({"files": (), "dataset": "a/b"}, "revision: set the commit"),
        ({"strip": ["("]}, "strip\n.*not a regular expression"),
        ({"answer_regex": "("}, "answer_regex\n.*not a regular expression"),
        ({"answer_regex": "#### 1"}, "needs a group around the answer"),
        ({"licence": ""}, "licence"),
    ],
)
def test_a_source_that_cannot_be_read_the_same_each_time_is_refused(settings: dict[str, Any], message: str):
    given = {"files": ["a.jsonl"], "origin": "o", "licence": "l"} | settings
    with pytest.raises(ValueError, match=message):
        Source.model_validate(given)


def test_the_configs_pin_every_data_set_and_ask_for_every_benchmark():
    names = ["dapo_math_17k", "skywork_or1_math", "gsm8k", "math"]
    settings = composed(f"source=[{','.join(names)}]")
    own = {key: value for key, value in settings.items() if key not in ("workspace", "benchmarks_dir")}
    read = CollectSettings.model_validate(own)
    assert list(read.source) == names
    assert all(len(str(source.revision)) == 40 for source in read.source.values())
    assert read.clean == CleanSettings()
    covered = {"imo_answerbench_v1", "imo_answerbench_50"}  # of the problems that imo_answerbench reads
    presets = {file.stem for file in (CONF / "data").glob("*.yaml")} - {"default"}
    assert read.benchmarks.keys() == presets - covered
    assert all(benchmark.files for benchmark in read.benchmarks.values())


# --- gathering


def said(lines: list[str]) -> Any:
    return lines.append


def test_copies_are_dropped_and_bad_rows_are_on_record(tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    good = [{"question": f"What is {i} + {i}?", "answer": 2 * i} for i in range(3)]
    bad = [{"question": "", "answer": "1"}, {"question": "Q", "answer": None}, {"question": 7, "answer": "1"}]
    file.write_text("".join(json.dumps(v) + "\n" for v in [*good, *bad, *good, *good]) + "{broken\n")
    report = collect_source("mine", local(file), tmp_path / "out", print)
    assert report.model_dump(include={"rows", "kept", "copies", "skipped"}) == {
        "rows": 13, "kept": 3, "copies": 6, "skipped": 4,
    }  # fmt: skip
    problems = list(read_problems(tmp_path / "out" / "mine.jsonl"))
    assert [(p.question, p.answer, p.origin, p.licence) for p in problems] == [
        (v["question"], str(v["answer"]), "made up", "CC0") for v in good
    ]
    assert len({p.problem_id for p in problems}) == 3
    skipped = list(read_lines(tmp_path / "out" / "mine.skipped.jsonl"))
    assert [line["place"] for line in skipped] == [f"{file}:{number}" for number in (4, 5, 6, 13)]
    assert [line["defect"].split(":")[0] for line in skipped[:3]] == [
        "field 'question'",
        "field 'answer'",
        "field 'question'",
    ]
    assert "invalid JSON" in skipped[3]["defect"]


def test_a_source_is_read_once_and_again_when_it_changes(tmp_path: Path):
    file, lines = tmp_path / "mine.jsonl", []
    file.write_text('{"question": "Q", "answer": "1"}\n')
    first = collect_source("mine", local(file), tmp_path / "out", said(lines))
    written = (tmp_path / "out" / "mine.jsonl").stat().st_mtime_ns
    assert collect_source("mine", local(file), tmp_path / "out", said(lines)) == first
    assert (tmp_path / "out" / "mine.jsonl").stat().st_mtime_ns == written
    assert "from an earlier run" in lines[-1]
    file.write_text('{"question": "Q", "answer": "1"}\n{"question": "R", "answer": "2"}\n')
    assert collect_source("mine", local(file), tmp_path / "out", said(lines)).kept == 2
    assert collect_source("mine", local(file, strip=["x"]), tmp_path / "out", said(lines)).settings["strip"] == ["x"]
    assert "from an earlier run" not in lines[-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1 and then nothing", "cannot be read after row 0"),
        (b"", "cannot be read after row 0"),
    ],
)
def test_a_broken_parquet_file_is_one_clear_error_and_leaves_nothing(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "broken.parquet"
    file.write_bytes(content)
    with pytest.raises(ProblemFileError, match=message):
        collect_source("mine", local(file), tmp_path / "out", print)
    assert not (tmp_path / "out" / "mine.jsonl").exists()


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("device", ["/dev/zero", "fifo"])
def test_a_link_to_a_device_or_a_fifo_is_refused_without_reading_it(tmp_path: Path, suffix: str, device: str):
    os.mkfifo(tmp_path / "fifo")
    link = tmp_path / f"in.{suffix}"
    link.symlink_to(tmp_path / device)
    with pytest.raises(ProblemFileError, match=f"{link.name}: is not a regular file"):
        rows(local(link))


def test_a_csv_header_that_repeats_a_column_is_one_error(tmp_path: Path):
    file = tmp_path / "mine.csv"
    file.write_text("question,answer,answer\nQ,1,2\n")
    with pytest.raises(ProblemFileError, match=r"mine\.csv:1: the header cannot be used: several columns are named"):
        rows(local(file))


def test_a_missing_column_and_a_missing_file_are_named(tmp_path: Path):
    file = tmp_path / "mine.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"problem": "Q", "answer": "1"}]), file)
    with pytest.raises(ProblemFileError, match=r"no column 'question' \(the columns are 'problem', 'answer'\)"):
        collect_source("mine", local(file), tmp_path / "out", print)
    with pytest.raises(ProblemFileError, match=r"nowhere.jsonl: No such file"):
        collect_source("mine", local(tmp_path / "nowhere.jsonl"), tmp_path / "out", print)


def test_a_source_without_a_single_problem_is_an_error_that_names_field_and_line(tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "Q"}\n')
    with pytest.raises(
        ProblemFileError,
        match=r"none of 1 rows could be used. The first ones:\n.*mine.jsonl:1: field 'answer': missing",
    ):
        collect_source("mine", local(file), tmp_path / "out", print)


def test_a_source_that_fails_is_not_taken_for_the_one_that_was_read_before(tmp_path: Path):
    file, good = tmp_path / "mine.jsonl", '{"question": "Q", "answer": "1"}\n'
    file.write_text(good)
    collect_source("mine", local(file), tmp_path / "out", print)
    file.write_text('{"question": "Q"}\n')
    with pytest.raises(ProblemFileError):
        collect_source("mine", local(file), tmp_path / "out", print)
    file.write_text(good)
    assert collect_source("mine", local(file), tmp_path / "out", print).kept == 1
    assert [p.answer for p in read_problems(tmp_path / "out" / "mine.jsonl")] == ["1"]


BIG = {"question": "Q" * 1000, "answer": "1"}


def test_json_lines_are_never_in_memory_as_a_whole(tmp_path: Path):
    file = tmp_path / "big.jsonl"
    file.write_bytes(orjson.dumps(BIG, option=orjson.OPT_APPEND_NEWLINE) * 20_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_source(local(file))) == 20_000
        assert tracemalloc.get_traced_memory()[1] < file.stat().st_size / 10
    finally:
        tracemalloc.stop()


def test_a_row_group_of_parquet_is_never_in_memory_as_a_whole(tmp_path: Path):
    file = tmp_path / "big.parquet"
    table = pyarrow.Table.from_pylist([{"question": f"{i} {'Q' * 1000}", "answer": "1"} for i in range(20_000)])
    parquet.write_table(table, file, row_group_size=20_000, compression="none", use_dictionary=False)
    whole = table.nbytes
    del table
    before, rows = pyarrow.total_allocated_bytes(), 0
    for _ in read_source(local(file)):
        assert pyarrow.total_allocated_bytes() - before < whole / 4
        rows += 1
    assert rows == 20_000


def test_a_file_that_is_interrupted_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"


def test_a_bad_line_between_two_steps_is_named(tmp_path: Path):
    path = tmp_path / "problems.jsonl"
    path.write_text(
        '{"problem_id": "a", "question": "Q", "answer": "1"}\n{"problem_id": "b", "question": "Q", "answer": " "}\n'
    )
    with pytest.raises(ProblemFileError, match=r"problems.jsonl:2: field 'answer': .*is empty"):
        list(read_problems(path, "tmas filter"))
    with pytest.raises(ProblemFileError, match="Run tmas filter first"):
        list(read_problems(tmp_path / "nowhere.jsonl", "tmas filter"))


# --- cleaning


HARD = "Let $ABC$ be a triangle with $AB = 13$, $BC = 14$ and $CA = 15$. Find the radius of the circle inscribed in it."
EASY = "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May. How many in all?"


def problem(question: str, answer: str = "4", name: str = "", **more: Any) -> TrainingProblem:
    return TrainingProblem(problem_id=name or question[:20], question=question, answer=answer, **more)


def cleaned(
    tmp_path: Path, *pool: TrainingProblem, benchmark: str | None = None, **settings: Any
) -> tuple[list[TrainingProblem], list[dict[str, Any]]]:
    benchmarks = {}
    if benchmark:
        file = tmp_path / "benchmark.jsonl"
        file.write_text(json.dumps({"problem_id": "b1", "question": benchmark, "answer": "4"}) + "\n")
        benchmarks = {"exam": Benchmark(files=(file,))}
    given = CleanSettings.model_validate(settings)
    asyncio.run(clean(pool, Benchmarks(benchmarks, given.decontamination), given, tmp_path))
    return list(read_problems(tmp_path / "problems.jsonl")), list(read_lines(tmp_path / "removed.jsonl"))


LONG = (
    "A farmer has three fields of equal size, and each of them is sown with wheat, with oats or with rye, so that no "
    "two fields that share a fence are sown alike. In how many ways can the farmer sow the fields during one year?"
)
REWORDED = (
    LONG.replace("equal size", "equal area").replace("share a fence", "share a hedge").replace("one year", "a year")
)


@pytest.mark.parametrize(
    ("question", "by"),
    [
        (LONG, "ngrams"),
        (f"Here is a nice one. {LONG} Give your answer as an integer, and explain how you got it.", "ngrams"),
        (LONG.upper().replace(",", ""), "ngrams"),
        (REWORDED, "minhash"),
    ],
)
def test_a_benchmark_problem_is_removed_with_the_match_beside_it(tmp_path: Path, question: str, by: str):
    kept, removed = cleaned(tmp_path, problem(question), problem(EASY), benchmark=LONG)
    assert [p.question for p in kept] == [EASY]
    assert [r["reason"] for r in removed] == ["benchmark"]
    match = removed[0]["match"]
    assert (match["found_in"], match["problem_id"], match["question"], match["by"]) == ("exam", "b1", LONG, by)
    assert 0.6 <= match["similarity"] <= 1


PHRASE = "is $m/n$, where $m$ and $n$ are relatively prime positive integers. Find $m + n$."
DICE = "Six fair dice are thrown. The probability that no two show one face, and that the first three show odd numbers,"
BUG = (
    "A bug walks along the edges of a cube at random. The expected number of steps until it is back for the second time"
)


def test_a_phrase_that_many_problems_share_removes_nothing(tmp_path: Path):
    kept, removed = cleaned(tmp_path, problem(f"{BUG} {PHRASE}"), benchmark=f"{DICE} {PHRASE}")
    assert len(kept) == 1
    assert removed == []


def test_decontamination_finds_short_problems_only_when_they_are_the_same(tmp_path: Path):
    file = tmp_path / "b.jsonl"
    file.write_text('{"problem_id": "b", "question": "Compute $2 + 3$.", "answer": "5"}\n')
    known = Benchmarks({"exam": Benchmark(files=(file,))}, DecontaminationSettings())
    assert known.match("compute 2+3") is not None
    assert known.match("Compute $2 + 4$.") is None
    assert known.match("Compute $2 + 3$. Give your answer as a decimal number.") is not None
    assert known.match("Answer in words. Compute $2 + 3$.") is not None
    assert (
        known.match("First compute $2 + 3$, then the square root of the sum of all its divisors, then its cube.")
        is None
    )


def test_decontamination_against_hle_math_100_uses_its_ids(tmp_path: Path):
    ids = sorted(read_ids(Path("hle_math_100")))
    rows = [{"id": name, "question": f"Find the residue of {name} modulo 7.", "answer": "3"} for name in ids]
    rows.append({"id": "another problem of the data set", "question": EASY, "answer": "3"})
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    preset = yaml.safe_load((CONF / "data" / "hle_math_100.yaml").read_text())
    fields = ProblemFields.model_validate({key: preset[key] for key in ("problem_id", "answer_required", "ids")})
    benchmark = Benchmark(files=(tmp_path / "test.parquet",), fields=fields)
    known = Benchmarks({"hle_math_100": benchmark}, DecontaminationSettings())
    assert known.sizes == {"hle_math_100": 100}
    match = known.match(rows[41]["question"])
    assert match is not None
    assert (match.found_in, match.problem_id) == ("hle_math_100", ids[41])
    assert known.match(EASY) is None
    parquet.write_table(pyarrow.Table.from_pylist(rows[3:]), tmp_path / "test.parquet")
    with pytest.raises(ProblemFileError, match="3 of the 100 problems of hle_math_100 are missing"):
        Benchmarks({"hle_math_100": benchmark}, DecontaminationSettings())


def test_of_duplicates_the_first_stays_and_other_numbers_are_another_problem(tmp_path: Path):
    pool = [
        problem(EASY, name="first"),
        problem(EASY.replace("Natalia", "Josie"), name="renamed"),
        problem(EASY.upper(), name="upper"),
        problem(EASY.replace("48", "50"), name="numbers"),
    ]
    kept, removed = cleaned(tmp_path, *pool)
    assert [p.problem_id for p in kept] == ["first", "numbers"]
    assert [(r["problem_id"], r["reason"], r["match"]["problem_id"]) for r in removed] == [
        ("renamed", "duplicate", "first"),
        ("upper", "duplicate", "first"),
    ]


def test_duplicates_with_other_answers_are_all_removed(tmp_path: Path):
    pool = [problem(EASY, "72", "a"), problem(EASY, "72.0", "b"), problem(EASY, "73", "c"), problem(EASY, "72", "d")]
    kept, removed = cleaned(tmp_path, *pool)
    assert kept == []
    assert sorted((r["problem_id"], r["reason"]) for r in removed) == [
        ("a", "conflict"), ("b", "duplicate"), ("c", "conflict"), ("d", "conflict"),
    ]  # fmt: skip


def test_a_conflict_with_a_removed_duplicate_removes_the_kept_one_too(tmp_path: Path):
    reworded = EASY.replace("How many", "What number of")
    assert reworded != EASY
    kept, removed = cleaned(
        tmp_path, problem(EASY, "72", "a"), problem(reworded, "72", "b"), problem(reworded, "73", "c")
    )
    assert kept == []
    assert [(r["problem_id"], r["reason"], r["match"]["problem_id"]) for r in removed] == [
        ("b", "duplicate", "a"),
        ("a", "conflict", "c"),
        ("c", "conflict", "b"),
    ]


CIRCLE = "What is the radius of the circle that is inscribed in the triangle with the sides 13, 14 and 15?"


def test_problems_that_differ_in_a_word_and_in_their_answers_are_both_kept(tmp_path: Path):
    around = CIRCLE.replace("inscribed in", "circumscribed about")
    pool = [problem(CIRCLE, "4", "a"), problem(around, "65/8", "b"), problem(around, "8.125", "c")]
    kept, removed = cleaned(tmp_path, *pool)
    assert [p.problem_id for p in kept] == ["a", "b"]
    assert [(r["problem_id"], r["reason"], r["detail"]) for r in removed] == [("c", "duplicate", "of b")]


UNREADABLE = problem(HARD, "no such circle exists", "words")
SEVERAL = problem(EASY, "72", "several", metadata={"accepted": ["72", "27"]})
SAME = problem("What is one half of one?", "1/2", "same", metadata={"accepted": ["1/2", "0.5"]})


def test_answers_that_the_checker_cannot_read_are_removed(tmp_path: Path):
    kept, removed = cleaned(tmp_path, UNREADABLE, SEVERAL, SAME)
    assert [(p.problem_id, p.answer, p.data_source, p.metadata) for p in kept] == [("same", "1/2", "math", {})]
    assert [(r["problem_id"], r["reason"], r["detail"]) for r in removed] == [
        ("words", "unreadable", "the gold answer contains words"),
        ("several", "unreadable", "accepted answers differ: '72' and '27'"),
    ]


def test_or_go_to_a_judge_unless_several_that_differ_are_accepted(tmp_path: Path):
    kept, removed = cleaned(tmp_path, UNREADABLE, SEVERAL, SAME, on_unreadable="judge")
    assert [(r["problem_id"], r["reason"]) for r in removed] == [("several", "unreadable")]
    assert [(p.problem_id, p.answer, p.data_source) for p in kept] == [
        ("words", "no such circle exists", "math_grm"),
        ("same", "1/2", "math"),
    ]


def test_a_benchmark_row_that_cannot_be_read_is_on_record_and_a_missing_file_is_known_first(tmp_path: Path):
    file, exam, lines = tmp_path / "mine.jsonl", tmp_path / "exam.jsonl", []
    file.write_text(json.dumps({"question": EASY, "answer": "4"}) + "\n")
    exam.write_text(json.dumps({"problem_id": "b1", "question": HARD}) + '\n{"problem_id": "b2"}\n')

    def collect_against(*files: Path) -> None:
        benchmarks = {"exam": Benchmark(files=files)}
        source = {"mine": local(file)}
        collect(CollectSettings(output_dir=tmp_path / "pool", source=source, benchmarks=benchmarks), said(lines))

    with pytest.raises(ProblemFileError, match=r"nowhere.jsonl: the file of the benchmark exam is missing"):
        collect_against(exam, tmp_path / "nowhere.jsonl")
    assert not (tmp_path / "pool").exists()
    collect_against(exam)
    [skipped] = orjson.loads((tmp_path / "pool" / "report.json").read_bytes())["benchmark_rows_skipped"]
    assert skipped == f"{exam}:2: field 'question': missing"
    assert f"skipped a benchmark row: {skipped}" in lines


def test_collect_writes_pool_removals_and_report(tmp_path: Path):
    file, exam = tmp_path / "mine.jsonl", tmp_path / "exam.jsonl"
    file.write_text("".join(json.dumps({"question": q, "answer": "4"}) + "\n" for q in (HARD, EASY, EASY)))
    exam.write_text(json.dumps({"problem_id": "b1", "question": HARD}) + "\n")
    settings = CollectSettings(
        output_dir=tmp_path / "pool",
        source={"mine": local(file)},
        benchmarks={"exam": Benchmark(files=(exam,)), "secret": Benchmark()},
    )
    lines: list[str] = []
    for _ in range(2):  # the second time from what the first one read
        collect(settings, said(lines))
        report = orjson.loads((tmp_path / "pool" / "report.json").read_bytes())
        assert (report["kept"], report["removed"]) == (1, {"benchmark": 1})
        assert report["benchmarks"] == {"exam": 1, "secret": 0}
        assert report["sources"]["mine"]["copies"] == 1
    assert sum("from an earlier run" in line for line in lines) == 1
