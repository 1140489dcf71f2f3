# syntax=docker/dockerfile:1
# Training on NVIDIA GPUs: verl, vLLM, DeepSpeed and flash-attn as pinned in locks/gpu.txt, and this project.
# From the top of the checkout: docker build -f docker/train.Dockerfile -t tmas-train .
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

ARG UV_VERSION=0.13.9
# Build of flash-attn: architectures (80: A100, 90: H100 and H200, 100: B200) and number of parallel compile jobs.
ARG FLASH_ATTN_CUDA_ARCHS="80;90;100"
ARG MAX_JOBS=8

ENV DEBIAN_FRONTEND=noninteractive \
    PATH=/venv/bin:$PATH \
    VIRTUAL_ENV=/venv \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1

# Versions are not pinned: Ubuntu's archive keeps only the newest build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /venv \
    && pip install --no-cache-dir "uv==${UV_VERSION}"

# First the packages that are not compiled against torch, then the others. The lock is complete: nothing is resolved.
WORKDIR /workspace/tmas
COPY locks/gpu.txt locks/gpu.txt
RUN grep -vE '^(flash-attn|deepspeed)==' locks/gpu.txt > /tmp/wheels.txt \
    && grep -E '^(flash-attn|deepspeed)==' locks/gpu.txt > /tmp/compiled.txt \
    && uv pip install --no-deps -r /tmp/wheels.txt wheel==0.45.1 \
    && FLASH_ATTENTION_FORCE_BUILD=TRUE uv pip install --no-deps --no-build-isolation -r /tmp/compiled.txt \
    && rm /tmp/wheels.txt /tmp/compiled.txt

COPY . .
RUN uv pip install --no-deps --editable .

CMD ["tmas", "--help"]
