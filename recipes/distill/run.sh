#!/usr/bin/env bash
# Training data: problems, those of the right difficulty, a teacher's runs on them, RL rows and cold-start chats.
# Each step goes on where it stopped. docs/data.md
set -euo pipefail
BENCHMARKS=${BENCHMARKS:?the folder of the benchmark files that training must not contain: conf/collect.yaml}
WORKSPACE=${WORKSPACE:-data/tmas}
POLICY=${POLICY:-qwen3_4b_thinking}    # a file of conf/model; measures the difficulty
TEACHER=${TEACHER:-deepseek}           # a file of conf/model; its key is in the variable that api_key_env names
BUDGET=${BUDGET:-3600000000}           # tokens that the teacher may take, prompts and completions: docs/data.md
GPUS=${GPUS:-8}                        # of this node, with the policy
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}  # GPUs of a replica: 2 of 80 GB for the 30B policy
RESPONSE=${RESPONSE:-32768}            # data.max_response_length of the training: what is longer is wrong there
PROBLEMS=${PROBLEMS:-800}              # that the teacher works on; each gives three rows with memory at most

tmas collect workspace="$WORKSPACE" benchmarks_dir="$BENCHMARKS"
tmas filter workspace="$WORKSPACE" serving=vllm serving.replicas="$((GPUS / TENSOR_PARALLEL))" \
    serving.tensor_parallel_size="$TENSOR_PARALLEL" model="$POLICY" model.sampling.max_tokens="$RESPONSE"
tmas distill workspace="$WORKSPACE" model="$TEACHER" limits.tokens_per_run="$BUDGET" max_problems="$PROBLEMS"
tmas build workspace="$WORKSPACE" tokenizer="${TOKENIZER:-Qwen/Qwen3-4B-Thinking-2507}" "$@"
