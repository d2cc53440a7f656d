// Attention for any dtype, head dimension, group and page size, by straight loops: the floor of
// correctness. Never knows tensor cores or plans.
#include "attention.cuh"
#include "fp8.cuh"

namespace msgl {
namespace {

constexpr int WARPS = 4;
constexpr int PER_LANE = MAX_HEAD_DIM / 32;
constexpr int KEYS = 4;  // that a warp looks at together, to have several loads under way

// One block per query and head. Its warps take turns at the keys, and merge what they have found. Keys
// and values are stored as S.
template <class T, class S>
__global__ void __launch_bounds__(WARPS * 32)
    attention_kernel(const T *q, int64_t q_stride, msgl_attention_args args, T *out,
                     int64_t out_stride) {
    __shared__ float merged[WARPS][MAX_HEAD_DIM];
    __shared__ Softmax softmaxes[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t token = blockIdx.x;
    const int head = blockIdx.y, head_dim = args.head_dim;
    const int j = sequence_of(args.cu_seqlens_q, args.n, token);
    if (j < 0) return;
    const Sequence sequence = Sequence::of(args, j);
    const int last =
        args.kv_lens[j] - static_cast<int>(args.cu_seqlens_q[j + 1] - token);  // is seen
    const int first = args.window > 0 ? max(last + 1 - args.window, 0) : 0;
    const int64_t kv_head = head / (args.num_q_heads / args.num_kv_heads);
    const int64_t slot_stride = static_cast<int64_t>(args.num_kv_heads) * head_dim;
    const S *keys = static_cast<const S *>(args.k_pool) + kv_head * head_dim;
    const S *values = static_cast<const S *>(args.v_pool) + kv_head * head_dim;

    float query[PER_LANE], sums[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int at = lane + 32 * i;
        const T *line = q + token * q_stride + static_cast<int64_t>(head) * head_dim;
        query[i] = at < head_dim ? to_float(line[at]) * args.scale : 0.0f;
        sums[i] = 0.0f;
    }
    Softmax softmax{-INFINITY, 0.0f};
    for (int at = first + warp * KEYS; at <= last; at += WARPS * KEYS) {
        int64_t slots[KEYS];
        float scores[KEYS];
#pragma unroll
        for (int key = 0; key < KEYS; ++key) {
            slots[key] = at + key <= last ? sequence.slot(at + key) : -1;
            scores[key] = 0.0f;
        }
#pragma unroll
        for (int key = 0; key < KEYS; ++key) {
            if (slots[key] < 0) continue;
#pragma unroll
            for (int i = 0; i < PER_LANE; ++i) {
                const int column = lane + 32 * i;
                if (column < head_dim) {
                    const float k = to_float(keys[slots[key] * slot_stride + column]);
                    scores[key] = fmaf(query[i], k, scores[key]);
                }
            }
        }
        float max = softmax.max;
#pragma unroll
        for (int key = 0; key < KEYS; ++key) {
            scores[key] = slots[key] < 0 ? -INFINITY : warp_sum(scores[key]);
            // NaN stays: it must not look like a token that can be trusted.
            max = isnan(scores[key]) ? scores[key] : fmaxf(max, scores[key]);
        }
        if (max == -INFINITY) continue;  // nothing to see yet
        const float shrink = expf(softmax.max - max);
        softmax = {max, softmax.sum * shrink};
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) sums[i] *= shrink;
#pragma unroll
        for (int key = 0; key < KEYS; ++key) {
            if (slots[key] < 0) continue;
            const float weight = expf(scores[key] - max);
            softmax.sum += weight;
#pragma unroll
            for (int i = 0; i < PER_LANE; ++i) {
                const int column = lane + 32 * i;
                if (column < head_dim) {
                    const float v = to_float(values[slots[key] * slot_stride + column]);
                    sums[i] = fmaf(weight, v, sums[i]);
                }
            }
        }
    }

    if (lane == 0) softmaxes[warp] = softmax;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) merged[warp][lane + 32 * i] = sums[i];
    __syncthreads();
    float max = -INFINITY, total = 0.0f;
    for (int other = 0; other < WARPS; ++other) max = fmaxf(max, softmaxes[other].max);
    float shares[WARPS];
    for (int other = 0; other < WARPS; ++other) {
        const bool empty = softmaxes[other].max == -INFINITY;
        shares[other] = empty ? 0.0f : expf(softmaxes[other].max - max);
        total += shares[other] * softmaxes[other].sum;
    }
    T *line = out + token * out_stride + static_cast<int64_t>(head) * head_dim;
    for (int column = threadIdx.x; column < head_dim; column += WARPS * 32) {
        float sum = 0.0f;
        for (int other = 0; other < WARPS; ++other) sum += shares[other] * merged[other][column];
        // Nothing seen, as with no keys, is zero.
        line[column] = from_float<T>(total == 0.0f ? 0.0f : sum / total);
    }
}

}  // namespace

void attention_native(int32_t dtype, const msgl_rows &q, const msgl_attention_args &args,
                      const msgl_rows &out, cudaStream_t stream) {
    check_attention(q, args, out);
    check_kv_dtype(dtype, args.kv_dtype);
    if (q.rows == 0 || args.n == 0) return;
    if (q.rows > INT32_MAX || args.num_q_heads > 65535) {
        refuse("%lld queries of %d heads are too many", static_cast<long long>(q.rows),
               args.num_q_heads);
    }
    with_float(dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const dim3 blocks(static_cast<unsigned>(q.rows), static_cast<unsigned>(args.num_q_heads));
        const auto launch = [&](auto kernel) {
            kernel<<<blocks, WARPS * 32, 0, stream>>>(static_cast<const T *>(q.data), q.stride,
                                                      args, static_cast<T *>(out.data),
                                                      out.stride);
            check_launch();
        };
        if (args.kv_dtype == MSGL_F8E4M3) {
            launch(attention_kernel<T, fp8>);
        } else {
            launch(attention_kernel<T, T>);
        }
    });
}

}  // namespace msgl

extern "C" int32_t msgl_attention_native(int32_t dtype, msgl_rows q,
                                         const msgl_attention_args *args, msgl_rows out,
                                         msgl_stream stream) {
    return msgl::guarded("attention_native", [&] {
        msgl::attention_native(dtype, q, *args, out, msgl::stream_of(stream));
    });
}
