"""Skips tests whose packages are not installed, without importing the packages.

``pytest.importorskip`` imports them when tests are collected, in every worker of pytest-xdist: vLLM and DeepSpeed take
seconds of CPU, and only the processes that these tests start use them.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="needs the cpu or gpu extra")
needs_datasketch = pytest.mark.skipif(find_spec("datasketch") is None, reason="needs the data extra")
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs the cpu or gpu extra")
