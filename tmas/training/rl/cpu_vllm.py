"""vLLM on the CPU keeps its weights where a trainer can write them.

vLLM's CPU linear layer packs its weight into a oneDNN handle and drops ``layer.weight``, so that a weight sync has
nothing to load into. Without oneDNN it computes from ``layer.weight``, and loading in place takes effect. vLLM calls
:func:`register` in each of its processes (entry-point group ``vllm.general_plugins``).
"""

from __future__ import annotations

import os


def register() -> None:
    """Switches oneDNN off where verl trains on the CPU (``VERL_PLATFORM=cpu``), and nowhere else."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        import vllm._custom_ops as ops

        ops._supports_onednn = False
