// The largest logit, the largest noisy logit (which is a sample), and the largest few of each row;
// two stages each. Never knows how many shards there are, except `best_of_shards`.
#include "sampling.cuh"

namespace msgl {
namespace {

// The best element so far: its value and column; column -1 if there is none. NaN with column -1 is
// a row that has no meaningful token.
struct Best {
    float value;
    int32_t id;
};

__device__ constexpr Best none() { return {-INFINITY, -1}; }

__device__ __forceinline__ bool is_broken(Best best) { return isnan(best.value); }

// The better of two, in any order: broken over all, then the larger value, then the lower id.
__device__ __forceinline__ Best better(Best a, Best b) {
    if (is_broken(a)) return a;
    if (is_broken(b)) return b;
    if (a.id < 0) return b;
    if (b.id < 0) return a;
    if (a.value != b.value) return a.value > b.value ? a : b;
    return a.id < b.id ? a : b;
}

__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        const Best other{__shfl_xor_sync(ALL_LANES, best.value, offset),
                         __shfl_xor_sync(ALL_LANES, best.id, offset)};
        best = better(best, other);
    }
    return best;
}

// The best of a block, for every thread. `shared` may be used again after a __syncthreads().
__device__ __forceinline__ Best block_best(Best best, Best *shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    best = warp_best(best);
    if (lane == 0) shared[warp] = best;
    __syncthreads();
    return warp_best(lane < static_cast<int>(blockDim.x) / 32 ? shared[lane] : none());
}

// The logit itself is what is compared.
struct PlainScore {
    struct Row {
        __device__ void offer(Best &best, float logit, int32_t id) const {
            // Ids come in ascending order to each thread, so the first of equals stays.
            if (best.id < 0 || logit > best.value) best = {logit, id};
        }
    };
    __device__ Row row(int) const { return {}; }
};

constexpr uint64_t GOLDEN_GAMMA = 0x9e3779b97f4a7c15ull;

// Output `index` of SplitMix64 seeded with `seed`: see minisgl_kernels::ops::sampling::uniform.
__device__ __forceinline__ uint64_t splitmix64(uint64_t seed, int32_t index) {
    uint64_t z = seed + (static_cast<uint64_t>(static_cast<int64_t>(index)) + 1) * GOLDEN_GAMMA;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// The scaled logit plus Gumbel noise.
struct GumbelScore {
    const float *inv_temperature, *threshold;
    const uint64_t *seeds;
    const int32_t *positions;
    int32_t first_id;

    // More than any noise: -ln(-ln(1 - 2^-31)) is 21.49.
    static constexpr float MOST_NOISE = 21.6f;
    static constexpr float GUESS_ERROR = 1e-3f;

    struct Row {
        float inv_temperature, threshold;
        uint64_t key;
        int32_t first_id;

        __device__ void offer(Best &best, float logit, int32_t column) const {
            if (!(logit >= threshold) || logit == -INFINITY) return;
            // Rounding is monotone: what loses with the most noise loses with its own.
            if (best.id >= 0 && fmaf(logit, inv_temperature, MOST_NOISE) < best.value) return;
            const int32_t top = static_cast<int32_t>(splitmix64(key, first_id + column) >> 34);
            const float uniform =
                fminf(__int2float_rn(2 * top + 1) * 0x1p-31f, 1.0f - 0x1p-24f);
            if (best.id >= 0) {
                // Few can win; for the others fast logarithms will do, which are off by less than
                // GUESS_ERROR where the series is used below and the logarithm above it.
                const float rate = uniform < 0.015625f
                                       ? fmaf(uniform * uniform, fmaf(uniform, 0.333f, 0.5f),
                                              uniform)
                                       : -__logf(1.0f - uniform);
                const float guess = fmaf(logit, inv_temperature, -__logf(rate));
                if (guess < best.value - GUESS_ERROR) return;
            }
            const float noise = -logf(-log1pf(-uniform));
            const float score = fmaf(logit, inv_temperature, noise);
            if (best.id < 0 || score > best.value) best = {score, column};
        }
    };
    __device__ Row row(int i) const {
        return {inv_temperature[i], threshold[i], splitmix64(seeds[i], positions[i]), first_id};
    }
};

// blockIdx.x: segment, blockIdx.y: row.
template <class Score>
__global__ void __launch_bounds__(SEGMENT_THREADS)
    best_of_segments_kernel(const float *logits, int64_t stride, int64_t row_len, int64_t length,
                            bool wide, Score score, Best *partial) {
    __shared__ Best shared[SEGMENT_THREADS / 32];
    const int64_t begin = blockIdx.x * length, end = min(begin + length, row_len);
    const typename Score::Row scoring = score.row(blockIdx.y);
    Best best = none();
    bool broken = false;
    each_logit(logits + blockIdx.y * stride, begin, end, wide, threadIdx.x, SEGMENT_THREADS,
               [&](float logit, int32_t column) {
                   broken |= isnan(logit) || logit == INFINITY;
                   scoring.offer(best, logit, column);
               });
    if (broken) best = {NAN, -1};
    best = block_best(best, shared);
    if (threadIdx.x == 0) partial[static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x] = best;
}

// One warp per row.
__global__ void best_of_row_kernel(const Best *partial, int segments, int32_t first_id,
                                   float *out_value, int32_t *out_id) {
    const int64_t row = blockIdx.x;
    Best best = none();
    for (int i = threadIdx.x; i < segments; i += 32) {
        best = better(best, partial[row * segments + i]);
    }
    best = warp_best(best);
    if (threadIdx.x == 0) {
        out_value[row] = best.value;
        out_id[row] = best.id < 0 ? -1 : first_id + best.id;
    }
}

template <class Score>
void find_best(const msgl_rows &logits, const Score &score, int32_t first_id, float *out_value,
               int32_t *out_id, void *scratch, cudaStream_t stream) {
    check_logits(logits);
    if (logits.rows == 0) return;
    const Segments segments = segments_of(logits.row_len);
    const dim3 blocks(segments.count, static_cast<unsigned>(logits.rows));
    best_of_segments_kernel<<<blocks, SEGMENT_THREADS, 0, stream>>>(
        static_cast<const float *>(logits.data), logits.stride, logits.row_len, segments.length,
        starts_wide(logits), score, static_cast<Best *>(scratch));
    check_launch();
    best_of_row_kernel<<<blocks.y, 32, 0, stream>>>(static_cast<const Best *>(scratch),
                                                    segments.count, first_id, out_value, out_id);
    check_launch();
}

// Whether `a` comes after `b` in descending order of values, ascending order of ids among equals.
__device__ __forceinline__ bool comes_after(Best a, Best b) {
    return a.value < b.value || (a.value == b.value && a.id > b.id);
}

// Picks the `count` first of the elements that `each` gives to this block's threads (each calls its
// argument with every element of the thread, as often as it is called), and hands them in order to
// `write`, on one thread.
template <class Each, class Write>
__device__ void pick_in_order(int count, Best *shared, Each &&each, Write &&write) {
    Best last{INFINITY, -1};  // before every element, +inf too
    Best mine = none();
    const auto scan = [&] {
        mine = none();
        each([&](Best element) {
            const bool counts = element.id >= 0 && !isnan(element.value);
            if (counts && comes_after(element, last)) mine = better(mine, element);
        });
    };
    scan();
    for (int i = 0; i < count; ++i) {
        const Best best = block_best(mine, shared);
        if (threadIdx.x == 0) write(i, best);
        __syncthreads();
        // Only the thread whose element was picked needs another.
        if (best.id >= 0 && best.id == mine.id) {
            last = best;
            scan();
        }
    }
}

// blockIdx.x: segment, blockIdx.y: row.
__global__ void __launch_bounds__(SEGMENT_THREADS)
    top_of_segments_kernel(const float *logits, int64_t stride, int64_t row_len, int64_t length,
                           bool wide, int count, Best *partial) {
    __shared__ Best shared[SEGMENT_THREADS / 32];
    const int64_t begin = blockIdx.x * length, end = min(begin + length, row_len);
    const float *row = logits + blockIdx.y * stride;
    Best *out = partial + (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * count;
    pick_in_order(
        count, shared,
        [&](auto &&take) {
            each_logit(row, begin, end, wide, threadIdx.x, SEGMENT_THREADS,
                       [&](float logit, int32_t column) { take(Best{logit, column}); });
        },
        [&](int i, Best best) { out[i] = best; });
}

// blockIdx.x: row.
__global__ void __launch_bounds__(SEGMENT_THREADS)
    top_of_row_kernel(const Best *partial, int segments, int count, int32_t first_id,
                      float *out_values, int64_t values_stride, int32_t *out_ids,
                      int64_t ids_stride) {
    __shared__ Best shared[SEGMENT_THREADS / 32];
    const int64_t row = blockIdx.x;
    const int candidates = segments * count;
    const Best *of_row = partial + row * candidates;
    pick_in_order(
        count, shared,
        [&](auto &&take) {
            for (int i = threadIdx.x; i < candidates; i += SEGMENT_THREADS) take(of_row[i]);
        },
        [&](int i, Best best) {
            out_values[row * values_stride + i] = best.value;
            out_ids[row * ids_stride + i] = best.id < 0 ? -1 : first_id + best.id;
        });
}

__global__ void best_of_shards_kernel(const float *values, const int32_t *ids, int64_t num_shards,
                                      int64_t n, float *out_value, int32_t *out_id) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Best best = none();
    for (int64_t shard = 0; shard < num_shards; ++shard) {
        const Best other{values[shard * n + i], ids[shard * n + i]};
        if (is_broken(best)) break;
        if (is_broken(other)) {
            best = {NAN, -1};
        } else if (other.id >= 0 && (best.id < 0 || other.value > best.value)) {
            best = other;
        }
    }
    out_value[i] = best.value;
    out_id[i] = best.id;
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int64_t msgl_sampling_scratch_bytes(int64_t n) {
    return n > 0 ? n * SCRATCH_PER_ROW : 0;
}

extern "C" int32_t msgl_argmax(msgl_rows logits, int32_t first_id, float *out_value,
                               int32_t *out_id, void *scratch, msgl_stream stream) {
    return guarded("argmax", [&] {
        find_best(logits, PlainScore{}, first_id, out_value, out_id, scratch, stream_of(stream));
    });
}

extern "C" int32_t msgl_gumbel_argmax(msgl_rows logits, const float *inv_temperature,
                                      const float *threshold, const uint64_t *seeds,
                                      const int32_t *positions, int32_t first_id, float *out_value,
                                      int32_t *out_id, void *scratch, msgl_stream stream) {
    return guarded("gumbel_argmax", [&] {
        const GumbelScore score{inv_temperature, threshold, seeds, positions, first_id};
        find_best(logits, score, first_id, out_value, out_id, scratch, stream_of(stream));
    });
}

extern "C" int32_t msgl_top_n(msgl_rows logits, int32_t first_id, msgl_rows out_values,
                              msgl_rows out_ids, void *scratch, msgl_stream stream) {
    return guarded("top_n", [&] {
        check_logits(logits);
        const int64_t count = out_values.row_len;
        check_shape("out_values", out_values, logits.rows, count);
        check_shape("out_ids", out_ids, logits.rows, count);
        if (count > MAX_TOP_N) {
            refuse("the largest %lld are asked for; up to %d are possible",
                   static_cast<long long>(count), MAX_TOP_N);
        }
        if (is_empty(out_values)) return;
        const Segments segments = segments_of(logits.row_len);
        const dim3 blocks(segments.count, static_cast<unsigned>(logits.rows));
        top_of_segments_kernel<<<blocks, SEGMENT_THREADS, 0, stream_of(stream)>>>(
            static_cast<const float *>(logits.data), logits.stride, logits.row_len,
            segments.length, starts_wide(logits), static_cast<int>(count),
            static_cast<Best *>(scratch));
        check_launch();
        top_of_row_kernel<<<blocks.y, SEGMENT_THREADS, 0, stream_of(stream)>>>(
            static_cast<const Best *>(scratch), segments.count, static_cast<int>(count), first_id,
            static_cast<float *>(out_values.data), out_values.stride,
            static_cast<int32_t *>(out_ids.data), out_ids.stride);
        check_launch();
    });
}

extern "C" int32_t msgl_best_of_shards(const float *values, const int32_t *ids, int64_t num_shards,
                                       int64_t n, float *out_value, int32_t *out_id,
                                       msgl_stream stream) {
    return guarded("best_of_shards", [&] {
        if (n <= 0) return;
        best_of_shards_kernel<<<static_cast<unsigned>(ceil_div(n, 128)), 128, 0,
                                stream_of(stream)>>>(values, ids, num_shards, n, out_value,
                                                     out_id);
        check_launch();
    });
}
