// FlashInfer's FA2-style paged prefill in bfloat16, over keys and values in that or in 8-bit floats, which with one query a sequence is decode too.
// Never knows where the page table came from.
#pragma once

#include <flashinfer/attention/default_prefill_params.cuh>
#include <flashinfer/attention/prefill.cuh>
#include <flashinfer/attention/scheduler.cuh>
#include <flashinfer/attention/variants.cuh>
#include <vector>

#include "early.cuh"
#include "flashinfer.cuh"

namespace msgl {

// The variant with a window: without one its window is the whole sequence.
using Fa2Variant = flashinfer::DefaultAttention</*custom mask*/ false, /*window*/ true,
                                                /*soft cap*/ false, /*alibi*/ false>;
template <class KV>
using Fa2Params = flashinfer::BatchPrefillPagedParams<bf16, KV, bf16, int32_t>;

template <int HEAD_DIM, class KV>
void Fa2<HEAD_DIM, KV>::plan(const PlanSpace &space, const PlanInput &input, FlashPlan &plan,
                         cudaStream_t stream) {
    flashinfer::PrefillPlanInfo info;
    // Planned without a window, since that may differ from layer to layer.
    check(flashinfer::PrefillPlan<int32_t>(
              space.floats, static_cast<size_t>(space.float_bytes), space.ints, space.pinned_ints,
              static_cast<size_t>(space.int_bytes), info, input.qo_indptr, input.kv_indptr,
              static_cast<uint32_t>(input.tokens), static_cast<uint32_t>(input.n),
              static_cast<uint32_t>(input.num_q_heads), static_cast<uint32_t>(input.num_kv_heads),
              HEAD_DIM, HEAD_DIM, static_cast<uint32_t>(input.page_size), input.fixed,
              /*sizeof_dtype_o*/ sizeof(bf16), /*window_left*/ -1, /*fixed_split_size*/ -1,
              /*disable_split_kv*/ !input.may_split, /*num_colocated_ctas*/ 0,
              /*uniform_q_len*/ input.fixed ? 1 : 0, stream),
          "FlashInfer's plan");
    keep_plan(info, info.split_kv, plan);
}

template <int HEAD_DIM, class KV>
void Fa2<HEAD_DIM, KV>::run(const PlanSpace &space, const FlashPlan &plan, const FlashLayer &layer,
                        cudaStream_t stream) {
    using flashinfer::GetPtrFromBaseOffset;
    flashinfer::PrefillPlanInfo info;
    info.FromVector(std::vector<int64_t>(plan.values, plan.values + plan.count));
    const int64_t slot_stride = static_cast<int64_t>(layer.num_kv_heads) * HEAD_DIM;
    const int64_t strides[] = {slot_stride * layer.page_size, slot_stride, HEAD_DIM};
    const auto ints = [](const int32_t *pointer) { return const_cast<int32_t *>(pointer); };
    const auto stored = [](const void *pointer) {
        return static_cast<KV *>(const_cast<void *>(pointer));
    };

    Fa2Params<KV> params;
    params.q = static_cast<bf16 *>(const_cast<void *>(layer.q));
    params.paged_kv = flashinfer::paged_kv_t<KV, int32_t>(
        static_cast<uint32_t>(layer.num_kv_heads), static_cast<uint32_t>(layer.page_size),
        HEAD_DIM, static_cast<uint32_t>(layer.n), flashinfer::QKVLayout::kNHD,
        stored(layer.k_pool), stored(layer.v_pool), strides, ints(layer.indices),
        ints(layer.kv_indptr), ints(layer.last_page_len));
    params.q_indptr = ints(layer.qo_indptr);
    params.o = static_cast<bf16 *>(layer.out);
    params.num_qo_heads = static_cast<uint32_t>(layer.num_q_heads);
    params.group_size =
        flashinfer::uint_fastdiv(static_cast<uint32_t>(layer.num_q_heads / layer.num_kv_heads));
    params.q_stride_n = static_cast<int32_t>(layer.q_stride);
    params.q_stride_h = HEAD_DIM;
    // FlashInfer counts the positions before this one.
    params.window_left = layer.window > 0 ? layer.window - 1 : -1;
    params.sm_scale = layer.scale;
    params.rope_rcp_scale = 1.0f;
    params.rope_rcp_theta = 1.0f;

    void *base = space.ints;
    params.request_indices = GetPtrFromBaseOffset<int32_t>(base, info.request_indices_offset);
    params.qo_tile_indices = GetPtrFromBaseOffset<int32_t>(base, info.qo_tile_indices_offset);
    params.kv_tile_indices = GetPtrFromBaseOffset<int32_t>(base, info.kv_tile_indices_offset);
    params.o_indptr = GetPtrFromBaseOffset<int32_t>(base, info.o_indptr_offset);
    params.kv_chunk_size_ptr = GetPtrFromBaseOffset<int32_t>(base, info.kv_chunk_size_ptr_offset);
    params.padded_batch_size = static_cast<uint32_t>(info.padded_batch_size);
    params.max_total_num_rows = static_cast<uint32_t>(info.total_num_rows);
    bf16 *partial_out = nullptr;
    float *partial_sums = nullptr;
    if (info.split_kv) {
        params.merge_indptr = GetPtrFromBaseOffset<int32_t>(base, info.merge_indptr_offset);
        partial_out = GetPtrFromBaseOffset<bf16>(space.floats, info.v_offset);
        partial_sums = GetPtrFromBaseOffset<float>(space.floats, info.s_offset);
    }
    if (info.enable_cuda_graph) {
        params.block_valid_mask = GetPtrFromBaseOffset<bool>(base, info.block_valid_mask_offset);
        params.total_num_rows = GetPtrFromBaseOffset<uint32_t>(base, info.total_num_rows_offset);
    }

    const auto launch = [&](auto tile) {
        check(flashinfer::BatchPrefillWithPagedKVCacheDispatched<
                  /*SAME_KV_STRIDES*/ true, decltype(tile)::value, HEAD_DIM, HEAD_DIM,
                  flashinfer::PosEncodingMode::kNone, /*fp16 accumulators*/ false,
                  flashinfer::MaskMode::kCausal, Fa2Variant, Fa2Params<KV>>(
                  params, partial_out, partial_sums, /*enable_pdl*/ can_start_early(), stream),
              "FlashInfer's attention");
    };
    switch (info.cta_tile_q) {
        case 16: launch(std::integral_constant<uint32_t, 16>{}); break;
        case 64: launch(std::integral_constant<uint32_t, 64>{}); break;
        case 128:
            // Never planned for larger heads.
            if constexpr (HEAD_DIM < 256) {
                launch(std::integral_constant<uint32_t, 128>{});
                break;
            }
            [[fallthrough]];
        default: refuse("a tile of %lld rows was planned", static_cast<long long>(info.cta_tile_q));
    }
}

}  // namespace msgl
