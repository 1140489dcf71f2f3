"""training/rl/model_shape.py: counts agree with the models of transformers."""

from __future__ import annotations

from typing import Any

import pytest

from tmas.training.rl.model_shape import KNOWN, ModelShape, known_shape

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
CONFIGS = {
    "Qwen3": ("Qwen3Config", {**SIZES, **HEADS, "head_dim": 16, "tie_word_embeddings": True}),
    "Qwen3 untied": ("Qwen3Config", {**SIZES, **HEADS, "head_dim": 16, "tie_word_embeddings": False}),
    "Qwen3 with experts": ("Qwen3MoeConfig", {**SIZES, **HEADS, **EXPERTS, "head_dim": 16}),
    "Llama": ("LlamaConfig", {**SIZES, **HEADS}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_model(name: str):
    kind, given = CONFIGS[name]
    config: Any = getattr(transformers, kind)(**given)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert ModelShape.from_config(config).parameters == pytest.approx(counted, rel=0.01)  # norms are not counted


def test_the_papers_models_have_the_sizes_in_their_names():
    dense, experts = KNOWN["Qwen3-4B-Thinking-2507"], KNOWN["Qwen3-30B-A3B-Thinking-2507"]
    assert dense.parameters == dense.active_parameters == pytest.approx(4.02e9, rel=0.001)
    assert experts.parameters == pytest.approx(30.5e9, rel=0.002)
    assert experts.active_parameters == pytest.approx(3.0e9, rel=0.02)
    assert (dense.kv_bytes, experts.kv_bytes) == (147_456, 98_304)
    assert known_shape("Qwen/Qwen3-4B-Thinking-2507") is dense
    assert known_shape("models/another") is None


def test_a_larger_batch_reads_more_experts_and_never_more_than_all():
    experts = KNOWN["Qwen3-30B-A3B-Thinking-2507"]
    one, few, many = (experts.weights_read(tokens) for tokens in (1, 8, 10_000))
    assert one == pytest.approx(2 * experts.active_parameters)
    assert one < few < many
    assert many == pytest.approx(2 * (experts.parameters - experts.embedding))


def test_attention_adds_to_the_flops_with_the_length():
    dense = KNOWN["Qwen3-4B-Thinking-2507"]
    assert dense.forward_flops(0) == 2 * dense.active_parameters
    assert dense.forward_flops(20_000) - dense.forward_flops(0) == 2 * 36 * 32 * 128 * 20_000
