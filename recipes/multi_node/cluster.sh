#!/usr/bin/env bash
# Run this on the first node. It starts a Ray cluster, waits until the other nodes have joined (worker.sh), runs a command
# on the cluster, and stops the cluster.
set -euo pipefail
NODES=${NODES:-4}
GPUS=${GPUS:-8}                        # of each node
PORT=${PORT:-6379}
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}   # keeps other users of the network out of the cluster

ray get-auth-token --generate > /dev/null      # written to ~/.ray; nodes that do not share this folder need the same RAY_AUTH_TOKEN
ray start --head --port="$PORT" --num-gpus="$GPUS" --block &
trap 'kill %1' EXIT
nodes() { ray list nodes --filter state=ALIVE --format json 2> /dev/null | grep -o '"node_id"' | wc -l; }
until [ "$(nodes)" -ge "$NODES" ]; do kill -0 "$!"; sleep 5; done   # stops if the head has ended
"$@"
