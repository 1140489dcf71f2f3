"""What tmas/training/rl/cpu.py and cpu_vllm.py mend in verl, torch and vLLM: a test fails when that changes.

Each case runs in a process of its own, because the platform is chosen once, when verl is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("verl")
pytestmark = pytest.mark.timeout(3600)


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("VERL_")}, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def test_the_platform_is_found_through_verls_entry_points_and_adapts_this_process() -> None:
    printed = run_python(
        """
        import os
        from verl.plugin.platform import get_platform
        from verl.utils.device import get_device_name
        import torch
        platform = get_platform()
        print(type(platform).__module__, get_device_name(), os.environ["VERL_ENGINE_DEVICE"],
              torch.zeros(1).pin_memory().is_pinned())
        """,
        VERL_PLATFORM="cpu",
    )
    assert printed == "tmas.training.rl.cpu cpu cuda False"


def test_without_the_switch_torch_and_verls_choice_are_untouched() -> None:
    printed = run_python(
        """
        import os, torch
        import torch.distributed as dist
        before = dist.init_process_group, torch.Tensor.pin_memory
        import verl
        from verl.plugin.platform import PlatformRegistry
        from verl.plugin.platform.platform_manager import _detect_platform_name
        after = dist.init_process_group, torch.Tensor.pin_memory
        print("cpu" in PlatformRegistry.registered_names(), _detect_platform_name() != "cpu", before == after,
              "VERL_ENGINE_DEVICE" in os.environ)
        """
    )
    assert printed == "True True True False"


def test_verls_fsdp_engine_is_found_and_its_process_group_begins() -> None:
    printed = run_python(
        """
        import os
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
        import torch.distributed as dist
        from verl.utils.distributed import initialize_global_process_group_ray
        from verl.workers.engine import EngineRegistry
        initialize_global_process_group_ray()
        engine = EngineRegistry.get_engine_cls("language_model", "fsdp2")
        print(dist.get_backend(), engine.__name__)
        """,
        VERL_PLATFORM="cpu",
    )
    assert printed.startswith("gloo FSDP")


def test_torch_still_refuses_the_backend_that_verl_asks_for() -> None:
    """The day this passes, the wrapper can go."""
    printed = run_python(
        """
        import os
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
        import torch.distributed as dist
        try:
            dist.init_process_group("cpu:gloo,cpu:gloo")
        except (RuntimeError, ValueError) as error:
            print("refused")
        """
    )
    assert printed == "refused"


def test_verls_value_model_loads_without_flash_attention(tmp_path: Path) -> None:
    from recipes.cpu.tiny_policy import build

    build(tmp_path, ["What is 1 + 1?"])
    printed = run_python(
        f"""
        import torch, verl
        from transformers import AutoConfig
        from verl.utils.model import load_valuehead_model
        config = AutoConfig.from_pretrained({str(tmp_path)!r})
        config.num_labels = 1
        model = load_valuehead_model({str(tmp_path)!r}, torch.float32, config, False)
        print(type(model).__name__, model.config._attn_implementation)
        """,
        VERL_PLATFORM="cpu",
        HF_HUB_OFFLINE="1",
    )
    assert printed == "Qwen3ForTokenClassification sdpa"


def test_vllms_cpu_linear_keeps_its_weight() -> None:
    printed = run_python(
        """
        from importlib.metadata import entry_points
        import vllm._custom_ops as ops
        before = ops._supports_onednn
        [plugin] = entry_points(group="vllm.general_plugins", name="tmas_cpu")
        plugin.load()()
        print(before, ops._supports_onednn)
        """,
        VERL_PLATFORM="cpu",
    )
    assert printed == "True False"
