#!/usr/bin/env bash
# Makes training data: collects problems, filters them by difficulty, runs a teacher on them, and builds RL rows and
# cold-start chats. Run it again to resume. See docs/data.md.
set -euo pipefail
BENCHMARKS=${BENCHMARKS:?set it to the folder with the benchmarks that training must not contain, see conf/collect.yaml}
WORKSPACE=${WORKSPACE:-data/tmas}
POLICY=${POLICY:-qwen3_4b_thinking}    # a file of conf/model; its pass rate is the difficulty of a problem
TEACHER=${TEACHER:-deepseek}           # a file of conf/model; its key is in the variable that api_key_env names
BUDGET=${BUDGET:-3600000000}           # token limit of the teacher, prompts and completions together: docs/data.md
GPUS=${GPUS:-8}                        # of this node; they run the policy
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}  # GPUs per replica; the 30B policy needs 2 of 80 GB
RESPONSE=${RESPONSE:-32768}            # data.max_response_length of the training; longer responses are scored as wrong
PROBLEMS=${PROBLEMS:-800}              # problems for the teacher; each gives at most three rows with memory

tmas collect workspace="$WORKSPACE" benchmarks_dir="$BENCHMARKS"
tmas filter workspace="$WORKSPACE" serving=vllm serving.replicas="$((GPUS / TENSOR_PARALLEL))" \
    serving.tensor_parallel_size="$TENSOR_PARALLEL" model="$POLICY" model.sampling.max_tokens="$RESPONSE"
tmas distill workspace="$WORKSPACE" model="$TEACHER" limits.tokens_per_run="$BUDGET" max_problems="$PROBLEMS"
tmas build workspace="$WORKSPACE" tokenizer="${TOKENIZER:-Qwen/Qwen3-4B-Thinking-2507}" "$@"
