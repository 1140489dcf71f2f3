#!/usr/bin/env bash
# The same on several nodes: this on the first, recipes/multi_node/worker.sh on the others. Each has vLLM on its GPUs and a rollout
# worker that solves problems. Knobs: those of run.sh; PROBLEMS, OUT and the hub's cache (HF_HOME) on storage that all nodes see.
set -euo pipefail
export NODES=${NODES:-4}
export GPUS=${GPUS:-8}                 # of each node

exec recipes/multi_node/cluster.sh recipes/solve_ray/run.sh ray.address=auto "$@"
