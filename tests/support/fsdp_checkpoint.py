"""Writes a real FSDP2 checkpoint of verl on the CPU, from two ranks.

Arguments: the folder of a policy, and the folder to write. ``VERL_PLATFORM=cpu`` must be set. The ranks are forks of
this process, so that torch and verl are imported once.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

from tmas.engines.vllm import free_port

RANKS = 2


def write(rank: int, policy: str, folder: str, port: int) -> None:
    """Shard the policy over the ranks, and save it to ``folder`` as verl's trainer does."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)  # so that the checkpoint differs from the initial policy
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("fsdp",)))
    contents = OmegaConf.create({"save_contents": ["model"], "load_contents": ["model"]})
    manager = FSDPCheckpointManager(
        model, processing_class=AutoTokenizer.from_pretrained(policy), checkpoint_config=contents
    )
    manager.save_checkpoint(folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    multiprocessing.start_processes(write, (*sys.argv[1:], free_port("127.0.0.1")), RANKS, start_method="fork")
