#!/usr/bin/env bash
# What a machine with PyTorch but without internet lacks, into .whl: 9 MB. With --jittor also what
# Jittor needs, into .whl/jittor: 20 MB more, for it takes an older NumPy than other packages there.
# That machine: Python 3.12 on x86-64 with torch, triton, scipy, matplotlib, safetensors, tensorboard.
set -euo pipefail
mkdir -p .whl/jittor
to=.whl
get() {
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$to" "$@"
}
get pydantic==2.14.3 pydantic_core==2.50.4 annotated-types typing-inspection \
    typing-extensions diffusers==0.42.1 importlib-metadata platformdirs pooch
[ "${1:-}" = --jittor ] || exit 0
to=.whl/jittor
get numpy==1.26.4 astunparse six
python3 -m pip wheel -q --no-deps -w .whl/jittor jittor==1.3.11.0
# cuDNN 9 lost the calls that Jittor's recurrent layers make; nothing here uses those.
python3 - <<'P'
import glob, zipfile
(path,) = glob.glob(".whl/jittor/jittor-*.whl")
with zipfile.ZipFile(path) as old:
    kept = {i.filename: old.read(i) for i in old.infolist() if "cudnn_rnn" not in i.filename}
with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
    for name, data in kept.items():
        new.writestr(name, data)
P
