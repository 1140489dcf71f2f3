#!/usr/bin/env bash
# Exports a trained policy as a Hugging Face folder and serves it. The endpoint is http://HOST:$PORT/v1.
set -euo pipefail
RUN=${RUN:-runs/hybrid_grpo}           # a run (its latest checkpoint is exported), or its checkpoints/global_step_N
FOLDER=${RUN#runs/}
MODEL=${MODEL:-models/${FOLDER//\//-}}  # each run, and each checkpoint, has its own folder
PORT=${PORT:-8000}

if [ -d "$MODEL" ]; then
    echo "$MODEL exists: it is served as it is. Set MODEL to another folder to export $RUN again." >&2
else
    tmas export checkpoint="$RUN" output_dir="$MODEL"
fi
vllm serve "$MODEL" --served-model-name "${NAME:-policy}" --port "$PORT" --tensor-parallel-size "${GPUS:-1}" "$@"
