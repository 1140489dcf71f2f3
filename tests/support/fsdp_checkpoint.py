"""Writes a real FSDP2 checkpoint of verl on the CPU, from two ranks.

Arguments: the folder of a policy, the folder to write, and ``lora`` to train an adapter instead of the policy's own
weights. ``VERL_PLATFORM=cpu`` must be set. The ranks are forks of this process, so that torch and verl are imported
once.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model
from torch import multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

from tmas.engines.vllm import free_port

RANKS = 2


ADAPTER = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")


def trained(policy: str, *, with_adapter: bool) -> Any:
    """The policy with other weights: its last norm is doubled, or it has an adapter that changes its results."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    if not with_adapter:
        with torch.no_grad():
            model.model.norm.weight.mul_(2)
        return model
    torch.manual_seed(0)
    adapted = get_peft_model(model, ADAPTER)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:  # PEFT starts with zeros, which change nothing
                weights.normal_()
    return adapted


def write(rank: int, policy: str, folder: str, port: int, *, with_adapter: bool) -> None:
    """Shard the policy over the ranks, and save it to ``folder`` as verl's trainer does."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    model = trained(policy, with_adapter=with_adapter)
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("fsdp",)))
    contents = OmegaConf.create({"save_contents": ["model"], "load_contents": ["model"]})
    manager = FSDPCheckpointManager(
        model, processing_class=AutoTokenizer.from_pretrained(policy), checkpoint_config=contents
    )
    manager.save_checkpoint(folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    policy, folder, *form = sys.argv[1:]
    start = partial(write, with_adapter=form == ["lora"])
    multiprocessing.start_processes(start, (policy, folder, free_port("127.0.0.1")), RANKS, start_method="fork")
