"""verl's fused kernels under FSDP2, on a tiny policy: what conf/policy/ relies on, and what the plan refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("verl")

LENGTH, VOCABULARY = 12, 97
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def policy(*, experts: bool, tied: bool) -> Any:
    from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3MoeConfig

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": tied}
    routed = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    config = Qwen3MoeConfig(**sizes, **heads, **routed) if experts else Qwen3Config(**sizes, **heads)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()


def fused_pass(model: Any, ids: Any, labels: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Patch and shard ``model`` as verl's FSDP engine does, and run its fused forward pass."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from verl.models.transformers.monkey_patch import patch_forward_with_backends
    from verl.utils.fsdp_utils import apply_fsdp2

    monkeypatch.setattr(type(model), "forward", type(model).forward)  # is restored after the test
    patch_forward_with_backends(model, use_fused_kernels=True, fused_kernels_backend="torch")
    mixed = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
    sharding = {"mesh": init_device_mesh("cpu", (1,)), "mp_policy": mixed, "reshard_after_forward": True}
    apply_fsdp2(model, sharding, {"wrap_policy": {}})
    positions = torch.arange(LENGTH)[None]
    given = {"temperature": 1.0, "return_dict": True, "use_cache": False, "shift_labels": labels}
    return model(input_ids=ids, attention_mask=None, position_ids=positions, **given)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("experts", [False, True])
def test_log_probs_and_gradients_are_those_of_the_whole_logits(experts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = policy(experts=experts, tied=True)
    ids = torch.randint(0, VOCABULARY, (1, LENGTH))
    labels = torch.roll(ids, -1, 1)
    logits = model(input_ids=ids).logits
    expected = torch.log_softmax(logits, -1).gather(-1, labels[..., None])[..., 0]
    expected.sum().backward()
    gradient = model.lm_head.weight.grad.clone()
    model.zero_grad()
    output = fused_pass(model, ids, labels, monkeypatch)
    output.log_probs.sum().backward()
    assert torch.allclose(output.log_probs, expected, atol=1e-5)
    assert torch.allclose(model.lm_head.weight.grad.full_tensor(), gradient, atol=1e-4)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("experts", [False, True])
def test_an_output_layer_with_weights_of_its_own_still_fails(experts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this test fails, verl has mended it: allow fused kernels for every policy (``check_fused_kernels``)."""
    ids = torch.randint(0, VOCABULARY, (1, LENGTH))
    with pytest.raises(RuntimeError, match=r"mixed torch\.Tensor and DTensor"):
        fused_pass(policy(experts=experts, tied=False), ids, torch.roll(ids, -1, 1), monkeypatch)
