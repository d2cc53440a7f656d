// How rows of logits are cut, so that a few rows fill the GPU too. Never knows what is computed of
// them.
//
// A row is cut into segments of a length that depends on the row's length only, so that a row's
// result has the same bits whatever else is in the batch. One kernel makes a partial result per
// segment, in the caller's scratch; a second one combines those of a row, in order.
#pragma once

#include "common.cuh"

namespace msgl {

constexpr int SEGMENT_THREADS = 256;
constexpr int MAX_SEGMENTS = 64;
constexpr int MAX_TOP_N = 20;

struct Segments {
    int64_t length;
    int count;
};

inline Segments segments_of(int64_t row_len) {
    // Multiples of 1024 keep what is aligned at the start of a row aligned in its segments.
    const int64_t length = std::max<int64_t>(2048, ceil_div(ceil_div(row_len, MAX_SEGMENTS), 1024) * 1024);
    return {length, static_cast<int>(ceil_div(row_len, length))};
}

// Bytes of scratch per row: the partial results of the op with the largest.
constexpr int64_t SCRATCH_PER_ROW = MAX_SEGMENTS * MAX_TOP_N * (sizeof(float) + sizeof(int32_t));

inline void check_logits(const msgl_rows &logits) {
    check_rows("logits", logits);
    if (logits.row_len < 1 || logits.row_len > INT32_MAX) {
        refuse("rows of %lld logits; 1 to 2147483647 are possible",
               static_cast<long long>(logits.row_len));
    }
    if (logits.rows > 65535) {
        refuse("%lld rows of logits; up to 65535 are possible",
               static_cast<long long>(logits.rows));
    }
}

// Calls `body(logit, column)` for this thread's share of a stretch of a row that starts at
// `column`: in wide accesses where `wide` says that they are aligned. `threads` threads take part,
// this one is `thread`; who gets what depends on nothing else.
template <class Body>
__device__ __forceinline__ void each_logit(const float *row, int64_t column, int64_t end, bool wide,
                                           int thread, int threads, Body &&body) {
    if (wide) {
        for (int64_t i = column + thread * 4; i + 4 <= end; i += threads * 4) {
            const auto pack = Pack<float, 4>::load(row + i);
#pragma unroll
            for (int j = 0; j < 4; ++j) body(pack.at[j], static_cast<int32_t>(i + j));
        }
        const int64_t rest = column + (end - column) / 4 * 4;
        if (rest + thread < end) body(row[rest + thread], static_cast<int32_t>(rest + thread));
        return;
    }
    // The same elements for the same threads, so that sums have the same bits.
    for (int64_t i = column + thread * 4; i + 4 <= end; i += threads * 4) {
#pragma unroll
        for (int j = 0; j < 4; ++j) body(row[i + j], static_cast<int32_t>(i + j));
    }
    const int64_t rest = column + (end - column) / 4 * 4;
    if (rest + thread < end) body(row[rest + thread], static_cast<int32_t>(rest + thread));
}

// Whether all rows start at a multiple of 16 bytes.
inline bool starts_wide(const msgl_rows &logits) {
    return is_aligned(logits.data, WIDE) && (logits.rows <= 1 || logits.stride % 4 == 0);
}

}  // namespace msgl
