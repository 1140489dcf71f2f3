"""What tmas/training/rl/cpu.py and cpu_vllm.py mend in verl, torch and vLLM: a test fails when that changes.

The platform is chosen once, when verl is imported: one process has ``VERL_PLATFORM=cpu``, others have not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("verl")
pytestmark = pytest.mark.timeout(3600)

ON_THE_CPU = """
import json, os, sys
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")

def found(name, *values):
    print(json.dumps([name, *values]), flush=True)

import vllm._custom_ops as ops
from importlib.metadata import entry_points
before = ops._supports_onednn
[plugin] = entry_points(group="vllm.general_plugins", name="tmas_cpu")
plugin.load()()
found("vllm", before, ops._supports_onednn)

from verl.plugin.platform import get_platform
from verl.utils.device import get_device_name
import torch
pinned = torch.zeros(1).pin_memory().is_pinned()
found("platform", type(get_platform()).__module__, get_device_name(), os.environ["VERL_ENGINE_DEVICE"], pinned)

import torch.distributed as dist
from verl.utils.distributed import initialize_global_process_group_ray
from verl.workers.engine import EngineRegistry
initialize_global_process_group_ray()
found("engine", dist.get_backend(), EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__)

from transformers import AutoConfig
from verl.utils.model import load_valuehead_model
config = AutoConfig.from_pretrained(sys.argv[1])
config.num_labels = 1
model = load_valuehead_model(sys.argv[1], torch.float32, config, False)
found("value model", type(model).__name__, model.config._attn_implementation)
"""


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("VERL_")}, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def on_the_cpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """What :data:`ON_THE_CPU` prints, by name, up to the first error."""
    from recipes.cpu.tiny_policy import build

    folder = tmp_path_factory.mktemp("policy")
    build(folder, ["What is 1 + 1?"])
    done = run_python(ON_THE_CPU, str(folder), VERL_PLATFORM="cpu", HF_HUB_OFFLINE="1")
    print(done.stderr[-3000:])  # pytest shows it if a test fails
    return {name: values for name, *values in map(json.loads, filter(is_finding, done.stdout.splitlines()))}


def is_finding(line: str) -> bool:
    return line.startswith('["')


def test_the_platform_is_found_through_verls_entry_points_and_adapts_this_process(
    on_the_cpu: dict[str, list[object]],
) -> None:
    assert on_the_cpu["platform"] == ["tmas.training.rl.cpu", "cpu", "cuda", False]


def test_without_the_switch_torch_and_verls_choice_are_untouched_and_torch_still_refuses_verls_backend() -> None:
    """The day torch accepts the backend, the wrapper can go."""
    done = run_python(
        """
        import os, torch
        import torch.distributed as dist
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
        try:
            dist.init_process_group("cpu:gloo,cpu:gloo")
        except (RuntimeError, ValueError):
            print("refused", end=" ")
        before = dist.init_process_group, torch.Tensor.pin_memory
        import verl
        from verl.plugin.platform import PlatformRegistry
        from verl.plugin.platform.platform_manager import _detect_platform_name
        after = dist.init_process_group, torch.Tensor.pin_memory
        print("cpu" in PlatformRegistry.registered_names(), _detect_platform_name() != "cpu", before == after,
              "VERL_ENGINE_DEVICE" in os.environ)
        """
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "refused True True True False"


def test_verls_fsdp_engine_is_found_and_its_process_group_begins(on_the_cpu: dict[str, list[object]]) -> None:
    backend, engine = on_the_cpu["engine"]
    assert backend == "gloo"
    assert str(engine).startswith("FSDP")


def test_verls_value_model_loads_without_flash_attention(on_the_cpu: dict[str, list[object]]) -> None:
    assert on_the_cpu["value model"] == ["Qwen3ForTokenClassification", "sdpa"]


def test_vllms_cpu_linear_keeps_its_weight(on_the_cpu: dict[str, list[object]]) -> None:
    assert on_the_cpu["vllm"] == [True, False]
