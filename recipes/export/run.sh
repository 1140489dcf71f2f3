#!/usr/bin/env bash
# A trained policy as a Hugging Face folder, and served: the endpoint is http://HOST:$PORT/v1.
set -euo pipefail
RUN=${RUN:-runs/hybrid_grpo}           # its latest checkpoint; RUN/checkpoints/global_step_N is another one
MODEL=${MODEL:-models/hybrid_grpo}
PORT=${PORT:-8000}

[ -d "$MODEL" ] || tmas export checkpoint="$RUN" output_dir="$MODEL"
vllm serve "$MODEL" --served-model-name "${NAME:-policy}" --port "$PORT" --tensor-parallel-size "${GPUS:-1}" "$@"
