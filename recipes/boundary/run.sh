#!/usr/bin/env bash
# The boundary analysis: accuracy and verification of a policy by difficulty of the problem. The difficulty for one seed
# comes from the other seeds. The settings of recipes/variants apply. Run it again to resume.
set -euo pipefail
METHOD=${METHOD:-tmas}                 # a method that verifies its candidates: tmas, best_of_n, verify_refine
export OUT=${OUT:-runs/boundary}
export VARIANTS="$METHOD method=$METHOD"
exec recipes/variants/run.sh "$@"
