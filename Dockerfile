# An image for NVIDIA GPUs: the server with its demo model, the kernels library, cuBLASLt and NCCL.
#
#   docker build -t minisgl .
#   docker run --gpus all -p 8000:8000 minisgl --host 0.0.0.0 --port 8000
#
# The driver comes from the host (NVIDIA Container Toolkit). There is no compiler in the image.
# Other GPUs than Hopper: --build-arg ARCH=80,89,90a

FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
ARG ARCH=90a
# The toolkit that this downloads is not kept; the two products are all that is taken along.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/root/.cache/minisgl \
    --mount=type=cache,target=/source/target \
    cargo xtask kernels --arch "$ARCH" \
    && cargo xtask build \
    && install -D --strip target/release/minisgl /product/minisgl \
    && install -D target/kernels/libminisgl_kernels.so /product/kernels/libminisgl_kernels.so

FROM nvidia/cuda:13.0.1-base-ubuntu24.04
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libcublas-13-0 libnccl2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home minisgl
COPY --from=build /product /opt/minisgl
USER minisgl
EXPOSE 8000
ENTRYPOINT ["/opt/minisgl/minisgl"]
