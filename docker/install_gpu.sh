#!/usr/bin/env bash
# Install locks/gpu.txt in the active virtual environment, which has uv. docker/train.Dockerfile calls it, and so can you.
# FLASH_ATTN_INDEX: package index with a wheel of flash-attn for CUDA 13.0, torch 2.11 and Python 3.12. If it is empty,
# or offers no wheel that loads, flash-attn is compiled (MAX_JOBS, FLASH_ATTN_CUDA_ARCHS), which needs the CUDA toolkit.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${FLASH_ATTN_INDEX=https://verl-project.github.io/verl-wheelhouse/cu130/torch2.11/simple/}"

pinned() { sed -n "s/^\($1==[^ ;]*\).*/\1/p" locks/gpu.txt; }
flash_attn=$(pinned flash-attn)

# The lock is complete: nothing is resolved. Packages that are built against torch come after it.
grep -vE '^(flash-attn|deepspeed)==' locks/gpu.txt | uv pip install --no-deps -r - wheel==0.45.1
uv pip install --no-deps --no-build-isolation "$(pinned deepspeed)"
if [ -n "$FLASH_ATTN_INDEX" ] \
    && uv pip install --no-deps --no-build --default-index "$FLASH_ATTN_INDEX" "$flash_attn" \
    && python -c 'import torch, flash_attn_2_cuda'; then
    exit
fi
echo "Compiling $flash_attn: FLASH_ATTN_INDEX is empty or offers no wheel that loads." >&2
FLASH_ATTENTION_FORCE_BUILD=TRUE uv pip install --no-deps --no-build-isolation --reinstall "$flash_attn"
