// Changes of logits before a token is chosen, and the counts of output tokens that they need. Rows of
// a batch name rows of tables. Never knows what is chosen.
#include "sampling.cuh"

namespace msgl {
namespace {

constexpr int THREADS = 256;
// Elements of a row that one thread looks at.
constexpr int EACH = 8;

// A table with one row per request.
template <class T>
struct Table {
    T *data;
    int64_t rows, row_len, stride;

    explicit Table(const msgl_rows &x)
        : data(static_cast<T *>(x.data)), rows(x.rows), row_len(x.row_len), stride(x.stride) {}

    // Null if there is no such row.
    __device__ __forceinline__ T *row(int64_t index) const {
        return index >= 0 && index < rows ? data + index * stride : nullptr;
    }
};

// blockIdx.x: stretch of a row, blockIdx.y: which of the rows named.
__global__ void __launch_bounds__(THREADS)
    clear_counts_kernel(Table<int32_t> counts, const int32_t *rows) {
    int32_t *row = counts.row(rows[blockIdx.y]);
    if (row == nullptr) return;
    int64_t column = static_cast<int64_t>(blockIdx.x) * THREADS * EACH + threadIdx.x;
    for (int i = 0; i < EACH && column < counts.row_len; ++i, column += THREADS) row[column] = 0;
}

__global__ void __launch_bounds__(THREADS)
    count_ids_kernel(Table<int32_t> counts, const int32_t *rows, const int32_t *ids, int64_t n,
                     int64_t first_id) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= n) return;
    int32_t *row = counts.row(rows[i]);
    const int64_t column = ids[i] - first_id;
    if (row == nullptr || column < 0 || column >= counts.row_len) return;
    atomicAdd(row + column, 1);  // a row may be named twice
}

// One block per row.
__global__ void __launch_bounds__(THREADS)
    bias_logits_kernel(Table<float> logits, Table<const int32_t> ids, Table<const float> values,
                       const int32_t *rows, const int32_t *begins, const int32_t *ends,
                       int64_t first_id) {
    const int64_t i = blockIdx.x;
    const int32_t *id = ids.row(rows[i]);
    const float *value = values.row(rows[i]);
    if (id == nullptr || value == nullptr) return;
    float *row = logits.row(i);
    const int64_t begin = max(begins[i], 0), end = min(static_cast<int64_t>(ends[i]), ids.row_len);
    for (int64_t entry = begin + threadIdx.x; entry < end; entry += THREADS) {
        const int64_t column = id[entry] - first_id;
        if (column >= 0 && column < logits.row_len) row[column] = __fadd_rn(row[column], value[entry]);
    }
}

struct Penalties {
    const float *repetition, *frequency, *presence;
};

// blockIdx.x: stretch of a row, blockIdx.y: row. Logits are read only where a token appeared.
__global__ void __launch_bounds__(THREADS)
    penalize_logits_kernel(Table<float> logits, Table<const int32_t> counts,
                           Table<const uint32_t> prompts, const int32_t *rows, Penalties penalties,
                           int64_t first_id) {
    const int64_t i = blockIdx.y;
    const float repetition = penalties.repetition[i];
    const float frequency = penalties.frequency[i], presence = penalties.presence[i];
    if (repetition == 1.0f && frequency == 0.0f && presence == 0.0f) return;
    const int32_t *count_row = counts.row(rows[i]);
    const uint32_t *prompt = prompts.row(rows[i]);
    if (count_row == nullptr) return;
    float *row = logits.row(i);
    int64_t column = static_cast<int64_t>(blockIdx.x) * THREADS * EACH + threadIdx.x;
#pragma unroll
    for (int j = 0; j < EACH; ++j, column += THREADS) {
        if (column >= logits.row_len) return;
        const int32_t count = count_row[column];
        const int64_t id = first_id + column;
        const bool has_word = id >= 0 && id / 32 < prompts.row_len;
        const bool in_prompt = has_word && (prompt[id / 32] >> (id % 32) & 1u) != 0;
        if (count <= 0 && !in_prompt) continue;
        // Each step is rounded by itself: the compiler must not contract them.
        float x = row[column];
        x = x > 0.0f ? __fdiv_rn(x, repetition) : __fmul_rn(x, repetition);
        if (count > 0) {
            x = __fsub_rn(x, __fmul_rn(frequency, static_cast<float>(count)));
            x = __fsub_rn(x, presence);
        }
        row[column] = x;
    }
}

// Stretches of a row, each of one block.
unsigned stretches_of(int64_t row_len) {
    const int64_t count = ceil_div(row_len, THREADS * EACH);
    if (count > INT32_MAX) refuse("rows of %lld are too long", static_cast<long long>(row_len));
    return static_cast<unsigned>(count);
}

// Rows of a batch, which are the second dimension of a grid.
unsigned grid_rows(int64_t n) {
    if (n > 65535) refuse("%lld rows; up to 65535 are possible", static_cast<long long>(n));
    return static_cast<unsigned>(n);
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_clear_counts(msgl_rows counts, const int32_t *rows, int64_t n,
                                     msgl_stream stream) {
    return guarded("clear_counts", [&] {
        check_rows("counts", counts);
        if (n <= 0 || is_empty(counts)) return;
        const dim3 blocks(stretches_of(counts.row_len), grid_rows(n));
        clear_counts_kernel<<<blocks, THREADS, 0, stream_of(stream)>>>(Table<int32_t>(counts), rows);
        check_launch();
    });
}

extern "C" int32_t msgl_count_ids(msgl_rows counts, const int32_t *rows, const int32_t *ids,
                                  int64_t n, int32_t first_id, msgl_stream stream) {
    return guarded("count_ids", [&] {
        check_rows("counts", counts);
        if (n <= 0 || is_empty(counts)) return;
        const auto blocks = static_cast<unsigned>(ceil_div(n, THREADS));
        count_ids_kernel<<<blocks, THREADS, 0, stream_of(stream)>>>(Table<int32_t>(counts), rows,
                                                                    ids, n, first_id);
        check_launch();
    });
}

extern "C" int32_t msgl_bias_logits(msgl_rows logits, msgl_rows ids, msgl_rows values,
                                    const int32_t *rows, const int32_t *begins,
                                    const int32_t *ends, int32_t first_id, msgl_stream stream) {
    return guarded("bias_logits", [&] {
        check_logits(logits);
        check_rows("ids", ids);
        check_shape("values", values, ids.rows, ids.row_len);
        if (logits.rows == 0 || is_empty(ids)) return;
        bias_logits_kernel<<<grid_rows(logits.rows), THREADS, 0, stream_of(stream)>>>(
            Table<float>(logits), Table<const int32_t>(ids), Table<const float>(values), rows,
            begins, ends, first_id);
        check_launch();
    });
}

extern "C" int32_t msgl_penalize_logits(msgl_rows logits, msgl_rows counts, msgl_rows prompts,
                                        const int32_t *rows, const float *repetition,
                                        const float *frequency, const float *presence,
                                        int32_t first_id, msgl_stream stream) {
    return guarded("penalize_logits", [&] {
        check_logits(logits);
        check_shape("counts", counts, counts.rows, logits.row_len);
        check_shape("prompts", prompts, counts.rows, prompts.row_len);
        if (logits.rows == 0) return;
        const dim3 blocks(stretches_of(logits.row_len), grid_rows(logits.rows));
        penalize_logits_kernel<<<blocks, THREADS, 0, stream_of(stream)>>>(
            Table<float>(logits), Table<const int32_t>(counts), Table<const uint32_t>(prompts),
            rows, Penalties{repetition, frequency, presence}, first_id);
        check_launch();
    });
}
