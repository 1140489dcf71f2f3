#!/usr/bin/env bash
# On every node but the first: joins the Ray cluster of head.sh and stays until it ends.
set -euo pipefail
HEAD=${HEAD:?the address of the first node}
PORT=${PORT:-6379}
GPUS=${GPUS:-8}
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}

exec ray start --address="$HEAD:$PORT" --num-gpus="$GPUS" --block "$@"
