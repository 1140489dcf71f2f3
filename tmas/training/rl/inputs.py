"""What a training run is given: the policy that it starts from and the row files, as far as checks need them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tmas.prompts import BUILT_IN, Prompts
from tmas.records import Message
from tmas.training.rows import RowFileError, read_rows, validate_rows

REWARD = "reward.custom_reward_function.reward_kwargs.settings"
"""The key of the reward's own settings."""


@dataclass(frozen=True)
class Policy:
    """What the checks need of the model: its context in tokens, and how it counts a chat."""

    context_length: int
    tokenizer: Any

    @classmethod
    def load(cls, path: str) -> Policy:
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(path)
        return cls(config.get_text_config().max_position_embeddings, AutoTokenizer.from_pretrained(path))

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        chat = [message.model_dump() for message in messages]
        return len(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))


@dataclass(frozen=True)
class RowFile:
    """A checked row file: rows by source, the longest prompt in tokens, and the rows that only a judge can check."""

    path: Path
    sources: Mapping[str, int]
    longest_prompt: int
    judged: int

    @property
    def rows(self) -> int:
        return sum(self.sources.values())

    def __str__(self) -> str:
        sources = ", ".join(f"{count:,} {source}" for source, count in sorted(self.sources.items()))
        return f"{self.path}: {self.rows:,} rows ({sources}); longest prompt {self.longest_prompt:,} tokens"


def carry_prompts(config: DictConfig) -> Prompts:
    """Reads the folder ``config.prompts``, and puts its texts into the settings of the reward, whose workers may be on
    machines that do not have the folder. Raises :class:`~tmas.prompts.PromptError`."""
    prompts = Prompts.load(Path(config.prompts)) if config.get("prompts") else BUILT_IN
    if prompts.replaced and OmegaConf.select(config, REWARD) is not None:
        OmegaConf.update(config, f"{REWARD}.prompts", prompts.packed(), force_add=True)
    return prompts


def carried_prompts(config: DictConfig) -> Prompts:
    """What :func:`carry_prompts` put there."""
    packed = OmegaConf.select(config, f"{REWARD}.prompts")
    return Prompts.unpacked(packed) if packed else BUILT_IN


def load_policy(path: str, wrong: list[str]) -> Policy | None:
    """The policy at ``path``; where there is none, ``wrong`` gets the reason."""
    try:
        return Policy.load(path)
    except (OSError, ValueError) as error:
        wrong.append(f"policy.path {path}: {str(error).splitlines()[0]}")
        return None


def load_files(paths: str | Sequence[str], policy: Policy | None, wrong: list[str]) -> list[RowFile]:
    """The row files at ``paths``; for those that cannot be trained on, ``wrong`` gets the reasons."""
    found = [_load(Path(path), policy, wrong) for path in ([paths] if isinstance(paths, str) else paths)]
    return [file for file in found if file]


def _load(path: Path, policy: Policy | None, wrong: list[str]) -> RowFile | None:
    try:
        validate_rows(path)
    except (RowFileError, OSError) as error:
        wrong.append(str(error))
        return None
    sources: Counter[str] = Counter()
    longest = judged = 0
    for row in read_rows(path):
        judged += row.data_source == "math_grm"
        sources[row.extra_info.source] += 1
        longest = max(longest, policy.prompt_tokens(row.prompt) if policy else 0)
    return RowFile(path, sources, longest, judged)
