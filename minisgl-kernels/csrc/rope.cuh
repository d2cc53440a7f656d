// The per-head norm and the rotation of one head by one warp. Never knows what becomes of the result.
#pragma once

#include "early.cuh"

namespace msgl {

constexpr int MAX_HEAD_DIM = 1024;

template <class T>
struct Rope {
    const T *q_weight, *k_weight;  // null without the norm
    float eps;
    const int32_t *positions;
    const float *cos_sin;
    int64_t max_positions;
    int rotary_dim, head_dim;
};

// Reads one head, normalizes and rotates it, and writes it. `line` is shared memory for one head,
// for this warp alone. Every product and sum has its own rounding, so that two kernels that call
// this give the same bits.
template <class T, int N>
__device__ void norm_rope_head(const T *in, T *out, const T *weight, const Rope<T> &rope,
                               int64_t position, float *line) {
    using Wide = Pack<T, N>;
    const int lane = threadIdx.x % 32, head_dim = rope.head_dim;
    const int half = rope.rotary_dim / 2;
    float square = 0.0f;
    for (int i = lane * N; i < head_dim; i += 32 * N) {
        const Wide pack = Wide::load(in + i);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const float value = to_float(pack.at[j]);
            square = __fmaf_rn(value, value, square);
            line[i + j] = value;
        }
    }
    float scale = 1.0f;
    if (weight != nullptr) {
        const float mean = __fdiv_rn(warp_sum(square), static_cast<float>(head_dim));
        scale = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, rope.eps)));
        for (int i = lane * N; i < head_dim; i += 32 * N) {
            const Wide factor = Wide::load(weight + i);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const float normalized = round_to<T>(__fmul_rn(line[i + j], scale));
                line[i + j] = round_to<T>(__fmul_rn(normalized, to_float(factor.at[j])));
            }
        }
    }
    __syncwarp();
    const float *cos = rope.cos_sin + position * rope.rotary_dim;
    const float *sin = cos + half;
    for (int i = lane * N; i < head_dim; i += 32 * N) {
        Wide pack;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const int at = i + j;
            float value = line[at];
            if (at < half) {
                const float other = __fmul_rn(line[at + half], sin[at]);
                value = __fmaf_rn(value, cos[at], -other);
            } else if (at < rope.rotary_dim) {
                const float other = __fmul_rn(line[at - half], sin[at - half]);
                value = __fmaf_rn(value, cos[at - half], other);
            }
            pack.at[j] = from_float<T>(value);
        }
        pack.store(out + i);
    }
    __syncwarp();
}

template <class T>
struct Heads {
    T *data;
    int64_t stride;  // from token to token
    int count;
};

}  // namespace msgl
