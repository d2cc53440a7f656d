// The small steps between the large ones of sampling: one element per row. Never knows the rest.
#include "common.cuh"

namespace msgl {
namespace {

constexpr int THREADS = 128;

// Runs `body` on the device for each of `n` rows.
template <class Body>
__global__ void each_row_kernel(int64_t n, Body body) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < n) body(i);
}

template <class Body>
void each_row(int64_t n, msgl_stream stream, Body body) {
    if (n <= 0) return;
    each_row_kernel<<<static_cast<unsigned>(ceil_div(n, THREADS)), THREADS, 0,
                      stream_of(stream)>>>(n, body);
    check_launch();
}

struct PickLogits {
    const float *logits;
    int64_t stride, row_len;
    const int32_t *ids;
    int64_t first_id;
    float *out;
    __device__ void operator()(int64_t i) const {
        const int64_t column = static_cast<int64_t>(ids[i]) - first_id;
        const bool inside = column >= 0 && column < row_len;
        out[i] = inside ? logits[i * stride + column] : 0.0f;
    }
};

struct MassTarget {
    const float *top_p, *mass;
    float *remaining;
    __device__ void operator()(int64_t i) const { remaining[i] = top_p[i] * mass[i]; }
};

struct MinPThreshold {
    const float *row_max, *ln_min_p, *inv_temperature;
    float *threshold;
    __device__ void operator()(int64_t i) const {
        const float least = row_max[i] + ln_min_p[i] / inv_temperature[i];
        threshold[i] = fmaxf(threshold[i], least);
    }
};

struct ChooseIds {
    const int32_t *take_a, *a, *b;
    int32_t *out;
    __device__ void operator()(int64_t i) const {
        out[i] = a[i] == -1 || take_a[i] != 0 ? a[i] : b[i];
    }
};

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_pick_logits(msgl_rows logits, const int32_t *ids, int32_t first_id,
                                    float *out, msgl_stream stream) {
    return guarded("pick_logits", [&] {
        check_rows("logits", logits);
        each_row(logits.rows, stream,
                 PickLogits{static_cast<const float *>(logits.data), logits.stride, logits.row_len,
                            ids, first_id, out});
    });
}

extern "C" int32_t msgl_mass_target(const float *top_p, const float *mass, float *remaining,
                                    int64_t n, msgl_stream stream) {
    return guarded("mass_target", [&] { each_row(n, stream, MassTarget{top_p, mass, remaining}); });
}

extern "C" int32_t msgl_min_p_threshold(const float *row_max, const float *ln_min_p,
                                        const float *inv_temperature, float *threshold, int64_t n,
                                        msgl_stream stream) {
    return guarded("min_p_threshold", [&] {
        each_row(n, stream, MinPThreshold{row_max, ln_min_p, inv_temperature, threshold});
    });
}

extern "C" int32_t msgl_choose_ids(const int32_t *take_a, const int32_t *a, const int32_t *b,
                                   int32_t *out, int64_t n, msgl_stream stream) {
    return guarded("choose_ids", [&] { each_row(n, stream, ChooseIds{take_a, a, b, out}); });
}
