#!/usr/bin/env bash
# A complete training on two CPU cores: a policy with a million parameters learns sums of two digits (prepare.py).
# Steps: cold start, GRPO with correctness alone, export.
set -euo pipefail
OUT=${OUT:-runs/cpu}
STEPS=${STEPS:-40}
SFT_STEPS=${SFT_STEPS:-600}
export HF_HUB_OFFLINE=1

[ -e "$OUT/task/val.parquet" ] || python -m recipes.cpu.prepare "$OUT/task"
tmas sft model.path="$OUT/task/policy" train_files="$OUT/task/sft.parquet" output_dir="$OUT/sft" device=cpu \
    max_length=512 gradient_checkpointing=false batch_size=32 micro_batch_size=32 learning_rate=2e-3 max_steps="$SFT_STEPS"
tmas train experiment=grpo_cpu output_dir="$OUT/grpo" policy.path="$OUT/sft/final" trainer.total_training_steps="$STEPS" \
    data.train_files="$OUT/task/train.parquet" data.val_files="$OUT/task/val.parquet" "$@"
tmas export checkpoint="$OUT/grpo" output_dir="$OUT/grpo/policy"
