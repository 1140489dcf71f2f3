#!/usr/bin/env bash
# The cold start on one node: supervised fine-tuning on the teacher's chats with DeepSpeed ZeRO. See docs/sft.md.
# Several nodes: set NNODES, NODE_RANK and HEAD (the first node) on each; OUT must be on a file system that all share.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen3-4B-Thinking-2507}
DATA=${DATA:-data/tmas/rows}
OUT=${OUT:-runs/sft}
GPUS=${GPUS:-8}                        # of this node
ZERO=${ZERO:-2}                        # 3 for the 30B policy
BATCH=${BATCH:-64}                     # chats per update, over all GPUs
MAX_LENGTH=${MAX_LENGTH:-16384}         # tokens; 32768 is the limit for 8 GPUs of 80 GB: docs/sft.md
EPOCHS=${EPOCHS:-3}

torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$GPUS" \
    --master_addr="${HEAD:-127.0.0.1}" --master_port="${PORT:-29500}" -m tmas.cli sft \
    model.path="$MODEL" model.attn_implementation="${ATTENTION:-flash_attention_2}" \
    train_files="$DATA/sft_train.parquet" val_files="$DATA/sft_validation.parquet" output_dir="$OUT" \
    zero_stage="$ZERO" batch_size="$BATCH" max_length="$MAX_LENGTH" epochs="$EPOCHS" on_bad_row=skip "$@"
