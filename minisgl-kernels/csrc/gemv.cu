// Multiplying a few rows by a matrix, bound by reading the matrix once, with the norm before it and
// the activation or the sum after it in the same kernel. Never knows what the matrix projects.
//
// A warp computes one or two rows of the product at a time, and goes on to others until there are none
// left. It keeps so much of the matrix under way that it need not wait, also from one row to the next;
// and the first of it is fetched before the kernel before this one has ended: weights do not depend
// on it.
#include "early.cuh"

namespace msgl {
namespace {

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * 32;
constexpr int MAX_ROWS = 4;
// Elements of an access, and accesses that a lane has under way for each row of the matrix.
constexpr int N = WIDE / static_cast<int>(sizeof(bf16));
constexpr int DEPTH = 4;
constexpr int STRETCH = 32 * N;  // elements that a warp takes at once
// Bytes of shared memory that a kernel has without asking.
constexpr int64_t SHARED_BYTES = 48 << 10;

using Wide = Pack<bf16, N>;

// What becomes of the sums.
enum class After {
    STORE,
    SILU,  // the second half of the matrix's rows times silu of the first half
    ADD,   // added to what is there
};

template <class Out>
struct Arguments {
    const bf16 *x;
    int64_t x_stride;
    const bf16 *norm;  // the weight of the norm of x
    float eps;
    const bf16 *w;
    int64_t w_stride;
    Out *out;
    int64_t out_stride;
    int64_t n;  // columns of out
    int k;
};

// Normalizes the rows of x into `lines`, rows of k elements, as `rms_norm` does. The weight of the
// norm lies before them.
template <int M, class Out>
__device__ void normalize(const Arguments<Out> &a, bf16 *lines) {
    __shared__ float shared[32];
    const int k = a.k, first = static_cast<int>(threadIdx.x) * N;
    const bf16 *weight = lines - k;
#pragma unroll 1
    for (int m = 0; m < M; ++m) {
        bf16 *line = lines + m * k;
        float square = 0.0f;
        for (int at = first; at < k; at += THREADS * N) {
            const Wide pack = Wide::load(a.x + m * a.x_stride + at);
            pack.store(line + at);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const float value = to_float(pack.at[j]);
                square = fmaf(value, value, square);
            }
        }
        const float mean = block_sum(square, shared) / static_cast<float>(k);
        const float scale = 1.0f / sqrtf(mean + a.eps);
        for (int at = first; at < k; at += THREADS * N) {
            Wide pack = Wide::load(line + at);
            const Wide factor = Wide::load(weight + at);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const float normalized = round_to<bf16>(to_float(pack.at[j]) * scale);
                pack.at[j] = from_float<bf16>(normalized * to_float(factor.at[j]));
            }
            pack.store(line + at);
        }
        __syncthreads();
    }
}

// M rows of x, R rows of w for each warp at a time. Every sum has the same order whatever M is.
template <int M, int R, bool NORM, After AFTER, class Out>
__global__ void __launch_bounds__(THREADS) gemv_kernel(Arguments<Out> a) {
    static_assert(AFTER != After::SILU || R == 2, "a gate and its factor");
    extern __shared__ __align__(16) char memory[];
    bf16 *lines = reinterpret_cast<bf16 *>(memory) + (NORM ? a.k : 0);
    release_successor();
    const int lane = threadIdx.x % 32, k = a.k;
    constexpr int COLUMNS = AFTER == After::SILU ? 1 : R;  // of out, for each warp at a time
    const int64_t step = static_cast<int64_t>(gridDim.x) * WARPS * COLUMNS;
    int64_t column = (static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32) * COLUMNS;

    const bf16 *rows[R];
    const auto turn_to = [&](int64_t at) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const int64_t row = AFTER == After::SILU ? at + r * a.n : at + r;
            const int64_t last = AFTER == After::SILU ? 2 * a.n - 1 : a.n - 1;
            rows[r] = a.w + min(row, last) * a.w_stride;
        }
    };
    Wide ahead[DEPTH][R];
    const auto fetch = [&](int at, int d) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (at < k) ahead[d][r] = Wide::load(rows[r] + at);
        }
    };
    turn_to(column);
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) fetch(d * STRETCH + lane * N, d);
    if constexpr (NORM) {
        for (int at = static_cast<int>(threadIdx.x) * N; at < k; at += THREADS * N) {
            Wide::load(a.norm + at).store(lines - k + at);
        }
    }
    await_predecessor();
    if constexpr (NORM) normalize<M>(a, lines);

    for (; column < a.n; column += step) {
        float before[M][R];
        if constexpr (AFTER == After::ADD) {
#pragma unroll
            for (int m = 0; m < M; ++m) {
#pragma unroll
                for (int r = 0; r < R; ++r) {
                    if (lane == 0 && column + r < a.n) {
                        before[m][r] = to_float(a.out[m * a.out_stride + column + r]);
                    }
                }
            }
        }
        float sum[M][R] = {};
        for (int start = 0; start < k; start += DEPTH * STRETCH) {
            // Where the next fetches go: on in these rows, or to the next ones.
            int next = start + DEPTH * STRETCH;
            if (next >= k) {
                next = column + step < a.n ? 0 : k;
                turn_to(column + step);
            }
#pragma unroll
            for (int d = 0; d < DEPTH; ++d) {
                const int offset = d * STRETCH + lane * N;
                if (start + offset < k) {
#pragma unroll
                    for (int m = 0; m < M; ++m) {
                        const Wide factor = NORM ? Wide::load(lines + m * k + start + offset)
                                                 : Wide::load(a.x + m * a.x_stride + start + offset);
#pragma unroll
                        for (int r = 0; r < R; ++r) {
#pragma unroll
                            for (int j = 0; j < N; ++j) {
                                sum[m][r] = fmaf(to_float(factor.at[j]),
                                                 to_float(ahead[d][r].at[j]), sum[m][r]);
                            }
                        }
                    }
                }
                fetch(next + offset, d);
            }
        }
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int r = 0; r < R; ++r) sum[m][r] = warp_sum(sum[m][r]);
            Out *out = a.out + m * a.out_stride + column;
            if (lane != 0) continue;
            if constexpr (AFTER == After::SILU) {
                const float gate = round_to<Out>(sum[m][0]);
                const float silu = round_to<Out>(gate / (1.0f + expf(-gate)));
                out[0] = from_float<Out>(silu * round_to<Out>(sum[m][R - 1]));
            } else {
#pragma unroll
                for (int r = 0; r < R; ++r) {
                    if (column + r >= a.n) continue;
                    if constexpr (AFTER == After::ADD) {
                        out[r] = from_float<Out>(before[m][r] + round_to<Out>(sum[m][r]));
                    } else {
                        out[r] = from_float<Out>(sum[m][r]);
                    }
                }
            }
        }
    }
}

// As many blocks as there is work for, and no more than run at one time.
template <int M, int R, bool NORM, After AFTER, class Out>
void launch(const Arguments<Out> &a, cudaStream_t stream) {
    const auto kernel = gemv_kernel<M, R, NORM, AFTER, Out>;
    const size_t shared = NORM ? sizeof(bf16) * (M + 1) * a.k : 0;
    int blocks_per_processor = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_per_processor, kernel, THREADS,
                                                        shared),
          "the occupancy of a GEMV");
    const int64_t work = ceil_div(a.n, WARPS * (AFTER == After::SILU ? 1 : R));
    const int64_t room = static_cast<int64_t>(num_processors()) * std::max(blocks_per_processor, 1);
    launch_early(kernel, dim3(static_cast<unsigned>(std::min(work, room))), dim3(THREADS), shared,
                 stream, a);
}

template <bool NORM, After AFTER, class Out>
void gemv(const Arguments<Out> &a, int64_t m, cudaStream_t stream) {
    const auto with_rows = [&](auto rows_of_warp) {
        constexpr int R = decltype(rows_of_warp)::value;
        switch (m) {
            case 1: return launch<1, R, NORM, AFTER>(a, stream);
            case 2: return launch<2, R, NORM, AFTER>(a, stream);
            case 3: return launch<3, R, NORM, AFTER>(a, stream);
            default: return launch<4, R, NORM, AFTER>(a, stream);
        }
    };
    // Few rows: rather more warps.
    if (AFTER != After::SILU && a.n <= 4096) {
        with_rows(std::integral_constant<int, AFTER == After::SILU ? 2 : 1>{});
    } else {
        with_rows(std::integral_constant<int, 2>{});
    }
}

// The arguments without a norm, checked. `factor` is how many rows of w there are for each column of
// out.
template <class Out>
Arguments<Out> arguments(const msgl_rows &x, const msgl_rows &w, const msgl_rows &out, int factor) {
    check_rows("x", x);
    check_rows("out", out);
    check_shape("w", w, factor * out.row_len, x.row_len);
    check_shape("out", out, x.rows, out.row_len);
    if (x.rows > MAX_ROWS) {
        refuse("%lld rows; up to %d are possible", static_cast<long long>(x.rows), MAX_ROWS);
    }
    if (x.row_len < 1 || x.row_len > (1 << 30) || !all_wide({x, w}, sizeof(bf16))) {
        refuse("rows of %lld bfloat16 must be whole, aligned multiples of 16 bytes",
               static_cast<long long>(x.row_len));
    }
    Arguments<Out> a{};
    a.x = static_cast<const bf16 *>(x.data);
    a.x_stride = x.stride;
    a.w = static_cast<const bf16 *>(w.data);
    a.w_stride = w.stride;
    a.out = static_cast<Out *>(out.data);
    a.out_stride = out.stride;
    a.n = out.row_len;
    a.k = static_cast<int>(x.row_len);
    return a;
}

template <After AFTER>
void norm_gemv(const msgl_rows &x, const void *norm, float eps, const msgl_rows &w,
               const msgl_rows &out, cudaStream_t stream) {
    auto a = arguments<bf16>(x, w, out, AFTER == After::SILU ? 2 : 1);
    if (!is_aligned(norm, WIDE)) refuse("the weight of the norm is not aligned to 16 bytes");
    const int64_t shared = static_cast<int64_t>(sizeof(bf16)) * (x.rows + 1) * a.k;
    if (shared > SHARED_BYTES - 1024) {
        refuse("%lld rows of %d do not fit into shared memory", static_cast<long long>(x.rows), a.k);
    }
    if (is_empty(out)) return;
    a.norm = static_cast<const bf16 *>(norm);
    a.eps = eps;
    gemv<true, AFTER>(a, x.rows, stream);
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_gemv(int32_t out_dtype, msgl_rows x, msgl_rows w, msgl_rows out,
                             msgl_stream stream) {
    return guarded("gemv", [&] {
        with_float(out_dtype, [&](auto tag) {
            const auto a = arguments<typename decltype(tag)::type>(x, w, out, 1);
            if (!is_empty(out)) gemv<false, After::STORE>(a, x.rows, stream_of(stream));
        });
    });
}

extern "C" int32_t msgl_gemv_add(msgl_rows x, msgl_rows w, msgl_rows residual,
                                 msgl_stream stream) {
    return guarded("gemv_add", [&] {
        const auto a = arguments<bf16>(x, w, residual, 1);
        if (!is_empty(residual)) gemv<false, After::ADD>(a, x.rows, stream_of(stream));
    });
}

extern "C" int32_t msgl_norm_gemv(msgl_rows x, const void *norm, float eps, msgl_rows w,
                                  msgl_rows out, msgl_stream stream) {
    return guarded("norm_gemv", [&] {
        norm_gemv<After::STORE>(x, norm, eps, w, out, stream_of(stream));
    });
}

extern "C" int32_t msgl_norm_gemv_silu(msgl_rows x, const void *norm, float eps, msgl_rows w,
                                       msgl_rows out, msgl_stream stream) {
    return guarded("norm_gemv_silu", [&] {
        norm_gemv<After::SILU>(x, norm, eps, w, out, stream_of(stream));
    });
}
