"""verl's reward manager, extended by facts about the response that a reward function does not get from verl."""

# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportAbstractUsage=false
# verl and its dependencies have incomplete types.
from __future__ import annotations

from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

from tmas.llm.thinking import OPEN
from tmas.training.rl.rollouts import prompt_text

_TAIL_TOKENS = 8
"""Tokens at the end of a prompt that are searched for the thinking tag. No tokenizer needs more for tag and newline."""


class TMASRewardManager(NaiveRewardManager):
    """Adds facts about the response to ``extra_info``, and then calls the reward function as verl does.

    - ``truncated``: the response fills ``data.max_response_length`` and does not end with an end-of-sequence token.
    - ``response_tokens``: length of the response in tokens; ``max_response_tokens``: the longest that it can have.
    - ``thinking_opened``: the prompt ends with the opening thinking tag, so that the response begins with thinking. The
      chat template of Qwen3-Thinking does that.
    - ``prompt``: the text of all messages of the prompt.
    """

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        item = data[-1:][0]
        width = item.batch["responses"].shape[-1]
        length = int(item.batch["attention_mask"][-width:].sum())
        ended = length > 0 and int(item.batch["responses"][length - 1]) == self.tokenizer.eos_token_id
        prompt_end = self.tokenizer.decode(item.batch["prompts"][-_TAIL_TOKENS:])
        extra_infos = data.non_tensor_batch["extra_info"]
        extra_infos[-1] = {  # a new dict, because the samples of a prompt may share the row's dict
            **extra_infos[-1],
            "truncated": length >= self.config.data.max_response_length and not ended,
            "response_tokens": length,
            "max_response_tokens": self.config.data.max_response_length,
            "thinking_opened": prompt_end.rstrip().endswith(OPEN),
            "prompt": prompt_text(data.non_tensor_batch["raw_prompt"][-1]),
        }
        return await super().run_single(data)
