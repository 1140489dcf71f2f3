#!/usr/bin/env bash
# Adaptive TMAS against fixed TMAS and baselines while the verifier's grades are noisy (docs/adaptive.md), on the shipped
# policy of the miniature with vLLM. Run it again to resume. Further arguments go to every `tmas solve` of adaptive TMAS.
set -euo pipefail
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export SEEDS=${SEEDS:-0 1 2} RATES=${RATES:-0 0.05 0.2} # RATES: shares of the verifier's grades that are flipped
export METHODS=${METHODS:-tmas tmas_adaptive tmas_adaptive_long majority_vote best_of_n verify_refine}
export N=${N:-8} M=${M:-8} OUT=${OUT:-runs/adaptive}    # the policy was trained with N = 4 and M = 1
export PRICE=${PRICE:-model.price.input=1 model.price.output=4 model.price.currency=units} # of a million tokens
MODEL=${MODEL:-policy} COUNT=${COUNT:-100} SPLIT=${SPLIT:-test} # MODEL=teacher: the rule-based teacher, without vLLM
export PROBLEMS=$OUT/task-$COUNT/$SPLIT.jsonl           # SPLIT=validation: other problems, for tuning
KNOBS="COUNT=$COUNT SPLIT=$SPLIT N=$N M=$M MODEL=$MODEL PRICE=$PRICE $*" # finished runs in OUT have these settings
mkdir -p "$OUT"; [ -e "$OUT/knobs" ] || echo "$KNOBS" > "$OUT/knobs"
[ "$(cat "$OUT/knobs")" = "$KNOBS" ] || { echo "$OUT was started with $(cat "$OUT/knobs"), not $KNOBS: set OUT to another folder" >&2; exit 2; }
[ -e "$PROBLEMS" ] || python -m recipes.miniature.prepare "$OUT/task-$COUNT" --train 0 --validation "$COUNT" --test "$COUNT"
SOLVE=(python -m recipes.adaptive.noise recipes/adaptive/solve.sh "$@")
if [ "$MODEL" = policy ]; then
    export TOKENIZER=tmas/miniature/policy PROMPTS=tmas/miniature/prompts
    SOLVE=(python -m recipes.miniature.serving "$TOKENIZER" miniature "$OUT/vllm.log" "${SOLVE[@]}")
else unset MODEL_URL; fi # noise.py serves the teacher only without it
for RATE in $RATES; do for METHOD in $METHODS; do for SEED in $SEEDS; do
    [ -e "$OUT/$RATE/$METHOD-$SEED/metrics.json" ] || UNFINISHED=yes
done; done; done
[ -z "${UNFINISHED:-}" ] || "${SOLVE[@]}"
for RATE in $RATES; do
    ALL=$(for METHOD in $METHODS; do for SEED in $SEEDS; do printf ,%s "$OUT/$RATE/$METHOD-$SEED"; done; done)
    tmas evaluate "runs=[${ALL#,}]" "budgets=[10000,20000,40000,80000,250000]" output="$OUT/$RATE/comparison.json"
    tmas report "runs=[${ALL#,}]" output="$OUT/$RATE/report.html" figures="$OUT/$RATE/figures" # accuracy by tokens and money
done
