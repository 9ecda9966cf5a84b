#!/usr/bin/env bash
# Compilers and a trial of Jittor, then checks, then speed, on a machine with one NVIDIA GPU, in the
# repository's root:
#
#   OUT=FOLDER BUDGET=400 bash benchmarks/gpu/run.sh          a rehearsal on a CPU: CPU=--cpu
#
# BUDGET: seconds after which no new piece begins. With .whl (wheels.sh) it needs no internet: it
# makes an environment in $ENV over the machine's own packages. Jittor runs if .whl/jittor is there.
set -u
export BENCH_BEGAN=$(date +%s) PYTHONUNBUFFERED=1 OUT=${OUT:-out}
BUDGET=${BUDGET:-400} ENV=${ENV:-/tmp/gpu-env} CPU=${CPU:-}
HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$OUT"
said() { echo "[$(($(date +%s) - BENCH_BEGAN)) s] $*"; }

nvidia-smi > "$OUT/machine.txt" 2>&1
(lscpu | grep 'Model name'; nvcc --version; g++ --version; ldd --version) >> "$OUT/machine.txt" 2>&1
PYTHON=python3
. "$HERE/environment.sh"
if ls .whl/*.whl > /dev/null 2>&1; then
    environment "$ENV" .whl/*.whl
    PYTHON=$ENV/bin/python
fi
export PYTHONPATH=$PWD/src:$PWD TORCHINDUCTOR_CACHE_DIR=/tmp/inductor TRITON_CACHE_DIR=/tmp/triton
bench() { "$PYTHON" -m benchmarks.gpu --out "$OUT" --budget "$BUDGET" $CPU "$@"; }
said environment

# 1. Compilers fill their caches, and Jittor is tried: nothing is timed meanwhile.
jobs=()
if [ -z "$CPU" ]; then
    if ls .whl/jittor/*.whl > /dev/null 2>&1; then
        environment "$ENV-jittor" .whl/*.whl .whl/jittor/*.whl
        PYTHON=$ENV-jittor/bin/python timeout "${JITTOR:-230}" bash "$HERE/jittor.sh" \
            > "$OUT/jittor.txt" 2>&1 & jobs+=($!)
    fi
    for name in '^train, bf16, compiled$' '^train, bf16, channels last, compiled' \
        '^train, diffusers, bf16, compiled' '^call, bf16, cast.*compiled' \
        '^call, diffusers, bf16.*compiled'; do
        bench --warm --only "$name" >> "$OUT/warm.txt" 2>&1 & jobs+=($!)
    done
fi
[ ${#jobs[@]} -gt 0 ] && wait "${jobs[@]}"
tail -25 "$OUT/jittor.txt" 2> /dev/null
said compiled

# 2. Checks, then speed in order of worth; a piece that breaks the device is noted and passed over.
for again in 1 2 3 4 5; do
    bench
    [ $? -eq 3 ] || break
done
said "checks and speed"
