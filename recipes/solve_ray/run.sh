#!/usr/bin/env bash
# Solves problems with vLLM replicas that Ray places on all GPUs of a node, and writes a report. Run it again to resume.
set -euo pipefail
MODEL=${MODEL:-qwen3_30b_a3b_thinking} # a file of conf/model
PROBLEMS=${PROBLEMS:?set it to a file of problems}
DATA=${DATA:-default}                  # a file of conf/data, which has the column names of PROBLEMS
OUT=${OUT:-runs/solve_ray}
NODES=${NODES:-1}
GPUS=${GPUS:-8}                        # of each node
TENSOR_PARALLEL=${TENSOR_PARALLEL:-2}  # GPUs per replica; the 30B policy at full context does not fit on one of 80 GB
REPLICAS=${REPLICAS:-$((NODES * (GPUS / TENSOR_PARALLEL)))}

tmas solve model="$MODEL" serving=vllm serving.replicas="$REPLICAS" serving.tensor_parallel_size="$TENSOR_PARALLEL" \
    problems="$PROBLEMS" data="$DATA" output_dir="$OUT" concurrency="${CONCURRENCY:-800}" "$@"
tmas report runs=["$OUT"]
