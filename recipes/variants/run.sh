#!/usr/bin/env bash
# shellcheck disable=SC2086  # VLLM_ARGS, SETTINGS and JUDGE may be several words
# Runs variants of TMAS on the same problems with several seeds, compares each with the first, and writes a report. The
# recipes ablation, sensitivity, hybrid_vs_vanilla and boundary call this script. Run it again to resume.
set -euo pipefail
VARIANTS=${VARIANTS:-tmas method=tmas} # one variant a line: its name, and its settings
SEEDS=${SEEDS:-0 1 2} MODEL=${MODEL:-Qwen/Qwen3-4B-Thinking-2507}
NAME=${NAME:-policy}                   # name of the model on the server; two models that are compared need two names
PROBLEMS=${PROBLEMS:?set it to a file of problems}
DATA=${DATA:-default}                  # a file of conf/data, which has the column names of PROBLEMS
OUT=${OUT:-runs/variants} CONTEXT=${CONTEXT:-262144}
EVALUATE=${EVALUATE-yes}               # empty: the variants are solved, but not evaluated
PORT=${PORT:-8000}                     # of the vLLM server that is started; or set BASE_URL to use a running server

serve() {
    vllm serve "$MODEL" --served-model-name "$NAME" --host 127.0.0.1 --port "$PORT" --max-model-len "$CONTEXT" \
        --enable-prompt-tokens-details --stream-interval 8 ${VLLM_ARGS:-} >> "$OUT/vllm.log" 2>&1 &
    SERVER=$!; trap 'kill $SERVER 2> /dev/null; timeout 60 tail --pid=$SERVER -f /dev/null || kill -9 $SERVER' EXIT
    until (: < "/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do kill -0 "$SERVER"; sleep 1; done
}
for DRY_RUN in ${DRY_RUN:-true false}; do RUNS=''  # first, all settings are checked without a model
    $DRY_RUN || { mkdir -p "$OUT"; [ -n "${BASE_URL:-}" ] || serve; }
    while read -r VARIANT SETTINGS; do for SEED in $SEEDS; do RUNS=${RUNS:+$RUNS,}$OUT/$VARIANT-$SEED
        tmas solve problems="$PROBLEMS" data="$DATA" output_dir="$OUT/$VARIANT-$SEED" seed="$SEED" model.name="$NAME" dry_run="$DRY_RUN" \
            model.base_url="${BASE_URL:-http://127.0.0.1:$PORT/v1}" model.context_length="$CONTEXT" "$@" $SETTINGS < /dev/null
    done; done <<< "$VARIANTS"
    [ -z "$EVALUATE" ] || tmas evaluate runs="[$RUNS]" ${JUDGE:+judge=$JUDGE} dry_run="$DRY_RUN"
done
$DRY_RUN || [ -z "$EVALUATE" ] || tmas report runs="[$RUNS]" output="$OUT/report.html"
