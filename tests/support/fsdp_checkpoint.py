"""Writes a real FSDP2 checkpoint of verl on the CPU.

torchrun runs this file once per rank. Arguments: the folder of a policy, and the folder to write.
"""

from __future__ import annotations

import os
import sys


def write(policy: str, folder: str) -> None:
    """Shard the policy over the ranks, and save it to ``folder`` as verl's trainer does."""
    import torch
    import torch.distributed as dist
    from omegaconf import OmegaConf
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    dist.init_process_group("gloo")
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
    os.environ["VERL_PLATFORM"] = "cpu"
    write(*sys.argv[1:])
