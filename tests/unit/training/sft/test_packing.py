"""training/sft/packing.py: every chat in one row, and the same loss in a row as alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.training.sft.packing import pack
from tmas.training.sft.rows import IGNORED, Example

LENGTH = 40
sizes = st.lists(st.integers(1, LENGTH), max_size=200)


def example(number: int, size: int) -> Example:
    """Tokens that tell the example's number."""
    tokens = numpy.full(size, number, numpy.int32)
    return Example(tokens, tokens)


@given(sizes, st.integers(0, 9))
def test_each_example_is_in_exactly_one_row_that_has_room_for_it(sizes: list[int], seed: int):
    rows = pack([example(number, size) for number, size in enumerate(sizes)], LENGTH, seed)
    packed = Counter(int(chat.input_ids[0]) for row in rows for chat in row)
    assert packed == Counter(range(len(sizes)))
    assert all(len(chat.input_ids) == sizes[chat.input_ids[0]] for row in rows for chat in row)
    assert all(0 < sum(len(chat.input_ids) for chat in row) <= LENGTH for row in rows)


@given(sizes)
def test_no_two_rows_fit_into_one(sizes: list[int]):
    rows = pack([example(number, size) for number, size in enumerate(sizes)], LENGTH, seed=0)
    filled = sorted(sum(len(chat.input_ids) for chat in row) for row in rows)
    assert len(filled) < 2 or filled[0] + filled[1] > LENGTH


def test_the_seed_alone_decides_the_rows():
    examples = [example(number, 1 + number % 7) for number in range(100)]

    def numbers(seed: int) -> list[list[int]]:
        return [[int(chat.input_ids[0]) for chat in row] for row in pack(examples, LENGTH, seed)]

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(request: pytest.FixtureRequest) -> Any:
    torch = pytest.importorskip("torch", reason="needs the cpu or gpu extra")
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    policy = Qwen3ForCausalLM(config)
    policy.set_attn_implementation(request.param)
    return policy


def random_examples(sizes: list[int]) -> list[Example]:
    draw = numpy.random.default_rng(0)
    tokens = [draw.integers(0, 64, size).astype(numpy.int32) for size in sizes]
    return [Example(ids, numpy.concatenate([[IGNORED], ids[1:]]).astype(numpy.int32)) for ids in tokens]


def test_packed_chats_have_the_loss_and_the_gradients_that_they_have_alone(model: Any):
    import torch

    from tmas.training.sft.trainer import collate, model_inputs

    examples = random_examples([5, 12, 9, 3, 20, 17])
    learned = sum(int((chat.labels != IGNORED).sum()) for chat in examples)
    gradients = []
    for rows in ([[chat] for chat in examples], pack(examples, 32, seed=0)):
        batch = collate(rows, length=32)
        model.zero_grad()
        loss = model(**model_inputs(batch), num_items_in_batch=torch.tensor(learned)).loss
        loss.backward()
        gradients.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    assert len(pack(examples, 32, seed=0)) < len(examples)
    for alone, packed in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-6)
