#!/usr/bin/env bash
# shellcheck disable=SC2086  # VLLM_ARGS, SIZE, the settings of a method and JUDGE may be several words
# Runs every method on one benchmark with one vLLM server, evaluates the runs and writes a report. Run it again to resume.
# TMAS comes first: majority vote and best of N then get as many candidates as its tokens pay for. BUDGET limits all methods.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen3-4B-Thinking-2507}
PROBLEMS=${PROBLEMS:?set it to a file of problems}
DATA=${DATA:-default}                  # a file of conf/data, which has the column names of PROBLEMS
OUT=${OUT:-runs/sweep} CONTEXT=${CONTEXT:-262144}
BUDGET=${BUDGET:-20000000}             # tokens per problem, prompts and completions together
METHODS=${METHODS:-tmas majority_vote best_of_n genselect self_refine verify_refine pacore rse rsa}
PORT=${PORT:-8000}                     # of the vLLM server that is started; or set BASE_URL to use a running server

serve() {
    vllm serve "$MODEL" --served-model-name "policy" --host 127.0.0.1 --port "$PORT" --max-model-len "$CONTEXT" \
        --enable-prompt-tokens-details --stream-interval 8 ${VLLM_ARGS:-} >> "$OUT/vllm.log" 2>&1 &
    SERVER=$!; trap 'kill $SERVER 2> /dev/null; timeout 60 tail --pid=$SERVER -f /dev/null || kill -9 $SERVER' EXIT
    until (: < "/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do kill -0 "$SERVER"; sleep 1; done
}
for DRY_RUN in ${DRY_RUN:-true false}; do  # first, all settings are checked without a model
    $DRY_RUN || { mkdir -p "$OUT"; [ -n "${BASE_URL:-}" ] || serve; }
    for METHOD in $METHODS; do OWN=SETTINGS_$METHOD  # of a single method, such as SETTINGS_tmas="method.n_candidates=4"
        [ ! -e "$OUT/tmas/metrics.json" ] || SIZE=$(python -m tmas.evaluation.equal_tokens "$OUT/tmas" "$METHOD")
        tmas solve method="$METHOD" problems="$PROBLEMS" data="$DATA" output_dir="$OUT/$METHOD" model.name=policy dry_run="$DRY_RUN" \
            model.base_url="${BASE_URL:-http://127.0.0.1:$PORT/v1}" model.context_length="$CONTEXT" limits.tokens_per_problem="$BUDGET" ${SIZE:-} ${!OWN:-} "$@"
    done
    tmas evaluate "${RUNS=runs=[$OUT/${METHODS// /,$OUT/}]}" "budgets=[$((BUDGET / 4)),$((BUDGET / 2)),$BUDGET]" ${JUDGE:+judge=$JUDGE} dry_run="$DRY_RUN"
done
$DRY_RUN || tmas report "$RUNS" output="$OUT/report.html"
