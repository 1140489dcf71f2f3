"""training/sft/chunked_loss.py: the value and the gradients of the full loss, without the logits of all tokens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the cpu or gpu extra")

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, Qwen3Config, Qwen3MoeConfig

from tmas.errors import UserError
from tmas.training.sft.chunked_loss import use_chunked_loss
from tmas.training.sft.rows import IGNORED

VOCABULARY = 97
SIZES = {
    **{"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8},
}


def model(config: type[Any] = Qwen3Config, **changes: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(**{**SIZES, **changes}))


def batch(rows: int, length: int, share: float, seed: int) -> dict[str, torch.Tensor]:
    """Random tokens. About ``share`` of the tokens have a label."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCABULARY, (rows, length), generator=draw)
    labels = torch.where(torch.rand(rows, length, generator=draw) < share, tokens, IGNORED)
    return {"input_ids": tokens, "labels": labels}


def loss_and_gradients(policy: Any, inputs: dict[str, torch.Tensor], **options: Any) -> list[torch.Tensor]:
    policy.zero_grad()
    loss = policy(**inputs, **options).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in policy.parameters())]


@settings(max_examples=40)
@given(
    rows=st.integers(1, 3),
    length=st.integers(2, 24),
    share=st.floats(0, 1),
    chunk=st.integers(1, 80),
    tied=st.booleans(),
    count=st.sampled_from([None, 5, 1000]),
    seed=st.integers(0, 99),
)
def test_the_loss_and_its_gradients_are_those_of_all_logits_at_once(
    rows: int, length: int, share: float, chunk: int, tied: bool, count: int | None, seed: int
):
    inputs = batch(rows, length, share, seed)
    if count is None:  # the mean over no token is no number
        inputs["labels"][0, 1] = inputs["input_ids"][0, 1]
    options = {} if count is None else {"num_items_in_batch": torch.tensor(count)}
    full, chunked = (model(tie_word_embeddings=tied) for _ in range(2))
    use_chunked_loss(chunked, chunk)
    expected = loss_and_gradients(full, inputs, **options)
    for found, wanted in zip(loss_and_gradients(chunked, inputs, **options), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Records the number of values of the largest tensor that an operation creates."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor):
            self.size = max(self.size, output.numel())
        return output


def test_no_tensor_is_larger_than_the_logits_of_a_chunk():
    tokens, chunk = 500, 40
    largest = []
    for policy in (model(num_hidden_layers=1, attn_implementation="sdpa", vocab_size=3000) for _ in range(2)):
        if largest:
            use_chunked_loss(policy, chunk)
        with LargestTensor() as seen:
            policy(**batch(1, tokens, 1.0, seed=0)).loss.backward()
        largest.append(seen.size)
    assert largest == [tokens * 3000, chunk * 3000]


def test_a_mixture_of_experts_has_the_same_loss():
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    full, chunked = (model(Qwen3MoeConfig, **sizes) for _ in range(2))
    use_chunked_loss(chunked, 5)
    inputs = batch(2, 16, 0.7, seed=1)
    assert chunked(**inputs).loss.item() == pytest.approx(full(**inputs).loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        (Gemma2Config, {"final_logit_softcapping": 30.0}, "sets final_logit_softcapping"),
        (GraniteConfig, {"logits_scaling": 8.0}, "sets logits_scaling"),
        (Qwen3MoeConfig, {"output_router_logits": True}, "sets output_router_logits"),
    ],
)
def test_a_policy_with_another_loss_is_refused(config: type[Any], changes: dict[str, Any], reason: str):
    with pytest.raises(UserError, match=rf"{reason}.*[\s\S]*loss_chunk=null"):
        use_chunked_loss(model(config, **changes), 8)
