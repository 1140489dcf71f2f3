#!/usr/bin/env bash
# PPO with a critic and the hybrid reward, on one node.
# Run it again to resume from the last checkpoint. dry_run=true checks everything without a GPU. See docs/training.md.
set -euo pipefail
MODEL=${MODEL:-runs/sft/final}         # initial policy: the output of recipes/sft, or a hub name
DATA=${DATA:-data/tmas/rows}
OUT=${OUT:-runs/hybrid_ppo}
STEPS=${STEPS:-200}
GPUS=${GPUS:-8}
JUDGE_URL=${JUDGE_URL:?set it to the URL of an OpenAI-compatible server with the judge, http://HOST:8000/v1}
JUDGE=${JUDGE:-deepseek-flash}           # name of the judge on its server; JUDGE_KEY_ENV names the variable with its key
LOGGER=${LOGGER:-[console,file]}       # wandb, tensorboard; WANDB_MODE=offline needs no login

tmas train experiment=hybrid_ppo output_dir="$OUT" \
    data.train_files="$DATA/train.parquet" data.val_files="$DATA/validation.parquet" \
    policy.path="$MODEL" trainer.n_gpus_per_node="$GPUS" \
    trainer.total_training_steps="$STEPS" trainer.logger="$LOGGER" \
    judge.base_url="$JUDGE_URL" \
    judge.name="$JUDGE" \
    judge.api_key_env="${JUDGE_KEY_ENV:-null}" \
    "$@"
