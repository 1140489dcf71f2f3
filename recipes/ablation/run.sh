#!/usr/bin/env bash
# The paper's ablation: TMAS without the experience bank, and without the guideline bank, each compared with all of TMAS.
# The settings of recipes/variants apply. Run it again to resume.
set -euo pipefail
export OUT=${OUT:-runs/ablation}
export VARIANTS="full method=tmas
no_experience method=tmas_no_experience
no_guidelines method=tmas_no_guidelines"
exec recipes/variants/run.sh "$@"
