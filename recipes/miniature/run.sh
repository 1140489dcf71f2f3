#!/usr/bin/env bash
# The paper in miniature on two CPU cores (docs/miniature.md): problems, teacher, cold start, reinforcement learning,
# evaluation. Run it again to resume: no finished step is repeated. QUICK=1 takes one seed, fewer problems, no ablations.
set -euo pipefail
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
OUT=${OUT:-runs/miniature}
QUICK=${QUICK:-}
SEEDS=${SEEDS:-$([ -n "$QUICK" ] && echo 0 || echo 0 1 2)}
TRAIN=${TRAIN:-1500} SPREAD=${SPREAD:-800} EASY=${EASY:-400} OTHER=${OTHER:-400} TEST=${TEST:-$([ -n "$QUICK" ] && echo 50 || echo 100)}
STEPS=${STEPS:-$([ -n "$QUICK" ] && echo 10 || echo 30)}
BASELINES="majority_vote best_of_n self_refine verify_refine pacore rse"
ABLATIONS=$([ -n "$QUICK" ] || echo tmas_no_experience tmas_no_guidelines tmas_epsilon0 tmas_epsilon50 tmas_n2 tmas_n8 tmas_m2)
mkdir -p "$OUT"

step() { echo "== $(date +%T) $*"; }
rules() { # rules NAME [--spread 1]: the teacher and judge behind a server; its URL goes to the file NAME
    rm -f "$OUT/$1"
    python -m recipes.miniature.server --ready "$OUT/$1" "${@:2}" > "$OUT/$1.log" &
    SERVERS+=($!)
    until [ -s "$OUT/$1" ]; do kill -0 $!; sleep 0.2; done
}
SERVERS=()
trap 'kill "${SERVERS[@]}" 2> /dev/null || true' EXIT

step "1. problems"
[ -e "$OUT/task/test.jsonl" ] || python -m recipes.miniature.prepare "$OUT/task" --train "$TRAIN" --validation 40 --test "$TEST"
[ -e "$OUT/easy/train.jsonl" ] || python -m recipes.miniature.prepare "$OUT/easy" --blocks 2 --train "$EASY" --validation 0 --test 0

step "2. teacher"
rules teacher
rules spread_teacher --spread 1
ASK="experiment=miniature model.tokenizer=estimate model.context_length=32768"
distill() { # distill TEACHER PROBLEMS OUT [settings]
    # shellcheck disable=SC2086
    tmas distill model=endpoint $ASK model.base_url="$(cat "$OUT/$1")" problems="$OUT/$2/train.jsonl" output_dir="$OUT/$3" \
        limits.tokens_per_run=null method.n_candidates=4 method.n_verifications=1 method.max_iterations=8 method.epsilon=0.3 \
        method.agents.max_new_items=16 "${@:4}"
}
distill teacher task teacher_tmas
distill spread_teacher task teacher_spread max_problems="$SPREAD" seed=1
distill spread_teacher easy teacher_easy method.max_iterations=4
for method in rse verify_refine self_refine pacore; do
    sizes=(method.n_candidates=4 method.max_iterations=8)
    [ "$method" != verify_refine ] || sizes+=(method.n_verifications=1 method.n_best=4)
    [ "$method" != pacore ] || sizes=("method.widths=[4]" method.max_iterations=4)
    # shellcheck disable=SC2086
    tmas solve $ASK method=$method model.base_url="$(cat "$OUT/teacher")" problems="$OUT/task/train.jsonl" \
        max_problems="$OTHER" output_dir="$OUT/teacher_$method" "${sizes[@]}"
done

step "3. rows, chats and an untrained policy"
RUNS="$OUT/teacher_rse,$OUT/teacher_verify_refine,$OUT/teacher_self_refine,$OUT/teacher_pacore"
[ -e "$OUT/untrained/config.json" ] || python -m recipes.miniature.policy "$OUT/untrained" \
    "$OUT"/teacher_{tmas,spread,easy,rse,verify_refine,self_refine,pacore}
build() { # build RUN PROBLEMS OUT ROWS PER_ROLE [settings]
    [ -e "$OUT/$3/report.json" ] || tmas build problems="$OUT/$2/train.jsonl" run="$OUT/$1" output_dir="$OUT/$3" earlier=[] \
        tokenizer="$OUT/untrained" max_prompt_tokens=640 "rows=$4" "sft.per_role=$5" sft.keep=readable sft.max_tokens=576 "${@:6}"
}
NONE='{normal: 0, experience: 0, guideline: 0}'
build teacher_tmas task rows '{normal: 550, experience: 400, guideline: 150}' \
    '{initial: 2, exploit: 8, explore: 4, verification: 4, summary: 3, experience: 5, guideline: 3, feedback: 6, distill: 4}' \
    "chat_runs=[$RUNS]" validation_share=0.03
build teacher_spread task rows_spread "$NONE" '{exploit: 10, verification: 10, summary: 3, experience: 5, guideline: 3}' validation_share=0
build teacher_easy easy rows_easy "$NONE" '{exploit: 4, verification: 12, summary: 2, experience: 2, guideline: 1}' validation_share=0

step "4. cold start"
[ -e "$OUT/sft/final" ] || python -m torch.distributed.run --standalone --nproc_per_node=2 -m tmas.cli sft device=cpu deepspeed=null \
    model.path="$OUT/untrained" model.attn_implementation=eager output_dir="$OUT/sft" on_bad_row=skip \
    "train_files=[$OUT/rows/sft_train.parquet,$OUT/rows_spread/sft_train.parquet,$OUT/rows_easy/sft_train.parquet]" \
    max_length=576 packing=true loss_on=all batch_size=2 micro_batch_size=1 gradient_checkpointing=false epochs="${EPOCHS:-1}" \
    optimizer=muon muon_learning_rate=0.02 learning_rate=0.01 "adam_betas=[0.9,0.95]" max_grad_norm=null \
    schedule=warmup_stable_decay warmup=20 decay=0.6 save_steps=2000 > "$OUT/sft.log"

step "5. gates"
serving() { python -m recipes.miniature.serving "$1" "$OUT/vllm.log" bash -c "${@:2}"; }
export SOLVE=recipes/miniature/solve.sh OUT
[ -e "$OUT/gates.json" ] || serving "$OUT/sft/final" '$SOLVE $POLICY_URL $OUT/gates $OUT/task/validation.jsonl 0 tmas'
python -m recipes.miniature.gates "$OUT/gates/tmas-0" "$OUT/gates.json"

step "6. reinforcement learning"
for seed in $SEEDS; do
    for reward in vanilla hybrid; do
        judge=()
        [ "$reward" = vanilla ] || judge=(
            "reward.custom_reward_function.reward_kwargs.settings.judge.name=rules"
            "reward.custom_reward_function.reward_kwargs.settings.judge.base_url=$(cat "$OUT/teacher")"
            "reward.custom_reward_function.reward_kwargs.settings.judge.structured_outputs=false")
        run=$OUT/rl/$reward-$seed
        [ -e "$run/policy/config.json" ] || {
            tmas train experiment=miniature_grpo reward=$reward output_dir="$run" data.seed="$seed" "${judge[@]}" \
                data.train_files="$OUT/rows/train.parquet" data.val_files="$OUT/rows/validation.parquet" \
                actor_rollout_ref.model.path="$OUT/sft/final" trainer.total_training_steps="$STEPS" > "$run.log" 2>&1
            tmas export checkpoint="$run" output_dir="$run/policy"
        }
    done
done

step "7. evaluation"
export SEEDS BASELINES ABLATIONS
serving "$OUT/sft/final" '$SOLVE $POLICY_URL $OUT/test $OUT/task/test.jsonl "$SEEDS" tmas $BASELINES
    $SOLVE $POLICY_URL $OUT/test $OUT/task/test.jsonl 0 $ABLATIONS'
for policy in "$OUT"/rl/*/policy; do
    POLICY=$(basename "$(dirname "$policy")") serving "$policy" '$SOLVE $POLICY_URL $OUT/test/$POLICY $OUT/task/test.jsonl 0 tmas'
done
list() { local IFS=,; echo "[$*]"; }
tmas evaluate "runs=$(list "$OUT"/test/*-[0-9] "$OUT"/test/*/tmas-0)" output="$OUT/evaluation.json"
tmas report "runs=$(list "$OUT"/test/*-0)" output="$OUT/report.html"
step "done: $OUT/gates.json, $OUT/evaluation.json, $OUT/report.html"
