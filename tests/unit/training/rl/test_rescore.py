"""`tmas rescore` on files that the trainer wrote, with rewards of the real scorer and a scripted judge."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

pytest.importorskip("torch")
pytest.importorskip("verl")

from rich.console import Console

from tests.support.commands import tmas
from tests.support.kept_rollouts import KeptRow, advantages, keep
from tests.support.rewards import (
    FIRST_STEP,
    GOLD,
    QUESTION,
    SECOND_STEP,
    SOLUTION,
    experience_verdict,
    extra_info,
    novelty_verdict,
    settings,
)
from tmas.answers.checker import AnswerChecker
from tmas.cli.rescore import print_rescoring
from tmas.errors import UserError
from tmas.records.reading import DefectiveFile
from tmas.rewards import scorer
from tmas.rewards.scorer import Scorer
from tmas.rewards.settings import reward_settings
from tmas.testing.chat_server import Body, Fault, Script, ScriptedServer, run_in_thread
from tmas.testing.judge import with_code
from tmas.training.rl.rescore import RescoreSettings, Rescoring, rescore
from tmas.training.rl.rollouts import read_step

pytestmark = pytest.mark.timeout(3600)
REWARD = "reward.custom_reward_function.reward_kwargs.settings"
WRONG = SOLUTION.replace("58}", "57}")
TRIANGLE, HALF_SQUARE = "an isosceles right triangle", SOLUTION.replace("58}", "half of a square}")
UNDECIDED = SOLUTION.replace("58}", "a figure}")


def judge(body: Body) -> str | Script:
    """It finds two items applied, and a new strategy. It fails on answers that are "a figure"."""
    prompt = body["messages"][0]["content"]
    if "a figure" in prompt:
        return Script(fault=Fault("status", after=None, status=500))
    if "# Experience bank" in prompt:
        return with_code(body, experience_verdict(E1=FIRST_STEP, E3=SECOND_STEP))
    if "# Guidelines" in prompt:
        return with_code(body, novelty_verdict())
    return with_code(body, {"reasoning": "compared", "verdict": "equivalent"})


class Shared(AnswerChecker):
    """A real checker for all tests: starting its workers takes seconds."""

    async def close(self) -> None:
        pass


class Kept(NamedTuple):
    """Kept rollouts, and the settings of their reward."""

    folder: Path
    settings: dict[str, Any]


GROUPS = {
    "normal": [SOLUTION, WRONG, "no answer", "<think> 58 </think> " + SOLUTION],
    "experience": [SOLUTION, WRONG, rf"The answer is \\boxed{{{GOLD}}}", f"{FIRST_STEP}. \\boxed{{58}}"],
    "guideline": [SOLUTION, WRONG, rf"The answer is \\boxed{{{GOLD}}}", r"\\boxed{57+1}"],
    "words": [HALF_SQUARE, UNDECIDED, SOLUTION.replace("58}", TRIANGLE + "}"), "no answer"],
}
"""The responses to each prompt; the name is the source of its row. ``words``: a normal row that a judge checks."""


@pytest.fixture(scope="module", autouse=True)
def _one_checker() -> Iterator[None]:
    shared = Shared(timeout=20.0, workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "AnswerChecker", lambda *_, **__: shared)
        yield


def rows() -> list[tuple[str, KeptRow]]:
    """The responses of :data:`GROUPS`, each with the name of its prompt."""
    found = []
    for name, responses in GROUPS.items():
        grm = name == "words"
        info = extra_info("normal" if grm else name)
        prompt = [{"role": "system", "content": "Think."}, {"role": "user", "content": QUESTION}]
        row = KeptRow("", "math_grm" if grm else "math", TRIANGLE if grm else GOLD, info, prompt)
        found += [(name, row._replace(response=response)) for response in responses]
    return found


LIMIT = 128
"""The longest that a response can be, in tokens."""


def train(folder: Path, changes: dict[str, Any] | None = None, **given: Any) -> Kept:
    """A step of a training: rewards, advantages, and what the trainer keeps. ``changes``: to the reward's settings."""
    responses = rows()

    async def rewards(base_url: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        plain = settings(base_url, **(changes or {}))
        async with Scorer(reward_settings(plain)) as one:
            added = {"prompt": "Think.\n\n" + QUESTION, "max_response_tokens": LIMIT}
            reports = [
                await one.score(
                    row.data_source, row.response, row.gold, {**row.extra_info, **added, "response_tokens": LIMIT - i}
                )
                for i, (_, row) in enumerate(responses)
            ]
        return reports, plain

    with run_in_thread(ScriptedServer(judge)) as server:
        reports, plain = asyncio.run(rewards(server.base_url))
    with pytest.MonkeyPatch.context() as patch:
        _, store, _ = advantages(patch, reports, [name for name, _ in responses])
        keep(patch, folder, store, [row for _, row in responses], plain, **given)
    return Kept(folder, plain)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return train(tmp_path_factory.mktemp("run") / "rollouts", step=3)


def again(kept: Kept, base_url: str = "", algorithm: dict[str, Any] | None = None, **changes: Any) -> Rescoring:
    """Rescore with the settings of the training, apart from ``changes``. ``base_url``: a judge to ask."""
    judged = {**kept.settings["judge"], "name": "judge" if base_url else None, "base_url": base_url}
    reward = {"custom_reward_function": {"reward_kwargs": {"settings": {**kept.settings, "judge": judged, **changes}}}}
    config = {"rollouts": [kept.folder], "output": None, "algorithm": algorithm or {}, "reward": reward}
    return asyncio.run(rescore(RescoreSettings.composed(config), lambda *_: None))


def test_the_same_settings_change_nothing(kept: Kept):
    result = again(kept)
    everything = result.sources["all"]
    assert (everything.responses, everything.compared, everything.needs_judge) == (16, 16, 0)
    assert (everything.sign_changes, everything.outcomes, result.changed) == (0, {}, ())
    assert everything.score.before == everything.score.after
    assert result.steps == (3, 3)
    assert set(result.sources) == {"all", "normal", "experience", "guideline"}
    assert result.sources["experience"].with_bonus.before == 0.5  # both with a quoted step
    _, prompts = read_step(kept.folder / "000003.jsonl.gz")
    sizes = [abs(response.advantage) for prompt in prompts for response in prompt.responses]
    assert everything.advantage.after == everything.advantage.before == pytest.approx(sum(sizes) / 16, abs=1e-6)


def test_the_overlong_penalty_is_computed_again(kept: Kept, tmp_path: Path):
    penalized = train(tmp_path / "rollouts", {"overlong": {"penalty": 0.5}}, max_response_tokens=LIMIT, step=1)
    everything = again(penalized).sources["all"]
    assert everything.score.before is not None
    assert everything.score.before < (again(kept).sources["all"].score.before or 0)
    assert everything.score.after == everything.score.before
    assert everything.advantage.after == everything.advantage.before


def test_a_file_without_the_longest_response_has_no_overlong_penalty(kept: Kept, tmp_path: Path):
    """Earlier versions did not keep max_response_tokens."""
    header, *prompts = gzip.decompress((kept.folder / "000003.jsonl.gz").read_bytes()).splitlines(keepends=True)
    older = {name: value for name, value in orjson.loads(header).items() if name != "max_response_tokens"}
    lines = [orjson.dumps(older) + b"\n", *prompts]
    (tmp_path / "000003.jsonl.gz").write_bytes(gzip.compress(b"".join(lines)))
    old = kept._replace(folder=tmp_path)
    assert again(old).sources == again(kept).sources
    with pytest.raises(UserError, match=r"000003\.jsonl\.gz: .*the overlong penalty cannot be computed again"):
        again(old, overlong={"penalty": 0.5})


def test_a_weight_and_a_gate_are_applied_to_the_kept_verdicts(kept: Kept):
    lighter = again(kept, experience={"weight": 0.1}, novelty={"min_steps": 3})
    [changed] = lighter.changed
    assert changed.settings == {"experience.weight": (0.3, 0.1), "novelty.min_steps": (2, 3)}
    used, new = lighter.sources["experience"], lighter.sources["guideline"]
    assert (used.score.before, used.score.after) == pytest.approx(((2 + 0.3 * 1.5) / 3, (2 + 0.1 * 1.5) / 3))
    assert (new.with_bonus.before, new.with_bonus.after) == (0.25, 0.0)
    assert lighter.sources["all"].needs_judge == 0


def test_an_answer_that_is_refused_now_changes_its_outcome(kept: Kept):
    shorter = again(kept, answer={"max_chars": 3})
    assert shorter.sources["all"].outcomes == {
        "right -> unverifiable": 2,
        "unevaluated -> unverifiable": 1,
        "masked -> unverifiable": 1,
    }


def test_a_verdict_that_is_missing_is_counted_and_not_guessed(kept: Kept):
    shared = again(kept, wrong_share=0.5)
    for source in ("experience", "guideline"):
        found = shared.sources[source]
        assert (found.responses, found.needs_judge, found.compared) == (4, 1, 0)
        assert found.advantage.after is None
    assert shared.sources["normal"].compared == 8


def test_a_judge_is_asked_for_the_missing_verdicts_alone(kept: Kept):
    with run_in_thread(ScriptedServer(judge)) as server:
        shared = again(kept, server.base_url, wrong_share=0.5)
        assert len(server.requests) == 2  # about the wrong answers
    assert shared.sources["all"].needs_judge == 0
    assert shared.sources["all"].compared == 16
    assert shared.sources["experience"].with_bonus.after == 0.75


def test_a_verdict_that_failed_in_training_is_not_asked_for(kept: Kept):
    with run_in_thread(ScriptedServer(judge)) as server:
        same = again(kept, server.base_url)
        assert server.requests == []
    assert same.sources["normal"].outcomes == {}


def test_another_estimator_can_be_tried(kept: Kept):
    without = again(kept, algorithm={"norm_adv_by_std_in_grpo": False})
    [changed] = without.changed
    assert changed.settings == {"algorithm.norm_adv_by_std_in_grpo": (True, False)}
    change = without.sources["all"].advantage
    assert change.before is not None
    assert change.after is not None
    assert change.after < change.before


def test_each_file_keeps_the_settings_of_its_own_training(kept: Kept, tmp_path: Path):
    header, *prompts = gzip.decompress((kept.folder / "000003.jsonl.gz").read_bytes()).splitlines(keepends=True)
    for step, weight in enumerate((0.3, 0.2, 0.1, 0.2), 1):
        other = orjson.loads(header)
        other["step"], other["reward"]["experience.weight"] = step, weight
        lines = [orjson.dumps(other) + b"\n", *prompts]
        (tmp_path / f"{step:06}.jsonl.gz").write_bytes(gzip.compress(b"".join(lines)))
    result = again(kept._replace(folder=tmp_path), experience={"weight": 0.1})
    assert [(changed.settings, [Path(file).name[:6] for file in changed.files]) for changed in result.changed] == [
        ({"experience.weight": (0.3, 0.1)}, ["000001"]),
        ({"experience.weight": (0.2, 0.1)}, ["000002", "000004"]),
    ]
    console = Console(width=1000, record=True, file=io.StringIO())
    print_rescoring(console, result)
    first = tmp_path / "000002.jsonl.gz"
    printed = console.export_text()
    assert f"experience.weight: 0.2 in training (2 of 4 files, first {first}), 0.1 now" in printed


def test_advantages_that_need_a_critic_are_left_out(tmp_path: Path):
    result = again(train(tmp_path, estimator="gae"))
    assert result.sources["all"].compared == 0
    assert result.sources["all"].advantage.after is None


def test_the_final_text_is_enough(kept: Kept, tmp_path: Path):
    shorter = train(tmp_path / "rollouts", rollouts={"thinking": False}, step=3)
    assert again(shorter).sources == again(kept).sources


def test_the_command_prints_a_table_and_writes_a_file(kept: Kept, tmp_path: Path):
    done = tmas("rescore", f"rollouts=[{kept.folder.parent}]", "reward=vanilla", f"output={tmp_path / 'out.json'}")
    assert done.returncode == 0, done.stderr
    assert "experience.form: judge in training, none now" in done.stdout
    assert "sign" in done.stdout
    written = Rescoring.model_validate_json((tmp_path / "out.json").read_bytes())
    assert written.sources["experience"].with_bonus.after == 0
    assert written.sources["all"].needs_judge == 0


def test_the_result_lies_beside_the_rollouts(kept: Kept):
    assert tmas("rescore", f"rollouts=[{kept.folder}]", "reward=vanilla").returncode == 0
    assert orjson.loads((kept.folder / "rescored.json").read_bytes())["steps"] == [3, 3]


def test_a_folder_without_rollouts_is_refused(tmp_path: Path):
    done = tmas("rescore", f"rollouts=[{tmp_path}]")
    assert (done.returncode, str(tmp_path) in done.stderr) == (2, True)
    assert "contains no kept rollouts" in done.stderr


def test_an_unknown_estimator_is_refused(kept: Kept):
    done = tmas("rescore", f"rollouts=[{kept.folder}]", "algorithm.adv_estimator=gae")
    assert done.returncode == 2
    assert "algorithm.adv_estimator: must be one of grpo" in done.stderr


def test_a_damaged_file_is_named(kept: Kept, tmp_path: Path):
    whole = (kept.folder / "000003.jsonl.gz").read_bytes()
    (tmp_path / "000001.jsonl.gz").write_bytes(whole[:-200])
    with pytest.raises(DefectiveFile, match="000001"):
        again(kept._replace(folder=tmp_path))
    (tmp_path / "000001.jsonl.gz").write_bytes(gzip.compress(b'{"step": 1}\n{"uid": "a"}\n'))
    with pytest.raises(DefectiveFile, match=r"000001\.jsonl\.gz:2: "):
        again(kept._replace(folder=tmp_path))
