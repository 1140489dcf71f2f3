"""Where the trainer touches verl's data: the advantages, with verl's own GRPO between, and the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("verl")
from tests.support.kept_rollouts import KeptRow, advantages, keep  # noqa: E402

pytestmark = pytest.mark.timeout(3600)


def reward(source: str = "guideline", **parts: Any) -> dict[str, Any]:
    components = dict.fromkeys(("correctness", "experience", "novelty"), 0.0)
    states = {f"{name}_state": "absent" for name in components} | {
        "correctness_state": "scored",
        "bonus_state": "scored",
    }
    whys = {f"{name}_why": "" for name in components}
    numbers = {"score": 1.0, "acc": 1.0, "truncated": 0, "response_tokens": 3, "bonus": 0.0, "bonus_weight": 0.3}
    return {
        **components,
        **states,
        **whys,
        **numbers,
        "source": source,
        "outcome": "answered",
        "correctness": 1.0,
        **parts,
    }


RIGHT, WRONG = reward(), reward(score=0.0, correctness=0.0, acc=0.0, bonus_weight=0.0)
PRAISED = reward(score=1.3, bonus=1.0)
UNJUDGED = reward(bonus_state="masked", novelty_state="masked", novelty_why="timeout")
UNSCORED = reward(score=0.0, correctness=0.0, acc=0.0, correctness_state="masked", bonus_state="absent")


def test_the_bonus_moves_a_right_answer_by_no_more_than_its_weight(monkeypatch: pytest.MonkeyPatch):
    """With form=additive, one bonus among eight right answers is worth 2.47 at every weight."""
    eight = [PRAISED, *[RIGHT] * 7]
    found, *_ = advantages(monkeypatch, eight, ["a"] * 8)
    assert found == pytest.approx([0.3 * 7 / 8, *[-0.3 / 8] * 7], abs=1e-6)
    found, *_ = advantages(monkeypatch, eight, ["a"] * 8, form="additive")
    assert found[0] == pytest.approx(2.47, abs=0.01)


@pytest.mark.parametrize("form", ["decoupled", "additive"])
@pytest.mark.parametrize("by_std", [True, False])
def test_without_a_bonus_the_advantage_is_that_of_verl(monkeypatch: pytest.MonkeyPatch, form: str, by_std: bool):
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    batch, uids = [RIGHT, WRONG, WRONG, RIGHT, WRONG], [*"aaabb"]
    found, *_ = advantages(monkeypatch, batch, uids, form=form, by_std=by_std)
    scores = torch.tensor([[one["correctness"]] for one in batch])
    vanilla, _ = compute_grpo_outcome_advantage(
        scores,
        torch.ones_like(scores),
        uids,  # type: ignore[arg-type]
        norm_adv_by_std_in_grpo=by_std,
    )
    assert found == vanilla[:, 0].tolist()


def test_a_verification_is_compared_by_grade_and_its_critique_with_other_right_grades(monkeypatch: pytest.MonkeyPatch):
    """In the same batch as answers: right grades with and without the bonus, an undecided and an opposite one."""

    def graded(right: float, **parts: Any) -> dict[str, Any]:
        none = {"bonus_state": "absent", "bonus_weight": 0.0}
        given = {"outcome": "graded", "label": "wrong", "pred": f"{1 - right:g}", "acc": right, "correctness": right}
        return reward("verification", score=right, **given, **(parts or none))

    named = {"bonus": 1.0, "bonus_weight": 0.3, "critique": 1.0, "critique_state": "scored", "critique_why": ""}
    unnamed = {**named, "bonus": 0.0, "critique": 0.0, "critique_why": "not_named"}
    absent = {"critique": 0.0, "critique_state": "absent", "critique_why": ""}
    verified = [graded(1.0, **named), graded(1.0, **unnamed), graded(0.5), graded(0.0)]
    batch = [{**absent, "label": "", "pred": "", **one} for one in (*verified, RIGHT, WRONG)]
    found, _, metrics = advantages(monkeypatch, batch, [*"vvvvaa"], by_std=False)
    by_grade = [c - 0.625 for c in (1.0, 1.0, 0.5, 0.0)]
    assert found == pytest.approx([by_grade[0] + 0.15, by_grade[1] - 0.15, *by_grade[2:], 0.5, -0.5])
    assert metrics["reward/verification/acc"] == 0.625
    assert metrics["reward/verification/critique"] == 0.5
    assert metrics["reward/verification/false_accept"] == 0.25
    assert metrics["reward/guideline/acc"] == 0.5


def test_a_masked_sample_changes_no_other_advantage(monkeypatch: pytest.MonkeyPatch):
    """Filled in with the mean of its group, it makes the advantages of the others larger."""
    batch, uids = [PRAISED, RIGHT, WRONG], [*"aaa"]
    alone, *_ = advantages(monkeypatch, batch, uids)
    for hidden in (UNSCORED, UNJUDGED):
        found, _, metrics = advantages(monkeypatch, [*batch, hidden], [*uids, "a"])
        assert metrics["reward/all/masked"] == 1
        if hidden is UNSCORED:
            assert found == [*alone, 0.0]
        else:  # its correctness is known and counts, as that of any sample
            vanilla, *_ = advantages(monkeypatch, [RIGHT, RIGHT, WRONG, RIGHT], [*uids, "a"])
            assert [a - v for a, v in zip(found, vanilla, strict=True)] == pytest.approx([0.15, -0.15, 0, 0], abs=1e-6)
    swollen, *_ = advantages(monkeypatch, [*batch, UNSCORED], [*uids, "a"], form="additive")
    assert swollen[:3] != pytest.approx(alone)


def test_padding_is_neither_logged_nor_compared(monkeypatch: pytest.MonkeyPatch):
    found, _, metrics = advantages(monkeypatch, [PRAISED, RIGHT, RIGHT], [*"aaa"], padding=1)
    assert metrics["reward/all/samples"] == 2
    assert found[:2] == pytest.approx([0.15, -0.15], abs=1e-6)


def test_padding_has_the_score_0_that_verl_gives_it(monkeypatch: pytest.MonkeyPatch):
    """Its reward is a copy of a real sample's. GPG counts the samples with a score, and a masked part is filled in."""
    found, *_ = advantages(monkeypatch, [RIGHT, WRONG, RIGHT], [*"aap"], padding=1, estimator="gpg")
    assert found[:2] == [1.5, -1.5]  # of three samples, one has a score
    _, store, _ = advantages(monkeypatch, [UNJUDGED, RIGHT, PRAISED], [*"abp"], padding=1, form="additive")
    assert [row[-1].item() for row in store.fields["rm_scores"]] == [1.0, 1.0, 0.0]


def test_verls_metrics_see_the_scores_and_prompts_of_the_rollout(monkeypatch: pytest.MonkeyPatch):
    batch = [PRAISED, RIGHT, UNSCORED]
    _, store, metrics = advantages(monkeypatch, batch, [*"aaa"])
    assert [row[-1].item() for row in store.fields["rm_scores"]] == pytest.approx([1.3, 1.0, 0.0])
    assert store.fields["uid"] == [*"aaa"]
    assert metrics["reward/all/bonus_advantage"] == pytest.approx(0.1)


def test_the_additive_form_fills_in_what_is_masked(monkeypatch: pytest.MonkeyPatch):
    _, store, metrics = advantages(monkeypatch, [PRAISED, UNJUDGED, WRONG], [*"aab"], form="additive")
    assert [row[-1].item() for row in store.fields["rm_scores"]] == pytest.approx([1.3, 1.3, 0.0])
    assert metrics["reward/guideline/novelty_masked/timeout"] == 1


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_a_prompt_of_masked_samples_teaches_nothing(monkeypatch: pytest.MonkeyPatch, estimator: str):
    found, *_ = advantages(monkeypatch, [UNSCORED, UNSCORED], [*"aa"], estimator=estimator)
    assert found == [0.0, 0.0]


# --- kept rollouts


def kept(
    monkeypatch: pytest.MonkeyPatch, folder: Path, rewards: list[dict[str, Any]], uids: list[str], **given: Any
) -> list[Path]:
    """Train on a step of ``rewards`` and keep it. Returns the files of all steps."""
    from tmas.training.rl.rollouts import kept_files

    _, store, _ = advantages(monkeypatch, rewards, uids, padding=given.get("padding", 0))
    rows = [
        KeptRow(
            response=r"<think> guess </think> so \boxed{58}",
            data_source="math",
            gold="58",
            extra_info={"question": f"question {uid}", "source": "guideline", "index": 7},
            prompt=[{"role": "system", "content": "Think."}, {"role": "user", "content": f"question {uid}"}],
        )
        for uid in uids
    ]
    settings = {"novelty": {"weight": 0.2}, "judge": {"base_url": "http://secret"}}
    keep(monkeypatch, folder, store, rows, settings, **given)
    return kept_files(folder)


VERDICTS = '[{"about": "abc", "verdicts": [{"name": "d", "same": []}], "failures": ["timeout"]}]'


def test_the_responses_of_a_step_are_kept_with_their_rewards_by_prompt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from tmas.training.rl.rollouts import read_step

    batch = [{**one, "verdicts": VERDICTS, "thinking_opened": 0} for one in (PRAISED, RIGHT, WRONG, RIGHT, RIGHT)]
    [file] = kept(monkeypatch, tmp_path / "new", batch, [*"aabbb"], step=12, padding=1)
    assert file.name == "000012.jsonl.gz"
    step, lines = read_step(file)
    assert (step.step, step.algorithm) == (12, {"adv_estimator": "grpo", "norm_adv_by_std_in_grpo": True})
    assert (step.reward["novelty.weight"], step.reward["wrong_share"]) == (0.2, 0.0)  # with the defaults
    assert not any(key.startswith("judge") for key in step.reward)
    first, second = lines
    assert (first.uid, first.gold, first.prompt) == ("a", "58", "Think.\n\nquestion a")
    assert [len(prompt.responses) for prompt in (first, second)] == [2, 2]  # the padding is left out
    response = first.responses[0]
    assert response.text == r"<think> guess </think> so \boxed{58}"
    assert response.reward["score"] == 1.3
    assert response.verdicts[0].about == "abc"
    assert [one.advantage for one in first.responses] == pytest.approx([0.15, -0.15], abs=1e-6)
    given = first.reward_input(response, step.max_response_tokens)
    assert (given["question"], given["max_response_tokens"]) == ("question a", 128)


def test_the_thinking_may_be_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from tmas.training.rl.rollouts import read_step

    batch = [{**RIGHT, "verdicts": "[]", "thinking_opened": 1}] * 2
    [file] = kept(monkeypatch, tmp_path, batch, [*"aa"], rollouts={"thinking": False})
    [prompt] = read_step(file)[1]
    assert {(one.text, one.thinking_opened) for one in prompt.responses} == {(r"so \boxed{58}", False)}


def test_the_kept_files_have_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    batch = [{**RIGHT, "verdicts": "[]", "thinking_opened": 0}] * 2
    for step in range(1, 4):
        kept(monkeypatch, tmp_path, batch, [*"aa"], step=step)
    files = kept(monkeypatch, tmp_path, batch, [*"aa"], step=4)
    size = max(file.stat().st_size for file in files)
    limit = {"max_gb": 2.5 * size / 1e9}
    files = kept(monkeypatch, tmp_path, batch, [*"aa"], step=5, rollouts=limit)
    assert [file.name for file in files] == ["000004.jsonl.gz", "000005.jsonl.gz"]
    files = kept(monkeypatch, tmp_path, batch, [*"aa"], step=5, rollouts={"max_gb": 1e-9})
    assert [file.name for file in files] == ["000005.jsonl.gz"]


def test_a_step_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        kept(monkeypatch, tmp_path / "file", [{**RIGHT, "verdicts": "[]", "thinking_opened": 0}] * 2, [*"aa"])
