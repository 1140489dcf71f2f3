"""``tmas whatif``: a replay with other settings against a real run with them, and what it says that it cannot know."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import tmas, tmas_process
from tests.support.runs import write_run
from tmas import asolve_all
from tmas.answers.checker import AnswerChecker
from tmas.errors import UserError
from tmas.evaluation.estimators import BootstrapSettings
from tmas.evaluation.judgements import Judgements
from tmas.evaluation.whatif import MethodChanges, WhatIfSettings, whatif
from tmas.evaluation.whatif_rows import Figures, ReplayedPair, whatif_rows
from tmas.records.judgements import JudgementLine
from tmas.records.run_files import Correctness, Prediction
from tmas.records.whatif_files import WhatIf, WhatIfRow
from tmas.run.replay import RecordedRun
from tmas.run.whatif import Gaps, RecordedProblem, replay
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")
EXACT = {"selected": "exact", "pass_at_1": "exact", "iterations": "exact", "calls": "exact", "tokens": "exact"}


def reply(body: Body) -> Script:
    """Some verifications cannot be read and are asked for again; half of the others grade 1."""
    texts = list(team.reply(body))
    if team.role_of(body) == "verification":
        for choice, _ in enumerate(texts):
            number = team.number(body, choice)
            texts[choice] = "I cannot say." if number % 5 == 0 else f"Checked. Grade: {1 if number % 2 else 0.5}"
    return Script(tuple(texts))


async def run(path: Path, name: str, **method: Any) -> Path:
    async with ScriptedServer(reply) as server:
        await asolve_all(team.problems(3), team.model(server.base_url), team.small(name, **method), output_dir=path)
    return path


def lines(path: Path) -> dict[str, Prediction]:
    recorded = RecordedRun(path)
    return {problem_id: recorded.prediction(problem_id) for problem_id in recorded.problem_ids}


async def replayed(path: Path, changes: dict[str, Any]) -> dict[str, Prediction | None]:
    """The lines of a run with other settings."""
    recorded, found = RecordedRun(path), {}
    for problem_id, line in lines(path).items():
        correct: dict[str, Correctness] = {
            c.answer: c.correct for i in line.iterations for c in i.candidates if c.answer and c.correct
        }
        problem = RecordedProblem.read(recorded, line, correct)
        baseline = await replay(problem, problem.settings, AnswerChecker())
        other = MethodChanges.model_validate(changes).of(problem.settings, problem.settings.max_iterations)
        found[problem_id] = (await replay(problem, other, AnswerChecker(), baseline.prompts)).line
    return found


async def compared(path: Path, **settings: Any) -> dict[str, WhatIfRow]:
    result = await whatif(WhatIfSettings(run=path, **settings))
    return {row.name: row for row in result.rows}


def usage(line: Prediction | None) -> list[tuple[Any, ...]]:
    assert line
    return [(e.role, e.iteration, e.usage.calls, e.usage.prompt_tokens, e.usage.completion_tokens) for e in line.usage]


@pytest.mark.parametrize(
    ("name", "recorded", "changes"),
    [
        ("tmas", {}, {"max_iterations": 2}),
        ("tmas", {}, {"early_stop": "unanimous"}),
        ("tmas", {}, {"selection": {"rule": "vote", "scope": "last"}}),
        ("tmas", {"verification": {}, "n_verifications": 6}, {}),
        ("majority_vote", {}, {"n_candidates": 3}),
    ],
)
async def test_a_replay_is_the_run_itself_where_no_prompt_and_no_call_changes(
    tmp_path: Path, name: str, recorded: dict[str, Any], changes: dict[str, Any]
):
    path = await run(tmp_path / "recorded", name, **recorded)
    real = lines(await run(tmp_path / "real", name, **(recorded | changes)))
    found = await replayed(path, changes)
    assert {key: line and line.iterations for key, line in found.items()} == {
        key: line.iterations for key, line in real.items()
    }
    assert {key: usage(line) for key, line in found.items()} == {key: usage(line) for key, line in real.items()}
    rows = await compared(path, method=changes)
    assert {key: rows[key].certainty for key in EXACT} == EXACT


@pytest.mark.parametrize(
    ("name", "recorded", "changes"),
    [
        ("best_of_n", {"n_verifications": 5}, {"n_verifications": 2}),
        ("best_of_n", {"n_verifications": 8}, {"n_verifications": 4, "selection": {"rule": "vote"}}),
        ("tmas", {"n_verifications": 5, "max_iterations": 1}, {"n_verifications": 2}),
    ],
)
async def test_with_fewer_verifications_the_selection_is_that_of_a_real_run(
    tmp_path: Path, name: str, recorded: dict[str, Any], changes: dict[str, Any]
):
    path = await run(tmp_path / "recorded", name, **recorded)
    real = lines(await run(tmp_path / "real", name, **(recorded | changes)))
    found = await replayed(path, changes)
    for problem_id, line in found.items():
        assert line
        assert [i.candidates for i in line.iterations] == [i.candidates for i in real[problem_id].iterations]
        assert line.selected == real[problem_id].selected
        verification = [e for e in usage(line) if e[0] == "verification"]
        expected = [e for e in usage(real[problem_id]) if e[0] == "verification"]
        assert [e[:4] for e in verification] == [e[:4] for e in expected]  # only completion tokens are estimated
    rows = await compared(path, method=changes)
    assert {rows[name].certainty for name in ("selected", "pass_at_1", "iterations", "calls")} == {"exact"}
    tokens = rows["tokens of verification"]
    assert tokens.certainty == "approximate"
    assert "its completion tokens are divided" in " ".join(tokens.reasons).lower()


async def test_later_iterations_with_fewer_verifications_are_marked_and_explained(tmp_path: Path):
    path = await run(tmp_path / "recorded", "tmas", n_verifications=5)
    real = lines(await run(tmp_path / "real", "tmas", n_verifications=2))
    found = await replayed(path, {"n_verifications": 2})
    for problem_id, line in found.items():
        assert line
        assert line.iterations[0].candidates == real[problem_id].iterations[0].candidates
    assert any(line != real[problem_id] for problem_id, line in found.items())
    rows = await compared(path, method={"n_verifications": 2})
    assert {row.certainty for row in rows.values()} == {"approximate"}
    [reason] = rows["selected"].reasons
    assert "3 of 3 problems would have sent other prompts, first those of the summary agent in iteration 0" in reason
    assert (rows["tokens of summary"].difference.value or 0) < 0  # its prompts are shorter


async def test_verification_in_rounds_uses_the_recorded_grades_in_their_order(tmp_path: Path):
    path = await run(tmp_path, "tmas", n_verifications=6, max_iterations=1)
    found = await replayed(path, {"verification": {}})
    fewer = 0
    for problem_id, line in lines(path).items():
        other = found[problem_id]
        assert other
        for candidate, recorded in zip(other.iterations[0].candidates, line.iterations[0].candidates, strict=True):
            assert candidate.grades == recorded.grades[: len(candidate.grades)]
            fewer += len(candidate.grades) < len(recorded.grades)
    assert fewer
    rows = await compared(path, method={"verification": {}})
    assert rows["selected"].certainty == "approximate"
    assert "a later round of verifications has its own seeds" in " ".join(rows["selected"].reasons)


async def test_where_the_record_ends_figures_are_bounds(tmp_path: Path):
    path = await run(tmp_path, "tmas", early_stop="unanimous")
    stopped = sum(line.stop == "early_stop" and len(line.iterations) < 3 for line in lines(path).values())
    assert stopped
    rows = await compared(path, method={"early_stop": "none"})
    assert rows["selected"].certainty == "open"
    assert rows["tokens"].certainty == rows["iterations"].certainty == "lower_bound"
    assert f"{stopped} of 3 problems would have continued where the record ends" in rows["tokens"].reasons[0]
    assert rows["tokens"].whatif == rows["tokens"].recorded


def test_a_reason_names_everything_that_ended_problems():
    gaps = Gaps.of_all([])
    found: Figures = {"tokens": 1.0}
    pairs = [ReplayedPair(str(n), found, (found,), gaps, stop) for n, stop in enumerate(["worker", "budget", None])]
    [row] = whatif_rows(pairs, BootstrapSettings())
    assert row.reasons[0].startswith("2 of 3 problems were ended by the budget or processes that died. With other")
    [row] = whatif_rows(pairs[:1], BootstrapSettings())
    assert row.reasons[0].startswith("1 of 1 problems were ended by processes that died. ")


async def test_the_iteration_that_ended_a_problem_is_kept_without_the_updates_of_the_banks_it_did_not_need(
    tmp_path: Path,
):
    def right(body: Body) -> Script:
        roles = {"verification": ["Checked. Grade: 1"] * body.get("n", 1)}
        return Script(tuple(roles.get(team.role_of(body), team.reply(body))))

    method = team.small("tmas", verification={}, n_verifications=6, early_stop="accepted")
    async with ScriptedServer(right) as server:
        await asolve_all(team.problems(2), team.model(server.base_url), method, output_dir=tmp_path)
    assert [len(line.iterations) for line in lines(tmp_path).values()] == [1, 1]
    rows = await compared(tmp_path, method={"early_stop": "none"})
    assert rows["pass_at_1"].whatif == rows["pass_at_1"].recorded
    assert rows["iterations"].certainty == "lower_bound"


async def test_the_full_check_of_another_selected_candidate_is_not_in_the_record(tmp_path: Path):
    path = await run(tmp_path, "tmas", verification={}, n_verifications=6)
    rows = await compared(path, method={"max_iterations": 1})
    assert (rows["selected"].certainty, rows["tokens"].certainty) == ("open", "lower_bound")
    assert rows["iterations"].whatif == 1
    assert rows["tokens"].difference.problems == 3
    assert "the first one with the verification agent in iteration 0" in rows["selected"].reasons[0]


async def test_more_verifications_than_recorded_are_refused(tmp_path: Path):
    path = await run(tmp_path, "best_of_n")
    with pytest.raises(UserError, match="the verification agent would have been asked for more in iteration 0"):
        await whatif(WhatIfSettings(run=path, method=MethodChanges(n_verifications=9)))
    with pytest.raises(UserError, match=r"method\.early_stop: .*the run's method is best_of_n"):
        await whatif(WhatIfSettings(run=path, method=MethodChanges(early_stop="unanimous")))


async def test_random_subsets_average_what_the_first_verifications_happen_to_say(tmp_path: Path):
    path = await run(tmp_path, "best_of_n", n_verifications=6)
    few = {"n_verifications": 1}
    once, again = [await compared(path, method=few, subsets=20) for _ in range(2)]
    assert once == again
    assert once["pass_at_1"].whatif == (await compared(path, method=few))["pass_at_1"].whatif
    assert once["selected"].whatif not in (0, 1 / 3, 2 / 3, 1)  # a mean over subsets, not one outcome per problem


async def test_the_verdicts_of_a_judge_count_if_asked_for(tmp_path: Path):
    path = await run(tmp_path, "majority_vote")
    by_rule = await compared(path)
    found = {(line.gold or "", c.answer) for line in lines(path).values() for c in line.iterations[0].candidates}
    verdict = {"judge": "j", "model": "m", "prompt": "p", "number": 0, "reasoning": "", "failure": None}
    Judgements(path / "judgements.jsonl").add(
        JudgementLine.model_validate({"gold": gold, "answer": answer, "verdict": "different", **verdict})
        for gold, answer in found
    )
    assert by_rule == await compared(path)
    assert (by_rule["selected"].recorded or 0) > 0
    assert (await compared(path, scoring="judge"))["selected"].recorded == 0


async def test_a_run_of_an_older_version(tmp_path: Path):
    fixture = Path(__file__).parents[2] / "fixtures" / "run_v1" / "run"
    rows = await compared(fixture, method={"max_iterations": 1})
    assert rows["iterations"].whatif == 1
    assert {row.certainty for row in rows.values()} <= {"exact", "open", "lower_bound"}


async def test_a_run_without_a_finished_problem_is_refused_with_the_reason(tmp_path: Path):
    with pytest.raises(UserError, match=r"empty: holds no finished problem yet .* Resume the run"):
        await compared(write_run(tmp_path / "empty", []))


def test_the_command_prints_a_table_and_its_reasons(tmp_path: Path):
    path = asyncio.run(run(tmp_path / "a run", "tmas", n_verifications=3))
    output = tmp_path / "whatif.json"
    done = tmas("whatif", path, "method.n_verifications=2", f"output={output}")
    assert done.returncode == 0, done.stderr
    assert "3 problems, with method.n_verifications=2" in done.stdout
    assert "~ approximate: 3 of 3 problems would have sent other prompts" in done.stdout
    written = WhatIf.model_validate(json.loads(output.read_text()))
    assert written.changes == {"n_verifications": 2}
    refused = tmas_process("whatif", path, "method.epsilon=0.5")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "method.epsilon: tmas whatif has no such setting" in refused.stderr
