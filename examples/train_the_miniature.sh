#!/usr/bin/env bash
# Trains the tiny policy of docs/miniature.md: problems, teacher, cold start, evaluation, reinforcement learning. Two CPU
# cores and about 40 minutes. Run it again to resume. Without QUICK=1 it is the full experiment, which takes hours.
set -euo pipefail
cd "$(dirname "$0")/.."
make install
PATH=$PWD/.venv/bin:$PATH QUICK=1 OUT=${OUT:-runs/miniature_quick} recipes/miniature/run.sh
