#!/usr/bin/env bash
# The paper in miniature on two CPU cores (docs/miniature.md): problems, teacher, cold start, reinforcement learning,
# evaluation. Run it again to resume: finished steps are skipped. QUICK=1 uses one seed, fewer problems and no ablations.
# To copy the result into the package: python -m recipes.miniature.ship $OUT/sft/final $OUT/task/test.jsonl
set -euo pipefail
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
QUICK=${QUICK:-}
OUT=${OUT:-runs/miniature${QUICK:+_quick}}
size() { [ -n "${!1:-}" ] || printf -v "$1" %s "$([ -n "$QUICK" ] && echo "$3" || echo "$2")"; } # size NAME FULL QUICK
size SEEDS '0 1 2' 0
size TRAIN 1500 700        # problems of the teacher's runs
size SPREAD 800 400        # problems of the teacher that guesses uniformly
size EASY 1500 700         # problems with two blocks
size OTHER 400 200         # problems that the teacher solves with each baseline
size TEST 100 50           # problems of the comparisons
size CHECK_STEPS 5000 3000 # updates of the four stages of the cold start
size EASY_STEPS 4000 2500
size SFT_STEPS 8000 5000
size REPLY_STEPS 16000 4000
size STEPS 30 10           # updates of the reinforcement learning
size OWN 150 60            # training problems that the policy solves, for rows that train the verifier
size VERIFICATIONS 300 100 # such rows
FORMS=${FORMS-vanilla hybrid} # of the reward; the others are hybrid_additive and hybrid_verification
BASELINES="majority_vote best_of_n self_refine verify_refine pacore rse"
BUDGETS=2500,5000,10000,20000 # tokens per problem, including prompts
ERROR_RATES=${ERROR_RATES-$([ -n "$QUICK" ] || echo 0 0.1 0.2)}
ABLATIONS=$([ -n "$QUICK" ] || echo tmas_no_experience tmas_no_guidelines tmas_epsilon0 tmas_epsilon50 tmas_n2 tmas_m2)
mkdir -p "$OUT/rl"
KNOBS="TRAIN=$TRAIN SPREAD=$SPREAD EASY=$EASY OTHER=$OTHER TEST=$TEST STEPS=$STEPS SFT_STEPS=$SFT_STEPS CHECK_STEPS=$CHECK_STEPS EASY_STEPS=$EASY_STEPS REPLY_STEPS=$REPLY_STEPS OWN=$OWN VERIFICATIONS=$VERIFICATIONS"
# Older versions did not record the last knobs: a file with only the first ones is accepted and completed.
[ ! -e "$OUT/knobs" ] || [[ "$KNOBS " = "$(cat "$OUT/knobs") "* ]] || { echo "$OUT was started with $(cat "$OUT/knobs"), not $KNOBS: set OUT to another folder" >&2; exit 2; }
echo "$KNOBS" > "$OUT/knobs"

step() { echo "== $(date +%T) $*"; echo "$(date +%s) ${1%%.*}" >> "$OUT/times"; }
minutes() { # of each step, over all starts of the script
    awk 'step {spent[step] += $1 - since} {since = $1; step = $2 == "stop" ? "" : $2}
        END {for (s = 1; s <= 8; s++) printf "step %d: %.0f minutes\n", s, spent[s] / 60}' "$OUT/times"
}
# Runs each command in the background and waits for it, so that SIGTERM and Ctrl-C stop it together with this script.
run() { "$@" & wait $!; }
tmas() { run command tmas "$@"; }
python() { run command python "$@"; }
each() { # each FUNCTION NAME ...: calls the function with each name. Two processes share the names, because most commands keep one core busy.
    local at lane lanes=() failed=0
    for lane in 0 1; do
        (
            trap 'kill $(jobs -p) 2> /dev/null || true; wait; exit 143' TERM
            for ((at = 2 + lane; at <= $#; at += 2)); do "$1" "${!at}"; done
        ) &
        lanes+=($!)
    done
    for lane in "${lanes[@]}"; do wait "$lane" || failed=$?; done
    return "$failed"
}
rules() { # rules NAME [--spread 1]: serves the teacher and the judge; writes the URL to the file NAME
    rm -f "$OUT/$1"
    command python -m recipes.miniature.server --ready "$OUT/$1" "${@:2}" > "$OUT/$1.log" &
    until [ -s "$OUT/$1" ]; do kill -0 $!; sleep 0.2; done
}
trap 'trap - EXIT; echo "$(date +%s) stop" >> "$OUT/times"; kill $(jobs -p) 2> /dev/null || true; wait' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

step "1. problems"
[ -e "$OUT/task/test.jsonl" ] || python -m recipes.miniature.prepare "$OUT/task" --train "$TRAIN" --validation 40 --test "$TEST"
[ -e "$OUT/easy/train.jsonl" ] || python -m recipes.miniature.prepare "$OUT/easy" --blocks 2 --train "$EASY" --validation 0 --test 0

step "2. teacher"
rules teacher
rules spread_teacher --spread 1
ASK="experiment=miniature model.tokenizer=estimate model.context_length=32768"
distill() { # distill TEACHER PROBLEMS OUT [settings]
    # shellcheck disable=SC2086
    [ -e "$OUT/$3/metrics.json" ] || tmas distill model=endpoint $ASK model.base_url="$(cat "$OUT/$1")" problems="$OUT/$2/train.jsonl" output_dir="$OUT/$3" \
        limits.tokens_per_run=null method.n_candidates=4 method.n_verifications=1 method.max_iterations=8 method.epsilon=0.3 \
        method.agents.max_new_items=16 "${@:4}"
}
distill teacher task teacher_tmas
distill spread_teacher task teacher_spread max_problems="$SPREAD" seed=1
distill spread_teacher easy teacher_easy method.n_candidates=2 method.max_iterations=4
for method in rse verify_refine self_refine pacore; do
    sizes=(method.n_candidates=4 method.max_iterations=8)
    [ "$method" != verify_refine ] || sizes+=(method.n_verifications=1 method.n_best=4)
    [ "$method" != pacore ] || sizes=("method.widths=[4]" method.max_iterations=4)
    # shellcheck disable=SC2086
    [ -e "$OUT/teacher_$method/metrics.json" ] || tmas solve $ASK method=$method model.base_url="$(cat "$OUT/teacher")" problems="$OUT/task/train.jsonl" \
        max_problems="$OTHER" output_dir="$OUT/teacher_$method" "${sizes[@]}"
done

step "3. rows, chats and an untrained policy"
RUNS="$OUT/teacher_rse,$OUT/teacher_verify_refine,$OUT/teacher_self_refine,$OUT/teacher_pacore"
[ -e "$OUT/untrained/config.json" ] || python -m recipes.miniature.policy "$OUT/untrained" \
    "$OUT"/teacher_{tmas,spread,easy,rse,verify_refine,self_refine,pacore}
build() { # build RUN PROBLEMS OUT ROWS PER_ROLE [settings]
    [ -e "$OUT/$3/report.json" ] || tmas build problems="$OUT/$2/train.jsonl" run="$OUT/$1" output_dir="$OUT/$3" earlier=[] \
        tokenizer="$OUT/untrained" max_prompt_tokens=768 "rows=$4" "sft.per_role=$5" sft.keep=readable sft.max_tokens=640 "${@:6}"
}
chats() { # chats NAME: one set of rows and chats
    case $1 in
        rows) build teacher_tmas task rows '{normal: 550, experience: 400, guideline: 150}' \
            '{initial: 2, exploit: 10, explore: 6, verification: 8, summary: 4, experience: 8, guideline: 3, feedback: 12, distill: 12}' \
            "chat_runs=[$RUNS]" validation_share=0.03 ;;
        rows_spread) build teacher_spread task rows_spread "$NONE" \
            '{exploit: 10, verification: 10, summary: 3, experience: 8, guideline: 3}' validation_share=0.03 ;;
        more) build teacher_tmas task more "$NONE" \
            '{initial: 1, exploit: 6, explore: 12, verification: 2, summary: 3, experience: 5, guideline: 1, feedback: 3, distill: 3}' \
            "chat_runs=[$RUNS]" validation_share=0.03 seed=1 ;;
        more_spread) build teacher_spread task more_spread "$NONE" \
            '{exploit: 4, explore: 12, verification: 2, summary: 1, experience: 3}' validation_share=0.03 seed=1 ;;
        rows_easy) build teacher_easy easy rows_easy "$NONE" \
            '{initial: 1, exploit: 6, explore: 2, verification: 4, summary: 4, experience: 4, guideline: 2}' validation_share=0 ;;
        exploits) build teacher_tmas task exploits "$NONE" '{exploit: 20}' validation_share=0.03 seed=2 ;;
        exploits_spread) build teacher_spread task exploits_spread "$NONE" '{exploit: 20}' validation_share=0.03 seed=2 ;;
        checks) build teacher_spread task checks "$NONE" '{verification: 32}' validation_share=0.03 ;;
        checks_easy) build teacher_easy easy checks_easy "$NONE" '{verification: 4}' validation_share=0 ;;
    esac
}
NONE='{normal: 0, experience: 0, guideline: 0}'
each chats rows more rows_spread more_spread rows_easy exploits checks exploits_spread checks_easy

step "4. cold start: verification; all roles on two blocks and two candidates; all roles at full size; all roles again, with loss on the replies alone"
sft() { # sft MODEL OUT FILES MAX_LENGTH BATCH_SIZE MAX_STEPS [settings]
    [ -e "$OUT/$2/final" ] || python -m torch.distributed.run --standalone --nproc_per_node=2 -m tmas.cli sft device=cpu deepspeed=null \
        model.path="$1" model.attn_implementation=eager train_files="$3" output_dir="$OUT/$2" on_bad_row=skip \
        packing=true max_length="$4" batch_size="$5" micro_batch_size=$(($5 / 2)) max_steps="$6" loss_on=all epochs=1 \
        gradient_checkpointing=false loss_chunk=null optimizer=muon muon_learning_rate=0.02 learning_rate=0.01 "adam_betas=[0.9,0.95]" \
        max_grad_norm=null schedule=warmup_stable_decay warmup=20 decay=0.6 save_steps=2000 "${@:7}" > "$OUT/$2.log"
}
sft "$OUT/untrained" sft_checks "[$OUT/checks/sft_train.parquet,$OUT/checks_easy/sft_train.parquet]" 128 6 "$CHECK_STEPS"
sft "$OUT/sft_checks/final" sft_easy "[$OUT/rows_easy/sft_train.parquet]" 288 4 "$EASY_STEPS"
sft "$OUT/sft_easy/final" sft_all "[$OUT/rows/sft_train.parquet,$OUT/rows_spread/sft_train.parquet]" 640 2 "$SFT_STEPS"
train_files=$OUT/checks/sft_train.parquet
for rows in exploits exploits_spread rows rows_spread more more_spread; do train_files+=,$OUT/$rows/sft_train.parquet; done
sft "$OUT/sft_all/final" sft "[$train_files]" 640 2 "$REPLY_STEPS" loss_on=assistant muon_learning_rate=0.01 learning_rate=0.005 decay=0.95 seed=3

step "5. gates"
solve() { # solve POLICY NAME OUT PROBLEMS LOG METHOD-SEED ...: starts a server only if a run is unfinished
    local name unfinished=()
    for name in "${@:6}"; do [ -e "$3/$name/metrics.json" ] || unfinished+=("$name"); done
    [ ${#unfinished[@]} = 0 ] || python -m recipes.miniature.serving "$1" "$2" "$OUT/$5.log" recipes/miniature/solve.sh "$OUT/untrained" "$3" "$OUT/task/$4.jsonl" "${unfinished[@]}"
}
solve "$OUT/sft/final" sft "$OUT/gates" validation vllm tmas-0
python -m recipes.miniature.gates "$OUT/gates/tmas-0" "$OUT/gates.json" | tee "$OUT/gates.txt"

step "6. TMAS, baselines and ablations on the test problems"
runs=()
for seed in $SEEDS; do
    for method in tmas $BASELINES; do runs+=("$method-$seed"); done
done
for method in $ABLATIONS; do runs+=("$method-0"); done
half() { # half 0 or 1: every second run, with a server of its own
    local at name names=()
    for ((at = $1; at < ${#runs[@]}; at += 2)); do names+=("${runs[at]}"); done
    solve "$OUT/sft/final" sft "$OUT/test" test "vllm-$1" "${names[@]}"
}
each half 0 1
compare() { # compare NAME RUN ...: compares all runs with the group of the first run
    local IFS=,
    tmas evaluate "runs=[${*:2}]" "budgets=[$BUDGETS]" details=true output="$OUT/$1.json"
    tmas report "runs=[${*:2}]" output="$OUT/$1.html"
}
compare evaluation "${runs[@]/#/$OUT/test/}"

step "7. the experience bank where verifiers err: the rules play all roles"
errs=()
for rate in $ERROR_RATES; do
    rules "errs_$rate" --error-rate "$rate"
    MODEL_URL=$(cat "$OUT/errs_$rate") MODEL_NAME=errs-$rate recipes/miniature/solve.sh "$OUT/untrained" "$OUT/errs/$rate" \
        "$OUT/task/test.jsonl" tmas-0 tmas_no_experience-0
    errs+=("$OUT/errs/$rate/tmas-0" "$OUT/errs/$rate/tmas_no_experience-0")
done
[ -z "$ERROR_RATES" ] || compare errs "${errs[@]}"

step "8. reinforcement learning: forms of the reward, and rows that train the verifier"
if [[ $FORMS = *verification* ]]; then
    # The verifier reads the policy's own candidates. Those of the teacher that guesses uniformly add the rare rules.
    [ -e "$OUT/task/own.jsonl" ] || head -n "$OWN" "$OUT/task/train.jsonl" > "$OUT/task/own.jsonl"
    solve "$OUT/sft/final" sft "$OUT/own" own vllm tmas-0
    build teacher_tmas task rows_verification "{normal: 0, experience: 0, guideline: 0, verification: $VERIFICATIONS}" 0 validation_share=0.03 \
        problems="$OUT/task/own.jsonl" "verification.runs=[$OUT/own/tmas-0,$OUT/teacher_spread]"
fi
REWARD=reward.custom_reward_function.reward_kwargs.settings
trained=()
for form in $FORMS; do
    for seed in $SEEDS; do trained+=("$form-$seed"); done
done
train() { # train FORM-SEED
    local form=${1%-*} seed=${1##*-} run=$OUT/rl/$1 files=$OUT/rows/train.parquet
    local given=(reward=hybrid judge.name=rules judge.base_url="$(cat "$OUT/teacher")" judge.structured_outputs=false)
    case $form in
        vanilla) given=(reward=vanilla) ;;
        hybrid) ;; # the decoupled advantage
        hybrid_additive) given+=("$REWARD.advantage.form=additive") ;;
        hybrid_verification) given+=("$REWARD.verification.form=judge") files+=,$OUT/rows_verification/train.parquet ;;
        *) echo "FORMS: there is no form $form" >&2 && exit 2 ;;
    esac
    [ -e "$run/policy/config.json" ] || {
        tmas train experiment=miniature_grpo output_dir="$run" data.seed="$seed" "${given[@]}" \
            data.train_files="[$files]" data.val_files="$OUT/rows/validation.parquet" \
            policy.path="$OUT/sft/final" trainer.total_training_steps="$STEPS" > "$run.log" 2>&1
        tmas export checkpoint="$run" output_dir="$run/policy"
    }
}
solve_test() { solve "$OUT/rl/$1/policy" "${1%-*}" "$OUT/test/$1" test "vllm-$1" "tmas-${1##*-}"; } # solve_test FORM-SEED
for name in "${trained[@]}"; do train "$name"; done # one at a time: each takes 11 GB of memory
each solve_test "${trained[@]}"
before=()
for seed in $SEEDS; do before+=("$OUT/test/tmas-$seed"); done
after=()
for name in "${trained[@]}"; do after+=("$OUT/test/$name/tmas-${name##*-}"); done
compare trained "${after[@]}" "${before[@]}"
step "done: $OUT/gates.json, $OUT/{evaluation,errs,trained}.{json,html}; gates that were missed:"
grep MISSED "$OUT/gates.txt" || echo none
minutes
