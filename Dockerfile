# syntax=docker/dockerfile:1
# An image for NVIDIA GPUs: the server with its demo model, the kernels library, cuBLASLt and NCCL.
#
#   docker build --tag minisgl .
#   docker run --gpus all --publish 1919:1919 minisgl --host 0.0.0.0
#   docker run --gpus all --shm-size 1g --publish 1919:1919 minisgl --host 0.0.0.0 --model Qwen/Qwen3-14B --tp 2
#   docker run --rm --gpus all minisgl doctor
#
# The driver comes from the host (NVIDIA Container Toolkit). There is no compiler in the image.
# For one kind of GPU the kernels build in a fraction of the time: --build-arg ARCH=90a for Hopper.

FROM rust:1.95.0-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# Ampere, Ada, Hopper, and both kinds of Blackwell.
ARG ARCH=80,89,90a,100a,120a
# The toolkit that this downloads is not kept; the two products are all that is taken along. They are
# copied in the same step, since `target` is a cache that later steps do not see.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/root/.cache/minisgl \
    --mount=type=cache,target=/source/target \
    cargo xtask kernels --arch "$ARCH" \
    && cargo xtask build \
    && install -D --strip target/release/minisgl /product/minisgl \
    && install -D target/kernels/libminisgl_kernels.so /product/kernels/libminisgl_kernels.so

FROM nvidia/cuda:13.0.1-base-ubuntu24.04
# NVRTC is what NVIDIA's cuBLAS packages for Python bring along, too.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cuda-nvrtc-13-0 libcublas-13-0 libnccl2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home minisgl
COPY --from=build /product /opt/minisgl
USER minisgl
# Downloaded models and measured GEMM algorithms: name this volume to keep them between runs.
ENV XDG_CACHE_HOME=/home/minisgl/.cache
RUN mkdir -p "$XDG_CACHE_HOME"
VOLUME /home/minisgl/.cache
EXPOSE 1919
ENTRYPOINT ["/opt/minisgl/minisgl"]
