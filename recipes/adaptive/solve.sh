#!/usr/bin/env bash
# Solves the problems of recipes/adaptive/run.sh, which sets the variables. Further arguments go to adaptive TMAS.
set -euo pipefail
N=${N:-8} M=${M:-8} PRICE=${PRICE:-}
TEAM="method.n_candidates=$N method.n_verifications=$M method.max_iterations=8 method.epsilon=0.25
    method.agents.max_new_items=16 method.agents.structured_outputs=off"
declare -A METHOD_SETTINGS=(
    [tmas]="method=tmas $TEAM"
    [tmas_adaptive]="method=tmas_adaptive $TEAM"
    [tmas_adaptive_long]="method=tmas_adaptive $TEAM method.max_iterations=16" # hard problems use the added iterations
    [majority_vote]="method=majority_vote method.n_candidates=256"
    [best_of_n]="method=best_of_n method.n_candidates=32 method.n_verifications=$M"
    [verify_refine]="method=verify_refine method.n_candidates=$N method.n_verifications=$M method.n_best=$N method.max_iterations=8"
)
for SEED in ${SEEDS:-0}; do for RATE in ${RATES:-0}; do for METHOD in ${METHODS:-tmas_adaptive}; do
    RUN=${OUT:-runs/adaptive}/$RATE/$METHOD-$SEED
    [ ! -e "$RUN/metrics.json" ] || continue
    OWN=()
    [[ $METHOD != tmas_adaptive* ]] || OWN=("$@")
    NOISE=()
    if [ "$METHOD" != majority_vote ]; then # the role has another address than the model, so it inherits no price
        # shellcheck disable=SC2206  # the settings are words
        NOISE=(model.roles.verification.base_url="${NOISE_URL:-http://noise}/$RATE/v1" ${PRICE//model.price/model.roles.verification.price})
    fi
    # shellcheck disable=SC2086  # the settings are words
    tmas solve experiment=miniature ${METHOD_SETTINGS[$METHOD]} seed="$SEED" output_dir="$RUN" problems="$PROBLEMS" \
        model.base_url="${MODEL_URL:-http://server/v1}" model.name="${MODEL_NAME:-miniature}" \
        model.tokenizer="${TOKENIZER:-estimate}" prompts="${PROMPTS:-null}" $PRICE "${NOISE[@]}" "${OWN[@]}"
done; done; done
