# syntax=docker/dockerfile:1
# Training on NVIDIA GPUs: verl, vLLM, DeepSpeed and flash-attn as pinned in locks/gpu.txt, and this project.
# From the top of the checkout: docker build -f docker/train.Dockerfile -t tmas-train .
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

ARG UV_VERSION=0.13.9
# Index with a prebuilt flash-attn, from verl's own wheelhouse; empty: compile it (docker/install_gpu.sh).
ARG FLASH_ATTN_INDEX=https://verl-project.github.io/verl-wheelhouse/cu130/torch2.11/simple/
# If it is compiled: architectures (80: A100, 90: H100 and H200, 100: B200) and number of parallel compile jobs.
ARG FLASH_ATTN_CUDA_ARCHS="80;90;100"
ARG MAX_JOBS=8

ENV DEBIAN_FRONTEND=noninteractive \
    PATH=/venv/bin:$PATH \
    VIRTUAL_ENV=/venv \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1

# NCCL loads the libraries of InfiniBand (ibverbs, rdmacm) at run time; without them it uses TCP, far slower.
# Versions are not pinned: Ubuntu's archive keeps only the newest build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git python3-dev python3-venv \
        ibverbs-providers libibverbs1 libnuma1 librdmacm1 \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /venv \
    && pip install --no-cache-dir "uv==${UV_VERSION}"

WORKDIR /workspace/tmas
COPY locks/gpu.txt locks/gpu.txt
COPY docker/install_gpu.sh docker/install_gpu.sh
RUN FLASH_ATTN_INDEX="${FLASH_ATTN_INDEX}" docker/install_gpu.sh

COPY . .
RUN uv pip install --no-deps --editable .

CMD ["tmas", "--help"]
