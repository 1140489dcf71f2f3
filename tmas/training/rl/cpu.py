"""verl without an accelerator: the CPU as a platform of verl's own registry.

Loaded through verl's entry-point group ``verl.plugins`` (pyproject.toml), and used only where ``VERL_PLATFORM=cpu``
says so; on a GPU machine nothing but a class in a registry is left of it. Importing it registers, which is what verl
asks of a plug-in; it is the one module of the project that does something when imported.

Ray schedules the workers on logical GPUs (``ray.init(num_gpus=...)`` needs no hardware), gloo is the backend, and
weights reach vLLM through shared memory. Four things in torch and verl assume an accelerator and are mended here,
each held by a test in tests/contract/test_cpu_platform.py: see :func:`_adapt`.
"""

# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false
# verl declares what are constants here as abstract properties.
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
    """What verl asks of ``torch.cuda``, for the CPU; what is not here comes from ``torch.cpu``.

    ``is_available()`` is False, by which verl's memory helpers switch themselves off.
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
    """See :class:`verl.plugin.platform.PlatformBase`; chosen with ``VERL_PLATFORM=cpu``, never by detection."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _CPUDevice("tmas_cpu_device")

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False

    def current_device(self) -> Any:
        return "cpu"  # verl hands it to Tensor.to(), where an index would mean an accelerator

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
    """Mends what assumes an accelerator, in this process.

    - verl registers its FSDP engines for ``cuda`` and ``npu``; ``VERL_ENGINE_DEVICE`` is its own way to choose.
    - verl asks torch for the backend ``cpu:gloo,<device>:gloo``, which torch refuses where both are the CPU.
    - The reference worker pins memory (``CPUOffloadPolicy``), which only an accelerator can do.
    - verl loads a critic with ``flash_attention_2``, whatever the configuration says.
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
