// The sum over ranks through memory that they can all read. Never knows how that memory was shared.
//
// Every rank copies its part into its staging memory, tells the others, waits until they have done
// the same, and reads theirs. One-shot: every rank adds up everything. Two-shot: every rank adds up
// its share, tells and waits again, and copies the other shares. Either way each element is added
// up in rank order in float and rounded once, so all ranks have the same bits.
//
// * Block b of a rank talks to block b of the others only, so there is no barrier over the grid.
//   The grid is always the same, and every block counts its launches (the epoch) in the rank's own
//   flag memory: nothing comes from the host, so a graph can be replayed. All ranks must make the
//   same calls in the same order.
// * The staging memory has two halves, used in turn. A rank that writes a half has seen all others
//   begin the launch in between, so they have read what was in it. Block 0 has seen it for blocks
//   that had nothing to do in between, so a launch must not begin before all blocks of the one before
//   have ended: never launch this kernel early.
// * Flags only grow: a rank that is ahead by a launch has not taken anything back.
// * `tests/it/peer_protocol.rs` has a model of all this, and tries every order.
// * Waiting ends when the abort flag is raised, or after a time that no rank in good health takes;
//   then the abort flag is raised for everyone.
#include "common.cuh"

namespace msgl {
namespace {

constexpr int BLOCKS = 64, THREADS = 512, NORM_THREADS = 256, PHASES = 2;
constexpr int64_t MAX_WAIT_NANOSECONDS = 60ll * 1000 * 1000 * 1000;

// The flag memory of a rank: what each peer's block has told, and each block's epoch.
struct Flags {
    uint32_t told[PHASES][BLOCKS][MSGL_MAX_PEERS];
    uint32_t epoch[BLOCKS];
};

__device__ __forceinline__ void store_release(uint32_t *to, uint32_t value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;\n" ::"l"(to), "r"(value) : "memory");
}

__device__ __forceinline__ uint32_t load_acquire(const uint32_t *from) {
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];\n" : "=r"(value) : "l"(from) : "memory");
    return value;
}

__device__ __forceinline__ int64_t nanoseconds() {
    int64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;\n" : "=l"(now));
    return now;
}

__device__ __forceinline__ bool is_aborted(const msgl_peers &peers) {
    return peers.abort_flag != nullptr &&
           *static_cast<const volatile uint32_t *>(peers.abort_flag) != 0;
}

__device__ __forceinline__ Flags *flags_of(const msgl_peers &peers, int rank) {
    return reinterpret_cast<Flags *>(peers.flags[rank]);
}

// Tells all ranks that this block has come to `phase` of `epoch`, and waits until they have. False
// if it gave up; the same for the whole block.
__device__ bool meet(const msgl_peers &peers, int phase, uint32_t epoch) {
    __syncthreads();
    bool arrived = true;
    const int peer = static_cast<int>(threadIdx.x);
    if (peer < peers.world_size) {
        store_release(&flags_of(peers, peer)->told[phase][blockIdx.x][peers.rank], epoch);
        const uint32_t *flag = &flags_of(peers, peers.rank)->told[phase][blockIdx.x][peer];
        int64_t start = 0;
        for (int tries = 0; static_cast<int32_t>(load_acquire(flag) - epoch) < 0; ++tries) {
            if (tries % 1024 != 1023) continue;
            if (start == 0) start = nanoseconds();
            if (nanoseconds() - start > MAX_WAIT_NANOSECONDS && peers.abort_flag != nullptr) {
                *static_cast<volatile uint32_t *>(peers.abort_flag) = 1;
                __threadfence_system();
            }
            if (is_aborted(peers)) {
                arrived = false;
                break;
            }
        }
    }
    return __syncthreads_and(arrived);
}

// Elements go in groups of 16 bytes, which lie aligned in the staging memory. The data may be
// aligned to the element only, and end within a group; how the ranks divide the work does not depend
// on that.
template <class T>
struct Data {
    static constexpr int N = WIDE / static_cast<int>(sizeof(T));
    using Group = Pack<T, N>;

    T *data;
    int64_t length;
    bool aligned;

    __device__ __forceinline__ Group load(int64_t group) const {
        const int64_t at = group * N;
        if (aligned && at + N <= length) return Group::load(data + at);
        Group elements;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            elements.at[j] = at + j < length ? data[at + j] : from_float<T>(0.0f);
        }
        return elements;
    }

    __device__ __forceinline__ void store(int64_t group, const Group &elements) const {
        const int64_t at = group * N;
        if (aligned && at + N <= length) {
            elements.store(data + at);
            return;
        }
#pragma unroll
        for (int j = 0; j < N; ++j) {
            if (at + j < length) data[at + j] = elements.at[j];
        }
    }
};

template <class T>
__device__ __forceinline__ T *half_of(const msgl_peers &peers, int rank, int64_t offset) {
    return reinterpret_cast<T *>(static_cast<char *>(peers.staging[rank]) + offset);
}

template <class T>
__device__ __forceinline__ typename Data<T>::Group sum_over_ranks(const msgl_peers &peers,
                                                                  int64_t offset, int64_t group) {
    constexpr int N = Data<T>::N;
    using Group = typename Data<T>::Group;
    Group parts[MSGL_MAX_PEERS];
#pragma unroll
    for (int rank = 0; rank < MSGL_MAX_PEERS; ++rank) {
        if (rank < peers.world_size) {
            parts[rank] = Group::load(half_of<T>(peers, rank, offset) + group * N);
        }
    }
    float sums[N] = {};
#pragma unroll
    for (int rank = 0; rank < MSGL_MAX_PEERS; ++rank) {
        if (rank < peers.world_size) {
#pragma unroll
            for (int j = 0; j < N; ++j) sums[j] += to_float(parts[rank].at[j]);
        }
    }
    Group sum;
#pragma unroll
    for (int j = 0; j < N; ++j) sum.at[j] = from_float<T>(sums[j]);
    return sum;
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    all_reduce_kernel(msgl_peers peers, Data<T> data, int64_t groups, int64_t half_bytes,
                      bool two_shot) {
    constexpr int N = Data<T>::N;
    using Group = typename Data<T>::Group;
    uint32_t *counter = &flags_of(peers, peers.rank)->epoch[blockIdx.x];
    const uint32_t epoch = *counter + 1;
    const int64_t offset = epoch % 2 * half_bytes;
    T *own = half_of<T>(peers, peers.rank, offset);
    constexpr int64_t STEP = BLOCKS * THREADS;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * THREADS;
    const int64_t thread = threadIdx.x;

    // Shares are whole steps of the block, dealt out to the ranks in turn.
    const auto each = [&](auto &&body) {
        int owner = 0;
        for (int64_t at = first; at < groups; at += STEP) {
            if (at + thread < groups) body(at + thread, owner);
            owner = owner + 1 == peers.world_size ? 0 : owner + 1;
        }
    };
    // A block without elements has nobody to meet.
    if (first < groups) {
        each([&](int64_t group, int) { data.load(group).store(own + group * N); });
        bool met = meet(peers, 0, epoch);
        if (met) {
            each([&](int64_t group, int owner) {
                if (two_shot && owner != peers.rank) return;
                const Group sum = sum_over_ranks<T>(peers, offset, group);
                if (two_shot) sum.store(own + group * N);
                data.store(group, sum);
            });
        }
        if (met && two_shot && meet(peers, 1, epoch)) {
            each([&](int64_t group, int owner) {
                if (owner == peers.rank) return;
                data.store(group, Group::load(half_of<T>(peers, owner, offset) + group * N));
            });
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) *counter = epoch;
}

// Rows of the residual stream with the norm that follows: each row is one block's, on all ranks alike.
template <class T>
struct NormRows {
    T *x, *residual;
    int64_t x_stride, residual_stride, rows, groups;  // groups in a row
    const T *weight;
    float eps;
};

// One-shot: `residual = round(residual + sum)`, then `x = rms_norm(residual)`, in the roundings of the
// kernels one after the other.
//
// Two blocks have room on a multiprocessor, so that the blocks of four ranks that share a GPU do.
template <class T>
__global__ void __launch_bounds__(NORM_THREADS, 2)
    all_reduce_norm_kernel(msgl_peers peers, NormRows<T> a, int64_t half_bytes) {
    constexpr int N = Data<T>::N;
    using Group = typename Data<T>::Group;
    // Groups that a thread keeps in registers between its two passes. What is beyond is read again.
    constexpr int KEPT = 2;
    __shared__ float shared[32];
    uint32_t *counter = &flags_of(peers, peers.rank)->epoch[blockIdx.x];
    const uint32_t epoch = *counter + 1;
    const int64_t offset = epoch % 2 * half_bytes;
    T *own = half_of<T>(peers, peers.rank, offset);

    // A block without rows has nobody to meet.
    if (blockIdx.x < a.rows) {
        for (int64_t row = blockIdx.x; row < a.rows; row += BLOCKS) {
            for (int64_t i = threadIdx.x; i < a.groups; i += NORM_THREADS) {
                Group::load(a.x + row * a.x_stride + i * N).store(own + (row * a.groups + i) * N);
            }
        }
        const bool met = meet(peers, 0, epoch);
        for (int64_t row = blockIdx.x; met && row < a.rows; row += BLOCKS) {
            T *residual = a.residual + row * a.residual_stride, *x = a.x + row * a.x_stride;
            Group kept[KEPT];
            float square = 0.0f;
            const auto first_pass = [&](int64_t i) {
                Group group = sum_over_ranks<T>(peers, offset, row * a.groups + i);
                const Group before = Group::load(residual + i * N);
#pragma unroll
                for (int j = 0; j < N; ++j) {
                    const float value =
                        round_to<T>(to_float(before.at[j]) + to_float(group.at[j]));
                    group.at[j] = from_float<T>(value);
                    square = fmaf(value, value, square);
                }
                group.store(residual + i * N);
                return group;
            };
#pragma unroll
            for (int k = 0; k < KEPT; ++k) {
                const int64_t i = threadIdx.x + static_cast<int64_t>(k) * NORM_THREADS;
                if (i < a.groups) kept[k] = first_pass(i);
            }
            for (int64_t i = threadIdx.x + static_cast<int64_t>(KEPT) * NORM_THREADS; i < a.groups;
                 i += NORM_THREADS) {
                first_pass(i);
            }
            const float mean =
                block_sum(square, shared) / static_cast<float>(a.groups * N);
            const float scale = 1.0f / sqrtf(mean + a.eps);
            const auto second_pass = [&](int64_t i, Group group) {
                const Group factor = Group::load(a.weight + i * N);
#pragma unroll
                for (int j = 0; j < N; ++j) {
                    group.at[j] = normalized(group.at[j], scale, factor.at[j]);
                }
                group.store(x + i * N);
            };
#pragma unroll
            for (int k = 0; k < KEPT; ++k) {
                const int64_t i = threadIdx.x + static_cast<int64_t>(k) * NORM_THREADS;
                if (i < a.groups) second_pass(i, kept[k]);
            }
            for (int64_t i = threadIdx.x + static_cast<int64_t>(KEPT) * NORM_THREADS; i < a.groups;
                 i += NORM_THREADS) {
                second_pass(i, Group::load(residual + i * N));
            }
            __syncthreads();  // `shared` is used again
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) *counter = epoch;
}

void check_peers(const msgl_peers &peers) {
    if (peers.world_size < 1 || peers.world_size > MSGL_MAX_PEERS) {
        refuse("world_size is %d; 1 to %d are possible", peers.world_size, MSGL_MAX_PEERS);
    }
    if (peers.rank < 0 || peers.rank >= peers.world_size) {
        refuse("rank is %d of %d", peers.rank, peers.world_size);
    }
    for (int rank = 0; rank < peers.world_size; ++rank) {
        if (peers.staging[rank] == nullptr || peers.flags[rank] == nullptr) {
            refuse("the staging or flag memory of rank %d is null", rank);
        }
        if (!is_aligned(peers.staging[rank], WIDE)) {
            refuse("the staging memory of rank %d is not aligned to %d bytes", rank, WIDE);
        }
    }
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int64_t msgl_peer_flag_bytes(void) { return sizeof(Flags); }

extern "C" int32_t msgl_peer_all_reduce(const msgl_peers *peers, int32_t dtype, void *data,
                                        int64_t n, int32_t algorithm, msgl_stream stream) {
    return guarded("peer_all_reduce", [&] {
        check_peers(*peers);
        if (algorithm != 1 && algorithm != 2) {
            refuse("algorithm is %d; it must be 1 (one-shot) or 2 (two-shot)", algorithm);
        }
        if (n <= 0 || peers->world_size == 1) return;
        with_float(dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const int64_t bytes = n * static_cast<int64_t>(sizeof(T));
            if (bytes > peers->staging_bytes) {
                refuse("%lld bytes do not fit in staging memory of %lld",
                       static_cast<long long>(bytes), static_cast<long long>(peers->staging_bytes));
            }
            const int64_t half_bytes = peers->staging_bytes / 2 / WIDE * WIDE;
            const int64_t most = half_bytes / static_cast<int64_t>(sizeof(T));
            if (most == 0) refuse("staging memory of %lld bytes is too small",
                                  static_cast<long long>(peers->staging_bytes));
            // What is larger than a half goes in pieces.
            for (int64_t first = 0; first < n; first += most) {
                T *piece = static_cast<T *>(data) + first;
                const int64_t length = std::min(most, n - first);
                constexpr int N = Data<T>::N;
                all_reduce_kernel<T><<<BLOCKS, THREADS, 0, stream_of(stream)>>>(
                    *peers, Data<T>{piece, length, is_aligned(piece, WIDE)}, ceil_div(length, N),
                    half_bytes, algorithm == 2);
                check_launch();
            }
        });
    });
}

extern "C" int32_t msgl_peer_all_reduce_norm(const msgl_peers *peers, int32_t dtype, msgl_rows x,
                                             msgl_rows residual, const void *weight, float eps,
                                             msgl_stream stream) {
    return guarded("peer_all_reduce_norm", [&] {
        check_peers(*peers);
        check_rows("x", x);
        check_shape("residual", residual, x.rows, x.row_len);
        if (is_empty(x)) return;
        with_float(dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            if (!all_wide({x, residual}, sizeof(T)) || !is_aligned(weight, WIDE)) {
                refuse("rows of %lld must be whole, aligned multiples of %d bytes",
                       static_cast<long long>(x.row_len), WIDE);
            }
            const int64_t bytes = x.rows * x.row_len * static_cast<int64_t>(sizeof(T));
            const int64_t half_bytes = peers->staging_bytes / 2 / WIDE * WIDE;
            if (bytes > half_bytes) {
                refuse("%lld bytes do not fit in half of a staging memory of %lld",
                       static_cast<long long>(bytes), static_cast<long long>(peers->staging_bytes));
            }
            const NormRows<T> rows{static_cast<T *>(x.data),
                                   static_cast<T *>(residual.data),
                                   x.stride,
                                   residual.stride,
                                   x.rows,
                                   x.row_len / Data<T>::N,
                                   static_cast<const T *>(weight),
                                   eps};
            all_reduce_norm_kernel<T>
                <<<BLOCKS, NORM_THREADS, 0, stream_of(stream)>>>(*peers, rows, half_bytes);
            check_launch();
        });
    });
}
