#!/usr/bin/env bash
# Solves the miniature's problems with one model: solve.sh URL OUT PROBLEMS SEEDS METHOD ...
# METHOD is a method of the miniature below; each run lies in OUT/METHOD-SEED.
set -euo pipefail
URL=$1 OUT=$2 PROBLEMS=$3 SEEDS=$4
shift 4
TEAM="method.n_candidates=4 method.n_verifications=1 method.max_iterations=8 method.epsilon=0.25
    method.agents.max_new_items=16 method.agents.structured_outputs=off"
declare -A METHODS=(
    [tmas]="method=tmas $TEAM"
    [tmas_no_experience]="method=tmas_no_experience $TEAM"
    [tmas_no_guidelines]="method=tmas_no_guidelines $TEAM"
    [tmas_epsilon0]="method=tmas $TEAM method.epsilon=0"
    [tmas_epsilon50]="method=tmas $TEAM method.epsilon=0.5"
    [tmas_n2]="method=tmas $TEAM method.n_candidates=2"
    [tmas_n8]="method=tmas $TEAM method.n_candidates=8 method.agents.max_new_items=32"
    [tmas_m2]="method=tmas $TEAM method.n_verifications=2"
    [majority_vote]="method=majority_vote method.n_candidates=256"
    [best_of_n]="method=best_of_n method.n_candidates=64 method.n_verifications=1"
    [self_refine]="method=self_refine method.n_candidates=4 method.max_iterations=12"
    [verify_refine]="method=verify_refine method.n_candidates=4 method.n_verifications=1 method.n_best=4 method.max_iterations=12"
    [pacore]="method=pacore method.widths=[4] method.max_iterations=6"
    [rse]="method=rse method.n_candidates=4 method.max_iterations=10 method.agents.structured_outputs=off"
)
for method in "$@"; do
    for seed in $SEEDS; do
        # shellcheck disable=SC2086  # the settings are words
        tmas solve experiment=miniature ${METHODS[$method]} model.base_url="$URL" problems="$PROBLEMS" \
            output_dir="$OUT/$method-$seed" seed="$seed"
    done
done
