"""Lets verl train without an accelerator: registers the CPU as a verl platform.

verl loads this module through its entry-point group ``verl.plugins`` (pyproject.toml). Importing the module registers
the platform, as verl requires of a plug-in. No other module of the project has an effect when it is imported. The
platform is used only if ``VERL_PLATFORM=cpu`` is set.

Ray schedules the workers on logical GPUs, because ``ray.init(num_gpus=...)`` needs no hardware. torch.distributed uses
gloo, and vLLM gets new weights through shared memory. Four places in torch and verl assume an accelerator;
:func:`_adapt` patches them. tests/contract/test_cpu_platform.py has a test for each patch.
"""

# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false
# verl declares abstract properties where this module has constants.
from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


class _CPUDevice(types.ModuleType):
    """Takes the place of ``torch.cuda``. Functions that are not defined here come from ``torch.cpu``.

    ``is_available()`` returns False, so that verl's memory helpers do nothing.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    @staticmethod
    def is_available() -> bool:
        return False

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def get_device_name(*_: Any) -> str:
        return "cpu"

    @staticmethod
    def mem_get_info(*_: Any) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    @staticmethod
    def _resident(*_: Any, **__: Any) -> int:
        return psutil.Process().memory_info().rss

    @staticmethod
    def _nothing(*_: Any, **__: Any) -> None:
        return None

    @staticmethod
    def get_rng_state(*_: Any) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, *_: Any) -> None:
        torch.set_rng_state(state)

    @staticmethod
    def manual_seed(seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed
    max_memory_allocated = max_memory_reserved = memory_allocated = memory_reserved = _resident
    empty_cache = ipc_collect = synchronize = set_device = _nothing
    set_per_process_memory_fraction = reset_peak_memory_stats = _nothing


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """The CPU as a verl platform (see ``verl.plugin.platform.PlatformBase``). Only ``VERL_PLATFORM=cpu`` selects it."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _CPUDevice("tmas_cpu_device")

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False

    def current_device(self) -> Any:
        return "cpu"  # verl passes this to Tensor.to(), where an index would mean an accelerator

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def _adapt() -> None:
    """Patch the places in torch and verl that assume an accelerator, in this process.

    - verl registers its FSDP engines only for ``cuda`` and ``npu``. verl's variable ``VERL_ENGINE_DEVICE`` selects one.
    - verl asks torch for the backend ``cpu:gloo,<device>:gloo``. torch refuses it if ``<device>`` is ``cpu``.
    - The reference worker pins memory (``CPUOffloadPolicy``), which needs an accelerator.
    - verl loads a critic with ``flash_attention_2``, even if the configuration names another attention.
    """
    import torch.distributed as dist
    from transformers import AutoModelForTokenClassification as ValueModel

    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")
    original = dist.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        original("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    dist.init_process_group = init_process_group
    torch.Tensor.pin_memory = lambda self, *_, **__: self  # type: ignore[method-assign]
    load = ValueModel.from_pretrained

    def from_pretrained(*args: Any, attn_implementation: str | None = None, **kwargs: Any) -> Any:
        usable = "sdpa" if attn_implementation == "flash_attention_2" else attn_implementation
        return load(*args, attn_implementation=usable, **kwargs)

    ValueModel.from_pretrained = from_pretrained


if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
    _adapt()
