// Decode attention in bfloat16: one query a sequence, keys read from the pages where they lie, work
// divided evenly whatever the lengths. Never knows how a batch was planned, except its Schedule.
//
// The keys of a batch are cut into tiles. A pair is a sequence and up to 16 query heads that share
// a kv head; the tiles of pair 0, of pair 1 and so on make one long list, of which every block
// takes an equal stretch. So a block ends one pair, does some pairs whole, and begins another. What
// it has of a pair that others work on too goes to memory as a partial result; the last of them to
// arrive (by a counter that it sets back) merges them, in the order of the blocks.
//
// The grid does not depend on the lengths, so one graph serves all of them.
//
// The keys and values of earlier steps are under way before the kernel before this one has ended: of
// each sequence only the newest key is written in the step.
//
// Inside a tile each warp has 16 keys of its own, and its own pipeline of copies to shared memory:
// warps meet only at the end of a pair. Scores are exact products summed in float; the weights are
// multiplied with the values as two bfloat16 numbers each, a rounded one and what is left, so that
// the result is as good as with weights in float.
#pragma once

#include "decode_tiles.cuh"

namespace msgl {

// The part of `whole` that a softmax with this maximum has in one with the maximum `most`.
__device__ __forceinline__ float part_of(float max, float most) {
    return max == -INFINITY ? 0.0f : exp2f(max - most);
}

// Adds up what the warps of each group have of the first `count` rows, into shared.sums;
// shared.softmaxes[0] is then that of all.
template <class Shape>
__device__ void merge_warps(typename Shape::Shared &shared, Running<Shape> &mine, int count,
                            int warp, int lane) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        float sum = mine.sum[row];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        if (lane % 4 == 0) shared.softmaxes[warp][lane / 4 + row * 8] = {mine.max[row], sum};
    }
    __syncthreads();
    float part[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        float most = -INFINITY;
#pragma unroll
        for (int other = 0; other < Shape::WARPS; ++other) {
            most = fmaxf(most, shared.softmaxes[other][lane / 4 + row * 8].max);
        }
        part[row] = part_of(mine.max[row], most);
    }
    constexpr int TURNS = Shape::WARPS / Shape::GROUPS;
    typename Shape::Sums &sums = shared.sums[warp / TURNS];
    for (int turn = 0; turn < TURNS; ++turn) {
        if (turn == warp % TURNS) {
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                if (lane / 4 + row * 8 >= count) continue;
#pragma unroll
                for (int i = 0; i < Shape::HEAD_DIM / 8; ++i) {
                    auto *at = reinterpret_cast<float2 *>(
                        &sums.at[lane / 4 + row * 8][i * 8 + lane % 4 * 2]);
                    float2 sum = turn == 0 ? make_float2(0.0f, 0.0f) : *at;
                    sum.x += mine.out[i][row * 2] * part[row];
                    sum.y += mine.out[i][row * 2 + 1] * part[row];
                    *at = sum;
                }
            }
        }
        __syncthreads();
    }
    if (threadIdx.x < HEADS) {
        Softmax all{-INFINITY, 0.0f};
#pragma unroll
        for (int other = 0; other < Shape::WARPS; ++other) {
            all.max = fmaxf(all.max, shared.softmaxes[other][threadIdx.x].max);
        }
#pragma unroll
        for (int other = 0; other < Shape::WARPS; ++other) {
            const Softmax of = shared.softmaxes[other][threadIdx.x];
            all.sum += of.sum * part_of(of.max, all.max);
        }
        shared.softmaxes[0][threadIdx.x] = all;
    }
    __syncthreads();
}

// The rows of a pair in q and out.
template <class Shape>
struct PairRows {
    int64_t sequence;
    int first_head, count;

    __device__ static PairRows of(const DecodeArguments &a, const Cursor<Shape::TILE> &cursor) {
        const int kv_head = cursor.head / a.tiles_of_heads;
        const int offset = cursor.head % a.tiles_of_heads * HEADS;
        return {cursor.sequence, kv_head * a.group + offset, min(a.group - offset, HEADS)};
    }
    __device__ int64_t column(int row) const {
        return static_cast<int64_t>(first_head + row) * Shape::HEAD_DIM;
    }
};

// Writes four columns of a finished row; without any key it is zero.
__device__ __forceinline__ void write_out(bf16 *to, float4 sums, float total) {
    const float factor = total == 0.0f ? 0.0f : 1.0f / total;
    Pack<bf16, 4> pack;
    pack.at[0] = from_float<bf16>(sums.x * factor);
    pack.at[1] = from_float<bf16>(sums.y * factor);
    pack.at[2] = from_float<bf16>(sums.z * factor);
    pack.at[3] = from_float<bf16>(sums.w * factor);
    pack.store(to);
}

// Merges the partial results of the blocks first to last, and writes the pair. `second` says that
// the first of them had begun another pair before.
template <class Shape>
__device__ void merge_blocks(const DecodeArguments &a, const PairRows<Shape> &rows, int first,
                             int last, bool second) {
    constexpr int FOURS = Shape::HEAD_DIM / 4;
    // A block's partial result of the pair that it begins with is its first, of the one that it
    // ends with its second. Blocks after the first begin with this pair.
    const auto place = [&](int block) {
        return static_cast<int64_t>(block) * 2 + (block == first && second ? 1 : 0);
    };
    for (int i = threadIdx.x; i < rows.count * FOURS; i += Shape::THREADS) {
        const int row = i / FOURS, column = i % FOURS * 4;
        float most = -INFINITY, total = 0.0f;
        float4 sums = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
        for (int block = first; block <= last; ++block) {
            const int64_t at = place(block) * HEADS + row;
            const float max = __ldcg(&a.partial_softmax[at].max);
            const float sum = __ldcg(&a.partial_softmax[at].sum);
            const float4 x = __ldcg(
                reinterpret_cast<const float4 *>(a.partial + at * Shape::HEAD_DIM + column));
            const float before = most;
            most = fmaxf(most, max);
            const float shrink = part_of(before, most), part = part_of(max, most);
            total = total * shrink + sum * part;
            sums.x = sums.x * shrink + x.x * part;
            sums.y = sums.y * shrink + x.y * part;
            sums.z = sums.z * shrink + x.z * part;
            sums.w = sums.w * shrink + x.w * part;
        }
        write_out(a.out + rows.sequence * a.out_stride + rows.column(row) + column, sums, total);
    }
}

// The list of tiles, and this block's stretch of it.
struct Stretch {
    int64_t num_tiles, blocks, begin, end;
};

// Ends a pair, which begins at the tile `pair_begin` of the list, or what this block has of it.
template <class Shape>
__device__ void finish(const DecodeArguments &a, typename Shape::Shared &shared,
                       Running<Shape> &running, const Cursor<Shape::TILE> &cursor,
                       int64_t pair_begin, const Stretch &stretch, int warp, int lane) {
    constexpr int FOURS = Shape::HEAD_DIM / 4;
    const auto rows = PairRows<Shape>::of(a, cursor);
    merge_warps<Shape>(shared, running, rows.count, warp, lane);
    const int64_t pair_end = pair_begin + cursor.tiles;
    const bool whole = stretch.begin <= pair_begin && pair_end <= stretch.end;
    const int64_t place = static_cast<int64_t>(blockIdx.x) * 2 + (stretch.begin < pair_begin);
    for (int i = threadIdx.x; i < rows.count * FOURS; i += Shape::THREADS) {
        const int row = i / FOURS, column = i % FOURS * 4;
        auto sums = *reinterpret_cast<const float4 *>(&shared.sums[0].at[row][column]);
#pragma unroll
        for (int group = 1; group < Shape::GROUPS; ++group) {
            const auto more = *reinterpret_cast<const float4 *>(&shared.sums[group].at[row][column]);
            sums.x += more.x;
            sums.y += more.y;
            sums.z += more.z;
            sums.w += more.w;
        }
        if (whole) {
            write_out(a.out + rows.sequence * a.out_stride + rows.column(row) + column, sums,
                      shared.softmaxes[0][row].sum);
        } else {
            *reinterpret_cast<float4 *>(a.partial + (place * HEADS + row) * Shape::HEAD_DIM +
                                        column) = sums;
        }
    }
    if (!whole) {
        if (static_cast<int>(threadIdx.x) < rows.count) {
            a.partial_softmax[place * HEADS + threadIdx.x] = shared.softmaxes[0][threadIdx.x];
        }
        const int first = block_of_tile(pair_begin, stretch.blocks, stretch.num_tiles);
        const int last = block_of_tile(pair_end - 1, stretch.blocks, stretch.num_tiles);
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            int32_t *arrivals = a.arrivals + cursor.pair();
            shared.is_last = atomicAdd(arrivals, 1) == last - first;
            if (shared.is_last) *arrivals = 0;
            __threadfence();
        }
        __syncthreads();
        if (shared.is_last) {
            merge_blocks<Shape>(
                a, rows, first, last,
                first_tile_of(first, stretch.blocks, stretch.num_tiles) < pair_begin);
        }
    }
    __syncthreads();
}

// Brings the queries of a pair to shared memory, and to registers if they are kept there.
template <class Shape>
__device__ void load_queries(const DecodeArguments &a, typename Shape::Shared &shared,
                             const Cursor<Shape::TILE> &cursor, uint32_t (*queries)[4], int lane) {
    typename Shape::Queries *to = Shape::KEEPS_QUERIES ? &shared.queries : shared.kept;
    const auto rows = PairRows<Shape>::of(a, cursor);
    for (int i = threadIdx.x; i < HEADS * Shape::CHUNKS; i += Shape::THREADS) {
        const int row = i / Shape::CHUNKS, column = i % Shape::CHUNKS * 8;
        Pack<bf16, 8> pack{};
        if (row < rows.count) {
            pack = Pack<bf16, 8>::load(a.q + rows.sequence * a.q_stride + rows.column(row) +
                                       column);
        }
        pack.store(&to->at[row][column]);
    }
    __syncthreads();
    if constexpr (Shape::KEEPS_QUERIES) {
#pragma unroll
        for (int depth = 0; depth < Shape::HEAD_DIM / 16; ++depth) {
            load_matrices(queries[depth], &to->at[lane % 16][depth * 16 + lane / 16 * 8]);
        }
        // Nobody overwrites them with sums before this warp comes to the end of the pair.
    }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::THREADS, Shape::PER_PROCESSOR)
    decode_kernel(DecodeArguments a) {
    extern __shared__ __align__(128) char memory[];
    auto &shared = *reinterpret_cast<typename Shape::Shared *>(memory);
    release_successor();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // The schedule and the page table are those of the step, and older than the kernel before.
    const int64_t num_tiles = *a.schedule.num_tiles;
    const int64_t blocks = *a.schedule.num_blocks;
    const Start start = a.schedule.starts[blockIdx.x];
    // There is always a block that does not leave here, and so waits for the kernel before.
    if (blockIdx.x >= blocks) return;
    const Stretch stretch{num_tiles, blocks, first_tile_of(blockIdx.x, blocks, num_tiles),
                          first_tile_of(blockIdx.x + 1, blocks, num_tiles)};

    auto cursor = Cursor<Shape::TILE>::at(a, start);
    Loader<Shape> loader{a, shared.stages[warp], shared.masks[warp], cursor,
                         static_cast<int>(stretch.end - stretch.begin)};
    loader.look_up(warp, lane);
    constexpr int AHEAD = Shape::STAGES - 1;
    Left left[AHEAD];
#pragma unroll
    for (Left &out : left) out = loader.copy(warp, lane, true);
    await_predecessor();
#pragma unroll
    for (const Left &out : left) loader.copy(out, lane);
    // One group for all of these, and the count of groups as if each tile had its own.
    for (int i = 0; i < AHEAD; ++i) commit_copies();

    Running<Shape> running;
    uint32_t queries[Shape::KEEPS_QUERIES ? Shape::HEAD_DIM / 16 : 1][4];
    bool begins = true;
    int stage = 0;
    for (int64_t tile = stretch.begin; tile < stretch.end; ++tile) {
        if (begins) {
            load_queries<Shape>(a, shared, cursor, queries, lane);
            running.clear();
            begins = false;
        }
        wait_copies<Shape::STAGES - 2>();
        __syncwarp();  // all lanes' copies are there, and nobody reads the stage before any more
        loader.start(warp, lane);
        const uint32_t mask = shared.masks[warp][stage];
        if (mask != 0) {
            float s[2][4] = {};
            const typename Shape::Stage &keys = shared.stages[warp][stage];
            running.scores(s, keys, queries, shared.kept, mask, a.scale_log2, lane);
            running.add(keys, s, lane);
        }
        stage = stage + 1 == Shape::STAGES ? 0 : stage + 1;
        const bool ends = cursor.tile + 1 == cursor.tiles || tile + 1 == stretch.end;
        if (ends) {
            finish<Shape>(a, shared, running, cursor, tile - cursor.tile, stretch, warp, lane);
            begins = true;
        }
        cursor.advance(a, tile + 1 < stretch.end);
    }
}

}  // namespace msgl
