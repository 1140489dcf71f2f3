#!/usr/bin/env bash
# TMAS with other values of epsilon, N and M, one at a time, each compared with the published setting (0.2, 8, 8).
# The settings of recipes/variants apply. Run it again to resume.
set -euo pipefail
export OUT=${OUT:-runs/sensitivity}
EPSILONS=${EPSILONS-0 0.1 0.4}         # probability that a candidate explores; empty: not varied
CANDIDATES=${CANDIDATES-4 16}          # N
VERIFICATIONS=${VERIFICATIONS-2 16}    # M
VARIANTS="published method=tmas"
for VALUE in $EPSILONS; do VARIANTS+=$'\n'"epsilon_$VALUE method=tmas method.epsilon=$VALUE"; done
for VALUE in $CANDIDATES; do VARIANTS+=$'\n'"n_$VALUE method=tmas method.n_candidates=$VALUE"; done
for VALUE in $VERIFICATIONS; do VARIANTS+=$'\n'"m_$VALUE method=tmas method.n_verifications=$VALUE"; done
export VARIANTS
exec recipes/variants/run.sh "$@"
