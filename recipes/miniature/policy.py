"""The miniature's policy: a Qwen3 of about a million parameters, and a tokenizer trained on the project's prompts.

``python -m recipes.miniature.policy FOLDER RUN ...`` trains the tokenizer on the prompts and replies of recorded runs,
and writes it to FOLDER with an untrained model.

The tokenizer keeps sequences short, so that a CPU can train on them: instructions that every prompt repeats become one
token each. The parts that differ between problems also get one token each: numbers, digits, and items such as
``B:echo:ac``.
"""

from __future__ import annotations

import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.cpu.tiny_policy import CHAT_TEMPLATE, CONTEXT, END_OF_TEXT, TURN_END, TURN_START
from recipes.miniature.task import LETTERS, ORDERS, RULES
from tmas.data_prep.sft import whole_reply
from tmas.run.replay import RecordedRun
from tmas.run.trace import read_calls

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 1152
"""Maximum size of the vocabulary, without the tokens for constant passages."""
_ITEM = f"[{LETTERS}]:(?:{'|'.join(RULES)}):(?:{'|'.join(ORDERS)})"
_NUMBER = f"[ \\n]?[{LETTERS}][abct]=\\d"
_RULE = rf"\b(?:{'|'.join(RULES)})\b"
_VALUE = (
    rf"{_ITEM}| (?:OK|BAD|new)\b|{_NUMBER}|{_RULE}|\n- \[[EG]\d+|, support \d+(?:, contradicted \d+)?\] |\d\.\d\d|\d"
)
"""The pieces that differ between problems: items, labels, numbers of a block, rules, ids, grades, digits.

A label is the same token in every place, so that the policy can look up a finding by copying a token.
"""
_VARIABLE = re.compile(rf"{_ITEM}|{_NUMBER}|\d{{4,}}|{_RULE} \d/|^- \[[EG]\d")
"""A line that matches this is not part of a constant passage."""
_MIN_LENGTH = 12
"""Minimum length of a constant passage, and of each of its lines, in characters."""


def build(folder: Path, texts: Sequence[str], seed: int = 0) -> None:
    """Write a Hugging Face folder: bf16 weights drawn with ``seed``, a tokenizer trained on ``texts``, and configs."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.get_vocab()[TURN_END],
        pad_token_id=tokenizer.get_vocab()[END_OF_TEXT],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        for name, weights in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                torch.nn.init.constant_(weights, 2.0)  # sharper attention from the start: look-ups are learned sooner
            elif weights.dim() == 2 and "embed" not in name and "lm_head" not in name:
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                scale = 0.5 / math.sqrt(config.num_hidden_layers) if last else 0.7
                torch.nn.init.normal_(weights, std=scale / math.sqrt(weights.shape[1]))
        model.bfloat16().save_pretrained(folder)


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer. It can write every text, and has one token per item, number, digit and passage."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    passages = constant_passages(texts)
    split = re.compile("|".join(map(re.escape, sorted(passages, key=len, reverse=True))) or r"(?!)")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_VALUE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=20,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [f"{letter}:{rule}:{order}" for letter in LETTERS for rule in RULES for order in ORDERS]
    before = {"a": "\n", "b": " ", "c": " ", "t": " "}
    words += [f"{before[n]}{letter}{n}={digit}" for letter in LETTERS for n in before for digit in range(10)]
    words += [*RULES, " OK", " BAD", " new"]
    tokenizer.train_from_iterator([*words * 1000, *(piece for text in texts for piece in split.split(text))], trainer)
    tokenizer.add_tokens([AddedToken(passage, normalized=False) for passage in passages])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def constant_passages(texts: Sequence[str], share: float = 0.01) -> list[str]:
    """Runs of whole lines that occur in at least ``share`` of the texts and do not depend on the problem."""
    lines = Counter(line for text in texts for line in set(text.split("\n")))
    common = {line for line, n in lines.items() if n >= share * len(texts) and not _VARIABLE.search(line)}
    runs = Counter(run for text in texts for run in set(_runs(text.split("\n"), common)))
    return sorted(run for run, n in runs.items() if n >= share * len(texts) and len(run) >= _MIN_LENGTH)


def _runs(lines: Iterable[str], common: set[str]) -> Iterator[str]:
    """Maximal runs of the ``common`` lines. A non-empty line that is too short ends a run."""
    run: list[str] = []
    for line in [*lines, None]:
        if line is not None and line in common and (not line or len(line) >= _MIN_LENGTH):
            run.append(line)
        else:
            yield "\n".join(run).strip("\n")
            run = []


def texts_of(runs: Sequence[Path], limit: int = 14_000) -> list[str]:
    """Prompts and replies of random problems of recorded runs: at most ``limit``, the same number from each run."""
    return [text for run in runs for text in islice(_texts(RecordedRun(run)), limit // len(runs))]


def _texts(run: RecordedRun) -> Iterator[str]:
    problem_ids = sorted(run.problem_ids)
    random.Random(0).shuffle(problem_ids)
    for problem_id in problem_ids:
        for call in read_calls(run.trace(problem_id)):
            if call.reply:
                yield from (message.content for message in call.messages)
                yield from map(whole_reply, call.reply.completions)


if __name__ == "__main__":
    build(Path(sys.argv[1]), texts_of([Path(run) for run in sys.argv[2:]]))
