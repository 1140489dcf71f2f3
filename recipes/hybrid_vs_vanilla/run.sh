#!/usr/bin/env bash
# Hybrid-RL against Vanilla-RL: TMAS with each of the two policies, three seeds each, and their difference after every
# iteration, paired by problem. The settings of recipes/variants apply. Run it again to resume.
set -euo pipefail
HYBRID=${HYBRID:-models/hybrid_grpo}   # folders, the output of recipes/export
VANILLA=${VANILLA:-models/vanilla_grpo}
HYBRID_URL=${HYBRID_URL:-${BASE_URL:-}}  # of running servers, where the models are called hybrid and vanilla; empty: start vLLM
VANILLA_URL=${VANILLA_URL:-${BASE_URL:-}}
export OUT=${OUT:-runs/hybrid_vs_vanilla} SEEDS=${SEEDS:-0 1 2}

for POLICY in "$HYBRID_URL$HYBRID" "$VANILLA_URL$VANILLA"; do
    [[ $POLICY = http* || -d $POLICY ]] || { echo "$POLICY: no such folder. Set HYBRID and VANILLA, or HYBRID_URL and VANILLA_URL." >&2; exit 2; }
done
RUNS=$(for POLICY in vanilla hybrid; do for SEED in $SEEDS; do echo -n ",$OUT/$POLICY-$SEED"; done; done)
solve() { EVALUATE='' NAME=$1 MODEL=$2 BASE_URL=$3 VARIANTS="$1 method=tmas" recipes/variants/run.sh "${@:4}"; }
for DRY_RUN in ${DRY_RUN:-true false}; do export DRY_RUN  # first, all settings are checked without a model
    solve vanilla "$VANILLA" "$VANILLA_URL" "$@"
    solve hybrid "$HYBRID" "$HYBRID_URL" "$@"
    # shellcheck disable=SC2086  # JUDGE may be several words
    tmas evaluate runs="[${RUNS#,}]" ${JUDGE:+judge=$JUDGE} dry_run="$DRY_RUN"
done
$DRY_RUN || tmas report runs="[${RUNS#,}]" output="$OUT/report.html"
