#!/usr/bin/env bash
# Checks with a trial of Jittor, then speed, on a machine with one NVIDIA GPU, in the repository's
# root:
#
#   OUT=FOLDER BUDGET=400 bash benchmarks/gpu/run.sh          a rehearsal on a CPU: CPU=--cpu
#
# BUDGET: seconds after which no new piece begins. With .whl (wheels.sh) it needs no internet: it
# makes an environment in $ENV over the machine's own packages. Jittor runs if its wheel is there.
set -u
export BENCH_BEGAN=$(date +%s) PYTHONUNBUFFERED=1 OUT=${OUT:-out}
BUDGET=${BUDGET:-400} ENV=${ENV:-/tmp/gpu-env} CPU=${CPU:-}
HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$OUT"
said() { echo "[$(($(date +%s) - BENCH_BEGAN)) s] $*"; }

nvidia-smi > "$OUT/machine.txt" 2>&1
(lscpu | grep 'Model name'; nvcc --version; g++ --version; ldd --version) >> "$OUT/machine.txt" 2>&1
PYTHON=python3
if ls .whl/*.whl > /dev/null 2>&1; then
    python3 -m venv --without-pip "$ENV"
    python3 -c "import site; print(site.getsitepackages()[0])" \
        > "$("$ENV/bin/python" -c "import site; print(site.getsitepackages()[0])")/base.pth"
    python3 -m pip --python "$ENV/bin/python" install -q --no-index --no-deps --no-compile .whl/*.whl \
        2>&1 | tail -3
    PYTHON=$ENV/bin/python
fi
export PYTHON PYTHONPATH=$PWD/src:$PWD TORCHINDUCTOR_CACHE_DIR=/tmp/inductor TRITON_CACHE_DIR=/tmp/triton
bench() { "$PYTHON" -m benchmarks.gpu --out "$OUT" --budget "$BUDGET" $CPU "$@"; }
said environment

# 1. Checks; meanwhile Jittor is tried and compilers fill their caches. Only draws are timed here.
jobs=()
if [ -z "$CPU" ]; then
    if ls .whl/jittor-*.whl > /dev/null 2>&1; then
        timeout "${JITTOR:-230}" bash "$HERE/jittor.sh" > "$OUT/jittor.txt" 2>&1 & jobs+=($!)
    fi
    for name in '^train, bf16, compiled$' '^train, bf16, channels last, compiled' \
        '^train, diffusers, bf16, compiled' '^call, bf16, cast.*compiled' \
        '^call, diffusers, bf16.*compiled'; do
        bench --warm --only "$name" >> "$OUT/warm.txt" 2>&1 & jobs+=($!)
    done
fi
"$PYTHON" -m benchmarks.gpu --out "$OUT/resumed" $CPU --only '^resumed' & jobs+=($!)
bench --only '^(bits|same)' || bench --only '^(bits|same)'
[ ${#jobs[@]} -gt 0 ] && wait "${jobs[@]}"
said checks
tail -25 "$OUT/jittor.txt" 2> /dev/null

# 2. Speed, in order of worth; a piece that breaks the device is noted and passed over.
for again in 1 2 3 4 5; do
    bench --only '^(?!resumed)'
    [ $? -eq 3 ] || break
done
said speed
