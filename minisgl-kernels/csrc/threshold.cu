// Sums of exponentials, and the radix search for the threshold of top-k and top-p. Never knows `k`
// or `p` as such: a row has a target, which is a count or a mass.
#include <cooperative_groups.h>

#include "sampling.cuh"

namespace cg = cooperative_groups;

namespace msgl {
namespace {

__device__ __forceinline__ float mass_of(float logit, float row_max, float inv_temperature) {
    return expf((logit - row_max) * inv_temperature);
}

// blockIdx.x: segment, blockIdx.y: row.
__global__ void __launch_bounds__(SEGMENT_THREADS)
    mass_of_segments_kernel(const float *logits, int64_t stride, int64_t row_len, int64_t length,
                            bool wide, const float *row_max, const float *inv_temperature,
                            const float *threshold, float *partial) {
    __shared__ float shared[32];
    const int row = blockIdx.y;
    const int64_t begin = blockIdx.x * length, end = min(begin + length, row_len);
    const float max = row_max[row], factor = inv_temperature[row];
    const float least = threshold == nullptr ? -INFINITY : threshold[row];
    float sum = 0.0f;
    each_logit(logits + row * stride, begin, end, wide, threadIdx.x, SEGMENT_THREADS,
               [&](float logit, int32_t) {
                   if (logit >= least) sum += mass_of(logit, max, factor);
               });
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partial[static_cast<int64_t>(row) * gridDim.x + blockIdx.x] = sum;
}

// One warp per row.
__global__ void mass_of_row_kernel(const float *partial, int segments, float *out) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < segments; i += 32) {
        sum += partial[static_cast<int64_t>(blockIdx.x) * segments + i];
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// ---- the radix search -------------------------------------------------------------------------

// Modes of a row; any other (0 is the usual one) takes no part.
constexpr int COUNT = 1, MASS = 2;
constexpr int ROUNDS = 4, NUM_BINS = 256;

__device__ __forceinline__ bool takes_part(int32_t mode) { return mode == COUNT || mode == MASS; }

__device__ __forceinline__ int shift_of(int round) { return 8 * (ROUNDS - 1 - round); }

// The key whose unsigned order is the order of floats.
__device__ __forceinline__ uint32_t key_of(float value) {
    const uint32_t bits = __float_as_uint(value);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(uint32_t key) {
    if (key < key_of(-INFINITY)) return -INFINITY;
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// Each thread of a histogram's block has its own bins, so that nothing is added in an order that
// differs from run to run, and no two threads wait for each other; 64 KiB for 64 threads.
constexpr int HISTOGRAM_THREADS = 64;
constexpr int HISTOGRAM_BYTES = NUM_BINS * HISTOGRAM_THREADS * sizeof(float);

// Blocks that share a row, where blocks can read each other's shared memory.
constexpr int CLUSTER = 8;

struct Search {
    const float *row_max, *inv_temperature;
    const int32_t *mode, *prefix;
    int round;
};

// Adds this thread's share of a stretch of a row to its own bins, and the bins of the threads to
// `sums`, in shared memory.
__device__ void stretch_histogram(const float *row, int64_t begin, int64_t end, bool wide,
                                  const Search &search, int i, float *bins, float *sums) {
    const int thread = threadIdx.x;
    for (int at = thread * 4; at < NUM_BINS * HISTOGRAM_THREADS; at += HISTOGRAM_THREADS * 4) {
        *reinterpret_cast<float4 *>(bins + at) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    __syncthreads();
    const bool by_mass = search.mode[i] == MASS;
    const float max = by_mass ? search.row_max[i] : 0.0f;
    const float factor = by_mass ? search.inv_temperature[i] : 0.0f;
    const int shift = shift_of(search.round);
    // The bytes above this round's: none in the first round.
    const uint32_t fixed = search.round == 0 ? 0u : ~0u << (shift + 8);
    const uint32_t prefix = static_cast<uint32_t>(search.prefix[i]) & fixed;
    each_logit(row, begin, end, wide, thread, HISTOGRAM_THREADS, [&](float logit, int32_t) {
        const uint32_t key = key_of(logit);
        if ((key & fixed) != prefix) return;
        const float weight = by_mass ? mass_of(logit, max, factor) : 1.0f;
        bins[((key >> shift) & 0xffu) * HISTOGRAM_THREADS + thread] += weight;
    });
    __syncthreads();
    for (int bin = thread; bin < NUM_BINS; bin += HISTOGRAM_THREADS) {
        float sum = 0.0f;
        // Starts that differ from thread to thread spread the reads over the banks.
        for (int j = 0; j < HISTOGRAM_THREADS; ++j) {
            sum += bins[bin * HISTOGRAM_THREADS + (bin + j) % HISTOGRAM_THREADS];
        }
        sums[bin] = sum;
    }
    __syncthreads();
}

// One block per row.
__global__ void __launch_bounds__(HISTOGRAM_THREADS)
    histogram_kernel(const float *logits, int64_t stride, int64_t row_len, bool wide,
                     Search search, float *hist, int64_t hist_stride) {
    extern __shared__ float bins[];
    __shared__ float sums[NUM_BINS];
    const int64_t row = blockIdx.x;
    if (!takes_part(search.mode[row])) return;
    stretch_histogram(logits + row * stride, 0, row_len, wide, search, static_cast<int>(row), bins,
                      sums);
    for (int bin = threadIdx.x; bin < NUM_BINS; bin += HISTOGRAM_THREADS) {
        hist[row * hist_stride + bin] = sums[bin];
    }
}

// One cluster of CLUSTER blocks per row: blockIdx.x is the place in the cluster, blockIdx.y the row.
__global__ void __launch_bounds__(HISTOGRAM_THREADS)
    cluster_histogram_kernel(const float *logits, int64_t stride, int64_t row_len, bool wide,
                             Search search, float *hist, int64_t hist_stride) {
#if __CUDA_ARCH__ >= 900
    extern __shared__ float bins[];
    __shared__ float sums[NUM_BINS];
    const cg::cluster_group cluster = cg::this_cluster();
    const int64_t row = blockIdx.y;
    if (!takes_part(search.mode[row])) return;  // as do the others of the cluster
    const int rank = static_cast<int>(blockIdx.x);
    const int64_t length = (row_len + CLUSTER * 4 - 1) / (CLUSTER * 4) * 4;
    const int64_t begin = min(rank * length, row_len), end = min(begin + length, row_len);
    stretch_histogram(logits + row * stride, begin, end, wide, search, static_cast<int>(row), bins,
                      sums);
    cluster.sync();
    constexpr int SHARE = NUM_BINS / CLUSTER;
    if (threadIdx.x < SHARE) {
        const int bin = rank * SHARE + static_cast<int>(threadIdx.x);
        float sum = 0.0f;
#pragma unroll
        for (int other = 0; other < CLUSTER; ++other) {
            sum += *cluster.map_shared_rank(sums + bin, other);
        }
        hist[row * hist_stride + bin] = sum;
    }
    cluster.sync();  // nobody leaves while its memory is read
#endif
}

// One warp per row. The decision adds from the highest bin down, one after the other.
__global__ void refine_kernel(const float *hist, int64_t hist_stride, const int32_t *mode,
                              int32_t *prefix, float *remaining, int round) {
    __shared__ float bins[NUM_BINS];
    const int64_t row = blockIdx.x;
    if (!takes_part(mode[row])) return;
    for (int bin = threadIdx.x; bin < NUM_BINS; bin += 32) bins[bin] = hist[row * hist_stride + bin];
    __syncwarp();
    if (threadIdx.x != 0) return;
    const float target = remaining[row];
    float above = 0.0f, above_lowest = 0.0f;
    int chosen = -1, lowest = 0;
    for (int bin = NUM_BINS - 1; bin >= 0; --bin) {
        const float reached = above + bins[bin];
        if (reached >= target) {
            chosen = bin;
            break;
        }
        if (bins[bin] > 0.0f) {
            lowest = bin;
            above_lowest = above;
        }
        above = reached;
    }
    if (chosen < 0) {
        // Nothing reaches the target: all is kept, from the lowest bin that is not empty.
        chosen = lowest;
        above = above_lowest;
    }
    remaining[row] = target - above;
    prefix[row] |= static_cast<int32_t>(static_cast<uint32_t>(chosen) << shift_of(round));
}

__global__ void raise_kernel(const int32_t *mode, const int32_t *prefix, float *threshold,
                             int64_t n) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n || !takes_part(mode[i])) return;
    threshold[i] = fmaxf(threshold[i], value_of(static_cast<uint32_t>(prefix[i])));
}

void check_round(int32_t round) {
    if (round < 0 || round >= ROUNDS) refuse("round is %d; it must be 0, 1, 2 or 3", round);
}

bool has_clusters() {
    int device = 0, yes = 0;
    check(cudaGetDevice(&device), "there is no current device");
    check(cudaDeviceGetAttribute(&yes, cudaDevAttrClusterLaunch, device),
          "the device does not tell whether it has clusters");
    return yes != 0;
}

template <class Kernel>
void allow_histogram_bytes(Kernel *kernel) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               HISTOGRAM_BYTES),
          "the histogram's shared memory");
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_sum_exp(msgl_rows logits, const float *row_max,
                                const float *inv_temperature, const float *threshold, float *out,
                                void *scratch, msgl_stream stream) {
    return guarded("sum_exp", [&] {
        check_logits(logits);
        if (logits.rows == 0) return;
        const Segments segments = segments_of(logits.row_len);
        const dim3 blocks(segments.count, static_cast<unsigned>(logits.rows));
        mass_of_segments_kernel<<<blocks, SEGMENT_THREADS, 0, stream_of(stream)>>>(
            static_cast<const float *>(logits.data), logits.stride, logits.row_len,
            segments.length, starts_wide(logits), row_max, inv_temperature, threshold,
            static_cast<float *>(scratch));
        check_launch();
        mass_of_row_kernel<<<blocks.y, 32, 0, stream_of(stream)>>>(
            static_cast<const float *>(scratch), segments.count, out);
        check_launch();
    });
}

extern "C" int32_t msgl_threshold_histogram(msgl_rows logits, const float *row_max,
                                            const float *inv_temperature, const int32_t *mode,
                                            const int32_t *prefix, int32_t round, msgl_rows hist,
                                            msgl_stream stream) {
    return guarded("threshold_histogram", [&] {
        check_logits(logits);
        check_shape("hist", hist, logits.rows, NUM_BINS);
        check_round(round);
        if (logits.rows == 0) return;
        const Search search{row_max, inv_temperature, mode, prefix, round};
        const auto *data = static_cast<const float *>(logits.data);
        const auto rows = static_cast<unsigned>(logits.rows);
        const bool wide = starts_wide(logits);
        if (has_clusters()) {
            allow_histogram_bytes(cluster_histogram_kernel);
            cudaLaunchAttribute cluster{};
            cluster.id = cudaLaunchAttributeClusterDimension;
            cluster.val.clusterDim = {CLUSTER, 1, 1};
            cudaLaunchConfig_t config{};
            config.gridDim = dim3(CLUSTER, rows);
            config.blockDim = HISTOGRAM_THREADS;
            config.dynamicSmemBytes = HISTOGRAM_BYTES;
            config.stream = stream_of(stream);
            config.attrs = &cluster;
            config.numAttrs = 1;
            check(cudaLaunchKernelEx(&config, cluster_histogram_kernel, data, logits.stride,
                                     logits.row_len, wide, search,
                                     static_cast<float *>(hist.data), hist.stride),
                  "the histogram could not be launched");
            return;
        }
        allow_histogram_bytes(histogram_kernel);
        histogram_kernel<<<rows, HISTOGRAM_THREADS, HISTOGRAM_BYTES, stream_of(stream)>>>(
            data, logits.stride, logits.row_len, wide, search, static_cast<float *>(hist.data),
            hist.stride);
        check_launch();
    });
}

extern "C" int32_t msgl_threshold_refine(msgl_rows hist, const int32_t *mode, int32_t *prefix,
                                         float *remaining, int32_t round, msgl_stream stream) {
    return guarded("threshold_refine", [&] {
        check_shape("hist", hist, hist.rows, NUM_BINS);
        check_round(round);
        if (hist.rows == 0) return;
        refine_kernel<<<static_cast<unsigned>(hist.rows), 32, 0, stream_of(stream)>>>(
            static_cast<const float *>(hist.data), hist.stride, mode, prefix, remaining, round);
        check_launch();
    });
}

extern "C" int32_t msgl_raise_threshold(const int32_t *mode, const int32_t *prefix,
                                        float *threshold, int64_t n, msgl_stream stream) {
    return guarded("raise_threshold", [&] {
        if (n <= 0) return;
        raise_kernel<<<static_cast<unsigned>(ceil_div(n, 128)), 128, 0, stream_of(stream)>>>(
            mode, prefix, threshold, n);
        check_launch();
    });
}
