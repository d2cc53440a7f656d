// Multiplying a few rows by a matrix, bound by reading the matrix once: one warp per one or two rows
// of it. Never knows what the matrix projects.
//
// The first part of the matrix is fetched before the kernel before this one has ended: weights do not
// depend on it.
#include "early.cuh"

namespace msgl {
namespace {

constexpr int WARPS = 4;
constexpr int MAX_ROWS = 4;
// Elements of an access, and accesses that a lane has under way for each row of the matrix.
constexpr int N = WIDE / static_cast<int>(sizeof(bf16));
constexpr int DEPTH = 4;
constexpr int STRETCH = 32 * N;  // elements that a warp takes at once

using Wide = Pack<bf16, N>;

// M rows of x, R rows of w for each warp. Every sum has the same order whatever M is.
template <int M, int R, class Out>
__global__ void __launch_bounds__(WARPS * 32)
    gemv_kernel(const bf16 *x, int64_t x_stride, const bf16 *w, int64_t w_stride, Out *out,
                int64_t out_stride, int64_t n, int k) {
    release_successor();
    const int lane = threadIdx.x % 32;
    const int64_t first = (static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32) * R;
    const bf16 *row[R];
#pragma unroll
    for (int r = 0; r < R; ++r) row[r] = w + min(first + r, n - 1) * w_stride;

    Wide ahead[DEPTH][R];
    const auto fetch = [&](int at, int d) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (at < k) ahead[d][r] = Wide::load(row[r] + at);
        }
    };
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) fetch(d * STRETCH + lane * N, d);
    await_predecessor();

    float sum[M][R] = {};
    for (int start = 0; start < k; start += DEPTH * STRETCH) {
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
            const int at = start + d * STRETCH + lane * N;
            if (at < k) {
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    const Wide factor = Wide::load(x + m * x_stride + at);
#pragma unroll
                    for (int r = 0; r < R; ++r) {
#pragma unroll
                        for (int j = 0; j < N; ++j) {
                            sum[m][r] = fmaf(to_float(factor.at[j]), to_float(ahead[d][r].at[j]),
                                             sum[m][r]);
                        }
                    }
                }
            }
            fetch(at + DEPTH * STRETCH, d);
        }
    }
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const float total = warp_sum(sum[m][r]);
            if (lane == 0 && first + r < n) {
                out[m * out_stride + first + r] = from_float<Out>(total);
            }
        }
    }
}

template <int M, class Out>
void gemv(const msgl_rows &x, const msgl_rows &w, const msgl_rows &out, cudaStream_t stream) {
    const auto launch = [&](auto rows_of_warp) {
        constexpr int R = decltype(rows_of_warp)::value;
        const int64_t blocks = ceil_div(w.rows, WARPS * R);
        if (blocks > INT32_MAX) refuse("%lld rows are too many", static_cast<long long>(w.rows));
        launch_early(gemv_kernel<M, R, Out>, dim3(static_cast<unsigned>(blocks)), dim3(WARPS * 32),
                     0, stream, static_cast<const bf16 *>(x.data), x.stride,
                     static_cast<const bf16 *>(w.data), w.stride, static_cast<Out *>(out.data),
                     out.stride, w.rows, static_cast<int>(w.row_len));
    };
    // Few rows: rather more warps.
    if (w.rows <= 4096) {
        launch(std::integral_constant<int, 1>{});
    } else {
        launch(std::integral_constant<int, 2>{});
    }
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_gemv(int32_t out_dtype, msgl_rows x, msgl_rows w, msgl_rows out,
                             msgl_stream stream) {
    return guarded("gemv", [&] {
        check_rows("x", x);
        check_shape("w", w, w.rows, x.row_len);
        check_shape("out", out, x.rows, w.rows);
        if (x.rows > MAX_ROWS) {
            refuse("%lld rows; up to %d are possible", static_cast<long long>(x.rows), MAX_ROWS);
        }
        if (x.row_len < 1 || x.row_len > (1 << 30) || !all_wide({x, w}, sizeof(bf16))) {
            refuse("rows of %lld bfloat16 must be whole, aligned multiples of 16 bytes",
                   static_cast<long long>(x.row_len));
        }
        if (is_empty(out)) return;
        with_float(out_dtype, [&](auto tag) {
            using Out = typename decltype(tag)::type;
            switch (x.rows) {
                case 1: return gemv<1, Out>(x, w, out, stream_of(stream));
                case 2: return gemv<2, Out>(x, w, out, stream_of(stream));
                case 3: return gemv<3, Out>(x, w, out, stream_of(stream));
                default: return gemv<4, Out>(x, w, out, stream_of(stream));
            }
        });
    });
}
