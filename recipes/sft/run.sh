#!/usr/bin/env bash
# The cold start: supervised fine-tuning on the teacher's chats with DeepSpeed ZeRO. See docs/sft.md.
# Several nodes: run it on each with the same NNODES and HEAD (the host name of one of them). They meet at HEAD:PORT and
# agree on their ranks. OUT, DATA and MODEL must be on a file system that all share.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen3-4B-Thinking-2507}
DATA=${DATA:-data/tmas/rows}
OUT=${OUT:-runs/sft}
NNODES=${NNODES:-1}
GPUS=${GPUS:-8}                        # of each node
HEAD=${HEAD:-127.0.0.1}
PORT=${PORT:-29500}
[ "$NNODES" != 1 ] || ADDRESS=127.0.0.1 # of this node; several nodes: set it if the others cannot resolve its host name
ZERO=${ZERO:-2}                        # 3 for the 30B policy
BATCH=${BATCH:-64}                     # chats per update, over all GPUs
MAX_LENGTH=${MAX_LENGTH:-32768}         # tokens
EPOCHS=${EPOCHS:-3}

torchrun --nnodes="$NNODES" --nproc-per-node="$GPUS" --rdzv-backend=c10d --rdzv-endpoint="$HEAD:$PORT" \
    --rdzv-id="${JOB:-tmas-sft}" ${ADDRESS:+--local-addr="$ADDRESS"} -m tmas.cli sft \
    model.path="$MODEL" model.attn_implementation="${ATTENTION:-flash_attention_2}" \
    train_files="$DATA/sft_train.parquet" val_files="$DATA/sft_validation.parquet" output_dir="$OUT" \
    zero_stage="$ZERO" batch_size="$BATCH" max_length="$MAX_LENGTH" epochs="$EPOCHS" on_bad_row=skip "$@"
