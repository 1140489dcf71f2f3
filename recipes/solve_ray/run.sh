#!/usr/bin/env bash
# Solves problems on all GPUs of a node, with vLLM replicas placed by Ray, and reports. Run it again to resume.
set -euo pipefail
MODEL=${MODEL:-qwen3_30b_a3b_thinking} # a file of conf/model
PROBLEMS=${PROBLEMS:?a file of problems}
DATA=${DATA:-default}                  # its column names: a file of conf/data
OUT=${OUT:-runs/solve_ray}
NODES=${NODES:-1}
GPUS=${GPUS:-8}                        # of each node
TENSOR_PARALLEL=${TENSOR_PARALLEL:-2}  # GPUs of a replica: the 30B policy at full context does not fit one of 80 GB
REPLICAS=${REPLICAS:-$((NODES * (GPUS / TENSOR_PARALLEL)))}

tmas solve model="$MODEL" serving=vllm serving.replicas="$REPLICAS" serving.tensor_parallel_size="$TENSOR_PARALLEL" \
    problems="$PROBLEMS" data="$DATA" output_dir="$OUT" concurrency="${CONCURRENCY:-800}" "$@"
tmas report runs=["$OUT"]
