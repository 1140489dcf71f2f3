#!/usr/bin/env bash
# Solves problems on several nodes. Run this on the first node and recipes/multi_node/worker.sh on the others. Each node
# runs vLLM on its GPUs, and a worker that solves problems. The variables are those of run.sh. PROBLEMS, OUT and the hub's
# cache (HF_HOME) must be on shared storage.
set -euo pipefail
export NODES=${NODES:-4}
export GPUS=${GPUS:-8}                 # of each node

exec recipes/multi_node/cluster.sh recipes/solve_ray/run.sh ray.address=auto "$@"
