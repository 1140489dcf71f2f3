#!/usr/bin/env bash
# Solves problems with TMAS and writes a report. It uses a running server, or starts vLLM for the run.
set -euo pipefail
MODEL=${MODEL:-qwen3_4b_thinking}      # a file of conf/model
BASE_URL=${BASE_URL:-}                 # of an OpenAI-compatible server; empty: start vLLM on this machine
PROBLEMS=${PROBLEMS:-sample}           # a JSONL, JSON, CSV or parquet file; sample: a few problems of the package
OUT=${OUT:-runs/quickstart}
ITERATIONS=${ITERATIONS:-4}

if [ -n "$BASE_URL" ]; then SERVED=(model.base_url="$BASE_URL"); else SERVED=(serving=vllm); fi
tmas solve model="$MODEL" "${SERVED[@]}" problems="$PROBLEMS" output_dir="$OUT" method.max_iterations="$ITERATIONS" "$@"
tmas report runs=["$OUT"]
