"""verl's reward manager with what a reward function cannot see by itself: whether the reply was cut off."""

# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportAbstractUsage=false
# verl and what it rests on are typed loosely.
from __future__ import annotations

from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

from tmas.llm.thinking import OPEN

_TAIL_TOKENS = 8  # of the prompt: more than any tokenizer makes of the tag and a line break


class TMASRewardManager(NaiveRewardManager):
    """Adds to ``extra_info``: ``truncated`` (the reply fills ``data.max_response_length`` and does not end with an
    end-of-sequence token), ``response_tokens``, ``thinking_opened`` (the chat template opens the thought, as
    Qwen3-Thinking's does, so that the reply begins inside it), and ``prompt``: all that the policy was shown. The rest,
    calling the reward function too, is verl's."""

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        item = data[-1:][0]
        width = item.batch["responses"].shape[-1]
        length = int(item.batch["attention_mask"][-width:].sum())
        ended = length > 0 and int(item.batch["responses"][length - 1]) == self.tokenizer.eos_token_id
        prompt_end = self.tokenizer.decode(item.batch["prompts"][-_TAIL_TOKENS:])
        extra_infos = data.non_tensor_batch["extra_info"]
        extra_infos[-1] = {  # a dict of its own: the samples of a prompt may share the row's
            **extra_infos[-1],
            "truncated": length >= self.config.data.max_response_length and not ended,
            "response_tokens": length,
            "thinking_opened": prompt_end.rstrip().endswith(OPEN),
            "prompt": "\n\n".join(message["content"] for message in data.non_tensor_batch["raw_prompt"][-1]),
        }
        return await super().run_single(data)
