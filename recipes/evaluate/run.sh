#!/usr/bin/env bash
# Evaluates a policy on a benchmark: runs TMAS and a majority vote on the same problems, compares them and writes a report.
set -euo pipefail
MODEL=${MODEL:-models/hybrid_grpo}     # a folder or hub name; the runs start vLLM
PROBLEMS=${PROBLEMS:?set it to a file of problems}
DATA=${DATA:-default}                  # a file of conf/data, which has the column names of PROBLEMS
OUT=${OUT:-runs/evaluate}
CONTEXT=${CONTEXT:-262144}
ITERATIONS=${ITERATIONS:-20}
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}  # GPUs per replica
GPUS=${GPUS:-$TENSOR_PARALLEL}

for METHOD in tmas majority_vote; do
    EXTRA=(); [ "$METHOD" != tmas ] || EXTRA=(method.max_iterations="$ITERATIONS")
    tmas solve method="$METHOD" "${EXTRA[@]}" serving=vllm serving.replicas="$((GPUS / TENSOR_PARALLEL))" data="$DATA" \
        serving.tensor_parallel_size="$TENSOR_PARALLEL" model.path="$MODEL" model.name=policy model.context_length="$CONTEXT" \
        problems="$PROBLEMS" output_dir="$OUT/$METHOD" "$@"
done
RUNS="runs=[$OUT/tmas,$OUT/majority_vote]"
# shellcheck disable=SC2086  # JUDGE may be several words
tmas evaluate "$RUNS" ${JUDGE:+judge=$JUDGE}  # a file of conf/judge and its settings; unset: answers are compared by rule only
tmas report "$RUNS" output="$OUT/report.html"
