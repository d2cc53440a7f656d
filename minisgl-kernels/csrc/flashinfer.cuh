// How FlashInfer's paged prefill kernels are called: one struct per family of kernels, one
// translation unit per head dimension. Never knows FlashInfer's own types, so that only those
// units include its headers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <algorithm>

#include "failure.cuh"

namespace msgl {

using bf16 = __nv_bfloat16;
using fp8 = __nv_fp8_e4m3;

// Where a plan is made and kept.
struct PlanSpace {
    void *floats;
    int64_t float_bytes;
    void *ints, *pinned_ints;
    int64_t int_bytes;
};

// What a plan is made of, on the host. kv_indptr counts pages.
struct PlanInput {
    int32_t *qo_indptr, *kv_indptr, *kv_lens;
    int64_t tokens;
    int n, num_q_heads, num_kv_heads, page_size;
    bool fixed;
    bool may_split;  // the keys of a sequence over several blocks
};

// A plan, as the numbers that FlashInfer makes of it.
struct FlashPlan {
    static constexpr int MAX = 24;
    int64_t values[MAX];
    int count;
    bool splits;
};

// One layer, on the device.
struct FlashLayer {
    const void *q;
    int64_t q_stride;
    const void *k_pool, *v_pool;
    void *out;
    const int32_t *qo_indptr, *kv_indptr, *indices, *last_page_len;
    int64_t tokens;
    int n, num_q_heads, num_kv_heads, page_size, window;
    float scale;
};

// FA2-style kernels: GQA heads packed into the rows of a tile, split-KV, any page size. Keys and values
// are stored as KV.
template <int HEAD_DIM, class KV = bf16>
struct Fa2 {
    static void plan(const PlanSpace &space, const PlanInput &input, FlashPlan &plan,
                     cudaStream_t stream);
    static void run(const PlanSpace &space, const FlashPlan &plan, const FlashLayer &layer,
                    cudaStream_t stream);
};

// FA3-style kernels for Hopper: no window, no split-KV.
template <int HEAD_DIM>
struct Fa3 {
    static void plan(const PlanSpace &space, const PlanInput &input, FlashPlan &plan,
                     cudaStream_t stream);
    static void run(const PlanSpace &space, const FlashPlan &plan, const FlashLayer &layer,
                    cudaStream_t stream);
};

template <class Info>
void keep_plan(const Info &info, bool splits, FlashPlan &plan) {
    const auto values = info.ToVector();
    if (values.size() > FlashPlan::MAX) refuse("a plan of %zu numbers is too long", values.size());
    plan.splits = splits;
    plan.count = static_cast<int>(values.size());
    std::copy(values.begin(), values.end(), plan.values);
}

}  // namespace msgl
