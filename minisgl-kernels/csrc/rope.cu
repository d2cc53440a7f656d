// The per-head norm, the rotation of queries and keys, and storing into the KV pool: one warp per
// head of one token. Never knows how the table of cosines and sines was scaled.
#include "rope.cuh"

namespace msgl {
namespace {

constexpr int WARPS = 4;

// The same where the whole head is rotated and has 64 elements for each of PER: a lane holds PER
// elements of the first half and their partners in the second, and nothing goes through shared memory.
template <class T, int PER>
__device__ void norm_rope_halves(const T *in, T *out, const T *weight, const Rope<T> &rope,
                                 int64_t position) {
    using Few = Pack<T, PER>;
    using Angles = Pack<float, PER>;
    constexpr int HALF = 32 * PER;
    const int at = threadIdx.x % 32 * PER;
    const Few low = Few::load(in + at), high = Few::load(in + HALF + at);
    float a[PER], b[PER], square = 0.0f;
#pragma unroll
    for (int j = 0; j < PER; ++j) {
        a[j] = to_float(low.at[j]);
        b[j] = to_float(high.at[j]);
        square = __fmaf_rn(b[j], b[j], __fmaf_rn(a[j], a[j], square));
    }
    if (weight != nullptr) {
        const float mean = __fdiv_rn(warp_sum(square), static_cast<float>(2 * HALF));
        const float scale = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, rope.eps)));
        const Few low_weight = Few::load(weight + at), high_weight = Few::load(weight + HALF + at);
#pragma unroll
        for (int j = 0; j < PER; ++j) {
            const float x = round_to<T>(__fmul_rn(a[j], scale));
            const float y = round_to<T>(__fmul_rn(b[j], scale));
            a[j] = round_to<T>(__fmul_rn(x, to_float(low_weight.at[j])));
            b[j] = round_to<T>(__fmul_rn(y, to_float(high_weight.at[j])));
        }
    }
    const float *angles = rope.cos_sin + position * (2 * HALF);
    const Angles cos = Angles::load(angles + at), sin = Angles::load(angles + HALF + at);
    Few first, second;
#pragma unroll
    for (int j = 0; j < PER; ++j) {
        first.at[j] = from_float<T>(__fmaf_rn(a[j], cos.at[j], -__fmul_rn(b[j], sin.at[j])));
        second.at[j] = from_float<T>(__fmaf_rn(b[j], cos.at[j], __fmul_rn(a[j], sin.at[j])));
    }
    first.store(out + at);
    second.store(out + HALF + at);
}

template <class T, int N>
__device__ void copy_head(const T *in, T *out, int head_dim) {
    const int lane = threadIdx.x % 32;
    for (int i = lane * N; i < head_dim; i += 32 * N) Pack<T, N>::load(in + i).store(out + i);
}

// The KV pool, if keys and values are to be stored.
template <class T>
struct Pool {
    const int32_t *slots;
    int64_t num_slots;
    T *k, *v;
    int64_t k_stride, v_stride;
};

// blockIdx.x: token; the heads of q, then those of k, then (if STORE) those of v, WARPS at a time. PER
// is 0, or says that heads are rotated by halves in registers.
template <class T, int N, int PER, bool STORE>
__global__ void __launch_bounds__(WARPS * 32)
    qk_norm_rope_kernel(Heads<T> q, Heads<T> k, Heads<T> v, Rope<T> rope, Pool<T> pool) {
    extern __shared__ float lines[];
    release_successor();
    await_predecessor();
    const int warp = threadIdx.x / 32;
    const auto norm_rope = [&](const T *from, T *to, const T *weight, int64_t position) {
        if constexpr (PER > 0) {
            norm_rope_halves<T, PER>(from, to, weight, rope, position);
        } else {
            float *line = lines + warp * rope.head_dim;
            norm_rope_head<T, N>(from, to, weight, rope, position, line);
        }
    };
    const int64_t token = blockIdx.x;
    const int64_t position = rope.positions[token];
    const bool rotates = position >= 0 && position < rope.max_positions;
    int64_t slot = -1;
    if (STORE) {
        slot = pool.slots[token];
        if (slot >= pool.num_slots) slot = -1;
    }
    const int num_heads = q.count + k.count + (STORE ? v.count : 0);
    for (int head = blockIdx.y * WARPS + warp; head < num_heads; head += gridDim.y * WARPS) {
        if (head < q.count) {
            T *at = q.data + token * q.stride + static_cast<int64_t>(head) * rope.head_dim;
            if (rotates) norm_rope(at, at, rope.q_weight, position);
            continue;
        }
        if (head < q.count + k.count) {
            const int64_t column = static_cast<int64_t>(head - q.count) * rope.head_dim;
            T *from = k.data + token * k.stride + column, *to = from;
            if (STORE) {
                if (slot < 0) continue;
                to = pool.k + slot * pool.k_stride + column;
            }
            if (rotates) {
                norm_rope(from, to, rope.k_weight, position);
            } else if (STORE) {
                copy_head<T, N>(from, to, rope.head_dim);
            }
            continue;
        }
        if (slot < 0) continue;
        const int64_t column = static_cast<int64_t>(head - q.count - k.count) * rope.head_dim;
        copy_head<T, N>(v.data + token * v.stride + column,
                        pool.v + slot * pool.v_stride + column, rope.head_dim);
    }
}

struct Arguments {
    int32_t dtype;
    msgl_rows q, k, v;
    int32_t head_dim;
    const void *q_weight, *k_weight;
    float eps;
    const int32_t *positions;
    const float *cos_sin;
    int64_t max_positions;
    int32_t rotary_dim;
    const int32_t *slots;
    msgl_rows k_pool, v_pool;
    cudaStream_t stream;
};

template <bool STORE>
void qk_norm_rope(const Arguments &a) {
    if (a.head_dim < 1 || a.head_dim > MAX_HEAD_DIM) {
        refuse("head_dim is %d; 1 to %d are possible", a.head_dim, MAX_HEAD_DIM);
    }
    if (a.rotary_dim < 0 || a.rotary_dim > a.head_dim || a.rotary_dim % 2 != 0) {
        refuse("rotary_dim is %d; it must be even and at most head_dim, %d", a.rotary_dim,
               a.head_dim);
    }
    check_rows("q", a.q);
    check_shape("k", a.k, a.q.rows, a.k.row_len);
    if (a.q.row_len % a.head_dim != 0 || a.k.row_len % a.head_dim != 0) {
        refuse("rows of %lld and %lld are not whole heads of %d",
               static_cast<long long>(a.q.row_len), static_cast<long long>(a.k.row_len),
               a.head_dim);
    }
    if (STORE) {
        check_shape("v", a.v, a.k.rows, a.k.row_len);
        check_shape("k_pool", a.k_pool, a.k_pool.rows, a.k.row_len);
        check_shape("v_pool", a.v_pool, a.k_pool.rows, a.k.row_len);
    }
    if ((a.q_weight == nullptr) != (a.k_weight == nullptr)) {
        refuse("q_weight and k_weight must both be given, or both be null");
    }
    const int64_t num_heads = (a.q.row_len + (STORE ? 2 : 1) * a.k.row_len) / a.head_dim;
    if (a.q.rows == 0 || num_heads == 0) return;
    if (a.q.rows > INT32_MAX) refuse("%lld tokens are too many", static_cast<long long>(a.q.rows));

    with_float(a.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        // Heads are contiguous, so a head is aligned if its row and its length are.
        bool wide = a.head_dim * sizeof(T) % WIDE == 0 && all_wide({a.q, a.k}, sizeof(T)) &&
                    is_aligned(a.q_weight, WIDE) && is_aligned(a.k_weight, WIDE);
        if (STORE) wide = wide && all_wide({a.v, a.k_pool, a.v_pool}, sizeof(T));
        with_width<T>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            const auto heads = [&](const msgl_rows &x) {
                return Heads<T>{static_cast<T *>(x.data), x.stride,
                                static_cast<int>(x.row_len / a.head_dim)};
            };
            const Rope<T> rope{static_cast<const T *>(a.q_weight),
                               static_cast<const T *>(a.k_weight),
                               a.eps,
                               a.positions,
                               a.cos_sin,
                               a.max_positions,
                               a.rotary_dim,
                               a.head_dim};
            const Pool<T> pool{a.slots,
                               a.k_pool.rows,
                               static_cast<T *>(a.k_pool.data),
                               static_cast<T *>(a.v_pool.data),
                               a.k_pool.stride,
                               a.v_pool.stride};
            const dim3 blocks(static_cast<unsigned>(a.q.rows),
                              static_cast<unsigned>(std::min<int64_t>(
                                  ceil_div(num_heads, WARPS), 65535)));
            const auto launch = [&](auto per) {
                constexpr int PER = decltype(per)::value;
                const size_t shared = PER > 0 ? 0 : sizeof(float) * WARPS * a.head_dim;
                launch_early(qk_norm_rope_kernel<T, N, PER, STORE>, blocks, dim3(WARPS * 32),
                             shared, a.stream, heads(a.q), heads(a.k),
                             STORE ? heads(a.v) : Heads<T>{}, rope, pool);
            };
            const bool whole = a.rotary_dim == a.head_dim && is_aligned(a.cos_sin, WIDE);
            if (N > 1 && whole && a.head_dim == 64) {
                launch(std::integral_constant<int, 1>{});
            } else if (N > 1 && whole && a.head_dim == 128) {
                launch(std::integral_constant<int, 2>{});
            } else if (N > 1 && whole && a.head_dim == 256) {
                launch(std::integral_constant<int, 4>{});
            } else {
                launch(std::integral_constant<int, 0>{});
            }
        });
    });
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_qk_norm_rope(int32_t dtype, msgl_rows q, msgl_rows k, int32_t head_dim,
                                     const void *q_weight, const void *k_weight, float eps,
                                     const int32_t *positions, const float *cos_sin,
                                     int64_t max_positions, int32_t rotary_dim,
                                     msgl_stream stream) {
    return guarded("qk_norm_rope", [&] {
        Arguments a{};
        a.dtype = dtype;
        a.q = q;
        a.k = k;
        a.head_dim = head_dim;
        a.q_weight = q_weight;
        a.k_weight = k_weight;
        a.eps = eps;
        a.positions = positions;
        a.cos_sin = cos_sin;
        a.max_positions = max_positions;
        a.rotary_dim = rotary_dim;
        a.stream = stream_of(stream);
        qk_norm_rope<false>(a);
    });
}

extern "C" int32_t msgl_qk_norm_rope_store(int32_t dtype, msgl_rows q, msgl_rows k, msgl_rows v,
                                           int32_t head_dim, const void *q_weight,
                                           const void *k_weight, float eps,
                                           const int32_t *positions, const float *cos_sin,
                                           int64_t max_positions, int32_t rotary_dim,
                                           const int32_t *slots, msgl_rows k_pool,
                                           msgl_rows v_pool, msgl_stream stream) {
    return guarded("qk_norm_rope_store", [&] {
        qk_norm_rope<true>({dtype, q, k, v, head_dim, q_weight, k_weight, eps, positions, cos_sin,
                            max_positions, rotary_dim, slots, k_pool, v_pool, stream_of(stream)});
    });
}
