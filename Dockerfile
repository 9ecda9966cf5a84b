# Diptych with both panels, compiled for the machine that builds the image.
#
#   docker build -t diptych --build-arg PIP_FLAGS="--extra-index-url URL_OF_CPU_WHEELS" .
#   docker build -t diptych:cuda --build-arg BASE=nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04 .
#   docker run --rm -v "$PWD:/work" diptych sample zoo:mnist-jittor --device cpu --out digits
#   docker run --rm --gpus all -v "$PWD:/work" diptych:cuda train cifar10 --backend jittor --out runs/cifar10
#
# Without PIP_FLAGS pip fetches PyTorch's CUDA build, which runs on a CPU too but is large. Jittor
# compiles its CUDA part where a GPU is first seen, so with the first run of a CUDA container.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

ARG PIP_FLAGS=""
ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/diptych
COPY pyproject.toml constraints.txt README.md LICENSE Makefile ./
COPY src ./src
RUN make prepare PYTHON=python3 PIP_FLAGS="${PIP_FLAGS}"

ENV PATH="/opt/diptych/.venv/bin:${PATH}"
WORKDIR /work
ENTRYPOINT ["diptych"]
CMD ["--help"]
