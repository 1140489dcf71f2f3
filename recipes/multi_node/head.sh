#!/usr/bin/env bash
# Run this on the first node. It starts a Ray cluster, waits until the other nodes have joined (worker.sh), and trains.
set -euo pipefail
export NODES=${NODES:-4}
export GPUS=${GPUS:-8}                 # of each node
EXPERIMENT=${EXPERIMENT:-hybrid_grpo_30b}
DATA=${DATA:-data/tmas/rows}           # DATA, MODEL and OUT must be on a file system that all nodes share
OUT=${OUT:-runs/$EXPERIMENT}
JUDGE_ARGS=()                          # for the hybrid reward: JUDGE_URL, JUDGE, JUDGE_KEY_ENV as in recipes/hybrid_grpo
if [[ -n "${JUDGE_URL:-}" && "$EXPERIMENT" == hybrid* ]]; then
    JUDGE_ARGS=("judge.base_url=$JUDGE_URL" "judge.name=${JUDGE:-deepseek-flash}" "judge.api_key_env=${JUDGE_KEY_ENV:-null}")
fi

recipes/multi_node/cluster.sh tmas train experiment="$EXPERIMENT" output_dir="$OUT" \
    data.train_files="$DATA/train.parquet" data.val_files="$DATA/validation.parquet" \
    policy.path="${MODEL:-Qwen/Qwen3-30B-A3B-Thinking-2507}" \
    trainer.nnodes="$NODES" trainer.n_gpus_per_node="$GPUS" ray_kwargs.ray_init.address=auto "${JUDGE_ARGS[@]}" "$@"
