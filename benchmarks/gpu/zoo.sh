#!/usr/bin/env bash
# The zoo's models on a machine with one NVIDIA GPU, without internet and for minutes only: each is
# trained, put into the zoo, drawn and scored by a process of its own, beside a trial of Jittor
# (trained only) and the compilers that `benchmarks.gpu` needs. Where hours are at hand, `make study`
# does it in order.
#
#   bash benchmarks/gpu/wheels.sh --jittor             with internet: .whl; and data into .gpu (below)
#   bash benchmarks/gpu/zoo.sh begin                   environments and data, then all jobs; returns
#   bash benchmarks/gpu/zoo.sh fashion                 begins the job whose data came later
#   bash benchmarks/gpu/zoo.sh look [SECONDS [WORD]]   how far they are, after SECONDS or a WORD said
#   bash benchmarks/gpu/zoo.sh bring [FOLDER]          what is worth keeping, as few archives
#
# .gpu holds mnist/, perhaps fashion-mnist/ and emoji32*.npz (python -m tools.emoji). Jobs run in
# sessions of their own, in copies below /tmp, so that they outlive the call that began them.
#
# At home: zoo.tgz and emoji.tgz into src/diptych/weights; records.tgz holds images/NAME/*.json for
# the folder of docs/quality.py, scores/ for docs/scores.py write, and five-NAME.json for
# docs/zoo.py --steps; mnist-jittor.tgz is a run for docs/zoo.py.
set -u
PLACE=${PLACE:-/tmp/zoo} O=${O:-${PLACE:-/tmp/zoo}/out} DEVICE=${DEVICE:-cuda} NUM=${NUM:-10000}
export PYTHONUNBUFFERED=1 DIPTYCH_DATA=$PLACE/data PYTHONPATH=$PLACE/repo/src:$PLACE/repo
export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor TRITON_CACHE_DIR=/tmp/triton
PY=${PY:-$PLACE/env/bin/python}
said() { echo "[$(($(date +%s) - $(cat "$PLACE/began"))) s] $*" | tee -a "$O/said.txt"; }
d() { "$PY" -m diptych "$@"; }
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
job() { # NAME WORDS ...: in a session of its own
    setsid nohup bash "$PLACE/repo/benchmarks/gpu/zoo.sh" "${@:2}" \
        > "$O/job-$1.log" 2>&1 < /dev/null &
}
train() { # NAME PRESET WORDS ...: trained, in the zoo, drawn and scored
    d train "$2" --out "$O/runs/$1" --device "$DEVICE" --backend torch --quiet \
        --resume ${STEPS:+--steps "$STEPS"} "${@:3}" || { said "failed: $1"; exit 1; }
    said "trained $1"
    guided=; [ "$1" != emoji ] || guided="--guidance 2"
    "$PY" docs/zoo.py "$O/runs/$1" "$1" $guided || exit 1
    said "zoo $1"
    "$PY" - "$1" "$O/images/$1" "$NUM" <<'P' && said "images $1"
import os
import sys
from pathlib import Path

sys.path.insert(0, "docs")
import quality

name, folder, num = sys.argv[1:]
source = {"mnist": "mnist", "fashion": "fashion_mnist"}.get(name.split("-")[0], "emoji")
emoji = Path(os.environ["DIPTYCH_DATA"]) / "emoji32.npz"
count = quality.count(source, int(num))
print(name, quality.drawn(Path(folder), name, source, count, [], emoji))
P
}
five() { d search-steps "zoo:$1" --calls 5 --out "$O/five-$1.json" --quiet && said "five $1"; }

[ "${1:-}" = begin ] || cd "$PLACE/repo" || exit 1
mkdir -p "$O/runs" "$O/images"
case $1 in
begin)
    [ ! -e "$PLACE/began" ] || { echo "$PLACE: was begun; remove it, or give another PLACE"; exit 1; }
    date +%s > "$PLACE/began"
    mkdir -p "$PLACE/data" "$PLACE/repo"
    cp -r .gpu/. "$PLACE/data/" || exit 1
    cp -r src docs benchmarks tools pyproject.toml "$PLACE/repo/" || exit 1
    mkdir -p "$PLACE/repo/src/diptych/weights/zoo"
    environment "$PLACE/env" .whl/*.whl &
    jittor=$(ls .whl/jittor/*.whl 2> /dev/null)
    [ -z "$jittor" ] || environment "$PLACE/env-jittor" .whl/*.whl .whl/jittor/*.whl
    wait
    said environments
    job mnist-torch train-torch
    job mnist-conditional train mnist-conditional mnist_conditional
    [ -d .gpu/fashion-mnist ] && job fashion-mnist train fashion-mnist fashion_mnist
    [ -f .gpu/emoji32.npz ] && job emoji train emoji tools/emoji.yaml \
        --data-source "npz:$PLACE/data/emoji32.npz"
    [ -z "$jittor" ] || job jittor jittor
    job warm warm
    sleep 10
    tail -n 3 "$O"/job-*.log ;;
train) train "${@:2}"; case $2 in *mnist*) five "$2" ;; esac ;;
fashion)
    cp -r "$OLDPWD/.gpu/fashion-mnist" "$PLACE/data/" || exit 1
    job fashion-mnist train fashion-mnist fashion_mnist ;;
train-torch)
    train mnist-torch mnist
    ("$PY" docs/scores.py zoo "$O/scores" --panel torch --sampler ddim && said "ddim, 10,000") &
    ("$PY" docs/scores.py zoo "$O/scores" --panel torch --sampler ddpm --num 3000 && said ddpm) &
    ("$PY" docs/scores.py solvers "$O/scores" && said solvers) &
    five mnist-torch &
    wait ;;
warm)
    for name in '^train, bf16, compiled$' '^train, bf16, channels last, compiled' \
        '^train, as it is, keyed, bf16, compile$' '^train, diffusers, bf16, compiled' \
        '^train, diffusers, bf16, channels last, compiled' '^call, bf16, cast, compiled' \
        '^call, bf16, cast, channels last, compiled' '^call, diffusers, bf16, compiled' \
        '^call, diffusers, bf16, channels last, compiled'; do
        nice -n 10 "$PY" -m benchmarks.gpu --out "$O" --budget 1000 --warm --only "$name" &
    done
    wait
    said warmed ;;
jittor) # its core; a step under a debugger, then with one compiler at a time; then the training
    trap 'said "jittor ended: $?"' EXIT
    export PYTHON=$PLACE/env-jittor/bin/python
    . benchmarks/gpu/jittor.sh
    said "jittor's core"
    step() { "${@:2}" "$PYTHON" -m diptych train mnist --backend jittor --device "$DEVICE" \
        --out "$O/runs/$1" --steps 3 --overwrite --quiet; }
    step jittor-traced timeout 120 cuda-gdb -batch -ex 'handle SIGCHLD nostop noprint pass' \
        -ex run -ex bt -ex 'thread apply all bt 25' --args > "$O/jittor-traced.txt" 2>&1
    said "jittor, traced"
    use_parallel_op_compiler=0 step jittor-serial timeout 500 > "$O/jittor-serial.txt" 2>&1 ||
        { tail -c 2000 "$O/jittor-serial.txt"; exit 1; }
    said "jittor's step"
    use_parallel_op_compiler=0 "$PYTHON" -m diptych train mnist --backend jittor \
        --device "$DEVICE" --out "$O/runs/mnist-jittor" --quiet && said "trained mnist-jittor" ;;
look)
    end=$(($(date +%s) + ${2:-0}))
    while [ "$(date +%s)" -lt "$end" ] && ! grep -qs "${3:-^never$}" "$O/said.txt"; do sleep 1; done
    cat "$O/said.txt"
    for log in "$O"/job-*.log; do echo "== $log"; tail -n 3 "$log" | tail -c 1000; done
    wc -l "$O"/runs/*/metrics.jsonl
    nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader
    uptime ;;
bring)
    to=${2:-${OUT:-out}}
    case $to in /*) ;; *) to=$OLDPWD/$to ;; esac
    mkdir -p "$to"
    tar czf "$to/zoo.tgz" --exclude=emoji -C src/diptych/weights zoo
    [ -d src/diptych/weights/zoo/emoji ] && tar czf "$to/emoji.tgz" -C src/diptych/weights zoo/emoji
    tar czf "$to/records.tgz" -C "$O" --exclude='*.png' --exclude='*.npz' --exclude=checkpoints \
        --exclude='*.safetensors' .
    tar czf "$to/pictures.tgz" docs/figures
    for run in "$O"/runs/mnist-jittor; do # with its checkpoints; of PyTorch's the zoo has the EMA
        [ -d "$run" ] && tar czf "$to/$(basename "$run").tgz" -C "$O/runs" \
            --exclude='adam_*' "$(basename "$run")"
    done
    nvidia-smi > "$to/machine.txt"
    ls -la "$to" ;;
esac
