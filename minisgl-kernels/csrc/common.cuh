// What every kernel file needs: choice of the element type, wide loads and stores, reductions. Never
// knows what the kernels compute.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <initializer_list>

#include "failure.cuh"

namespace msgl {

using bf16 = __nv_bfloat16;

inline cudaStream_t stream_of(msgl_stream stream) { return static_cast<cudaStream_t>(stream); }

// The number of multiprocessors of the current device.
int num_processors();

// ---- element types ----------------------------------------------------------------------------

template <class T>
struct Tag {
    using type = T;
};

// Calls `body` with the Tag of the element type.
template <class Body>
void with_float(int32_t dtype, Body &&body) {
    switch (dtype) {
        case MSGL_F32: body(Tag<float>{}); break;
        case MSGL_BF16: body(Tag<bf16>{}); break;
        default: refuse("dtype is %d; it must be 0 (float32) or 1 (bfloat16)", dtype);
    }
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
    return __float2bfloat16_rn(x);
}

// `x` as it would be read back after being stored as T.
template <class T>
__device__ __forceinline__ float round_to(float x) {
    return to_float(from_float<T>(x));
}

// An element of rms_norm's result, with its roundings.
template <class T>
__device__ __forceinline__ T normalized(T x, float scale, T weight) {
    return from_float<T>(round_to<T>(to_float(x) * scale) * to_float(weight));
}

// ---- rows -------------------------------------------------------------------------------------

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Refuses a description of rows that cannot be meant.
inline void check_rows(const char *name, const msgl_rows &x) {
    if (x.rows < 0 || x.row_len < 0 || (x.rows > 1 && x.stride < 0)) {
        refuse("%s has %lld rows of %lld, stride %lld; none may be negative", name,
               static_cast<long long>(x.rows), static_cast<long long>(x.row_len),
               static_cast<long long>(x.stride));
    }
    if (x.data == nullptr && x.rows * x.row_len > 0) refuse("%s is null", name);
}

inline void check_shape(const char *name, const msgl_rows &x, int64_t rows, int64_t row_len) {
    check_rows(name, x);
    if (x.rows != rows || x.row_len != row_len) {
        refuse("%s is %lld x %lld; %lld x %lld is expected", name, static_cast<long long>(x.rows),
               static_cast<long long>(x.row_len), static_cast<long long>(rows),
               static_cast<long long>(row_len));
    }
}

inline bool is_empty(const msgl_rows &x) { return x.rows == 0 || x.row_len == 0; }

inline bool is_aligned(const void *pointer, int64_t bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

// Whether every row starts at a multiple of `bytes` and is whole multiples of it long.
inline bool is_aligned(const msgl_rows &x, int64_t element_bytes, int64_t bytes) {
    return is_aligned(x.data, bytes) && x.row_len * element_bytes % bytes == 0 &&
           (x.rows <= 1 || x.stride * element_bytes % bytes == 0);
}

// Bytes that one access moves at most.
constexpr int WIDE = 16;

inline bool all_wide(std::initializer_list<msgl_rows> rows, int64_t element_bytes) {
    return std::all_of(rows.begin(), rows.end(), [&](const msgl_rows &x) {
        return is_aligned(x, element_bytes, WIDE);
    });
}

// N elements that are moved by one access.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T at[N];

    __device__ __forceinline__ static Pack load(const T *from) {
        return *reinterpret_cast<const Pack *>(from);
    }
    __device__ __forceinline__ void store(T *to) const { *reinterpret_cast<Pack *>(to) = *this; }
};

// Calls `body` with the number of elements of T an access moves: all that fit if `wide`, or one.
template <class T, class Body>
void with_width(bool wide, Body &&body) {
    if (wide) {
        body(std::integral_constant<int, WIDE / static_cast<int>(sizeof(T))>{});
    } else {
        body(std::integral_constant<int, 1>{});
    }
}

// A grid over rows (x) and accesses inside a row (y); blocks are a power of two wide, and cover
// several rows if those are short. See `row_of` and the loop in `each_access`.
struct Grid {
    dim3 blocks, threads;
};

inline Grid grid_over(int64_t rows, int64_t accesses) {
    constexpr int THREADS = 256;
    unsigned width = 1;
    while (width < THREADS && width < accesses) width *= 2;
    const unsigned height = THREADS / width;
    const int64_t down = ceil_div(rows, height);
    const int64_t across = std::min<int64_t>(ceil_div(accesses, width * 4), 65535);
    if (down > INT32_MAX) refuse("%lld rows are too many", static_cast<long long>(rows));
    return {dim3(static_cast<unsigned>(down), static_cast<unsigned>(std::max<int64_t>(across, 1))),
            dim3(width, height)};
}

// Inside a kernel launched over a Grid: this thread's row.
__device__ __forceinline__ int64_t row_of_thread() {
    return static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}

// Inside a kernel launched over a Grid: calls `body` with the index of each of this thread's
// accesses of its row.
template <class Body>
__device__ __forceinline__ void each_access(int64_t accesses, Body &&body) {
    const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; i < accesses;
         i += step) {
        body(i);
    }
}

// ---- reductions -------------------------------------------------------------------------------

constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
    }
    return x;
}

// The sum over a block of whole warps, for every thread, in an order that depends only on the
// number of warps. `shared` has 32 floats; it may be used again after a __syncthreads().
__device__ __forceinline__ float block_sum(float x, float *shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int num_warps = static_cast<int>(blockDim.x) / 32;
    x = warp_sum(x);
    if (num_warps == 1) return x;
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    return warp_sum(lane < num_warps ? shared[lane] : 0.0f);
}

}  // namespace msgl
