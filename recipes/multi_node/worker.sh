#!/usr/bin/env bash
# Run this on every node except the first. It joins the Ray cluster of head.sh and runs until the cluster stops.
set -euo pipefail
HEAD=${HEAD:?set it to the address of the first node}
PORT=${PORT:-6379}
GPUS=${GPUS:-8}
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}

exec ray start --address="$HEAD:$PORT" --num-gpus="$GPUS" --block "$@"
