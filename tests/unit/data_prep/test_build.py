"""`tmas build`: rows and chats from a filtered pool and a teacher's run, with the card and the page."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from recipes.cpu.tiny_policy import TURN_END, TURN_START, train_tokenizer
from tests.support.data_steps import distill_settings, filter_settings, problem_file, runner, silent
from tmas.data_prep.build import build
from tmas.data_prep.build_settings import BuildSettings
from tmas.data_prep.difficulty import filter_by_difficulty
from tmas.data_prep.distill import distill
from tmas.data_prep.pages import _cell
from tmas.data_prep.pool import read_problems
from tmas.data_prep.sft import SFTDataSettings, chats
from tmas.errors import UserError
from tmas.llm.tokens import token_counter
from tmas.prompts.parsing import parse_verification
from tmas.run.replay import RecordedRun
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer, run_in_thread
from tmas.training.rl.inputs import Policy, load_files
from tmas.training.rl.model_shape import KNOWN
from tmas.training.rows import RowFileError, TrainingRow, read_rows, validate_rows

ROWS = {"normal": 8, "experience": 8, "guideline": 3}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filtered pool of some twenty problems, and the teacher's run on them; the teacher thinks in tags."""
    folder = tmp_path_factory.mktemp("build")

    def thinks(body: Body) -> Script:
        return Script(tuple(f"<think>Let me see {i}.</think>{text}" for i, text in enumerate(team.reply(body))))

    with run_in_thread(ScriptedServer(thinks)) as server:
        pool = problem_file(folder, 24)
        filter_by_difficulty(filter_settings(server, folder / "filtered", pool), runner, silent)
        distill(distill_settings(server, folder / "teacher", folder / "filtered" / "problems.jsonl"), runner, silent)
    return folder


def settings(steps: Path, output: Path, **changes: Any) -> BuildSettings:
    given = {
        "problems": steps / "filtered" / "problems.jsonl",
        "run": steps / "teacher",
        "output_dir": output,
        "tokenizer": "estimate",
        "max_prompt_tokens": 4000,
        "rows": ROWS,
        "validation_share": 0.3,
        "earlier": [steps / "filtered"],
    }
    return BuildSettings.model_validate(given | changes)


def made(steps: Path, output: Path, **changes: Any) -> dict[str, list[TrainingRow]]:
    build(settings(steps, output, **changes), silent)
    return rows_of(output)


def report(output: Path) -> dict[str, Any]:
    return orjson.loads((output / "report.json").read_bytes())


@pytest.fixture(scope="module")
def usual(steps: Path) -> Path:
    """What is built with the settings above. Tests only read it."""
    build(settings(steps, steps / "usual"), silent)
    return steps / "usual"


def rows_of(output: Path) -> dict[str, list[TrainingRow]]:
    return {path.stem: list(read_rows(path)) for path in output.glob("[tv]*.parquet")}


def test_rows_are_as_many_as_wanted_and_splits_share_no_problem(usual: Path):
    rows = rows_of(usual)
    assert Counter(row.source for row in rows["train"]) == ROWS
    assert Counter(row.source for row in rows["validation"]) == {"normal": 2, "experience": 2, "guideline": 1}
    problems = {split: {row.extra_info.problem_id for row in found} for split, found in rows.items()}
    assert problems["train"].isdisjoint(problems["validation"])
    assert {row.extra_info.split for row in rows["validation"]} == {"validation"}
    for split, found in rows.items():
        assert validate_rows(usual / f"{split}.parquet") == len(found)
        assert all(0 < row.extra_info.baseline_pass_rate < 1 for row in found)
    assert [row.source for row in rows["train"]] != sorted(row.source for row in rows["train"])  # shuffled


def test_normal_rows_go_to_problems_without_another_row_first_and_once_each(steps: Path, tmp_path: Path):
    rows = made(steps, tmp_path, validation_share=0)["train"]
    normal = [row.extra_info.problem_id for row in rows if row.source == "normal"]
    assert len(set(normal)) == len(normal)
    assert set(normal).isdisjoint(row.extra_info.problem_id for row in rows if row.source != "normal")
    assert not (tmp_path / "validation.parquet").exists()


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (2, 2)])
def test_a_problem_gives_at_most_so_many_rows_with_memory(steps: Path, tmp_path: Path, limit: int, most: int):
    rows = made(steps, tmp_path, per_problem=limit, rows={"normal": 0, "experience": 99, "guideline": 99})["train"]
    assert max(Counter(row.extra_info.problem_id for row in rows).values()) == most
    assert len(rows) == report(tmp_path)["problems"]["train"] * most


def test_only_the_chosen_iterations_make_rows(steps: Path, tmp_path: Path):
    rows = made(steps, tmp_path, iterations=[3])["train"]
    assert {row.extra_info.iteration for row in rows} == {-1, 3}


def test_the_seed_decides_everything(steps: Path, usual: Path, tmp_path: Path):
    def files(folder: Path) -> list[bytes]:
        return [path.read_bytes() for path in sorted(folder.glob("*.parquet"))]

    first = files(usual)
    assert len(first) == 4
    for seed in (0, 1):
        build(settings(steps, tmp_path, seed=seed), silent)
        assert (files(tmp_path) == first) == (seed == 0)


def sizes(rows: Iterable[TrainingRow]) -> list[int]:
    return [token_counter("estimate")(row.prompt[0].content) for row in rows]


def test_prompts_stay_within_the_limit_and_what_does_not_fit_is_counted(steps: Path, usual: Path, tmp_path: Path):
    whole = rows_of(usual)["train"]
    limit = min(sizes(row for row in whole if row.source != "normal")) - 60
    rows = made(steps, tmp_path, max_prompt_tokens=limit + 64)["train"]
    assert {row.source for row in rows} == {"normal"}
    assert max(sizes(rows)) <= limit
    problems = sum(report(tmp_path)["problems"].values())
    assert report(tmp_path)["skipped"] == {"row: context": problems * 3 * 2}  # every context of every problem was tried


def test_a_system_message_comes_first_in_every_prompt_of_training_and_counts(steps: Path, tmp_path: Path):
    pytest.importorskip("verl", reason="needs the cpu or gpu extra")
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    said = "You are a careful mathematician. " * 20
    tokenizer: Any = train_tokenizer([said])
    tokenizer.save_pretrained(tmp_path / "policy")
    policy = Policy(100_000, tokenizer, KNOWN["Qwen3-4B-Thinking-2507"])

    def built(name: str, **changes: Any) -> tuple[str, int]:
        verified = {"tokenizer": str(tmp_path / "policy"), "rows": ROWS | {"verification": 4}}
        made(steps, tmp_path / name, **verified, **changes)
        file = str(tmp_path / name / "train.parquet")
        [found] = load_files(file, policy, [])
        assert found.sources == ROWS | {"verification": 4}
        return file, found.longest_prompt

    _, longest = built("plain", max_prompt_tokens=50_000)
    file, still_longest = built("rows", max_prompt_tokens=longest, system_message=said)
    assert still_longest <= longest
    read = RLHFDataset(file, tokenizer, OmegaConf.create({"cache_dir": str(tmp_path)}))
    prompts = [tokenizer.apply_chat_template(row["raw_prompt"], tokenize=False) for row in read]
    start = f"{TURN_START}system\n{said}{TURN_END}\n{TURN_START}user\n"
    assert [prompt for prompt in prompts if not prompt.startswith(start)] == []
    chats = parquet.read_table(tmp_path / "rows" / "sft_train.parquet").column("messages").to_pylist()
    assert {message["role"] for chat in chats for message in chat} == {"user", "assistant"}


@pytest.mark.parametrize(
    ("said", "message"), [("a" * 10_000, "system_message: .* a prompt has at most 4,000"), (" ", "is empty")]
)
def test_a_system_message_that_leaves_no_room_or_says_nothing_is_refused(
    steps: Path, tmp_path: Path, said: str, message: str
):
    with pytest.raises((UserError, ValidationError), match=message):
        made(steps, tmp_path, system_message=said, max_prompt_tokens=4000)


def test_a_chat_template_that_leaves_no_room_is_refused(steps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tmas.data_prep.build.chat_template_tokens", lambda tokenizer: 128)
    message = "max_prompt_tokens: the chat template has 128 tokens, but a prompt has at most 128. Increase it"
    with pytest.raises(UserError, match=message):
        made(steps, tmp_path, max_prompt_tokens=128)


def test_a_pool_that_is_too_small_gives_what_it_has(steps: Path, tmp_path: Path):
    rows = made(steps, tmp_path, rows={"normal": 900, "experience": 900, "guideline": 900}, per_problem=99)["train"]
    problems = report(tmp_path)["problems"]["train"]
    assert Counter(row.source for row in rows) == {
        "normal": problems,
        "experience": 3 * problems,
        "guideline": 3 * problems,
    }


# --- the cold start


def sft(path: Path) -> list[dict[str, Any]]:
    return parquet.read_table(path / "sft_train.parquet").to_pylist()


def test_chats_are_successes_of_every_role_as_they_were_sent(steps: Path, usual: Path):
    found = sft(usual)
    assert {chat["role"] for chat in found} == {"solution", "verification", "summary", "experience", "guideline"}
    calls = team.recorded_calls(steps / "teacher")
    gold = {f"p{i}": str(i % 3) for i in range(24)}
    for chat in found:
        *prompt, answer = chat["messages"]
        assert answer["role"] == "assistant"
        assert answer["content"].startswith("<think>\nLet me see ")
        assert any(call["messages"] == prompt and call["key"]["role"] == chat["role"] for call in calls.values())
        text = answer["content"].split("</think>\n\n")[1]
        if chat["role"] == "solution":
            assert text.endswith(f"\\boxed{{{gold[chat['problem_id']]}}}.")
        if chat["role"] == "verification":
            shown = prompt[-1]["content"].split("# Candidate solution")[1].split("# Your task")[0]
            right = f"\\boxed{{{gold[chat['problem_id']]}}}" in shown
            assert parse_verification(text).grade == float(right)
        if chat["role"] in ("experience", "guideline"):
            assert json.loads(text)["new"]
    most = Counter((chat["problem_id"], chat["role"]) for chat in found)
    assert max(most.values()) == 2


def test_chats_come_from_training_problems_and_fit(steps: Path, tmp_path: Path):
    rows = made(steps, tmp_path, sft={"max_tokens": 700, "reasoning": False, "per_role": 1})
    found = sft(tmp_path)
    held_out = {row.extra_info.problem_id for row in rows["validation"]}
    assert held_out.isdisjoint(chat["problem_id"] for chat in found)
    assert all("<think>" not in chat["messages"][-1]["content"] for chat in found)
    assert report(tmp_path)["skipped"]["chat: too long"] > 0
    assert max(s["max"] for s in report(tmp_path)["tokens"]["sft_train.parquet"].values()) <= 700


def test_a_bank_update_that_had_to_be_repaired_or_led_nowhere_is_no_success(tmp_path: Path):
    def reply(body: Body) -> list[str]:
        role = team.role_of(body)
        if role == "experience":
            return [team.reply(body)[0].replace("}]", "},]")]  # needs json-repair
        if role == "solution" and "What is 1 mod" in body["messages"][0]["content"]:
            return ["It is \\boxed{7}."] * body.get("n", 1)  # never right
        return team.reply(body)

    with run_in_thread(ScriptedServer(reply)) as server:
        pool = problem_file(tmp_path, 4)
        distill(distill_settings(server, tmp_path / "teacher", pool), runner, silent)
    run, counts = RecordedRun(tmp_path / "teacher"), Counter[str]()
    found = list(chats(run, read_problems(pool), SFTDataSettings(per_role=99), len, 0, counts))
    assert "experience" not in {chat.role for chat in found}
    assert {"guideline", "solution"}.isdisjoint(chat.role for chat in found if chat.problem_id == "p1")
    assert {"guideline", "solution"} <= {chat.role for chat in found}

    # The tokens of the chat template are part of a chat's length.
    longest = max(sum(len(message.content) for message in chat.messages) for chat in found)
    exact = SFTDataSettings(per_role=99, max_tokens=longest + 10)
    assert len(list(chats(run, read_problems(pool), exact, len, 0, Counter(), template_tokens=10))) == len(found)
    assert len(list(chats(run, read_problems(pool), exact, len, 0, Counter(), template_tokens=11))) < len(found)


MODES = {"initial": 1, "exploit": 2, "explore": 0, "verification": 3}


@pytest.mark.parametrize("per_role", [{"solution": 1, "verification": 3}, MODES])
def test_a_mapping_limits_chats_by_role_or_solutions_by_mode(steps: Path, tmp_path: Path, per_role: dict[str, int]):
    made(steps, tmp_path, sft={"per_role": per_role, "keep": "readable"})
    found = [(chat["problem_id"], kind_of(chat, per_role)) for chat in sft(tmp_path)]
    most = Counter(kind for _, kind in found)
    assert most == report(tmp_path)["made"]["sft_train.parquet"]
    assert most.keys() == {kind for kind, limit in per_role.items() if limit}
    problems = report(tmp_path)["problems"]["train"]
    assert most == {kind: problems * limit for kind, limit in per_role.items() if limit}
    assert all(n == per_role[kind] for (_, kind), n in Counter(found).items())


def kind_of(chat: dict[str, Any], per_role: dict[str, int]) -> str:
    """The role of a chat, or the mode of a solution if ``per_role`` names modes. Only explorers see guidelines."""
    if chat["role"] != "solution" or "solution" in per_role:
        return chat["role"]
    explores = "different in substance" in chat["messages"][0]["content"]
    return "initial" if chat["iteration"] == 0 else "explore" if explores else "exploit"


@pytest.mark.parametrize(
    ("per_role", "message"),
    [
        ({"solutions": 2}, "no such role or mode: solutions"),
        ({"solution": 2, "exploit": 1}, "either as the role solution or by mode"),
        ({"solution": -1}, "greater than or equal to 0"),
    ],
)
def test_a_mapping_that_says_nothing_or_two_things_is_refused(per_role: dict[str, int], message: str):
    with pytest.raises(ValidationError, match=message):
        SFTDataSettings(per_role=per_role)


def test_readable_chats_are_all_replies_that_parse(tmp_path: Path):
    def reply(body: Body) -> Script:
        role, texts = team.role_of(body), team.reply(body)
        if role == "experience":
            texts = [texts[0].replace("}]", "},]")]  # needs json-repair
        if role == "verification" and "What is 1 mod" in team.prompt(body):
            texts = ["Looks fine."] * len(texts)  # has no grade
        return Script(tuple(texts), finish_reason="length" if role == "guideline" else "stop")

    with run_in_thread(ScriptedServer(reply)) as server:
        pool = problem_file(tmp_path, 3)
        distill(distill_settings(server, tmp_path / "teacher", pool), runner, silent)
    run = RecordedRun(tmp_path / "teacher")

    def found(keep: str) -> list[tuple[str, str, str, str]]:
        settings = SFTDataSettings.model_validate({"keep": keep, "per_role": 99})
        made = chats(run, read_problems(pool), settings, len, 0, Counter())
        return [(c.problem_id, c.role, c.messages[-2].content, c.messages[-1].content) for c in made]

    readable, successful = Counter(found("readable")), Counter(found("successful"))
    assert {(problem, role) for problem, role, *_ in readable} == {
        *((f"p{i}", role) for i in range(3) for role in ("solution", "summary", "verification"))
    } - {("p1", "verification"), ("p1", "summary")}  # without a verification there is nothing to summarise
    assert successful < readable
    assert sum(n for (_, role, *_), n in readable.items() if role == "solution") == 3 * 3 * 3  # problems, T, N


@pytest.fixture(scope="module")
def chat_runs(steps: Path) -> list[Path]:
    """Runs of two baselines on five problems of the pool and one other."""
    problems = [*read_problems(steps / "filtered" / "problems.jsonl")][:5]
    other = problems[0].model_copy(update={"problem_id": "other"})
    with run_in_thread(ScriptedServer(team.reply)) as server:
        for name in ("rse", "self_refine"):
            settings = RunSettings(model=team.model(server.base_url), method=team.small(name))
            runner([*problems, other], settings, steps / name)
    return [steps / "rse", steps / "self_refine"]


def test_further_runs_give_chats_of_their_roles_and_no_rows(steps: Path, chat_runs: list[Path], tmp_path: Path):
    change: dict[str, Any] = {"sft": {"keep": "readable"}}
    alone = made(steps, tmp_path / "alone", **change)
    rows = made(steps, tmp_path / "more", **change, chat_runs=chat_runs)
    assert rows == alone
    before, after = sft(tmp_path / "alone"), sft(tmp_path / "more")
    assert after[: len(before)] == before
    added = after[len(before) :]
    assert {chat["role"] for chat in added} == {"solution", "distill", "feedback"}
    assert (
        max(Counter((chat["problem_id"], chat["role"]) for chat in added if chat["role"] != "solution").values()) == 2
    )
    calls = [call for run in chat_runs for call in team.recorded_calls(run).values()]
    assert all(any(call["messages"] == chat["messages"][:-1] for call in calls) for chat in added)
    splits = [
        {c["problem_id"] for c in parquet.read_table(tmp_path / "more" / f"sft_{s}.parquet").to_pylist()}
        for s in ("train", "validation")
    ]
    assert splits[0].isdisjoint(splits[1])
    assert "other" not in splits[0] | splits[1]
    assert {str(run / "manifest.json") for run in chat_runs} <= report(tmp_path / "more")["inputs"].keys()


def test_of_a_run_of_genselect_only_right_solutions_are_successes(steps: Path, tmp_path: Path):
    """The index of a comparison numbers the comparisons of all votes, so it is no candidate's."""
    pool = steps / "filtered" / "problems.jsonl"
    problems = [*read_problems(pool)][:3]
    with run_in_thread(ScriptedServer(team.reply)) as server:
        settings = RunSettings(model=team.model(server.base_url), method=team.small("genselect"))
        runner(problems, settings, tmp_path / "genselect")
    run = RecordedRun(tmp_path / "genselect")

    def roles(keep: str) -> set[str]:
        settings = SFTDataSettings.model_validate({"keep": keep, "per_role": 99})
        return {chat.role for chat in chats(run, problems, settings, len, 0, Counter())}

    assert roles("readable") == {"solution", "summary", "comparison"}
    assert roles("successful") == {"solution"}


def test_a_further_run_on_other_questions_is_refused(steps: Path, tmp_path: Path):
    problems = [p.model_copy(update={"answer": "7"}) for p in read_problems(steps / "filtered" / "problems.jsonl")]
    with run_in_thread(ScriptedServer(team.reply)) as server:
        settings = RunSettings(model=team.model(server.base_url), method=team.small("majority_vote"))
        runner(problems, settings, tmp_path / "other")
    with pytest.raises(UserError, match="was run with another question or answer"):
        made(steps, tmp_path / "rows", chat_runs=[tmp_path / "other"])


# --- card and page


def test_the_card_says_what_is_in_the_files(steps: Path, usual: Path):
    found, card = report(usual), (usual / "README.md").read_text()
    for name, file in found["files"].items():
        assert f"| {name} | {file['rows']} |" in card
        assert file["sha256"] in card
    assert "train.parquet: 8 experience, 3 guideline, 8 normal" in card
    assert "| made up | CC0 |" in card
    assert all(hash_ in card for hash_ in found["inputs"].values())
    assert "4 samples a problem of `scripted`" in card
    distilled = len(RecordedRun(steps / "teacher").problem_ids)
    assert f"The teacher, scripted, ran TMAS on {distilled} problems: 3 candidates, 2 verifications" in card
    bins = found["token_histogram"]["counts"]
    assert {source: sum(counts) for source, counts in bins.items()} == {"normal": 10, "experience": 10, "guideline": 4}
    header, *_ = [line for line in card.splitlines() if line.startswith("| tokens |")]
    assert header == "| tokens | experience | guideline | normal |"


def test_the_page_shows_samples_and_what_was_removed(usual: Path):
    rows = rows_of(usual)["train"]
    page = (usual / "look.html").read_text()
    assert all(f"<h3>{source}</h3>" in page for source in ROWS)
    assert rows[0].prompt[0].content.splitlines()[2] in page
    assert "too hard" in page
    assert "<script" not in page
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page


def test_text_of_problems_and_models_is_never_markup(steps: Path, tmp_path: Path):
    evil = "<script>alert(1)</script>| **bold** [x](y)"
    pool = tmp_path / "evil.jsonl"
    kept = [json.loads(line) for line in (steps / "filtered" / "problems.jsonl").read_text().splitlines()]
    pool.write_text("".join(json.dumps(problem | {"origin": evil, "licence": evil}) + "\n" for problem in kept))
    made(steps, tmp_path / "out", problems=pool)
    assert "<script" not in (tmp_path / "out" / "look.html").read_text()
    assert "alert(1)" in (tmp_path / "out" / "look.html").read_text()
    card = (tmp_path / "out" / "README.md").read_text()
    assert _cell(evil) in card
    assert card.count("<script") == card.count("\\<script")


# --- bad input


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda steps: {"run": steps}, UserError, "manifest.json is missing"),
        (lambda steps: {"problems": steps / "nowhere.jsonl"}, UserError, "Run tmas filter first"),
        (lambda steps: {"tokenizer": str(steps)}, UserError, "holds no tokenizer.json"),
        (
            lambda steps: {"earlier": [steps / "teacher"]},
            UserError,
            "report.json: there is no such file. Run tmas collect",
        ),
    ],
)
def test_bad_input_is_a_clear_error(
    steps: Path, tmp_path: Path, change: Callable[[Path], dict[str, Any]], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        build(settings(steps, tmp_path, **change(steps)), silent)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_has_not_finished_is_named_with_what_to_do(steps: Path, tmp_path: Path):
    teacher = tmp_path / "teacher"
    shutil.copytree(steps / "teacher", teacher)
    lines = (teacher / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    said: list[str] = []
    (teacher / "predictions.jsonl").write_bytes(b"".join(lines[:-1]))
    build(settings(steps, tmp_path / "out", run=teacher), said.append)
    assert said[0] == (
        f"{teacher}: only {len(lines) - 1} of {len(lines)} problems are finished; the others give no rows."
        " Run the same tmas distill command again to finish the others."
    )
    (teacher / "predictions.jsonl").unlink()
    with pytest.raises(UserError, match=r"no problem of the teacher's run is finished\. Run the same tmas distill"):
        build(settings(steps, tmp_path / "out", run=teacher), silent)


def test_a_damaged_report_of_an_earlier_step_is_named_with_its_field(steps: Path, tmp_path: Path):
    step = tmp_path / "filtered"
    step.mkdir()
    (step / "report.json").write_text('{"kept": "many", "removed": {}}')
    with pytest.raises(UserError, match=r"report\.json: .*kept"):
        build(settings(steps, tmp_path / "out", earlier=[step]), silent)
    assert not (tmp_path / "out").exists()


def test_a_run_on_other_questions_is_refused(steps: Path, tmp_path: Path):
    pool = tmp_path / "changed.jsonl"
    lines = (steps / "filtered" / "problems.jsonl").read_text().replace("What is", "Compute")
    pool.write_text(lines)
    with pytest.raises(UserError, match="was run with another question or answer"):
        build(settings(steps, tmp_path, problems=pool), silent)


def test_rows_that_were_damaged_later_do_not_pass(usual: Path, tmp_path: Path):
    path = tmp_path / "train.parquet"
    path.write_bytes((usual / path.name).read_bytes()[:-9])
    with pytest.raises(RowFileError):
        validate_rows(path)


def test_each_recorded_run_is_opened_once(steps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[Path] = []
    begin = RecordedRun.__init__
    monkeypatch.setattr(RecordedRun, "__init__", lambda self, path: (opened.append(path), begin(self, path))[1])
    build(settings(steps, tmp_path, chat_runs=[steps / "teacher"]), silent)
    assert opened == [steps / "teacher", steps / "teacher"]  # as the run, and as one of chat_runs
