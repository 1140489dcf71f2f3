#!/usr/bin/env bash
# The control: GRPO with correctness as the only reward. Everything else is as in recipes/hybrid_grpo.
# Run it again to resume from the last checkpoint. dry_run=true checks everything without a GPU. See docs/training.md.
set -euo pipefail
MODEL=${MODEL:-runs/sft/final}         # initial policy: the output of recipes/sft, or a hub name
DATA=${DATA:-data/tmas/rows}
OUT=${OUT:-runs/vanilla_grpo}
STEPS=${STEPS:-200}
GPUS=${GPUS:-8}
LOGGER=${LOGGER:-[console,file]}       # wandb, tensorboard; WANDB_MODE=offline needs no login

tmas train experiment=vanilla_grpo output_dir="$OUT" \
    data.train_files="$DATA/train.parquet" data.val_files="$DATA/validation.parquet" \
    policy.path="$MODEL" trainer.n_gpus_per_node="$GPUS" \
    trainer.total_training_steps="$STEPS" trainer.logger="$LOGGER" \
    "$@"
