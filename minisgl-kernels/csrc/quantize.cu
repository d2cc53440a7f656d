// Rows to 8-bit floats with a scale each, and products of such rows scaled back. Never knows which
// rows are weights.
#include "early.cuh"
#include "fp8.cuh"

namespace msgl {
namespace {

constexpr float LARGEST = 448.0f;       // 8-bit float
constexpr float SMALLEST = 0x1p-126f;   // normal float

// The largest magnitude of the block's threads for each of them, as bits: those are in the order of
// the numbers, and NaN is above all of them.
__device__ __forceinline__ unsigned block_max(unsigned x, unsigned *shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int num_warps = static_cast<int>(blockDim.x) / 32;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        x = max(x, __shfl_xor_sync(ALL_LANES, x, offset));
    }
    if (num_warps == 1) return x;
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = lane < num_warps ? shared[lane] : 0u;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        x = max(x, __shfl_xor_sync(ALL_LANES, x, offset));
    }
    return x;
}

// One block per row, which it reads twice: the second time from a cache.
template <class T, int N>
__global__ void quantize_rows_kernel(const T *x, int64_t x_stride, fp8 *out, int64_t out_stride,
                                     float *scales, int64_t row_len) {
    __shared__ unsigned shared[32];
    release_successor();
    await_predecessor();
    const int64_t row = blockIdx.x, accesses = row_len / N;
    x += row * x_stride;
    out += row * out_stride;
    unsigned largest = 0;
    for (int64_t i = threadIdx.x; i < accesses; i += blockDim.x) {
        const auto pack = Pack<T, N>::load(x + i * N);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            largest = max(largest, __float_as_uint(fabsf(to_float(pack.at[j]))));
        }
    }
    const float magnitude = __uint_as_float(block_max(largest, shared));
    const bool is_finite = magnitude < INFINITY;  // and no NaN
    const float scale = is_finite ? fmaxf(__fdiv_rn(magnitude, LARGEST), SMALLEST)
                                  : __uint_as_float(0x7fc00000u);
    if (threadIdx.x == 0) scales[row] = scale;
    for (int64_t i = threadIdx.x; i < accesses; i += blockDim.x) {
        const auto pack = Pack<T, N>::load(x + i * N);
        Pack<fp8, N> rounded;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            rounded.at[j] = from_float<fp8>(__fdiv_rn(to_float(pack.at[j]), scale));
        }
        rounded.store(out + i * N);
    }
}

template <class T, int N>
__global__ void scale_kernel(T *y, int64_t stride, const float *row_scales,
                             const float *column_scales, int64_t rows, int64_t row_len) {
    const int64_t row = row_of_thread();
    if (row >= rows) return;
    const float row_scale = row_scales[row];
    T *out = y + row * stride;
    each_access(row_len / N, [&](int64_t i) {
        auto pack = Pack<T, N>::load(out + i * N);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const float scaled = to_float(pack.at[j]) * row_scale * column_scales[i * N + j];
            pack.at[j] = from_float<T>(scaled);
        }
        pack.store(out + i * N);
    });
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_quantize_rows(int32_t dtype, msgl_rows x, msgl_rows out, float *scales,
                                      msgl_stream stream) {
    return guarded("quantize_rows", [&] {
        check_rows("x", x);
        check_shape("out", out, x.rows, x.row_len);
        if (x.rows == 0) return;
        if (x.rows > INT32_MAX) refuse("%lld rows are too many", static_cast<long long>(x.rows));
        with_float(dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            constexpr int MOST = WIDE / static_cast<int>(sizeof(T));
            const bool wide = all_wide({x}, sizeof(T)) && is_aligned(out, 1, MOST);
            with_width<T>(wide, [&](auto width) {
                constexpr int N = decltype(width)::value;
                const int64_t warps = std::max<int64_t>(ceil_div(x.row_len / N, 32), 1);
                const unsigned threads = static_cast<unsigned>(std::min<int64_t>(warps, 16)) * 32;
                launch_early(quantize_rows_kernel<T, N>, dim3(static_cast<unsigned>(x.rows)),
                             dim3(threads), 0, stream_of(stream), static_cast<const T *>(x.data),
                             x.stride, static_cast<fp8 *>(out.data), out.stride, scales,
                             x.row_len);
            });
        });
    });
}

extern "C" int32_t msgl_scale(int32_t dtype, msgl_rows y, const float *row_scales,
                              const float *column_scales, msgl_stream stream) {
    return guarded("scale", [&] {
        check_rows("y", y);
        if (is_empty(y)) return;
        with_float(dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            with_width<T>(all_wide({y}, sizeof(T)), [&](auto width) {
                constexpr int N = decltype(width)::value;
                const Grid grid = grid_over(y.rows, y.row_len / N);
                scale_kernel<T, N><<<grid.blocks, grid.threads, 0, stream_of(stream)>>>(
                    static_cast<T *>(y.data), y.stride, row_scales, column_scales, y.rows,
                    y.row_len);
                check_launch();
            });
        });
    });
}
