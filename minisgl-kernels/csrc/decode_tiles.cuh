// Decode attention, from the inside: the list of tiles, how a warp copies the keys and values of one to
// shared memory, and what it makes of them. Never knows who else has a part of a pair.
#pragma once

#include "attention.cuh"
#include "early.cuh"
#include "mma.cuh"

namespace msgl {

constexpr int HEADS = 16;  // rows of a matrix instruction
constexpr int KEYS = 16;   // keys of a warp in a tile

// Where a block begins: tile `tile` of pair `pair`.
struct Start {
    int32_t pair, tile;
};

// On the device; written by the host.
struct Schedule {
    const int64_t *num_tiles;   // of the whole batch
    const int64_t *num_blocks;  // that have something to do
    const Start *starts;        // one per block
    const int32_t *kv_lens;     // one per sequence
};

struct DecodeArguments {
    const bf16 *q;
    bf16 *out;
    int64_t q_stride, out_stride;
    const bf16 *k_pool, *v_pool;
    int64_t num_slots;
    const int32_t *page_table, *rows;
    int64_t num_rows, max_pages, page_table_stride;
    int page_size, window;
    int group, num_kv_heads;
    int tiles_of_heads;  // of up to HEADS query heads, per kv head
    float scale_log2;    // of scores, for powers of two
    Schedule schedule;
    float *partial;           // [2 * blocks, HEADS, HEAD_DIM]
    Softmax *partial_softmax; // [2 * blocks, HEADS]
    int32_t *arrivals;        // one per pair, zero between launches
};

constexpr int64_t first_tile_of(int64_t block, int64_t blocks, int64_t num_tiles) {
    return block * num_tiles / blocks;
}

// The block whose stretch has this tile.
__device__ __forceinline__ int block_of_tile(int64_t tile, int64_t blocks, int64_t num_tiles) {
    return static_cast<int>(((tile + 1) * blocks - 1) / num_tiles);
}

template <int HEAD_DIM_, int WARPS_, int STAGES_>
struct DecodeShape {
    static constexpr int HEAD_DIM = HEAD_DIM_, WARPS = WARPS_, STAGES = STAGES_;
    static constexpr int THREADS = WARPS * 32, TILE = WARPS * KEYS;
    static constexpr int CHUNKS = HEAD_DIM / 8;  // of 16 bytes, in a row
    // Rows are padded so that eight rows are in different banks.
    static constexpr int ROW = HEAD_DIM + 8;
    // Queries stay in registers where there is room.
    static constexpr bool KEEPS_QUERIES = HEAD_DIM <= 128;
    // Blocks that a multiprocessor has room for.
    static constexpr int PER_PROCESSOR = WARPS > 4 ? 1 : 2;
    // Warps add up what they have in turn, in so many groups at a time.
    static constexpr int GROUPS = WARPS > 4 ? 2 : 1;

    struct Stage {
        bf16 keys[KEYS][ROW], values[KEYS][ROW];
    };
    struct Sums {
        float at[HEADS][ROW];
    };
    struct Queries {
        bf16 at[HEADS][ROW];
    };
    struct Shared {
        Stage stages[WARPS][STAGES];
        union {
            Sums sums[GROUPS];
            Queries queries;  // overwritten by sums where they are kept in registers
        };
        Queries kept[KEEPS_QUERIES ? 0 : 1];
        Softmax softmaxes[WARPS][HEADS];
        uint32_t masks[WARPS][STAGES];
        bool is_last;
    };
};

// A place in the list of tiles.
template <int TILE>
struct Cursor {
    int sequence, head;  // head: kv head and tile of query heads
    int tile, tiles;     // of the pair
    int kv_len, first;   // positions that are seen: first up to kv_len
    int row;             // of the page table
    int heads;           // of a sequence

    __device__ void enter(const DecodeArguments &a) {
        kv_len = a.schedule.kv_lens[sequence];
        row = a.rows[sequence];
        tiles = max((kv_len + TILE - 1) / TILE, 1);
        first = a.window > 0 ? max(kv_len - a.window, 0) : 0;
    }
    __device__ static Cursor at(const DecodeArguments &a, Start start) {
        Cursor cursor;
        cursor.heads = a.num_kv_heads * a.tiles_of_heads;
        cursor.sequence = start.pair / cursor.heads;
        cursor.head = start.pair % cursor.heads;
        cursor.tile = start.tile;
        cursor.enter(a);
        return cursor;
    }
    __device__ int pair() const { return sequence * heads + head; }
    // To the next tile; `more` says that there is one.
    __device__ void advance(const DecodeArguments &a, bool more) {
        if (++tile < tiles || !more) return;
        tile = 0;
        if (++head < heads) return;
        head = 0;
        ++sequence;
        enter(a);
    }
};

// A key whose copy is left for later: of which stage, and where it and its value are in the pools; -1
// for nowhere.
struct Left {
    int key = -1, stage = 0;
    int64_t offset = -1;
};

// One warp's copies of its keys and values, a few tiles ahead of what it computes.
template <class Shape>
struct Loader {
    const DecodeArguments &a;
    typename Shape::Stage *stages;
    uint32_t *masks;
    Cursor<Shape::TILE> cursor;
    int left;           // tiles that are not started
    int stage = 0;      // of the next tile
    int position = 0;   // this lane's key of the next tile (lanes 0 to 15)
    int32_t page = -1;  // and its page, which is under way from the table
    bool seen = false;

    // Asks for the page of this lane's key of the next tile, to be used when its copy starts.
    __device__ void look_up(int warp, int lane) {
        seen = false;
        if (left == 0) return;
        position = cursor.tile * Shape::TILE + warp * KEYS + lane % KEYS;
        const int index = position / a.page_size;
        seen = position >= cursor.first && position < cursor.kv_len && cursor.row >= 0 &&
               cursor.row < a.num_rows && index < a.max_pages;
        if (seen) page = a.page_table[cursor.row * a.page_table_stride + index];
    }

    // Starts the copies of the next tile, and returns what it leaves out: if `early`, the newest key.
    __device__ Left copy(int warp, int lane, bool early) {
        Left out;
        if (left == 0) return out;
        int slot = -1;
        if (seen) {
            const int64_t at = static_cast<int64_t>(page) * a.page_size + position % a.page_size;
            if (at >= 0 && at < a.num_slots) slot = static_cast<int>(at);
        }
        const uint32_t mask = __ballot_sync(ALL_LANES, slot >= 0) & 0xffffu;
        if (lane == 0) masks[stage] = mask;
        const int64_t slot_stride = static_cast<int64_t>(a.num_kv_heads) * Shape::HEAD_DIM;
        const int64_t column =
            static_cast<int64_t>(cursor.head / a.tiles_of_heads) * Shape::HEAD_DIM;
        const int newest = cursor.kv_len - 1 - cursor.tile * Shape::TILE - warp * KEYS;
        if (early && newest >= 0 && newest < KEYS) {
            out.key = newest;
            out.stage = stage;
            const int from = __shfl_sync(ALL_LANES, slot, newest);
            out.offset = from < 0 ? -1 : from * slot_stride + column;
        }
        typename Shape::Stage &to = stages[stage];
#pragma unroll
        for (int i = 0; i < KEYS * Shape::CHUNKS / 32; ++i) {
            const int key = (i * 32 + lane) / Shape::CHUNKS;
            const int chunk = (i * 32 + lane) % Shape::CHUNKS * 8;
            const int from = __shfl_sync(ALL_LANES, slot, key);
            if (key == out.key) continue;
            const int64_t offset = max(from, 0) * slot_stride + column + chunk;
            copy_async(&to.keys[key][chunk], a.k_pool + offset, from >= 0);
            copy_async(&to.values[key][chunk], a.v_pool + offset, from >= 0);
        }
        --left;
        cursor.advance(a, left > 0);
        look_up(warp, lane);
        stage = stage + 1 == Shape::STAGES ? 0 : stage + 1;
        return out;
    }

    // Starts the copies that were left out.
    __device__ void copy(const Left &out, int lane) {
        if (out.key < 0) return;
        typename Shape::Stage &to = stages[out.stage];
#pragma unroll
        for (int i = lane; i < 2 * Shape::CHUNKS; i += 32) {
            const int chunk = i % Shape::CHUNKS * 8;
            const int64_t offset = max(out.offset, static_cast<int64_t>(0)) + chunk;
            const bool is_key = i < Shape::CHUNKS;
            copy_async(is_key ? &to.keys[out.key][chunk] : &to.values[out.key][chunk],
                       (is_key ? a.k_pool : a.v_pool) + offset, out.offset >= 0);
        }
    }

    __device__ void start(int warp, int lane) {
        copy(warp, lane, false);
        commit_copies();
    }
};

// What one warp has of a pair: of its rows lane / 4 and lane / 4 + 8.
template <class Shape>
struct Running {
    float max[2], sum[2];  // sum: of this lane's keys only
    float out[Shape::HEAD_DIM / 8][4];

    __device__ void clear() {
        max[0] = max[1] = -INFINITY;
        sum[0] = sum[1] = 0.0f;
#pragma unroll
        for (auto &columns : out) columns[0] = columns[1] = columns[2] = columns[3] = 0.0f;
    }

    // Scores of 16 keys, masked.
    __device__ void scores(float (&s)[2][4], const typename Shape::Stage &stage,
                           const uint32_t (*queries)[4], const typename Shape::Queries *kept,
                           uint32_t mask, float scale, int lane) {
#pragma unroll
        for (int depth = 0; depth < Shape::HEAD_DIM / 16; ++depth) {
            uint32_t b[4], a[4];
            load_matrices(b, &stage.keys[lane / 16 * 8 + lane % 8]
                                        [depth * 16 + lane / 8 % 2 * 8]);
            if constexpr (Shape::KEEPS_QUERIES) {
                multiply_add(s[0], queries[depth], b[0], b[1]);
                multiply_add(s[1], queries[depth], b[2], b[3]);
            } else {
                load_matrices(a, &kept->at[lane % 16][depth * 16 + lane / 16 * 8]);
                multiply_add(s[0], a, b[0], b[1]);
                multiply_add(s[1], a, b[2], b[3]);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int key = half * 8 + lane % 4 * 2 + i % 2;
                s[half][i] = mask >> key & 1 ? s[half][i] * scale : -INFINITY;
            }
        }
    }

    __device__ void add(const typename Shape::Stage &stage, float (&s)[2][4], int lane) {
        float shrink[2];
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            float most = fmaxf(fmaxf(s[0][row * 2], s[0][row * 2 + 1]),
                               fmaxf(s[1][row * 2], s[1][row * 2 + 1]));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
            most = fmaxf(most, max[row]);
            // Before anything was seen all weights are zero, not NaN.
            const float base = most == -INFINITY ? 0.0f : most;
            shrink[row] = exp2f(max[row] - base);
            max[row] = most;
            sum[row] *= shrink[row];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
#pragma unroll
                for (int i = row * 2; i < row * 2 + 2; ++i) {
                    s[half][i] = exp2f(s[half][i] - base);
                    sum[row] += s[half][i];
                }
            }
        }
        uint32_t high[4], low[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float x = s[i / 2][i % 2 * 2], y = s[i / 2][i % 2 * 2 + 1];
            high[i] = pack_bf16(x, y);
            low[i] = pack_bf16(x - round_to<bf16>(x), y - round_to<bf16>(y));
        }
#pragma unroll
        for (int tile = 0; tile < Shape::HEAD_DIM / 16; ++tile) {
            uint32_t b[4];
            load_matrices_transposed(b, &stage.values[lane % 16][tile * 16 + lane / 16 * 8]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float(&columns)[4] = out[tile * 2 + half];
#pragma unroll
                for (int i = 0; i < 4; ++i) columns[i] *= shrink[i / 2];
                multiply_add(columns, low, b[half * 2], b[half * 2 + 1]);
                multiply_add(columns, high, b[half * 2], b[half * 2 + 1]);
            }
        }
    }
};

}  // namespace msgl
