"""training/rl/reward_manager.py: what the reward function is told of a reply, through verl's own reward manager."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("verl")
pytestmark = pytest.mark.timeout(3600)

WIDTH, END = 4, 9
"""data.max_response_length, and the token that ends a sequence."""
WORDS = {1: "user", 2: "<think>", 3: "\n", 4: "</think>", 5: "four", 6: "is", END: "<|im_end|>"}
Reply = tuple[list[int], list[int]]
"""The tokens of a prompt and of the reply to it."""


class Tokenizer:
    eos_token_id = END

    def decode(self, tokens: Any, skip_special_tokens: bool = False) -> str:
        return "".join(WORDS[int(t)] for t in tokens if not (skip_special_tokens and int(t) == END))


async def told(*replies: Reply) -> list[dict[str, Any]]:
    """What the reward function is given for each of ``replies`` to one row, all scored at the same time."""
    from tensordict import TensorDict
    from verl import DataProto

    from tmas.training.rl.reward_manager import TMASRewardManager

    async def compute_score(solution_str: str, extra_info: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {"score": 0.0, "response": solution_str, **extra_info}

    def padded(rows: list[list[int]], before: bool = False) -> Any:
        longest = max(map(len, rows))
        return torch.tensor([[1] * (longest - len(r)) + r if before else r + [1] * (longest - len(r)) for r in rows])

    prompts, responses = padded([p for p, _ in replies], before=True), padded([r for _, r in replies])
    held = torch.tensor([[1] * prompts.shape[1] + [i < len(r) for i in range(responses.shape[1])] for _, r in replies])
    row, n = {"question": "2 + 2"}, len(replies)
    data: Any = DataProto(
        batch=TensorDict({"prompts": prompts, "responses": responses, "attention_mask": held}, batch_size=n),
        non_tensor_batch={
            "data_source": np.array(["math"] * n, dtype=object),
            "reward_model": np.array([{"ground_truth": "4"}] * n, dtype=object),
            "extra_info": np.array([row] * n, dtype=object),
            "raw_prompt": np.array(
                [[{"role": "system", "content": "Think."}, {"role": "user", "content": "2 + 2"}]] * n
            ),
        },
    )
    config: Any = SimpleNamespace(data=SimpleNamespace(max_response_length=WIDTH))
    tokenizer: Any = Tokenizer()
    manager = TMASRewardManager(config, tokenizer, compute_score)
    found = await asyncio.gather(*(manager.run_single(data[i : i + 1]) for i in range(n)))
    return [one["reward_extra_info"] for one in found]


async def test_every_reply_is_told_apart_though_all_share_the_row():
    ended, cut_off, full = await told(([1], [5, END]), ([1], [6, 6, 6, 5]), ([1], [6, 6, 5, END]))
    assert [one["truncated"] for one in (ended, cut_off, full)] == [False, True, False]
    assert [one["response_tokens"] for one in (ended, cut_off, full)] == [2, 4, 4]
    assert ended["max_response_tokens"] == WIDTH
    assert [one["response"] for one in (ended, cut_off)] == ["four", "isisisfour"]
    assert (ended["question"], ended["prompt"]) == ("2 + 2", "Think.\n\n2 + 2")


@pytest.mark.parametrize(
    ("prompt", "opened"), [([1, 2], True), ([1, 2, 3], True), ([1, 2, 3, 4, 3], False), ([2, 1], False)]
)
async def test_a_thought_that_the_chat_template_opens_is_seen(prompt: list[int], opened: bool):
    [found] = await told((prompt, [5, END]))
    assert found["thinking_opened"] is opened
