// Storing keys and values into a KV pool of 8-bit floats, alone or after the norm and the rotation: one
// warp per head of one token. Never knows who owns a slot.
#include "fp8.cuh"
#include "rope.cuh"

namespace msgl {
namespace {

constexpr int WARPS = 4;

template <class T, int N>
__device__ void round_head(const T *in, fp8 *out, int head_dim) {
    const int lane = threadIdx.x % 32;
    for (int i = lane * N; i < head_dim; i += 32 * N) {
        const auto pack = Pack<T, N>::load(in + i);
        Pack<fp8, N> rounded;
#pragma unroll
        for (int j = 0; j < N; ++j) rounded.at[j] = from_float<fp8>(to_float(pack.at[j]));
        rounded.store(out + i);
    }
}

struct Pool {
    const int32_t *slots;
    int64_t num_slots;
    fp8 *k, *v;
    int64_t k_stride, v_stride;

    __device__ __forceinline__ int64_t slot(int64_t token) const {
        const int64_t slot = slots[token];
        return slot >= 0 && slot < num_slots ? slot : -1;
    }
};

// blockIdx.x: token; the heads of k, then those of v, WARPS at a time.
template <class T, int N>
__global__ void __launch_bounds__(WARPS * 32)
    store_kernel(Heads<T> k, Heads<T> v, int head_dim, Pool pool) {
    const int64_t token = blockIdx.x, slot = pool.slot(token);
    if (slot < 0) return;
    const int warp = threadIdx.x / 32;
    for (int head = blockIdx.y * WARPS + warp; head < k.count + v.count;
         head += gridDim.y * WARPS) {
        const bool is_key = head < k.count;
        const Heads<T> &from = is_key ? k : v;
        const int64_t column = static_cast<int64_t>(is_key ? head : head - k.count) * head_dim;
        fp8 *to = is_key ? pool.k + slot * pool.k_stride : pool.v + slot * pool.v_stride;
        round_head<T, N>(from.data + token * from.stride + column, to + column, head_dim);
    }
}

// blockIdx.x: token; the heads of q, of k and of v, WARPS at a time. A key goes through shared memory
// as T: it is rounded to that first.
template <class T, int N>
__global__ void __launch_bounds__(WARPS * 32)
    rope_store_kernel(Heads<T> q, Heads<T> k, Heads<T> v, Rope<T> rope, Pool pool) {
    extern __shared__ __align__(16) unsigned char memory[];
    release_successor();
    await_predecessor();
    const int warp = threadIdx.x / 32, head_dim = rope.head_dim;
    auto *line = reinterpret_cast<float *>(memory) + warp * head_dim;
    // Behind all lines, each head padded to whole wide accesses.
    const int padded = (head_dim + WIDE - 1) / WIDE * WIDE;
    auto *keys = reinterpret_cast<T *>(memory + (WARPS * head_dim * sizeof(float) + WIDE - 1) /
                                                    WIDE * WIDE);
    T *key = keys + warp * padded;
    const int64_t token = blockIdx.x, position = rope.positions[token], slot = pool.slot(token);
    const bool rotates = position >= 0 && position < rope.max_positions;
    const int num_heads = q.count + k.count + v.count;
    for (int head = blockIdx.y * WARPS + warp; head < num_heads; head += gridDim.y * WARPS) {
        if (head < q.count) {
            T *at = q.data + token * q.stride + static_cast<int64_t>(head) * head_dim;
            if (rotates) norm_rope_head<T, N>(at, at, rope.q_weight, rope, position, line);
            continue;
        }
        if (slot < 0) continue;
        if (head < q.count + k.count) {
            const int64_t column = static_cast<int64_t>(head - q.count) * head_dim;
            const T *from = k.data + token * k.stride + column;
            if (rotates) {
                norm_rope_head<T, N>(from, key, rope.k_weight, rope, position, line);
                from = key;  // all lanes have met since they wrote it
            }
            round_head<T, N>(from, pool.k + slot * pool.k_stride + column, head_dim);
            __syncwarp();
            continue;
        }
        const int64_t column = static_cast<int64_t>(head - q.count - k.count) * head_dim;
        round_head<T, N>(v.data + token * v.stride + column,
                         pool.v + slot * pool.v_stride + column, head_dim);
    }
}

template <class T>
Heads<T> heads_of(const msgl_rows &x, int64_t head_dim) {
    return {static_cast<T *>(x.data), x.stride, static_cast<int>(x.row_len / head_dim)};
}

Pool pool_of(const int32_t *slots, const msgl_rows &k, const msgl_rows &v) {
    return {slots, k.rows, static_cast<fp8 *>(k.data), static_cast<fp8 *>(v.data), k.stride,
            v.stride};
}

void check_pools(const msgl_rows &k, const msgl_rows &v, const msgl_rows &k_pool,
                 const msgl_rows &v_pool) {
    check_shape("v", v, k.rows, k.row_len);
    check_shape("k_pool", k_pool, k_pool.rows, k.row_len);
    check_shape("v_pool", v_pool, k_pool.rows, k.row_len);
    if (k.rows > INT32_MAX) refuse("%lld tokens are too many", static_cast<long long>(k.rows));
}

// Whether a pool can be written by accesses of as many elements as T is read by.
template <class T>
bool pool_is_wide(const msgl_rows &pool) {
    return is_aligned(pool, 1, WIDE / static_cast<int64_t>(sizeof(T)));
}

dim3 grid_of(int64_t tokens, int64_t num_heads) {
    const int64_t across = std::min<int64_t>(ceil_div(num_heads, WARPS), 65535);
    return dim3(static_cast<unsigned>(tokens), static_cast<unsigned>(across));
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_store_kv_fp8(int32_t dtype, msgl_rows k, msgl_rows v,
                                     const int32_t *slots, msgl_rows k_pool, msgl_rows v_pool,
                                     msgl_stream stream) {
    return guarded("store_kv_fp8", [&] {
        check_rows("k", k);
        check_pools(k, v, k_pool, v_pool);
        if (is_empty(k)) return;
        if (k.row_len > INT32_MAX) {
            refuse("rows of %lld are too long", static_cast<long long>(k.row_len));
        }
        with_float(dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const bool wide = all_wide({k, v}, sizeof(T)) && pool_is_wide<T>(k_pool) &&
                              pool_is_wide<T>(v_pool);
            with_width<T>(wide, [&](auto width) {
                constexpr int N = decltype(width)::value;
                // A row is one head as far as this kernel sees.
                store_kernel<T, N><<<grid_of(k.rows, 2), WARPS * 32, 0, stream_of(stream)>>>(
                    heads_of<T>(k, k.row_len), heads_of<T>(v, v.row_len),
                    static_cast<int>(k.row_len), pool_of(slots, k_pool, v_pool));
                check_launch();
            });
        });
    });
}

extern "C" int32_t msgl_qk_norm_rope_store_fp8(int32_t dtype, msgl_rows q, msgl_rows k,
                                               msgl_rows v, int32_t head_dim,
                                               const void *q_weight, const void *k_weight,
                                               float eps, const int32_t *positions,
                                               const float *cos_sin, int64_t max_positions,
                                               int32_t rotary_dim, const int32_t *slots,
                                               msgl_rows k_pool, msgl_rows v_pool,
                                               msgl_stream stream) {
    return guarded("qk_norm_rope_store_fp8", [&] {
        if (head_dim < 1 || head_dim > MAX_HEAD_DIM) {
            refuse("head_dim is %d; 1 to %d are possible", head_dim, MAX_HEAD_DIM);
        }
        if (rotary_dim < 0 || rotary_dim > head_dim || rotary_dim % 2 != 0) {
            refuse("rotary_dim is %d; it must be even and at most head_dim, %d", rotary_dim,
                   head_dim);
        }
        check_rows("q", q);
        check_shape("k", k, q.rows, k.row_len);
        check_pools(k, v, k_pool, v_pool);
        if (q.row_len % head_dim != 0 || k.row_len % head_dim != 0) {
            refuse("rows of %lld and %lld are not whole heads of %d",
                   static_cast<long long>(q.row_len), static_cast<long long>(k.row_len), head_dim);
        }
        if ((q_weight == nullptr) != (k_weight == nullptr)) {
            refuse("q_weight and k_weight must both be given, or both be null");
        }
        const int64_t num_heads = (q.row_len + 2 * k.row_len) / head_dim;
        if (q.rows == 0 || num_heads == 0) return;
        with_float(dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const bool wide = head_dim * sizeof(T) % WIDE == 0 &&
                              all_wide({q, k, v}, sizeof(T)) && is_aligned(q_weight, WIDE) &&
                              is_aligned(k_weight, WIDE) && pool_is_wide<T>(k_pool) &&
                              pool_is_wide<T>(v_pool);
            with_width<T>(wide, [&](auto width) {
                constexpr int N = decltype(width)::value;
                const Rope<T> rope{static_cast<const T *>(q_weight),
                                   static_cast<const T *>(k_weight),
                                   eps,
                                   positions,
                                   cos_sin,
                                   max_positions,
                                   rotary_dim,
                                   head_dim};
                const size_t padded = ceil_div(head_dim, WIDE) * WIDE;
                const size_t shared = ceil_div(sizeof(float) * WARPS * head_dim, WIDE) * WIDE +
                                      sizeof(T) * WARPS * padded;
                launch_early(rope_store_kernel<T, N>, grid_of(q.rows, num_heads),
                             dim3(WARPS * 32), shared, stream_of(stream),
                             heads_of<T>(q, head_dim), heads_of<T>(k, head_dim),
                             heads_of<T>(v, head_dim), rope, pool_of(slots, k_pool, v_pool));
            });
        });
    });
}
