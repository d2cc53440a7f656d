// Choosing experts per token, grouping tokens by expert, and summing the experts' results per
// token. Never knows what the experts compute.
#include "common.cuh"

namespace msgl {
namespace {

constexpr int MAX_EXPERTS = 512;
constexpr int PER_LANE = MAX_EXPERTS / 32;

// Whether logit `a` of expert `i` is chosen before `b` of `j`: larger first, NaN last, and the
// lower expert among equals.
__device__ __forceinline__ bool chosen_before(float a, int i, float b, int j) {
    if (isnan(a) != isnan(b)) return isnan(b);
    if (a > b) return true;
    return (a == b || isnan(a)) && i < j;
}

constexpr int ROUTE_WARPS = 4;

// One warp per token; lane l has the experts l, l + 32, and so on.
__global__ void __launch_bounds__(ROUTE_WARPS * 32)
    route_kernel(const float *logits, int64_t stride, int64_t tokens, int num_experts,
                 bool normalize, float *weights, int64_t weights_stride, int32_t *experts,
                 int64_t experts_stride, int k) {
    const int64_t token = static_cast<int64_t>(blockIdx.x) * ROUTE_WARPS + threadIdx.x / 32;
    if (token >= tokens) return;
    const int lane = threadIdx.x % 32;
    float logit[PER_LANE];
    unsigned left = 0;  // which of this lane's experts may still be chosen
    float max = -INFINITY;
#pragma unroll
    for (int j = 0; j < PER_LANE; ++j) {
        const int expert = lane + 32 * j;
        if (expert < num_experts) {
            logit[j] = logits[token * stride + expert];
            left |= 1u << j;
            max = fmaxf(max, logit[j]);
        } else {
            logit[j] = 0.0f;
        }
    }
    max = warp_max(max);
    float total = 0.0f;
#pragma unroll
    for (int j = 0; j < PER_LANE; ++j) {
        if (left >> j & 1) total += expf(logit[j] - max);
    }
    total = warp_sum(total);

    float sum = 0.0f;
    for (int choice = 0; choice < k; ++choice) {
        float best = NAN;
        int best_expert = INT32_MAX;
#pragma unroll
        for (int j = 0; j < PER_LANE; ++j) {
            const int expert = lane + 32 * j;
            if ((left >> j & 1) && chosen_before(logit[j], expert, best, best_expert)) {
                best = logit[j];
                best_expert = expert;
            }
        }
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2) {
            const float other = __shfl_xor_sync(ALL_LANES, best, offset);
            const int other_expert = __shfl_xor_sync(ALL_LANES, best_expert, offset);
            if (chosen_before(other, other_expert, best, best_expert)) {
                best = other;
                best_expert = other_expert;
            }
        }
        if (best_expert % 32 == lane) left &= ~(1u << (best_expert / 32));
        const float probability = expf(best - max) / total;
        sum += probability;
        if (lane == 0) {
            weights[token * weights_stride + choice] = probability;
            experts[token * experts_stride + choice] = best_expert;
        }
    }
    if (normalize) {
        __syncwarp();
        for (int choice = lane; choice < k; choice += 32) {
            weights[token * weights_stride + choice] /= sum;
        }
    }
}

constexpr int GROUP_THREADS = 256;

// The exclusive sum of `x` over the threads of the block, and its total.
__device__ __forceinline__ int exclusive_sum(int x, int *shared, int *total) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int inclusive = x;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        const int other = __shfl_up_sync(ALL_LANES, inclusive, offset);
        if (lane >= offset) inclusive += other;
    }
    if (lane == 31) shared[warp] = inclusive;
    __syncthreads();
    int before = 0, all = 0;
#pragma unroll
    for (int other = 0; other < GROUP_THREADS / 32; ++other) {
        if (other < warp) before += shared[other];
        all += shared[other];
    }
    __syncthreads();
    *total = all;
    return before + inclusive - x;
}

// One block per expert. It counts the pairs of the experts before it, which is where its own rows
// begin, and then numbers its own pairs in order. Nothing passes between blocks.
__global__ void __launch_bounds__(GROUP_THREADS)
    group_kernel(const int32_t *experts, int64_t pairs, int k, int num_experts, int32_t *tokens,
                 int32_t *grouped_rows, int32_t *offsets) {
    __shared__ int shared[GROUP_THREADS / 32];
    const int expert = blockIdx.x;
    int before = 0;
    for (int64_t pair = threadIdx.x; pair < pairs; pair += GROUP_THREADS) {
        const int32_t of = experts[pair];
        before += of >= 0 && of < expert;
    }
    int row;
    exclusive_sum(before, shared, &row);
    if (threadIdx.x == 0) offsets[expert] = row;
    for (int64_t first = 0; first < pairs; first += GROUP_THREADS) {
        const int64_t pair = first + threadIdx.x;
        const bool mine = pair < pairs && experts[pair] == expert;
        // Most stretches have no pair of this expert.
        if (!__syncthreads_or(mine)) continue;
        int count;
        const int place = row + exclusive_sum(mine, shared, &count);
        if (mine) {
            tokens[place] = static_cast<int32_t>(pair / k);
            grouped_rows[pair] = place;
        }
        row += count;
    }
    if (threadIdx.x == 0 && expert == num_experts - 1) offsets[num_experts] = row;
}

template <class T, int N>
__global__ void combine_kernel(const T *x, int64_t x_stride, int64_t x_rows, const float *weights,
                               int64_t weights_stride, const int32_t *grouped_rows,
                               int64_t rows_stride, int k, T *out, int64_t out_stride,
                               int64_t tokens, int64_t accesses) {
    const int64_t token = row_of_thread();
    if (token >= tokens) return;
    each_access(accesses, [&](int64_t i) {
        float sums[N] = {};
        for (int j = 0; j < k; ++j) {
            const int64_t row = grouped_rows[token * rows_stride + j];
            if (row < 0 || row >= x_rows) continue;
            const float weight = weights[token * weights_stride + j];
            const auto pack = Pack<T, N>::load(x + row * x_stride + i * N);
#pragma unroll
            for (int e = 0; e < N; ++e) sums[e] = fmaf(weight, to_float(pack.at[e]), sums[e]);
        }
        Pack<T, N> sum;
#pragma unroll
        for (int e = 0; e < N; ++e) sum.at[e] = from_float<T>(sums[e]);
        sum.store(out + token * out_stride + i * N);
    });
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_moe_route(msgl_rows logits, int32_t normalize, msgl_rows weights,
                                  msgl_rows experts, msgl_stream stream) {
    return guarded("moe_route", [&] {
        check_rows("logits", logits);
        check_shape("weights", weights, logits.rows, weights.row_len);
        check_shape("experts", experts, logits.rows, weights.row_len);
        if (logits.row_len > MAX_EXPERTS) {
            refuse("%lld experts; up to %d are possible", static_cast<long long>(logits.row_len),
                   MAX_EXPERTS);
        }
        if (weights.row_len < 1 || weights.row_len > logits.row_len) {
            refuse("%lld experts per token; 1 to %lld are possible",
                   static_cast<long long>(weights.row_len), static_cast<long long>(logits.row_len));
        }
        if (logits.rows == 0) return;
        const auto blocks = static_cast<unsigned>(ceil_div(logits.rows, ROUTE_WARPS));
        route_kernel<<<blocks, ROUTE_WARPS * 32, 0, stream_of(stream)>>>(
            static_cast<const float *>(logits.data), logits.stride, logits.rows,
            static_cast<int>(logits.row_len), normalize != 0, static_cast<float *>(weights.data),
            weights.stride, static_cast<int32_t *>(experts.data), experts.stride,
            static_cast<int>(weights.row_len));
        check_launch();
    });
}

extern "C" int32_t msgl_moe_group(const int32_t *experts, int64_t num_tokens, int32_t top_k,
                                  int32_t num_experts, int32_t *tokens, int32_t *grouped_rows,
                                  int32_t *offsets, msgl_stream stream) {
    return guarded("moe_group", [&] {
        if (num_experts < 0 || num_experts > 65535) {
            refuse("%d experts; up to 65535 are possible", num_experts);
        }
        if (num_tokens < 0 || top_k < 0 || num_tokens * top_k > INT32_MAX) {
            refuse("%lld tokens of %d experts; up to 2147483647 pairs are possible",
                   static_cast<long long>(num_tokens), top_k);
        }
        if (num_experts == 0) {
            check(cudaMemsetAsync(offsets, 0, sizeof(int32_t), stream_of(stream)), "offsets");
            return;
        }
        group_kernel<<<static_cast<unsigned>(num_experts), GROUP_THREADS, 0, stream_of(stream)>>>(
            experts, num_tokens * top_k, std::max(top_k, 1), num_experts, tokens, grouped_rows,
            offsets);
        check_launch();
    });
}

extern "C" int32_t msgl_moe_combine(int32_t dtype, msgl_rows x, msgl_rows weights,
                                    msgl_rows grouped_rows, msgl_rows out, msgl_stream stream) {
    return guarded("moe_combine", [&] {
        check_rows("x", x);
        check_rows("weights", weights);
        check_shape("grouped_rows", grouped_rows, weights.rows, weights.row_len);
        check_shape("out", out, weights.rows, x.row_len);
        if (is_empty(out)) return;
        with_float(dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            with_width<T>(all_wide({x, out}, sizeof(T)), [&](auto width) {
                constexpr int N = decltype(width)::value;
                const Grid grid = grid_over(out.rows, out.row_len / N);
                combine_kernel<T, N><<<grid.blocks, grid.threads, 0, stream_of(stream)>>>(
                    static_cast<const T *>(x.data), x.stride, x.rows,
                    static_cast<const float *>(weights.data), weights.stride,
                    static_cast<const int32_t *>(grouped_rows.data), grouped_rows.stride,
                    static_cast<int>(weights.row_len), static_cast<T *>(out.data), out.stride,
                    out.rows, out.row_len / N);
                check_launch();
            });
        });
    });
}
