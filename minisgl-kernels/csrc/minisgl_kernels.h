/* The C ABI of libminisgl_kernels.so: everything the Rust crate calls, and nothing else.
 *
 * Every function returns 0, or another number with a sentence in msgl_last_error(). No C++ exception
 * leaves the library. All work is queued on `stream` (a CUstream) and is graph-capturable, but for
 * msgl_attention_create, _destroy and _plan. Nothing but msgl_attention_create allocates.
 *
 * The semantics of each op (rounding, order among equals, NaN) are those of the Rust function of the
 * same name in minisgl_kernels::ops; the reference there is the definition of right.
 * `T` is float (MSGL_F32) or bfloat16 (MSGL_BF16). Sizes and strides count elements, in 64 bits.
 * An index read from device memory that is out of range makes the kernel skip that element. */
#ifndef MINISGL_KERNELS_H
#define MINISGL_KERNELS_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define MSGL_ABI_VERSION 5
#define MSGL_F32 0
#define MSGL_BF16 1
#define MSGL_F8E4M3 2 /* only where a function says so */

typedef void *msgl_stream;

/* `rows` rows of `row_len` contiguous elements, `stride` apart. A [t, heads, d] array has row_len
 * heads * d. Addresses are aligned to the element only; kernels vectorize where alignment allows. */
typedef struct {
    void *data;
    int64_t rows;
    int64_t row_len;
    int64_t stride;
} msgl_rows;

int32_t msgl_abi_version(void);
/* JSON, static: {"abi": 1, "archs": ["90a"], "attention": {"fi": [64, 128], "fa": [..]}, ..}. */
const char *msgl_manifest(void);
/* Of this thread's last failed call; valid until its next call. */
const char *msgl_last_error(void);

/* ---- rows ------------------------------------------------------------------------------------ */
int32_t msgl_embedding(int32_t dtype, const int32_t *ids, msgl_rows table, int32_t first_id,
                       msgl_rows out, msgl_stream stream);
int32_t msgl_gather_rows(int32_t dtype, msgl_rows x, const int32_t *indices, msgl_rows out,
                         msgl_stream stream);
int32_t msgl_gather_ids(const int32_t *table, int64_t table_len, const int32_t *indices, int64_t n,
                        int32_t *out, msgl_stream stream);
int32_t msgl_scatter_ids(const int32_t *values, const int32_t *indices, int64_t n, int32_t *table,
                         int64_t table_len, msgl_stream stream);
/* element_bytes is 1, 2, 4 or 8. */
int32_t msgl_copy(int32_t element_bytes, msgl_rows source, msgl_rows target, msgl_stream stream);
int32_t msgl_add(int32_t dtype, msgl_rows x, msgl_rows y, msgl_stream stream);
/* parts: host array of num_parts (1 to 16) descriptions, copied before the call returns. */
int32_t msgl_reduce_sum(int32_t dtype, const msgl_rows *parts, int32_t num_parts, msgl_rows out,
                        msgl_stream stream);

/* ---- layers ---------------------------------------------------------------------------------- */
int32_t msgl_rms_norm(int32_t dtype, msgl_rows x, const void *weight, float eps, msgl_rows out,
                      msgl_stream stream);
int32_t msgl_add_rms_norm(int32_t dtype, msgl_rows x, msgl_rows residual, const void *weight,
                          float eps, msgl_stream stream);
int32_t msgl_silu_and_mul(int32_t dtype, msgl_rows gate_up, msgl_rows out, msgl_stream stream);
/* y = round_T(y + bias), per row: for GEMM outputs whose epilogue could not add it. out_dtype is
 * that of y, dtype that of bias. */
int32_t msgl_add_bias(int32_t dtype, const void *bias, int32_t out_dtype, msgl_rows y,
                      msgl_stream stream);
/* q: [t, num_q_heads, head_dim], k: [t, num_kv_heads, head_dim]. q_weight and k_weight are null
 * without the norm. cos_sin: [max_positions, rotary_dim] float. */
int32_t msgl_qk_norm_rope(int32_t dtype, msgl_rows q, msgl_rows k, int32_t head_dim,
                          const void *q_weight, const void *k_weight, float eps,
                          const int32_t *positions, const float *cos_sin, int64_t max_positions,
                          int32_t rotary_dim, msgl_stream stream);
int32_t msgl_store_kv(int32_t dtype, msgl_rows k, msgl_rows v, const int32_t *slots,
                      msgl_rows k_pool, msgl_rows v_pool, msgl_stream stream);
/* Both of the above in one kernel: q is rotated in place, k is rotated and stored, v is stored. The
 * bits are those of the two calls; k itself is left as it was. */
int32_t msgl_qk_norm_rope_store(int32_t dtype, msgl_rows q, msgl_rows k, msgl_rows v,
                                int32_t head_dim, const void *q_weight, const void *k_weight,
                                float eps, const int32_t *positions, const float *cos_sin,
                                int64_t max_positions, int32_t rotary_dim, const int32_t *slots,
                                msgl_rows k_pool, msgl_rows v_pool, msgl_stream stream);

/* ---- 8-bit floats ---------------------------------------------------------------------------- */
/* x: [m, k] T; out: [m, k] of 8-bit floats; scales: [m]. */
int32_t msgl_quantize_rows(int32_t dtype, msgl_rows x, msgl_rows out, float *scales,
                           msgl_stream stream);
/* y = round_T(y * row_scales[row] * column_scales[column]): for products whose GEMM could not scale
 * them. */
int32_t msgl_scale(int32_t dtype, msgl_rows y, const float *row_scales,
                   const float *column_scales, msgl_stream stream);
/* As the functions without _fp8, but the pools are of 8-bit floats: keys and values are rounded to T
 * as there, and then to eight bits. */
int32_t msgl_store_kv_fp8(int32_t dtype, msgl_rows k, msgl_rows v, const int32_t *slots,
                          msgl_rows k_pool, msgl_rows v_pool, msgl_stream stream);
int32_t msgl_qk_norm_rope_store_fp8(int32_t dtype, msgl_rows q, msgl_rows k, msgl_rows v,
                                    int32_t head_dim, const void *q_weight, const void *k_weight,
                                    float eps, const int32_t *positions, const float *cos_sin,
                                    int64_t max_positions, int32_t rotary_dim,
                                    const int32_t *slots, msgl_rows k_pool, msgl_rows v_pool,
                                    msgl_stream stream);

/* out = x · wT for 1 to 4 rows of x: [m, k] and w: [n, k] bfloat16, out: [m, n] of out_dtype. Rows of
 * x and w are whole, aligned multiples of 16 bytes. A row's sums have the same order whatever m is. */
int32_t msgl_gemv(int32_t out_dtype, msgl_rows x, msgl_rows w, msgl_rows out, msgl_stream stream);
/* The same, all bfloat16, with what stands before and after it: residual += gemv(x, w);
 * out = gemv(rms_norm(x, norm, eps), w); out = silu_and_mul(gemv(rms_norm(x, norm, eps), w)), where w
 * has 2 n rows. norm: [k], aligned to 16 bytes; (m + 1) k elements fit into 47 KiB. Roundings are those
 * of the calls one after the other; after a norm, sums are added up in another order. */
int32_t msgl_gemv_add(msgl_rows x, msgl_rows w, msgl_rows residual, msgl_stream stream);
int32_t msgl_norm_gemv(msgl_rows x, const void *norm, float eps, msgl_rows w, msgl_rows out,
                       msgl_stream stream);
int32_t msgl_norm_gemv_silu(msgl_rows x, const void *norm, float eps, msgl_rows w, msgl_rows out,
                            msgl_stream stream);

/* ---- attention ------------------------------------------------------------------------------- */
/* Where and what: as PagedKv, VarlenBatch and AttentionParams in minisgl_kernels::ops. */
typedef struct {
    const void *k_pool, *v_pool; /* [num_slots, num_kv_heads, head_dim] kv_dtype, contiguous */
    int64_t num_slots;
    const int32_t *page_table; /* [num_rows, max_pages] */
    int64_t num_rows, max_pages, page_table_stride;
    int32_t page_size;
    int32_t kv_dtype; /* that of q, or MSGL_F8E4M3 */
    const int32_t *rows, *cu_seqlens_q, *kv_lens; /* [n], [n + 1], [n], device */
    int32_t n;
    int32_t num_q_heads, num_kv_heads, head_dim;
    float scale;
    int32_t window; /* positions seen, this one included; 0 is all */
} msgl_attention_args;

/* Any dtype, head_dim up to 256, group and page size; no plan. The floor of correctness, and the
 * path of float32. */
int32_t msgl_attention_native(int32_t dtype, msgl_rows q, const msgl_attention_args *args,
                              msgl_rows out, msgl_stream stream);

#define MSGL_ATTENTION_FI 1 /* FlashInfer's FA2-style kernels: prefill, extend and decode */
#define MSGL_ATTENTION_FA 2 /* FlashInfer's Hopper (FA3-style) kernels: prefill and extend */
#define MSGL_ATTENTION_NATIVE 3 /* our own: small decode batches (split-KV), every head_dim */

typedef struct {
    int32_t backend, dtype, kv_dtype; /* kv_dtype: dtype, or MSGL_F8E4M3 */
    int32_t num_q_heads, num_kv_heads, head_dim, page_size;
    int32_t max_sequences; /* of a batch */
    int64_t max_tokens;    /* of a batch */
    int64_t max_pages;     /* of a batch, over all its sequences, each counted as often as used */
} msgl_attention_config;

typedef struct msgl_attention msgl_attention;

/* Bytes of device memory that _create will take; negative if the combination is not supported, with
 * a sentence in msgl_last_error() that lists what is. */
int64_t msgl_attention_device_bytes(const msgl_attention_config *config);
int32_t msgl_attention_create(const msgl_attention_config *config, msgl_attention **out);
int32_t msgl_attention_destroy(msgl_attention *attention);
/* Once per step, shared by all layers. Reads the host arrays (which may be reused at once), and
 * queues on `stream` whatever else it needs; device arrays of `args` must be valid in stream order.
 * Two plans may be under way (pinned memory is double-buffered and fenced by events).
 * fixed_batch: 0, or 1 when _run is or will be captured in a graph: then the launch depends on args->n
 * and cu_seqlens_q only (one query a sequence), so that the graph can be replayed after any later
 * plan with the same n. A sequence with kv_len 0 and one query gets zeros. */
int32_t msgl_attention_plan(msgl_attention *attention, const msgl_attention_args *args,
                            const int32_t *cu_seqlens_q_host, const int32_t *kv_lens_host,
                            int32_t fixed_batch, msgl_stream stream);
/* Once per layer; k_pool, v_pool, scale and window may differ from the plan's. Capturable. */
int32_t msgl_attention_run(msgl_attention *attention, msgl_rows q, const msgl_attention_args *args,
                           msgl_rows out, msgl_stream stream);

/* ---- mixture of experts ---------------------------------------------------------------------- */
int32_t msgl_moe_route(msgl_rows logits, int32_t normalize, msgl_rows weights, msgl_rows experts,
                       msgl_stream stream);
/* scratch: at least num_experts + 1 int32. */
int32_t msgl_moe_group(const int32_t *experts, int64_t num_tokens, int32_t top_k,
                       int32_t num_experts, int32_t *tokens, int32_t *grouped_rows,
                       int32_t *offsets, msgl_stream stream);
/* w: num_experts matrices [n, k], contiguous. */
int32_t msgl_moe_grouped_gemm(int32_t dtype, msgl_rows x, const int32_t *offsets,
                              int32_t num_experts, const void *w, int64_t n, msgl_rows out,
                              msgl_stream stream);
int32_t msgl_moe_combine(int32_t dtype, msgl_rows x, msgl_rows weights, msgl_rows grouped_rows,
                         msgl_rows out, msgl_stream stream);

/* ---- sampling: logits are [n, v_local] float ------------------------------------------------- */
/* Scratch that the calls with `scratch` need, for n rows. */
int64_t msgl_sampling_scratch_bytes(int64_t n);
int32_t msgl_argmax(msgl_rows logits, int32_t first_id, float *out_value, int32_t *out_id,
                    void *scratch, msgl_stream stream);
int32_t msgl_gumbel_argmax(msgl_rows logits, const float *inv_temperature, const float *threshold,
                           const uint64_t *seeds, const int32_t *positions, int32_t first_id,
                           float *out_value, int32_t *out_id, void *scratch, msgl_stream stream);
/* threshold may be null. */
int32_t msgl_sum_exp(msgl_rows logits, const float *row_max, const float *inv_temperature,
                     const float *threshold, float *out, void *scratch, msgl_stream stream);
int32_t msgl_top_n(msgl_rows logits, int32_t first_id, msgl_rows out_values, msgl_rows out_ids,
                   void *scratch, msgl_stream stream);
int32_t msgl_threshold_histogram(msgl_rows logits, const float *row_max,
                                 const float *inv_temperature, const int32_t *mode,
                                 const int32_t *prefix, int32_t round, msgl_rows hist,
                                 msgl_stream stream);
int32_t msgl_threshold_refine(msgl_rows hist, const int32_t *mode, int32_t *prefix,
                              float *remaining, int32_t round, msgl_stream stream);
int32_t msgl_raise_threshold(const int32_t *mode, const int32_t *prefix, float *threshold,
                             int64_t n, msgl_stream stream);
/* The best of w shards, shard by shard in values and ids: [w, n]. The largest value wins, the lowest
 * shard among equals, NaN over all; nothing (id -1) gives -inf and -1. */
int32_t msgl_best_of_shards(const float *values, const int32_t *ids, int64_t num_shards, int64_t n,
                            float *out_value, int32_t *out_id, msgl_stream stream);
/* out[i] = logits[i][ids[i] - first_id], or 0 if that is not in this shard. */
int32_t msgl_pick_logits(msgl_rows logits, const int32_t *ids, int32_t first_id, float *out,
                         msgl_stream stream);
/* remaining[i] = top_p[i] * mass[i]. */
int32_t msgl_mass_target(const float *top_p, const float *mass, float *remaining, int64_t n,
                         msgl_stream stream);
/* threshold[i] = max(threshold[i], row_max[i] + ln_min_p[i] / inv_temperature[i]). */
int32_t msgl_min_p_threshold(const float *row_max, const float *ln_min_p,
                             const float *inv_temperature, float *threshold, int64_t n,
                             msgl_stream stream);
/* out[i] = take_a[i] ? a[i] : b[i], but -1 wherever a[i] is -1. */
int32_t msgl_choose_ids(const int32_t *take_a, const int32_t *a, const int32_t *b, int32_t *out,
                        int64_t n, msgl_stream stream);

/* Changes of logits, before all of the above. `rows` names, for each row of a batch, its row of the
 * tables, which are counts: [r, v_local] int32, prompts: [r, w] int32 (a bit per id), ids and values:
 * [r, e] int32 and float. */
/* counts[rows[i]] = 0. */
int32_t msgl_clear_counts(msgl_rows counts, const int32_t *rows, int64_t n, msgl_stream stream);
/* counts[rows[i]][ids[i] - first_id] += 1, if that is in this shard. */
int32_t msgl_count_ids(msgl_rows counts, const int32_t *rows, const int32_t *ids, int64_t n,
                       int32_t first_id, msgl_stream stream);
int32_t msgl_bias_logits(msgl_rows logits, msgl_rows ids, msgl_rows values, const int32_t *rows,
                         const int32_t *begins, const int32_t *ends, int32_t first_id,
                         msgl_stream stream);
int32_t msgl_penalize_logits(msgl_rows logits, msgl_rows counts, msgl_rows prompts,
                             const int32_t *rows, const float *repetition, const float *frequency,
                             const float *presence, int32_t first_id, msgl_stream stream);

/* ---- peer-memory all-reduce (minisgl-comm): see peer.cu --------------------------------------- */
#define MSGL_MAX_PEERS 8
typedef struct {
    int32_t rank, world_size;
    void *staging[MSGL_MAX_PEERS];  /* each rank's staging memory, as seen from this rank */
    uint32_t *flags[MSGL_MAX_PEERS]; /* each rank's flag memory, zeroed at start */
    int64_t staging_bytes;
    uint32_t *abort_flag; /* host-mapped; nonzero makes waiting kernels give up */
} msgl_peers;
/* Bytes of flag memory a rank needs. */
int64_t msgl_peer_flag_bytes(void);
/* data, contiguous, is replaced by the sum over the ranks, added in float in rank order and rounded
 * once. algorithm: 1 one-shot, 2 two-shot. n * element size must fit in staging_bytes. */
int32_t msgl_peer_all_reduce(const msgl_peers *peers, int32_t dtype, void *data, int64_t n,
                             int32_t algorithm, msgl_stream stream);
/* One-shot, with add_rms_norm after it: residual += the sum of x over the ranks, then x =
 * rms_norm(residual), with the same roundings. Rows are whole, aligned multiples of 16 bytes; those of
 * x fit in half of staging_bytes. */
int32_t msgl_peer_all_reduce_norm(const msgl_peers *peers, int32_t dtype, msgl_rows x,
                                  msgl_rows residual, const void *weight, float eps,
                                  msgl_stream stream);

#ifdef __cplusplus
}
#endif
#endif
