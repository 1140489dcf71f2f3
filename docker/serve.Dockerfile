# syntax=docker/dockerfile:1
# Image to serve a policy or the whole method, and for `tmas solve`: the current vLLM, and Ray, as pinned in locks/serve.txt.
# From the top of the checkout: docker build -f docker/serve.Dockerfile -t tmas-serve .
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04

ARG UV_VERSION=0.13.9

ENV DEBIAN_FRONTEND=noninteractive \
    PATH=/venv/bin:$PATH \
    VIRTUAL_ENV=/venv \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1

# triton needs a C compiler and Python's headers at the first request. KubeRay's probes call wget. A model on several nodes
# needs the libraries of InfiniBand (ibverbs, rdmacm), which NCCL loads at run time.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv wget \
        ibverbs-providers libibverbs1 libnuma1 librdmacm1 \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /venv \
    && pip install --no-cache-dir "uv==${UV_VERSION}"

WORKDIR /workspace/tmas
COPY locks/serve.txt locks/serve.txt
RUN uv pip install --no-deps -r locks/serve.txt

COPY . .
RUN uv pip install --no-deps --editable .

EXPOSE 8000
ENTRYPOINT ["vllm", "serve"]
