#!/usr/bin/env bash
# Every method on one benchmark, each problem with the same token budget, all on one vLLM; then evaluation and report.
# The same command goes on where it stopped. `limits.tokens_per_problem` ends the methods at equal cost.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen3-4B-Thinking-2507}
PROBLEMS=${PROBLEMS:?a file of problems}
DATA=${DATA:-default}                  # how it names its columns: a file of conf/data
OUT=${OUT:-runs/sweep}
CONTEXT=${CONTEXT:-262144}
BUDGET=${BUDGET:-20000000}             # tokens a problem, prompt and completion
METHODS=${METHODS:-majority_vote best_of_n self_refine verify_refine pacore rse tmas}
PORT=${PORT:-8000}                     # of the vLLM that is started here; BASE_URL: a server that runs already

if mkdir -p "$OUT" && [ -z "${BASE_URL:-}" ]; then
    # shellcheck disable=SC2086  # VLLM_ARGS are several words
    vllm serve "$MODEL" --served-model-name policy --host 127.0.0.1 --port "$PORT" --max-model-len "$CONTEXT" \
        --enable-prompt-tokens-details --stream-interval 8 ${VLLM_ARGS:-} >> "$OUT/vllm.log" 2>&1 &
    SERVER=$!; trap 'kill $SERVER 2> /dev/null; timeout 60 tail --pid=$SERVER -f /dev/null || kill -9 $SERVER' EXIT
    until (: < "/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do kill -0 "$SERVER"; sleep 1; done
fi
for METHOD in $METHODS; do
    OWN=SETTINGS_$METHOD  # settings of one method alone, such as SETTINGS_tmas="method.n_candidates=4"
    # shellcheck disable=SC2086  # they are several words
    tmas solve method="$METHOD" problems="$PROBLEMS" data="$DATA" output_dir="$OUT/$METHOD" model.name=policy \
        model.base_url="${BASE_URL:-http://127.0.0.1:$PORT/v1}" model.context_length="$CONTEXT" limits.tokens_per_problem="$BUDGET" ${!OWN:-} "$@"
done
RUNS="runs=[$OUT/${METHODS// /,$OUT/}]"
tmas evaluate "$RUNS" "budgets=[$((BUDGET / 4)),$((BUDGET / 2)),$BUDGET]" ${JUDGE:+"judge=$JUDGE"}  # a file of conf/judge; none: by rule alone
tmas report "$RUNS" output="$OUT/report.html"
