#!/usr/bin/env bash
# Exports a trained policy as a Hugging Face folder and serves it. The endpoint is http://HOST:$PORT/v1.
set -euo pipefail
RUN=${RUN:-runs/hybrid_grpo}           # a run (its latest checkpoint is exported), or its checkpoints/global_step_N
MODEL=${MODEL:-models/hybrid_grpo}
PORT=${PORT:-8000}

[ -d "$MODEL" ] || tmas export checkpoint="$RUN" output_dir="$MODEL"
vllm serve "$MODEL" --served-model-name "${NAME:-policy}" --port "$PORT" --tensor-parallel-size "${GPUS:-1}" "$@"
