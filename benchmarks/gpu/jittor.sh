#!/usr/bin/env bash
# Jittor 1.3.11 on CUDA 13 and cuDNN 9, a trial, called by run.sh: its core is compiled, then
# jittor_trial.py runs, unless another script (zoo.sh) sources this one for its settings. Jittor
# itself knows CUDA up to 12 and cuDNN 8.
set -u
ROOT=${ROOT:-/tmp/jittor-cuda} PYTHON=${PYTHON:-python3}
# A toolkit with all parts in one place: nvcc of the machine, libraries and headers of torch's wheels.
NVIDIA=$("$PYTHON" -c "import nvidia; print(list(nvidia.__path__)[0])")
NVCC=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)  # may be a script that calls another
REAL=$(readlink -f "$("$NVCC" --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')")
if [ ! -e "$ROOT/bin/nvcc" ]; then
    mkdir -p "$ROOT"/{bin,include,lib64}
    printf '#!/bin/sh\nexec %s/bin/nvcc "$@"\n' "$REAL" > "$ROOT/bin/nvcc"
    chmod +x "$ROOT/bin/nvcc"
    for d in "$REAL"/include "$NVIDIA"/cu13/include "$NVIDIA"/cudnn/include; do
        [ -d "$d" ] && ln -sf "$d"/* "$ROOT/include/"
    done
    for d in "$REAL"/lib64 "$NVIDIA"/cu13/lib "$NVIDIA"/cudnn/lib; do
        [ -d "$d" ] && ln -sf "$d"/*.so* "$ROOT/lib64/"
    done
    for l in cudart cublas cublasLt curand cufft cusparse cudnn; do
        [ -e "$ROOT/lib64/lib$l.so" ] || ln -sf "$(ls "$ROOT"/lib64/lib$l.so.* | head -1)" "$ROOT/lib64/lib$l.so"
    done
    for l in ops_infer ops_train; do ln -sf "$ROOT/lib64/libcudnn_ops.so.9" "$ROOT/lib64/libcudnn_$l.so"; done
    for l in cnn_infer cnn_train; do ln -sf "$ROOT/lib64/libcudnn_cnn.so.9" "$ROOT/lib64/libcudnn_$l.so"; done
    # Jittor asks for python3-config, which comes with the headers only on some systems.
    "$PYTHON" - > "$ROOT/bin/python-config" <<'P'
import sysconfig
inc, lib = sysconfig.get_path("include"), sysconfig.get_config_var("LIBDIR")
name = "python" + sysconfig.get_config_var("LDVERSION")
print(f"""#!/bin/sh
case "$*" in
    *--ldflags*) echo "-L{lib}" ;;
    *--extension-suffix*) echo "{sysconfig.get_config_var('EXT_SUFFIX')}" ;;
    *) echo "-I{inc}" ;;
esac""")
P
    chmod +x "$ROOT/bin/python-config"
fi
export LD_LIBRARY_PATH=$ROOT/lib64:${LD_LIBRARY_PATH:-} nvcc_path=$ROOT/bin/nvcc python_config_path=$ROOT/bin/python-config
export use_mkl=0 use_cutt=0 use_cutlass=0 use_nccl=0 use_mpi=0 cuda_archs=90
# CUDA 13 took two fields out of cudaDeviceProp that Jittor's helper only prints; others of their
# type stand in. The same for three of cuFFT's error numbers.
export cc_flags="-DcomputeMode=integrated -DclockRate=multiProcessorCount -DCUFFT_INCOMPLETE_PARAMETER_LIST=9991 -DCUFFT_PARSE_ERROR=9992 -DCUFFT_LICENSE_ERROR=9993"

time "$PYTHON" -c "from diptych.backends.jittor import setup; setup.prepare()" || exit 1
[ "${BASH_SOURCE[0]}" != "$0" ] || "$PYTHON" -m benchmarks.gpu.jittor_trial "$OUT"
