"""Makes vLLM on the CPU accept new weights from a trainer.

vLLM's CPU linear layer copies its weight into a oneDNN handle and deletes ``layer.weight``. A weight sync then has no
tensor to write to. Without oneDNN the layer computes from ``layer.weight``, so that a weight sync takes effect. vLLM
calls :func:`register` in each of its processes (entry-point group ``vllm.general_plugins``).
"""

from __future__ import annotations

import os


def register() -> None:
    """Switch oneDNN off in vLLM, but only if verl trains on the CPU (``VERL_PLATFORM=cpu``)."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        import vllm._custom_ops as ops

        ops._supports_onednn = False
