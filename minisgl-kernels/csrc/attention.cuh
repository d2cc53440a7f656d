// What all attention kernels share: where a sequence's keys and values lie. Never knows how
// attention is computed.
#pragma once

#include "common.cuh"

namespace msgl {

constexpr int MAX_HEAD_DIM = 256;

// Refuses arguments that no backend can work with. Device arrays are not looked at.
inline void check_attention(const msgl_rows &q, const msgl_attention_args &args,
                            const msgl_rows &out) {
    if (args.num_kv_heads < 1 || args.num_q_heads < 1 ||
        args.num_q_heads % args.num_kv_heads != 0) {
        refuse("%d query heads and %d kv heads; the former must be a multiple of the latter",
               args.num_q_heads, args.num_kv_heads);
    }
    if (args.head_dim < 1 || args.head_dim > MAX_HEAD_DIM) {
        refuse("head_dim is %d; 1 to %d are possible", args.head_dim, MAX_HEAD_DIM);
    }
    if (args.page_size < 1) refuse("page_size is %d; it must be at least 1", args.page_size);
    if (args.window < 0) refuse("window is %d; it must not be negative", args.window);
    if (args.n < 0) refuse("n is %d; it must not be negative", args.n);
    const int64_t row_len = static_cast<int64_t>(args.num_q_heads) * args.head_dim;
    check_shape("q", q, q.rows, row_len);
    check_shape("out", out, q.rows, row_len);
}

// Refuses element types of the pool that no backend works with.
inline void check_kv_dtype(int32_t dtype, int32_t kv_dtype) {
    if (kv_dtype != dtype && kv_dtype != MSGL_F8E4M3) {
        refuse("kv_dtype is %d; it must be that of the queries, %d, or 2 (8-bit floats)", kv_dtype,
               dtype);
    }
}

// The keys and values of one sequence, as seen by one kv head.
struct Sequence {
    const int32_t *pages;  // null if the sequence's row is out of range
    int64_t num_pages, num_slots;
    int page_size;

    __device__ static Sequence of(const msgl_attention_args &args, int index) {
        const int64_t row = args.rows[index];
        const bool valid = row >= 0 && row < args.num_rows;
        return {valid ? args.page_table + row * args.page_table_stride : nullptr, args.max_pages,
                args.num_slots, args.page_size};
    }

    // The slot of a position, or -1 if a table leads out of its range.
    __device__ __forceinline__ int64_t slot(int position) const {
        const int page = position / page_size;
        if (pages == nullptr || page >= num_pages) return -1;
        const int64_t slot =
            static_cast<int64_t>(pages[page]) * page_size + (position - page * page_size);
        return slot >= 0 && slot < num_slots ? slot : -1;
    }
};

// The sequence that a query belongs to: the last j with cu_seqlens_q[j] <= token. -1 if none.
__device__ __forceinline__ int sequence_of(const int32_t *cu_seqlens_q, int n, int64_t token) {
    int low = 0, high = n;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (cu_seqlens_q[middle + 1] <= token) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n && cu_seqlens_q[low] <= token ? low : -1;
}

// A softmax under way over part of the keys: the largest score, and the sum of the weights relative
// to it.
struct Softmax {
    float max, sum;
};

}  // namespace msgl
