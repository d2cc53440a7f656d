// Rows and ids by index, copies, and sums of whole arrays. Never knows what the rows are.
#include "common.cuh"

namespace msgl {
namespace {

// Which row of the source a row of the target is made of.
constexpr int64_t LEAVE = -1, CLEAR = -2;

struct SameRow {
    __device__ int64_t source(int64_t row) const { return row; }
    __device__ int64_t target(int64_t row) const { return row; }
};

struct GatherRow {
    const int32_t *indices;
    int64_t limit;
    __device__ int64_t source(int64_t row) const {
        const int64_t index = indices[row];
        return index >= 0 && index < limit ? index : LEAVE;
    }
    __device__ int64_t target(int64_t row) const { return row; }
};

struct EmbeddingRow {
    const int32_t *ids;
    int64_t first_id, limit;
    __device__ int64_t source(int64_t row) const {
        const int64_t index = static_cast<int64_t>(ids[row]) - first_id;
        return index >= 0 && index < limit ? index : CLEAR;
    }
    __device__ int64_t target(int64_t row) const { return row; }
};

struct ScatterRow {
    const int32_t *indices;
    int64_t limit;
    __device__ int64_t source(int64_t row) const { return row; }
    __device__ int64_t target(int64_t row) const {
        const int64_t index = indices[row];
        return index >= 0 && index < limit ? index : LEAVE;
    }
};

// Strides and lengths count units of Unit.
template <class Unit, class Map>
__global__ void move_rows_kernel(const Unit *source, int64_t source_stride, Unit *target,
                                 int64_t target_stride, int64_t rows, int64_t units, Map map) {
    const int64_t row = row_of_thread();
    if (row >= rows) return;
    const int64_t from = map.source(row), to = map.target(row);
    if (from == LEAVE || to == LEAVE) return;
    Unit *out = target + to * target_stride;
    if (from == CLEAR) {
        each_access(units, [&](int64_t i) { out[i] = Unit{}; });
        return;
    }
    const Unit *in = source + from * source_stride;
    each_access(units, [&](int64_t i) { out[i] = in[i]; });
}

template <class Unit, class Map>
void launch_move(const msgl_rows &source, const msgl_rows &target, int64_t rows,
                 int64_t element_bytes, Map map, cudaStream_t stream) {
    const int64_t unit = sizeof(Unit);
    const int64_t units = target.row_len * element_bytes / unit;
    const Grid grid = grid_over(rows, units);
    move_rows_kernel<<<grid.blocks, grid.threads, 0, stream>>>(
        static_cast<const Unit *>(source.data), source.stride * element_bytes / unit,
        static_cast<Unit *>(target.data), target.stride * element_bytes / unit, rows, units, map);
    check_launch();
}

// `rows` rows, in the widest units that both sides allow.
template <class Map>
void move_rows(const msgl_rows &source, const msgl_rows &target, int64_t rows,
               int64_t element_bytes, Map map, cudaStream_t stream) {
    if (rows == 0 || target.row_len == 0) return;
    const auto fits = [&](int64_t bytes) {
        return is_aligned(source, element_bytes, bytes) && is_aligned(target, element_bytes, bytes);
    };
    if (fits(16)) return launch_move<uint4>(source, target, rows, element_bytes, map, stream);
    if (fits(4)) return launch_move<uint32_t>(source, target, rows, element_bytes, map, stream);
    if (fits(2)) return launch_move<uint16_t>(source, target, rows, element_bytes, map, stream);
    launch_move<uint8_t>(source, target, rows, element_bytes, map, stream);
}

int64_t float_bytes(int32_t dtype) {
    int64_t bytes = 0;
    with_float(dtype, [&](auto tag) { bytes = sizeof(typename decltype(tag)::type); });
    return bytes;
}

// Rows without gaps between them are one long row.
msgl_rows joined(const msgl_rows &x) {
    return {x.data, 1, x.rows * x.row_len, x.rows * x.row_len};
}

bool is_gapless(const msgl_rows &x) { return x.rows <= 1 || x.stride == x.row_len; }

constexpr int64_t THREADS = 256;

__global__ void gather_ids_kernel(const int32_t *table, int64_t table_len, const int32_t *indices,
                                  int64_t n, int32_t *out) {
    const int64_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const int64_t index = indices[i];
    if (index >= 0 && index < table_len) out[i] = table[index];
}

__global__ void scatter_ids_kernel(const int32_t *values, const int32_t *indices, int64_t n,
                                   int32_t *table, int64_t table_len) {
    const int64_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const int64_t index = indices[i];
    if (index >= 0 && index < table_len) table[index] = values[i];
}

unsigned blocks_for(int64_t n) { return static_cast<unsigned>(ceil_div(n, THREADS)); }

constexpr int MAX_PARTS = 16;

struct Parts {
    const void *data[MAX_PARTS];
    int64_t stride[MAX_PARTS];
    int count;
};

// The sum in float in the order of the parts, from +0 as an empty sum is.
template <class T, int N>
__global__ void sum_kernel(Parts parts, T *out, int64_t out_stride, int64_t rows,
                           int64_t accesses) {
    const int64_t row = row_of_thread();
    if (row >= rows) return;
    each_access(accesses, [&](int64_t i) {
        float sums[N] = {};
        for (int part = 0; part < parts.count; ++part) {
            const T *x = static_cast<const T *>(parts.data[part]) + row * parts.stride[part];
            const auto pack = Pack<T, N>::load(x + i * N);
#pragma unroll
            for (int j = 0; j < N; ++j) sums[j] += to_float(pack.at[j]);
        }
        Pack<T, N> sum;
#pragma unroll
        for (int j = 0; j < N; ++j) sum.at[j] = from_float<T>(sums[j]);
        sum.store(out + row * out_stride + i * N);
    });
}

void reduce_sum(int32_t dtype, const msgl_rows *parts, int count, msgl_rows out,
                cudaStream_t stream) {
    bool gapless = is_gapless(out);
    for (int i = 0; i < count; ++i) {
        check_shape("a part", parts[i], out.rows, out.row_len);
        gapless = gapless && is_gapless(parts[i]);
    }
    if (is_empty(out)) return;
    const auto shaped = [&](const msgl_rows &x) { return gapless ? joined(x) : x; };
    out = shaped(out);
    Parts all{};
    all.count = count;
    with_float(dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        bool wide = is_aligned(out, sizeof(T), WIDE);
        for (int i = 0; i < count; ++i) {
            const msgl_rows part = shaped(parts[i]);
            wide = wide && is_aligned(part, sizeof(T), WIDE);
            all.data[i] = part.data;
            all.stride[i] = part.stride;
        }
        with_width<T>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            const Grid grid = grid_over(out.rows, out.row_len / N);
            sum_kernel<T, N><<<grid.blocks, grid.threads, 0, stream>>>(
                all, static_cast<T *>(out.data), out.stride, out.rows, out.row_len / N);
            check_launch();
        });
    });
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_embedding(int32_t dtype, const int32_t *ids, msgl_rows table,
                                  int32_t first_id, msgl_rows out, msgl_stream stream) {
    return guarded("embedding", [&] {
        check_rows("table", table);
        check_shape("out", out, out.rows, table.row_len);
        move_rows(table, out, out.rows, float_bytes(dtype), EmbeddingRow{ids, first_id, table.rows},
                  stream_of(stream));
    });
}

extern "C" int32_t msgl_gather_rows(int32_t dtype, msgl_rows x, const int32_t *indices,
                                    msgl_rows out, msgl_stream stream) {
    return guarded("gather_rows", [&] {
        check_rows("x", x);
        check_shape("out", out, out.rows, x.row_len);
        move_rows(x, out, out.rows, float_bytes(dtype), GatherRow{indices, x.rows},
                  stream_of(stream));
    });
}

extern "C" int32_t msgl_gather_ids(const int32_t *table, int64_t table_len, const int32_t *indices,
                                   int64_t n, int32_t *out, msgl_stream stream) {
    return guarded("gather_ids", [&] {
        if (n <= 0) return;
        gather_ids_kernel<<<blocks_for(n), THREADS, 0, stream_of(stream)>>>(table, table_len,
                                                                            indices, n, out);
        check_launch();
    });
}

extern "C" int32_t msgl_scatter_ids(const int32_t *values, const int32_t *indices, int64_t n,
                                    int32_t *table, int64_t table_len, msgl_stream stream) {
    return guarded("scatter_ids", [&] {
        if (n <= 0) return;
        scatter_ids_kernel<<<blocks_for(n), THREADS, 0, stream_of(stream)>>>(values, indices, n,
                                                                             table, table_len);
        check_launch();
    });
}

extern "C" int32_t msgl_copy(int32_t element_bytes, msgl_rows source, msgl_rows target,
                             msgl_stream stream) {
    return guarded("copy", [&] {
        if (element_bytes != 1 && element_bytes != 2 && element_bytes != 4 && element_bytes != 8) {
            refuse("element_bytes is %d; it must be 1, 2, 4 or 8", element_bytes);
        }
        check_rows("source", source);
        check_shape("target", target, source.rows, source.row_len);
        if (is_gapless(source) && is_gapless(target)) {
            source = joined(source);
            target = joined(target);
        }
        move_rows(source, target, target.rows, element_bytes, SameRow{}, stream_of(stream));
    });
}

extern "C" int32_t msgl_add(int32_t dtype, msgl_rows x, msgl_rows y, msgl_stream stream) {
    return guarded("add", [&] {
        check_rows("y", y);
        const msgl_rows parts[] = {y, x};
        reduce_sum(dtype, parts, 2, y, stream_of(stream));
    });
}

extern "C" int32_t msgl_reduce_sum(int32_t dtype, const msgl_rows *parts, int32_t num_parts,
                                   msgl_rows out, msgl_stream stream) {
    return guarded("reduce_sum", [&] {
        if (num_parts < 1 || num_parts > MAX_PARTS) {
            refuse("%d parts; 1 to %d are possible", num_parts, MAX_PARTS);
        }
        check_rows("out", out);
        reduce_sum(dtype, parts, num_parts, out, stream_of(stream));
    });
}

extern "C" int32_t msgl_store_kv(int32_t dtype, msgl_rows k, msgl_rows v, const int32_t *slots,
                                 msgl_rows k_pool, msgl_rows v_pool, msgl_stream stream) {
    return guarded("store_kv", [&] {
        check_rows("k", k);
        check_shape("v", v, k.rows, k.row_len);
        check_shape("k_pool", k_pool, k_pool.rows, k.row_len);
        check_shape("v_pool", v_pool, k_pool.rows, k.row_len);
        const ScatterRow map{slots, k_pool.rows};
        move_rows(k, k_pool, k.rows, float_bytes(dtype), map, stream_of(stream));
        move_rows(v, v_pool, v.rows, float_bytes(dtype), map, stream_of(stream));
    });
}
