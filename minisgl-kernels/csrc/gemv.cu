// Multiplying a few rows by a matrix, bound by reading the matrix once, with the norm before it and
// the activation or the sum after it in the same kernel. Never knows what the matrix projects.
//
// A block computes a few rows of the product at a time, all its threads along k, and goes on to others
// until there are none left. The next rows of the matrix are under way while these are added up, and
// the first of them are fetched before the kernel before this one has ended: weights do not depend on
// it. All threads share a row for two reasons: a block reads x once for several rows, where every warp
// would, and each thread has few numbers to add up one after the other.
#include "early.cuh"

namespace msgl {
namespace {

constexpr int MAX_ROWS = 4;
// Elements of an access.
constexpr int N = WIDE / static_cast<int>(sizeof(bf16));
// Rows of the matrix that a block takes at a time.
constexpr int R = 4;
// Bytes of shared memory that a kernel has without asking, but for what the sums need.
constexpr int64_t SHARED_BYTES = 47 << 10;

using Wide = Pack<bf16, N>;

// What becomes of the sums.
enum class After {
    STORE,
    SILU,  // the second half of the matrix's rows times silu of the first half
    ADD,   // added to what is there
};

// Of blocks: how many threads, and how many a multiprocessor has room for, which bounds their
// registers. Measured on an H100: with the norm, more and smaller blocks hide the time it takes.
template <int M, bool NORM>
struct Blocks {
    static constexpr int THREADS = NORM ? 128 : 256;
    static constexpr int PER_PROCESSOR = M == 1 ? (NORM ? 6 : 3) : (NORM ? 4 : 2);
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

// What is read once, and not to push out what is read again.
__device__ __forceinline__ Wide load_once(const bf16 *from) {
    union {
        uint4 bits;
        Wide pack;
    } both;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
        : "=r"(both.bits.x), "=r"(both.bits.y), "=r"(both.bits.z), "=r"(both.bits.w)
        : "l"(from));
    return both.pack;
}

// Normalizes the rows of x into `lines`, rows of k elements, as `rms_norm` does. The weight of the
// norm lies before them. Each thread leaves there what it will read itself: its accesses of a row.
template <int M, int THREADS, class Out>
__device__ void normalize(const Arguments<Out> &a, bf16 *lines) {
    constexpr int WARPS = THREADS / 32;
    __shared__ float squares[M][WARPS];
    const int k = a.k, first = static_cast<int>(threadIdx.x) * N;
    float square[M] = {};
    for (int at = first; at < k; at += THREADS * N) {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const Wide pack = Wide::load(a.x + m * a.x_stride + at);
            pack.store(lines + m * k + at);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const float value = to_float(pack.at[j]);
                square[m] = fmaf(value, value, square[m]);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < M; ++m) {
        square[m] = warp_sum(square[m]);
        if (threadIdx.x % 32 == 0) squares[m][threadIdx.x / 32] = square[m];
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < M; ++m) {
        float sum = 0.0f;
#pragma unroll
        for (int warp = 0; warp < WARPS; ++warp) sum += squares[m][warp];
        const float scale = 1.0f / sqrtf(sum / static_cast<float>(k) + a.eps);
        for (int at = first; at < k; at += THREADS * N) {
            Wide pack = Wide::load(lines + m * k + at);
            const Wide factor = Wide::load(lines - k + at);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                pack.at[j] = normalized(pack.at[j], scale, factor.at[j]);
            }
            pack.store(lines + m * k + at);
        }
    }
}

// M rows of x. Every sum has the same order whatever M is.
template <int M, bool NORM, After AFTER, class Out>
__global__ void __launch_bounds__(Blocks<M, NORM>::THREADS, Blocks<M, NORM>::PER_PROCESSOR)
    gemv_kernel(Arguments<Out> a) {
    constexpr int THREADS = Blocks<M, NORM>::THREADS, WARPS = THREADS / 32, STEP = THREADS * N;
    constexpr int COLUMNS = AFTER == After::SILU ? R / 2 : R;  // of out, at a time
    extern __shared__ __align__(16) char memory[];
    __shared__ float parts[2][M * R][WARPS];
    release_successor();
    const int k = a.k, first = static_cast<int>(threadIdx.x) * N;
    bf16 *lines = reinterpret_cast<bf16 *>(memory) + (NORM ? k : 0);
    const int64_t step = static_cast<int64_t>(gridDim.x) * COLUMNS;
    int64_t column = static_cast<int64_t>(blockIdx.x) * COLUMNS;

    const bf16 *rows[R];
    const auto turn_to = [&](int64_t at) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
            // The gates, then what they are multiplied with.
            const int64_t half = AFTER == After::SILU ? r / COLUMNS * a.n : 0;
            rows[r] = a.w + (half + min(at + r % COLUMNS, a.n - 1)) * a.w_stride;
        }
    };
    Wide ahead[R];
    const auto fetch = [&](int at) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (at < k) ahead[r] = load_once(rows[r] + at);
        }
    };
    turn_to(column);
    fetch(first);
    if constexpr (NORM) {
        for (int at = first; at < k; at += STEP) Wide::load(a.norm + at).store(lines - k + at);
    }
    await_predecessor();
    if constexpr (NORM) normalize<M, THREADS>(a, lines);

    // The sum that this thread finishes: of row `m` of x and row `r` of the matrix.
    const int m_of_thread = static_cast<int>(threadIdx.x) / COLUMNS;
    const int r_of_thread = static_cast<int>(threadIdx.x) % COLUMNS;
    for (int parity = 0; column < a.n; column += step, parity ^= 1) {
        const bool finishes = m_of_thread < M && column + r_of_thread < a.n;
        Out *out = a.out + m_of_thread * a.out_stride + column + r_of_thread;
        float before = 0.0f;
        if constexpr (AFTER == After::ADD) {
            if (finishes) before = to_float(*out);
        }
        float sum[M][R] = {};
        for (int at = first; at < k; at += STEP) {
#pragma unroll
            for (int m = 0; m < M; ++m) {
                const Wide factor = NORM ? Wide::load(lines + m * k + at)
                                         : Wide::load(a.x + m * a.x_stride + at);
#pragma unroll
                for (int j = 0; j < N; ++j) {
#pragma unroll
                    for (int r = 0; r < R; ++r) {
                        sum[m][r] =
                            fmaf(to_float(factor.at[j]), to_float(ahead[r].at[j]), sum[m][r]);
                    }
                }
            }
            // On in these rows, or to the next ones.
            int next = at + STEP;
            if (next >= k) {
                next = column + step < a.n ? first : k;
                turn_to(column + step);
            }
            fetch(next);
        }
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const float part = warp_sum(sum[m][r]);
                if (threadIdx.x % 32 == 0) parts[parity][m * R + r][threadIdx.x / 32] = part;
            }
        }
        // Nobody writes these again before all have met for the sums in between.
        __syncthreads();
        if (!finishes) continue;
        const auto total = [&](int r) {
            float sum = 0.0f;
#pragma unroll
            for (int warp = 0; warp < WARPS; ++warp) sum += parts[parity][m_of_thread * R + r][warp];
            return sum;
        };
        if constexpr (AFTER == After::SILU) {
            const float gate = round_to<Out>(total(r_of_thread));
            const float silu = round_to<Out>(gate / (1.0f + expf(-gate)));
            *out = from_float<Out>(silu * round_to<Out>(total(COLUMNS + r_of_thread)));
        } else if constexpr (AFTER == After::ADD) {
            *out = from_float<Out>(before + round_to<Out>(total(r_of_thread)));
        } else {
            *out = from_float<Out>(total(r_of_thread));
        }
    }
}

// As many blocks as run at one time, or fewer, so that all have the same number of turns.
template <int M, bool NORM, After AFTER, class Out>
void launch(const Arguments<Out> &a, cudaStream_t stream) {
    const auto kernel = gemv_kernel<M, NORM, AFTER, Out>;
    constexpr int THREADS = Blocks<M, NORM>::THREADS;
    const size_t shared = NORM ? sizeof(bf16) * (M + 1) * a.k : 0;
    int blocks_per_processor = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_per_processor, kernel, THREADS,
                                                        shared),
          "the occupancy of a GEMV");
    const int64_t work = ceil_div(a.n, AFTER == After::SILU ? R / 2 : R);
    const int64_t room = static_cast<int64_t>(num_processors()) * std::max(blocks_per_processor, 1);
    const int64_t blocks = ceil_div(work, ceil_div(work, room));
    launch_early(kernel, dim3(static_cast<unsigned>(blocks)), dim3(THREADS), shared, stream, a);
}

template <bool NORM, After AFTER, class Out>
void gemv(const Arguments<Out> &a, int64_t m, cudaStream_t stream) {
    switch (m) {
        case 1: return launch<1, NORM, AFTER>(a, stream);
        case 2: return launch<2, NORM, AFTER>(a, stream);
        case 3: return launch<3, NORM, AFTER>(a, stream);
        default: return launch<4, NORM, AFTER>(a, stream);
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
    if (shared > SHARED_BYTES) {
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
