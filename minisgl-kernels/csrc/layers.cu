// RMSNorm and the element-by-element steps between matrix multiplications. Never knows which layer
// they belong to.
#include "early.cuh"

namespace msgl {
namespace {

// Accesses of a row that a thread of a norm keeps in registers between its two passes. What is
// beyond is read again.
constexpr int KEPT = 4;

// One block per row: `residual = round(residual + x)` if there is one, then
// `out = weight * round(row / rms(row))`. `out` may be `x`.
template <class T, int N, bool ADD>
__global__ void rms_norm_kernel(const T *x, int64_t x_stride, T *residual, int64_t residual_stride,
                                const T *weight, float eps, T *out, int64_t out_stride,
                                int64_t row_len) {
    __shared__ float shared[32];
    using Wide = Pack<T, N>;
    release_successor();
    await_predecessor();
    const int64_t row = blockIdx.x;
    const int64_t accesses = row_len / N;
    x += row * x_stride;
    out += row * out_stride;
    if (ADD) residual += row * residual_stride;

    Wide kept[KEPT];
    float square = 0.0f;
    const auto first_pass = [&](int64_t i) {
        Wide pack = Wide::load(x + i * N);
        if (ADD) {
            const Wide other = Wide::load(residual + i * N);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                pack.at[j] = from_float<T>(to_float(other.at[j]) + to_float(pack.at[j]));
            }
            pack.store(residual + i * N);
        }
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const float value = to_float(pack.at[j]);
            square = fmaf(value, value, square);
        }
        return pack;
    };
#pragma unroll
    for (int k = 0; k < KEPT; ++k) {
        const int64_t i = threadIdx.x + static_cast<int64_t>(k) * blockDim.x;
        if (i < accesses) kept[k] = first_pass(i);
    }
    for (int64_t i = threadIdx.x + static_cast<int64_t>(KEPT) * blockDim.x; i < accesses;
         i += blockDim.x) {
        first_pass(i);
    }

    const float mean = block_sum(square, shared) / static_cast<float>(row_len);
    const float scale = 1.0f / sqrtf(mean + eps);

    const auto second_pass = [&](int64_t i, Wide pack) {
        const Wide factor = Wide::load(weight + i * N);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            pack.at[j] = normalized(pack.at[j], scale, factor.at[j]);
        }
        pack.store(out + i * N);
    };
#pragma unroll
    for (int k = 0; k < KEPT; ++k) {
        const int64_t i = threadIdx.x + static_cast<int64_t>(k) * blockDim.x;
        if (i < accesses) second_pass(i, kept[k]);
    }
    for (int64_t i = threadIdx.x + static_cast<int64_t>(KEPT) * blockDim.x; i < accesses;
         i += blockDim.x) {
        second_pass(i, Wide::load((ADD ? residual : x) + i * N));
    }
}

template <bool ADD>
void rms_norm(int32_t dtype, const msgl_rows &x, const msgl_rows &residual, const void *weight,
              float eps, const msgl_rows &out, cudaStream_t stream) {
    if (is_empty(x)) return;
    if (x.rows > INT32_MAX) refuse("%lld rows are too many", static_cast<long long>(x.rows));
    with_float(dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const bool wide = all_wide({x, residual, out}, sizeof(T)) && is_aligned(weight, WIDE);
        with_width<T>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            const int64_t warps = ceil_div(x.row_len / N, 32);
            const unsigned threads = static_cast<unsigned>(std::min<int64_t>(warps, 32)) * 32;
            launch_early(rms_norm_kernel<T, N, ADD>, dim3(static_cast<unsigned>(x.rows)),
                         dim3(threads), 0, stream, static_cast<const T *>(x.data), x.stride,
                         static_cast<T *>(residual.data), residual.stride,
                         static_cast<const T *>(weight), eps, static_cast<T *>(out.data),
                         out.stride, x.row_len);
        });
    });
}

template <class T, int N>
__global__ void silu_and_mul_kernel(const T *gate_up, int64_t in_stride, T *out,
                                    int64_t out_stride, int64_t rows, int64_t row_len) {
    release_successor();
    await_predecessor();
    const int64_t row = row_of_thread();
    if (row >= rows) return;
    const T *gates = gate_up + row * in_stride;
    const T *ups = gates + row_len;
    each_access(row_len / N, [&](int64_t i) {
        Pack<T, N> gate = Pack<T, N>::load(gates + i * N);
        const auto up = Pack<T, N>::load(ups + i * N);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const float x = to_float(gate.at[j]);
            const float silu = round_to<T>(x / (1.0f + expf(-x)));
            gate.at[j] = from_float<T>(silu * to_float(up.at[j]));
        }
        gate.store(out + row * out_stride + i * N);
    });
}

template <class Bias, class T, int N>
__global__ void add_bias_kernel(const Bias *bias, T *y, int64_t stride, int64_t rows,
                                int64_t row_len) {
    const int64_t row = row_of_thread();
    if (row >= rows) return;
    T *out = y + row * stride;
    each_access(row_len / N, [&](int64_t i) {
        auto pack = Pack<T, N>::load(out + i * N);
        const auto added = Pack<Bias, N>::load(bias + i * N);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            pack.at[j] = from_float<T>(to_float(pack.at[j]) + to_float(added.at[j]));
        }
        pack.store(out + i * N);
    });
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_rms_norm(int32_t dtype, msgl_rows x, const void *weight, float eps,
                                 msgl_rows out, msgl_stream stream) {
    return guarded("rms_norm", [&] {
        check_rows("x", x);
        check_shape("out", out, x.rows, x.row_len);
        rms_norm<false>(dtype, x, x, weight, eps, out, stream_of(stream));
    });
}

extern "C" int32_t msgl_add_rms_norm(int32_t dtype, msgl_rows x, msgl_rows residual,
                                     const void *weight, float eps, msgl_stream stream) {
    return guarded("add_rms_norm", [&] {
        check_rows("x", x);
        check_shape("residual", residual, x.rows, x.row_len);
        rms_norm<true>(dtype, x, residual, weight, eps, x, stream_of(stream));
    });
}

extern "C" int32_t msgl_silu_and_mul(int32_t dtype, msgl_rows gate_up, msgl_rows out,
                                     msgl_stream stream) {
    return guarded("silu_and_mul", [&] {
        check_rows("out", out);
        check_shape("gate_up", gate_up, out.rows, 2 * out.row_len);
        if (is_empty(out)) return;
        with_float(dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            with_width<T>(all_wide({gate_up, out}, sizeof(T)), [&](auto width) {
                constexpr int N = decltype(width)::value;
                const Grid grid = grid_over(out.rows, out.row_len / N);
                launch_early(silu_and_mul_kernel<T, N>, grid.blocks, grid.threads, 0,
                             stream_of(stream), static_cast<const T *>(gate_up.data),
                             gate_up.stride, static_cast<T *>(out.data), out.stride, out.rows,
                             out.row_len);
            });
        });
    });
}

extern "C" int32_t msgl_add_bias(int32_t dtype, const void *bias, int32_t out_dtype, msgl_rows y,
                                 msgl_stream stream) {
    return guarded("add_bias", [&] {
        check_rows("y", y);
        if (is_empty(y)) return;
        with_float(dtype, [&](auto bias_tag) {
            with_float(out_dtype, [&](auto tag) {
                using Bias = typename decltype(bias_tag)::type;
                using T = typename decltype(tag)::type;
                // A pack of the wider type is WIDE, so that one of the other is narrower.
                constexpr int MOST = WIDE / static_cast<int>(std::max(sizeof(Bias), sizeof(T)));
                const bool wide = is_aligned(y, sizeof(T), MOST * sizeof(T)) &&
                                  is_aligned(bias, MOST * sizeof(Bias));
                const auto launch = [&](auto width) {
                    constexpr int N = decltype(width)::value;
                    const Grid grid = grid_over(y.rows, y.row_len / N);
                    add_bias_kernel<Bias, T, N>
                        <<<grid.blocks, grid.threads, 0, stream_of(stream)>>>(
                            static_cast<const Bias *>(bias), static_cast<T *>(y.data), y.stride,
                            y.rows, y.row_len);
                    check_launch();
                };
                if (wide) {
                    launch(std::integral_constant<int, MOST>{});
                } else {
                    launch(std::integral_constant<int, 1>{});
                }
            });
        });
    });
}
