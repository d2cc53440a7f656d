// A matrix multiplication per expert: out[i] = x[i] * w[e]^T for the rows i of expert e. Never
// knows how the rows were grouped.
//
// The host does not know how many rows an expert has. The grid is as large as it could be needed;
// each block finds its expert and rows in the offsets, or that there are none for it. Sums run over
// k in the same order whatever the tile, so a row has the same bits in any batch.
#include "mma.cuh"

namespace msgl {
namespace {

struct Problem {
    const void *x;
    int64_t x_stride, rows;
    const int32_t *offsets;
    int num_experts;
    const void *w;
    int64_t n, k;
    void *out;
    int64_t out_stride;
    int column_tiles;
};

// The rows of one block, and the expert they belong to; no rows if there is nothing to do.
struct RowTile {
    int64_t begin, end;
    int expert;
};

// Finds the row tile number `ordinal`, counted expert by expert. All THREADS of the block call it.
template <int THREADS>
__device__ RowTile find_row_tile(const Problem &problem, int ordinal, int tile_rows) {
    __shared__ int sums[THREADS / 32];
    __shared__ RowTile found;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int share = (problem.num_experts + THREADS - 1) / THREADS;
    const int first = min(static_cast<int>(threadIdx.x) * share, problem.num_experts);
    const int last = min(first + share, problem.num_experts);
    const auto bounds = [&](int expert) {
        const int64_t begin = min(max(static_cast<int64_t>(problem.offsets[expert]), int64_t{0}),
                                  problem.rows);
        const int64_t end =
            min(max(static_cast<int64_t>(problem.offsets[expert + 1]), begin), problem.rows);
        return RowTile{begin, end, expert};
    };
    const auto tiles = [&](const RowTile &rows) {
        return static_cast<int>((rows.end - rows.begin + tile_rows - 1) / tile_rows);
    };
    int mine = 0;
    for (int expert = first; expert < last; ++expert) mine += tiles(bounds(expert));
    int inclusive = mine;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        const int other = __shfl_up_sync(ALL_LANES, inclusive, offset);
        if (lane >= offset) inclusive += other;
    }
    if (lane == 31) sums[warp] = inclusive;
    if (threadIdx.x == 0) found = {0, 0, 0};
    __syncthreads();
    int before = inclusive - mine;
    for (int other = 0; other < warp; ++other) before += sums[other];
    if (ordinal >= before && ordinal < before + mine) {
        for (int expert = first; expert < last; ++expert) {
            const RowTile rows = bounds(expert);
            const int count = tiles(rows);
            if (ordinal < before + count) {
                const int64_t begin =
                    rows.begin + static_cast<int64_t>(ordinal - before) * tile_rows;
                found = {begin, min(begin + tile_rows, rows.end), expert};
                break;
            }
            before += count;
        }
    }
    __syncthreads();
    return found;
}

// ---- bfloat16 on tensor cores -----------------------------------------------------------------

// A tile of M rows of x by N rows of w, K deep, in STAGES buffers; ACROSS warps side by side over
// N, DOWN warps over M.
template <int M_, int N_, int STAGES_, int DOWN_, int ACROSS_>
struct Tile {
    static constexpr int M = M_, N = N_, K = 64, STAGES = STAGES_, DOWN = DOWN_, ACROSS = ACROSS_;
    static constexpr int THREADS = DOWN * ACROSS * 32;
    static constexpr int STAGE = (M + N) * K;  // elements
    static constexpr int BYTES = STAGES * STAGE * static_cast<int>(sizeof(bf16));
    static constexpr int WARP_M = M / DOWN, WARP_N = N / ACROSS;
    static_assert(WARP_M % 16 == 0 && WARP_N % 16 == 0);
};

constexpr int CHUNK = 8;  // elements of 16 bytes

// Where a chunk of a row of a K = 64 wide tile lies: rows are rotated against each other, so that
// the same chunk of eight rows is in eight different groups of banks.
__device__ __forceinline__ int swizzled(int row, int chunk) {
    return row * 64 + (chunk ^ (row % 8)) * CHUNK;
}

// Starts copying rows of `from` (from row 0 of the tile on, `rows` of them valid) at depth `k0`.
template <int ROWS, int THREADS>
__device__ __forceinline__ void copy_tile(bf16 *to, const bf16 *from, int64_t stride, int64_t rows,
                                          int64_t k0, int64_t k) {
    constexpr int CHUNKS = ROWS * 8;
#pragma unroll
    for (int i = 0; i < (CHUNKS + THREADS - 1) / THREADS; ++i) {
        const int at = i * THREADS + static_cast<int>(threadIdx.x);
        if (CHUNKS % THREADS != 0 && at >= CHUNKS) break;
        const int row = at / 8, chunk = at % 8;
        const int64_t column = k0 + chunk * CHUNK;
        const bool valid = row < rows && column < k;
        copy_async(to + swizzled(row, chunk), valid ? from + row * stride + column : from, valid);
    }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::THREADS) grouped_gemm_kernel(Problem problem) {
    extern __shared__ __align__(128) bf16 stages[];
    const int column_tile = blockIdx.x % problem.column_tiles;
    const RowTile tile = find_row_tile<Tile::THREADS>(
        problem, static_cast<int>(blockIdx.x / problem.column_tiles), Tile::M);
    if (tile.begin == tile.end) return;
    const int64_t first_column = static_cast<int64_t>(column_tile) * Tile::N;
    const int64_t k = problem.k;
    const bf16 *x = static_cast<const bf16 *>(problem.x) + tile.begin * problem.x_stride;
    const bf16 *w = static_cast<const bf16 *>(problem.w) +
                    (static_cast<int64_t>(tile.expert) * problem.n + first_column) * k;
    const int64_t x_rows = tile.end - tile.begin, w_rows = problem.n - first_column;

    const int steps = static_cast<int>((k + Tile::K - 1) / Tile::K);
    const auto start_copy = [&](int step) {
        if (step < steps) {
            bf16 *stage = stages + step % Tile::STAGES * Tile::STAGE;
            const int64_t k0 = static_cast<int64_t>(step) * Tile::K;
            copy_tile<Tile::M, Tile::THREADS>(stage, x, problem.x_stride, x_rows, k0, k);
            copy_tile<Tile::N, Tile::THREADS>(stage + Tile::M * Tile::K, w, k, w_rows, k0, k);
        }
        commit_copies();
    };
    for (int step = 0; step < Tile::STAGES - 1; ++step) start_copy(step);

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_row = warp / Tile::ACROSS * Tile::WARP_M;
    const int warp_column = warp % Tile::ACROSS * Tile::WARP_N;
    constexpr int DOWN = Tile::WARP_M / 16, ACROSS = Tile::WARP_N / 8;
    float sums[DOWN][ACROSS][4] = {};
    for (int step = 0; step < steps; ++step) {
        wait_copies<Tile::STAGES - 2>();
        __syncthreads();
        start_copy(step + Tile::STAGES - 1);
        const bf16 *a_tile = stages + step % Tile::STAGES * Tile::STAGE;
        const bf16 *b_tile = a_tile + Tile::M * Tile::K;
#pragma unroll
        for (int depth = 0; depth < Tile::K / 16; ++depth) {
            uint32_t a[DOWN][4];
#pragma unroll
            for (int i = 0; i < DOWN; ++i) {
                load_matrices(a[i], a_tile + swizzled(warp_row + i * 16 + lane % 16,
                                                      depth * 2 + lane / 16));
            }
#pragma unroll
            for (int j = 0; j < ACROSS; j += 2) {
                uint32_t b[4];
                load_matrices(b, b_tile + swizzled(warp_column + j * 8 + lane / 16 * 8 + lane % 8,
                                                   depth * 2 + lane / 8 % 2));
#pragma unroll
                for (int i = 0; i < DOWN; ++i) {
                    multiply_add(sums[i][j], a[i], b[0], b[1]);
                    multiply_add(sums[i][j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }
    wait_copies<0>();

    bf16 *out = static_cast<bf16 *>(problem.out);
#pragma unroll
    for (int i = 0; i < DOWN; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int64_t row = tile.begin + warp_row + i * 16 + half * 8 + lane / 4;
            if (row >= tile.end) continue;
            bf16 *line = out + row * problem.out_stride;
#pragma unroll
            for (int j = 0; j < ACROSS; ++j) {
                const int64_t column = first_column + warp_column + j * 8 + lane % 4 * 2;
                if (column < problem.n) line[column] = from_float<bf16>(sums[i][j][half * 2]);
                if (column + 1 < problem.n) {
                    line[column + 1] = from_float<bf16>(sums[i][j][half * 2 + 1]);
                }
            }
        }
    }
}

// ---- any dtype and alignment ------------------------------------------------------------------

constexpr int SIDE = 32, SIMPLE_THREADS = 256;

// A tile of SIDE rows by SIDE columns; each thread sums up four elements of one row.
template <class T>
__global__ void __launch_bounds__(SIMPLE_THREADS) simple_grouped_gemm_kernel(Problem problem) {
    __shared__ float x_tile[SIDE][SIDE + 1], w_tile[SIDE][SIDE + 1];
    const int64_t first_column = static_cast<int64_t>(blockIdx.x % problem.column_tiles) * SIDE;
    const RowTile tile = find_row_tile<SIMPLE_THREADS>(
        problem, static_cast<int>(blockIdx.x / problem.column_tiles), SIDE);
    if (tile.begin == tile.end) return;
    const T *x = static_cast<const T *>(problem.x);
    const T *w = static_cast<const T *>(problem.w) +
                 static_cast<int64_t>(tile.expert) * problem.n * problem.k;
    const int column = threadIdx.x % SIDE, first_row = threadIdx.x / SIDE;
    constexpr int STEP = SIMPLE_THREADS / SIDE;
    float sums[SIDE / STEP] = {};
    for (int64_t k0 = 0; k0 < problem.k; k0 += SIDE) {
        const int64_t depth = k0 + column;
        for (int row = first_row; row < SIDE; row += STEP) {
            const int64_t x_row = tile.begin + row, w_row = first_column + row;
            const bool x_valid = x_row < tile.end && depth < problem.k;
            const bool w_valid = w_row < problem.n && depth < problem.k;
            x_tile[row][column] = x_valid ? to_float(x[x_row * problem.x_stride + depth]) : 0.0f;
            w_tile[row][column] = w_valid ? to_float(w[w_row * problem.k + depth]) : 0.0f;
        }
        __syncthreads();
        for (int l = 0; l < SIDE; ++l) {
#pragma unroll
            for (int i = 0; i < SIDE / STEP; ++i) {
                sums[i] = fmaf(x_tile[first_row + i * STEP][l], w_tile[column][l], sums[i]);
            }
        }
        __syncthreads();
    }
    T *out = static_cast<T *>(problem.out);
#pragma unroll
    for (int i = 0; i < SIDE / STEP; ++i) {
        const int64_t row = tile.begin + first_row + i * STEP;
        if (row < tile.end && first_column + column < problem.n) {
            out[row * problem.out_stride + first_column + column] = from_float<T>(sums[i]);
        }
    }
}

// The number of blocks that could be needed: every expert with rows has at most one tile that is
// not full.
int64_t num_blocks(const Problem &problem, int tile_rows) {
    const int64_t tiles =
        problem.rows / tile_rows + std::min<int64_t>(problem.num_experts, problem.rows);
    const int64_t blocks = tiles * problem.column_tiles;
    if (blocks > INT32_MAX) refuse("%lld blocks are too many", static_cast<long long>(blocks));
    return blocks;
}

template <class Tile>
void launch_tiles(Problem problem, cudaStream_t stream) {
    check(cudaFuncSetAttribute(grouped_gemm_kernel<Tile>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::BYTES),
          "the shared memory of a tile");
    problem.column_tiles = static_cast<int>(ceil_div(problem.n, Tile::N));
    const auto blocks = static_cast<unsigned>(num_blocks(problem, Tile::M));
    grouped_gemm_kernel<Tile><<<blocks, Tile::THREADS, Tile::BYTES, stream>>>(problem);
    check_launch();
}

template <class T>
void launch_simple(Problem problem, cudaStream_t stream) {
    problem.column_tiles = static_cast<int>(ceil_div(problem.n, SIDE));
    const auto blocks = static_cast<unsigned>(num_blocks(problem, SIDE));
    simple_grouped_gemm_kernel<T><<<blocks, SIMPLE_THREADS, 0, stream>>>(problem);
    check_launch();
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int32_t msgl_moe_grouped_gemm(int32_t dtype, msgl_rows x, const int32_t *offsets,
                                         int32_t num_experts, const void *w, int64_t n,
                                         msgl_rows out, msgl_stream stream) {
    return guarded("moe_grouped_gemm", [&] {
        check_rows("x", x);
        check_shape("out", out, x.rows, n);
        if (num_experts < 0) refuse("%d experts", num_experts);
        if (is_empty(out) || num_experts == 0) return;
        const Problem problem{x.data, x.stride,  x.rows,   offsets,    num_experts, w,
                              n,      x.row_len, out.data, out.stride, 0};
        const bool wide = is_aligned(x, sizeof(bf16), WIDE) && is_aligned(w, WIDE);
        if (dtype == MSGL_BF16 && wide) {
            // Few rows an expert: the weights are what takes time, and small tiles waste none.
            const int64_t mean_rows = x.rows / num_experts;
            if (mean_rows <= 24) {
                launch_tiles<Tile<16, 64, 6, 1, 4>>(problem, stream_of(stream));
            } else if (mean_rows <= 96) {
                launch_tiles<Tile<64, 128, 4, 2, 2>>(problem, stream_of(stream));
            } else {
                launch_tiles<Tile<128, 128, 3, 4, 2>>(problem, stream_of(stream));
            }
            return;
        }
        with_float(dtype, [&](auto tag) {
            launch_simple<typename decltype(tag)::type>(problem, stream_of(stream));
        });
    });
}
