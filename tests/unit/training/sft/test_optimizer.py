"""training/sft/optimizer.py: which parameters Muon trains, and a state that survives a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the cpu or gpu extra")

import torch

from tmas.training.sft.optimizer import MuonWithAdamW


def model() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return Qwen3ForCausalLM(config)


def optimizer(model: Any) -> MuonWithAdamW:
    return MuonWithAdamW(model, muon_learning_rate=0.02, learning_rate=0.01, betas=(0.9, 0.95), weight_decay=0.0)


def step(model: Any, optimizer: MuonWithAdamW, seed: int) -> None:
    tokens = torch.randint(0, 32, (2, 8), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()


def test_muon_has_the_matrices_of_the_layers_and_adamw_all_others():
    policy = model()
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    muon, adamw = [{names[id(p)] for p in group["params"]} for group in optimizer(policy).param_groups]
    projections = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.split(".")[-2] for name in muon} == projections
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= adamw
    assert muon | adamw == set(names.values())
    assert not muon & adamw


def test_a_loaded_state_continues_with_the_same_weights():
    whole, resumed = model(), model()
    before, after = optimizer(whole), optimizer(resumed)
    for seed in (1, 2):
        step(whole, before, seed)
    step(resumed, after, 1)
    fresh = optimizer(resumed)
    fresh.load_state_dict(after.state_dict())
    assert fresh.param_groups[0]["lr"] == 0.02
    step(resumed, fresh, 2)
    for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_a_schedule_sets_both_learning_rates():
    from torch.optim.lr_scheduler import LambdaLR

    policy = model()
    scheduled = optimizer(policy)
    schedule = LambdaLR(scheduled, lambda update: 1 / (1 + update))
    scheduled.load_state_dict(scheduled.state_dict())  # as accelerate does when it wraps the optimizer
    step(policy, scheduled, 1)
    schedule.step()
    assert [group["lr"] for group in scheduled.param_groups] == [0.01, 0.005]
    weights = [parameter.detach().clone() for parameter in policy.parameters()]
    for group in scheduled.param_groups:
        group["lr"] = 0.0
    step(policy, scheduled, 2)
    assert all(torch.equal(old, new) for old, new in zip(weights, policy.parameters(), strict=True))
