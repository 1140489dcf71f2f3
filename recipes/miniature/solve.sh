#!/usr/bin/env bash
# Solves the miniature's problems: MODEL_URL=URL MODEL_NAME=NAME solve.sh TOKENIZER OUT PROBLEMS METHOD-SEED ...
# TOKENIZER is a policy's folder: it decides how much memory fits into a prompt. METHOD is one of those below. Each run is
# in OUT/METHOD-SEED. PROMPTS=FOLDER: the prompts that the policy was trained on, if they are not the built-in ones.
# `tmas evaluate` pools runs that differ only by seed, so two models need two names.
set -euo pipefail
TOKENIZER=$1 OUT=$2 PROBLEMS=$3
shift 3
TEAM="method.n_candidates=4 method.n_verifications=1 method.max_iterations=8 method.epsilon=0.25
    method.agents.max_new_items=16 method.agents.structured_outputs=off"
declare -A METHODS=(
    [tmas]="method=tmas $TEAM"
    [tmas_no_experience]="method=tmas_no_experience $TEAM"
    [tmas_no_guidelines]="method=tmas_no_guidelines $TEAM"
    [tmas_epsilon0]="method=tmas $TEAM method.epsilon=0"
    [tmas_epsilon50]="method=tmas $TEAM method.epsilon=0.5"
    [tmas_n2]="method=tmas $TEAM method.n_candidates=2"
    [tmas_m2]="method=tmas $TEAM method.n_verifications=2"
    [majority_vote]="method=majority_vote method.n_candidates=256"
    [best_of_n]="method=best_of_n method.n_candidates=64 method.n_verifications=1"
    [self_refine]="method=self_refine method.n_candidates=4 method.max_iterations=12"
    [verify_refine]="method=verify_refine method.n_candidates=4 method.n_verifications=1 method.n_best=4 method.max_iterations=12"
    [pacore]="method=pacore method.widths=[4] method.max_iterations=6"
    [rse]="method=rse method.n_candidates=4 method.max_iterations=10 method.agents.structured_outputs=off"
    # Only the teacher plays these two: no policy of the recipe is trained on their prompts.
    [rsa]="method=rsa method.n_candidates=4 method.n_aggregated=2 method.max_iterations=6"
    [genselect]="method=genselect method.n_candidates=32 method.n_compared=4 method.n_votes=2"
)
for run in "$@"; do
    # shellcheck disable=SC2086  # the settings are words
    tmas solve experiment=miniature ${METHODS[${run%-*}]} model.base_url="$MODEL_URL" model.name="$MODEL_NAME" model.tokenizer="$TOKENIZER" problems="$PROBLEMS" \
        prompts="${PROMPTS:-null}" output_dir="$OUT/$run" seed="${run##*-}"
done
