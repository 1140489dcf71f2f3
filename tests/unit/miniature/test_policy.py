"""recipes/miniature/policy.py: a tokenizer that loses nothing and has one token a piece, and a model of a million."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recipes.miniature.language import INTRODUCTION, item
from recipes.miniature.policy import CONTEXT, TURN_END, build, constant_passages
from recipes.miniature.task import LETTERS, ORDERS, RULES
from tests.support.miniature import TeacherSession, miniature_problems, solve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

METHODS: dict[str, dict[str, Any]] = {
    "tmas": {"n_candidates": 4, "n_verifications": 1, "max_iterations": 4, "epsilon": 0.3},
    "self_refine": {"n_candidates": 4, "max_iterations": 4},
    "verify_refine": {"n_candidates": 4, "n_verifications": 1, "n_best": 4, "max_iterations": 3},
    "pacore": {"widths": [4], "max_iterations": 3},
    "rse": {"n_candidates": 4, "max_iterations": 3},
}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Prompts and replies of all methods on a few problems."""

    async def recorded() -> Iterator[str]:
        sessions = []
        for problem in miniature_problems(4, "train"):
            for name, settings in METHODS.items():
                sessions.append(TeacherSession(problem.problem_id, spread=0.5))
                await solve(problem, sessions[-1], name, **settings)
        return (text for s in sessions for call in s.calls for text in (call.prompt, *call.replies))

    return [*asyncio.run(recorded())]


@pytest.fixture(scope="module")
def folder(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    build(folder, texts)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """As a trainer or a server loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_every_prompt_and_reply_is_decoded_exactly(tokenizer: PreTrainedTokenizerFast, texts: list[str]):
    unseen = "Ünïcode, ∑ and 漢字,  two  blanks\n\n\ttabs, zulu:ca, 1234.5678 <|im_end|>"
    for text in [*set(texts), unseen]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_items_numbers_digits_and_rules_are_single_tokens(tokenizer: PreTrainedTokenizerFast):
    items = [item(n, rule, order) for n in range(len(LETTERS)) for rule in RULES for order in ORDERS]
    before = dict(zip("abct", "\n   ", strict=True))
    numbers = [f"{before[n]}{letter}{n}={digit}" for letter in LETTERS for n in before for digit in range(10)]
    for piece in [*items, *numbers, *"0123456789", *RULES, " OK", " BAD", " new"]:
        assert len(tokenizer.encode(piece)) == 1, piece
    for text, pieces in {
        "so B:echo:ac\nso C:echo:ab": ["B:echo:ac", "C:echo:ab"],
        "B:echo:ac 4+7=1-2=9,5 BAD": ["B:echo:ac", *"471295", " BAD"],
        "\nAa=4 Ab=7 Ac=1 At=5\nBa=2 Bb=2": ["\nAa=4", " Ab=7", " Ac=1", " At=5", "\nBa=2", " Bb=2"],
        "\\boxed{52113}": [*"52113"],
        '"statement": "D:golf:bc OK"': ["D:golf:bc", " OK"],
    }.items():
        tokens = [tokenizer.decode([token]) for token in tokenizer.encode(text)]
        assert [token for token in tokens if token in pieces] == pieces


def test_what_every_prompt_repeats_is_one_token(tokenizer: PreTrainedTokenizerFast, texts: list[str]):
    passages = constant_passages(texts)
    for passage in passages:
        assert len(tokenizer.encode(passage)) == 1, passage
    assert any(INTRODUCTION in passage for passage in passages)
    for words in ("You are a strict verifier.", "Maintain the experience bank", "Summarise for the next round"):
        assert any(words in passage for passage in passages)
    assert [passage for passage in passages if re.search(r"Aa=|support \d|:ab|\d{4}", passage)] == []


def test_prompts_become_short_enough_for_the_context(tokenizer: PreTrainedTokenizerFast, texts: list[str]):
    sizes = [len(tokenizer.encode(text)) for text in texts]
    assert max(sizes) < CONTEXT
    assert sum(sizes) < sum(map(len, texts)) / 10


def test_the_chat_template_marks_turns_and_the_end(tokenizer: PreTrainedTokenizerFast):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "1"}]
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert whole == f"{prompt}1<|im_end|>\n"
    assert tokenizer.eos_token == TURN_END
    assert tokenizer.encode(TURN_END) == [tokenizer.eos_token_id]


def test_the_model_has_about_a_million_parameters(folder: Path, tokenizer: PreTrainedTokenizerFast):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert 500_000 < model.num_parameters() < 1_200_000
    assert {weights.dtype for weights in model.parameters()} == {torch.bfloat16}
    assert model.config.vocab_size == len(tokenizer)
    assert (model.config.eos_token_id, model.config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert model.config.max_position_embeddings == CONTEXT


def test_the_seed_decides_the_weights(folder: Path, texts: list[str], tmp_path: Path):
    for name, seed in {"same": 0, "other": 1}.items():
        build(tmp_path / name, texts, seed)
    files = [path / "model.safetensors" for path in (folder, tmp_path / "same", tmp_path / "other")]
    first, same, other = (path.read_bytes() for path in files)
    assert first == same
    assert first != other
    assert (folder / "tokenizer.json").read_bytes() == (tmp_path / "other" / "tokenizer.json").read_bytes()
