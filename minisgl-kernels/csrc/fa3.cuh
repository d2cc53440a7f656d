// FlashInfer's FA3-style paged prefill for Hopper in bfloat16. Never knows where the page table
// came from.
#pragma once

#include <flashinfer/attention/hopper/default_params.cuh>
#include <flashinfer/attention/hopper/prefill_sm90.cuh>
#include <flashinfer/attention/hopper/variants.cuh>
#include <flashinfer/attention/mask.cuh>
#include <flashinfer/attention/scheduler.cuh>
#include <vector>

#include "flashinfer.cuh"

namespace msgl {

using Fa3Element = flashinfer::cutlass_dtype_t<bf16>;
using Fa3Params =
    flashinfer::BatchPrefillPagedParams<Fa3Element, Fa3Element, Fa3Element, int32_t>;
using Fa3Variant = flashinfer::DefaultAttention</*soft cap*/ false>;

template <int HEAD_DIM>
void Fa3<HEAD_DIM>::plan(const PlanSpace &space, const PlanInput &input, FlashPlan &plan,
                         cudaStream_t stream) {
    flashinfer::PrefillPlanSM90Info info;
    check(flashinfer::PrefillSM90Plan<int32_t>(
              space.floats, static_cast<size_t>(space.float_bytes), space.ints, space.pinned_ints,
              static_cast<size_t>(space.int_bytes), info, input.qo_indptr, input.kv_indptr,
              input.kv_lens, static_cast<uint32_t>(input.tokens), static_cast<uint32_t>(input.n),
              static_cast<uint32_t>(input.num_q_heads), static_cast<uint32_t>(input.num_kv_heads),
              HEAD_DIM, HEAD_DIM, static_cast<uint32_t>(input.page_size), /*causal*/ true,
              /*enable_cuda_graph*/ false, /*sizeof_dtype_o*/ sizeof(bf16), stream),
          "FlashInfer's plan");
    keep_plan(info, false, plan);
}

template <int HEAD_DIM>
void Fa3<HEAD_DIM>::run(const PlanSpace &space, const FlashPlan &plan, const FlashLayer &layer,
                        cudaStream_t stream) {
    using flashinfer::GetPtrFromBaseOffset;
    flashinfer::PrefillPlanSM90Info info;
    info.FromVector(std::vector<int64_t>(plan.values, plan.values + plan.count));
    const auto elements = [](const void *pointer) {
        return static_cast<Fa3Element *>(const_cast<void *>(pointer));
    };

    Fa3Params params{};
    params.q_ptr = elements(layer.q);
    params.k_ptr = elements(layer.k_pool);
    params.v_ptr = elements(layer.v_pool);
    params.o_ptr = elements(layer.out);
    params.q_stride_n = layer.q_stride;
    params.q_stride_h = HEAD_DIM;
    params.o_stride_n = static_cast<int64_t>(layer.num_q_heads) * HEAD_DIM;
    params.o_stride_h = HEAD_DIM;
    params.k_stride_n = params.v_stride_n = static_cast<int64_t>(layer.num_kv_heads) * HEAD_DIM;
    params.k_stride_h = params.v_stride_h = HEAD_DIM;
    params.k_page_stride = params.v_page_stride = params.k_stride_n * layer.page_size;
    params.nnz_qo = layer.tokens;
    params.num_qo_heads = layer.num_q_heads;
    params.num_kv_heads = layer.num_kv_heads;
    params.group_size = layer.num_q_heads / layer.num_kv_heads;
    params.page_size = layer.page_size;
    params.window_left = -1;
    params.causal = true;
    params.additional_params.sm_scale = layer.scale;

    void *base = space.ints;
    params.qo_tile_indices = GetPtrFromBaseOffset<int32_t>(base, info.qo_tile_indices_offset);
    params.qo_indptr = GetPtrFromBaseOffset<int32_t>(base, info.qo_indptr_offset);
    params.kv_indptr = GetPtrFromBaseOffset<int32_t>(base, info.kv_indptr_offset);
    params.qo_lens = GetPtrFromBaseOffset<int32_t>(base, info.qo_len_offset);
    params.kv_lens = GetPtrFromBaseOffset<int32_t>(base, info.kv_len_offset);
    params.head_indices = GetPtrFromBaseOffset<int32_t>(base, info.head_indices_offset);
    params.work_indptr = GetPtrFromBaseOffset<int32_t>(base, info.work_indptr_offset);
    params.batch_indices = GetPtrFromBaseOffset<int32_t>(base, info.batch_indices_offset);
    params.kv_indices = const_cast<int32_t *>(layer.indices);

    const auto launch = [&](auto same_schedule) {
        check(flashinfer::BatchPrefillWithPagedKVCacheDispatched<
                  HEAD_DIM, HEAD_DIM, flashinfer::MaskMode::kCausal, /*LEFT_SLIDING_WINDOW*/ false,
                  decltype(same_schedule)::value, Fa3Variant>(params, /*enable_pdl*/ false, stream),
              "FlashInfer's attention for Hopper");
    };
    if (info.same_schedule_for_all_heads) {
        launch(std::true_type{});
    } else {
        launch(std::false_type{});
    }
}

}  // namespace msgl
