#!/usr/bin/env bash
# A whole training on two CPU cores, with a policy of a million parameters and sums of two digits as its task
# (prepare.py): cold start, GRPO on the hybrid reward in its form without a judge (delta) and on correctness alone
# (vanilla) from the same data and seed, export.
set -euo pipefail
OUT=${OUT:-runs/cpu}
STEPS=${STEPS:-40}
SFT_STEPS=${SFT_STEPS:-600}
REWARDS=${REWARDS:-delta vanilla}
export HF_HUB_OFFLINE=1

[ -e "$OUT/task/val.parquet" ] || python -m recipes.cpu.prepare "$OUT/task"
tmas sft model.path="$OUT/task/policy" train_files="$OUT/task/sft.parquet" output_dir="$OUT/sft" device=cpu \
    max_length=512 gradient_checkpointing=false batch_size=32 micro_batch_size=32 learning_rate=2e-3 max_steps="$SFT_STEPS"
for reward in $REWARDS; do
    tmas train experiment=hybrid_grpo_cpu reward="$reward" output_dir="$OUT/$reward" \
        data.train_files="$OUT/task/train.parquet" data.val_files="$OUT/task/val.parquet" \
        policy.path="$OUT/sft/final" trainer.total_training_steps="$STEPS" "$@"
    tmas export checkpoint="$OUT/$reward" output_dir="$OUT/$reward/policy"
done
