// Kernels that may start before the kernel before them in the stream has ended (programmatic dependent
// launch, Hopper and newer): their launch, and whatever they do before `await_predecessor`, costs no
// time of its own. Never knows what the kernels compute.
//
// Rules for a kernel that is launched by `launch_early`:
// * Every block that does anything calls `await_predecessor` on at least one thread, and there is always
//   such a block. Before that call it reads or writes nothing that an earlier kernel writes or reads.
//   (Weights are never written; and what was written before the last kernel that is launched
//   otherwise, such as the embedding that a step begins with, may be read.)
// * It calls `release_successor` as early as it likes: the next kernel keeps to the same rules, or
//   starts when this one has ended.
#pragma once

#include "common.cuh"

namespace msgl {

// Waits until all kernels before this one have ended, and sees what they wrote.
__device__ __forceinline__ void await_predecessor() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Allows the next kernel to be launched.
__device__ __forceinline__ void release_successor() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Whether the current device can. All devices of a process are taken to be alike.
inline bool can_start_early() {
    static const bool can = [] {
        int device = 0, major = 0;
        check(cudaGetDevice(&device), "there is no current device");
        check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
              "the device tells no compute capability");
        return major >= 9;
    }();
    return can;
}

template <class... Parameters, class... Arguments>
void launch_early(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared,
                  cudaStream_t stream, Arguments... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = blocks;
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = can_start_early() ? 1 : 0;
    check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...),
          "a kernel could not be launched");
}

}  // namespace msgl
