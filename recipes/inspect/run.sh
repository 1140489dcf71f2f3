#!/usr/bin/env bash
# Evaluates TMAS, through tmas serve, and the bare model on the same problems with inspect_ai. Needs the environment of
# `make clients`. Further arguments go to tmas serve. The logs are in $OUT/logs: `inspect view --log-dir $OUT/logs`.
set -euo pipefail
BASE_URL=${BASE_URL:?the OpenAI-compatible server of the model}
NAME=${NAME:-Qwen/Qwen3-4B-Thinking-2507}    # the model's name, as its server lists it
SERVED=${SERVED:-tmas}                       # models of tmas serve, separated by spaces
PROBLEMS=${PROBLEMS:-tmas/problems/sample_problems.jsonl}
OUT=${OUT:-runs/inspect}
PORT=${PORT:-8080}
API_KEY=${API_KEY:-}                         # of the model's server; empty: no key
PROBLEMS=$(realpath -m "$PROBLEMS") OUT=$(realpath -m "$OUT")    # inspect reads the task in its own folder

tmas serve serve.output_dir="$OUT/served" serve.port="$PORT" model.base_url="$BASE_URL" model.name="$NAME" \
    ${API_KEY:+model.api_key_env=API_KEY} "$@" &
SERVER=$!
trap 'kill "$SERVER" 2> /dev/null || true; wait' EXIT
until curl -sf "http://127.0.0.1:$PORT/health" > /dev/null; do kill -0 "$SERVER"; sleep 1; done

export TMAS_BASE_URL=http://127.0.0.1:$PORT/v1 TMAS_API_KEY=none BARE_BASE_URL=$BASE_URL BARE_API_KEY=${API_KEY:-none}
MODELS=openai-api/bare/$NAME
for model in $SERVED; do MODELS+=,openai-api/tmas/$model; done
inspect eval recipes/inspect/task.py --model "$MODELS" -M stream=true -M client_timeout=86400 --max-retries 3 \
    -T problems="$PROBLEMS" --log-dir "$OUT/logs" --display "${DISPLAY_AS:-plain}"
