#!/bin/sh
# Checks this machine's GPUs, then times them. Needs an NVIDIA driver, cuBLASLt and, for several
# GPUs, NCCL (`./minisgl doctor` says what is missing and where it comes from); no Rust, no CUDA
# toolkit, no network.
#
#   ./check-gpu.sh               all checks, then all timings
#   ./check-gpu.sh --sanitize    also the kernels under compute-sanitizer, which takes long
#   ./check-gpu.sh --no-timings  the checks alone
#
# Writes the table that it ends with, and all output, to the folder log. Fails if a check fails, or
# if a timing does for another reason than that this GPU lacks the kernels or the memory for it.
set -u
cd "$(dirname "$0")" || exit 1

sanitize=no timings=yes
for option in "$@"; do
    case "$option" in
        --sanitize) sanitize=yes ;;
        --no-timings) timings=no ;;
        *) echo "unknown option $option: use --sanitize or --no-timings" >&2; exit 2 ;;
    esac
done

# The library beside the program, and no other.
MINISGL_KERNELS="$PWD/kernels/libminisgl_kernels.so"
MINISGL_GOLDEN="$PWD/checks/golden"
export MINISGL_KERNELS MINISGL_GOLDEN
rm -rf log
mkdir log || exit 1
table=log/table.txt
failures=0

# row WHAT RESULT SECONDS
row() {
    printf '%-44s  %-34s  %5s s\n' "$1" "$2" "$3" | tee -a "$table"
}

# run NAME COMMAND...: the command with its output in log/NAME.txt. Leaves `seconds` and `status`.
run() {
    log="log/$1.txt"
    shift
    echo "$*" >"$log"
    begun=$(date +%s)
    "$@" >>"$log" 2>&1 </dev/null
    status=$?
    seconds=$(($(date +%s) - begun))
}

# failed WHAT: what the log ends with, and one failure more.
failed() {
    row "$1" "FAILED: see $log" "$seconds"
    tail -n 20 "$log"
    failures=$((failures + 1))
}

# check NAME WHAT COMMAND...: a suite of tests, which must have run some.
check() {
    name=$1 what=$2
    shift 2
    run "$name" "$@"
    passed=$(sed -n 's/^test result: ok\. \([0-9][0-9]*\) passed.*/\1/p' "$log" | tail -n 1)
    if [ "$status" -eq 0 ] && [ "${passed:-0}" -gt 0 ]; then
        row "$what" "$passed tests passed" "$seconds"
    else
        failed "$what"
    fi
}

# failed_or_lacking WHAT: a timing that failed, unless this GPU lacks the kernels or the memory for it.
failed_or_lacking() {
    if grep -q -e '^minisgl: --attn ' "$log"; then
        row "$1" "this GPU has no such kernels" "$seconds"
    elif grep -q -e '^minisgl: not enough memory on ' "$log"; then
        row "$1" "this GPU has too little memory" "$seconds"
    else
        failed "$1"
    fi
}

# bench NAME WHAT FLAGS...: the best of the rounds of each workload.
bench() {
    name=$1 what=$2
    shift 2
    run "$name" ./minisgl bench offline --dummy-weight --page-size 16 --max-prefill-length 16384 "$@"
    if [ "$status" -ne 0 ]; then
        failed_or_lacking "$what"
        return
    fi
    for workload in offline 'one sequence'; do
        best=$(awk -v workload="$workload" '
            /^[^ ].*: [0-9]+ sequences,/ { here = index($0, workload ":") == 1 }
            here && /^  round / {
                for (at = 2; at <= NF; at++) {
                    if ($at ~ /^tok\/s/ && $(at - 1) + 0 > speed) {
                        speed = $(at - 1) + 0; share = $(at + 1)
                    }
                }
            }
            END { if (speed) printf "%d tok/s, %d %% of the floor", speed, share }' "$log")
        if [ -z "$best" ]; then
            failed "$what, $workload"
        else
            row "$what, $workload" "$best" "$seconds"
        fi
    done
}

echo "== this machine" | tee "$table"
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv,noheader |
        tee -a "$table"
fi
./minisgl --version | tee -a "$table"
./minisgl doctor | tee -a "$table"
# As the program sees them: CUDA_VISIBLE_DEVICES counts.
gpus=$(./minisgl doctor | grep -c '^ok  GPU [0-9]')
if [ "$gpus" -eq 0 ]; then
    echo "there is no GPU that minisgl can use" | tee -a "$table" >&2
    exit 1
fi

echo "== checks, on $gpus GPU(s)" | tee -a "$table"
kernels=checks/minisgl-kernels model=checks/minisgl-model
check kernels "kernels: conformance, CPU and GPU" env MINISGL_TEST_CUDA=1 "$kernels"
check comm "ranks on CPUs" checks/minisgl-comm
for count in 1 2 4 8; do
    if [ "$count" -le "$gpus" ]; then
        check "model-$count" "model: golden and CPU against GPU, to tp $count" \
            env MINISGL_TEST_CUDA="$count" "$model" --test-threads=1 golden:: gpu:: penalties:: quantized:: sampling::
    fi
done
# Two processes as nodes, each with its own GPU; or with one GPU in common, which NCCL takes from 2.30.
nccl=$(./minisgl doctor | sed -n 's/^ok  NCCL  *2\.\([0-9]*\)\..*/\1/p')
if [ "$gpus" -ge 2 ]; then
    check nodes "nodes with a GPU each, through NCCL" \
        env MINISGL_TEST_CUDA=2 "$model" --test-threads=1 gpu_nodes::
elif [ "${nccl:-0}" -ge 30 ]; then
    check nodes "nodes that share a GPU, through NCCL" \
        env MINISGL_TEST_CUDA=1 "$model" --test-threads=1 gpu_nodes::
else
    row "nodes with a GPU each, through NCCL" "not run: two GPUs, or NCCL 2.30" 0
fi
check faults "ranks that break, on GPUs of their own and shared" \
    env MINISGL_TEST_CUDA="$gpus" checks/minisgl-model-faults --test-threads=1 group::
if [ "$sanitize" = yes ]; then
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck; do
            check "$tool" "kernels: compute-sanitizer $tool" env MINISGL_TEST_CUDA=1 \
                compute-sanitizer --tool "$tool" --error-exitcode 1 "$kernels" --test-threads=1
        done
    else
        run sanitize echo "compute-sanitizer is not on the path: it comes with the CUDA toolkit"
        failed "kernels: compute-sanitizer"
    fi
fi

if [ "$timings" = yes ]; then
    echo "== timings: 256 sequences at once; one sequence" | tee -a "$table"
    for model in Qwen3-0.6B Qwen3-14B; do
        for count in 1 2 4 8; do
            if [ "$count" -le "$gpus" ]; then
                bench "$model-tp$count" "$model, tp $count" --model "Qwen/$model" --tp "$count"
            fi
        done
    done
    for attention in fi native fa,fi fa,native; do
        bench "attn-$attention" "Qwen3-0.6B, --attn $attention" \
            --model Qwen/Qwen3-0.6B --rounds 1 --attn "$attention"
    done
    run bench-kernels ./minisgl bench kernels --device cuda
    if [ "$status" -eq 0 ]; then
        row "single operations" "below" "$seconds"
        # All but the command.
        sed 1d "$log" | tee -a "$table"
    else
        failed_or_lacking "single operations"
    fi
fi

echo "== $failures failure(s); everything is in $PWD/log" | tee -a "$table"
[ "$failures" -eq 0 ]
