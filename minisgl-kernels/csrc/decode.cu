// The backend `native`: our own decode kernel for batches of one query a sequence, and attention
// without a plan for everything else. Never knows other backends.
#include "decode.cuh"

#include "attention_backend.cuh"
#include "device_memory.cuh"

namespace msgl {
namespace {

// A decode kernel of one shape, as the host needs it.
struct DecodeKernel {
    void (*launch)(const DecodeArguments &, int, cudaStream_t);
    int tile, blocks_per_processor;
};

template <class Shape>
void launch_decode(const DecodeArguments &arguments, int blocks, cudaStream_t stream) {
    launch_early(decode_kernel<Shape>, dim3(static_cast<unsigned>(blocks)), dim3(Shape::THREADS),
                 sizeof(typename Shape::Shared), stream, arguments);
}

template <class Shape>
DecodeKernel decode_kernel_of() {
    constexpr size_t BYTES = sizeof(typename Shape::Shared);
    check(cudaFuncSetAttribute(decode_kernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               BYTES),
          "the shared memory of the decode kernel");
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, decode_kernel<Shape>,
                                                        Shape::THREADS, BYTES),
          "the occupancy of the decode kernel");
    return {&launch_decode<Shape>, Shape::TILE, std::max(blocks, 1)};
}

// No launch function if it needs more shared memory than a block can have.
template <class Shape>
DecodeKernel decode_kernel_if_it_fits() {
    int device = 0, most = 0;
    check(cudaGetDevice(&device), "there is no current device");
    check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "the device tells no size of shared memory");
    if (static_cast<size_t>(most) < sizeof(typename Shape::Shared)) return {};
    return decode_kernel_of<Shape>();
}

// Three stages where they fit, or else two.
template <int HEAD_DIM>
DecodeKernel decode_kernel_for() {
    const DecodeKernel deep = decode_kernel_if_it_fits<DecodeShape<HEAD_DIM, 4, 3>>();
    return deep.launch != nullptr ? deep : decode_kernel_of<DecodeShape<HEAD_DIM, 4, 2>>();
}

// No launch function if there is no such kernel.
DecodeKernel find_decode_kernel(const msgl_attention_config &config) {
    if (config.dtype != MSGL_BF16 || config.kv_dtype != MSGL_BF16) return {};
    switch (config.head_dim) {
        case 64: return decode_kernel_for<64>();
        case 80: return decode_kernel_for<80>();
        case 96: return decode_kernel_for<96>();
        case 128: return decode_kernel_for<128>();
        case 256: return decode_kernel_of<DecodeShape<256, 2, 2>>();
        default: return {};
    }
}

// Up to how many keys of a pair one block takes no longer than several that merge.
constexpr int64_t WHOLE = 384;

// The one for few sequences, whose blocks have a multiprocessor each: with more warps, a tile has more
// keys. No launch function if there is none.
DecodeKernel find_few_kernel(const msgl_attention_config &config) {
    if (config.dtype != MSGL_BF16 || config.kv_dtype != MSGL_BF16) return {};
    switch (config.head_dim) {
        case 64: return decode_kernel_if_it_fits<DecodeShape<64, 8, 3>>();
        case 128: return decode_kernel_if_it_fits<DecodeShape<128, 8, 3>>();
        default: return {};
    }
}

constexpr int64_t ALIGNMENT = 256;
constexpr int64_t aligned(int64_t bytes) { return ceil_div(bytes, ALIGNMENT) * ALIGNMENT; }

// Bytes of each piece of device memory, which lie one after the other.
struct Sizes {
    int64_t schedule, arrivals, softmaxes, partial;
    int64_t device() const { return schedule + arrivals + softmaxes + partial; }
};

int tiles_of_heads(const msgl_attention_config &config) {
    return static_cast<int>(ceil_div(config.num_q_heads / config.num_kv_heads, HEADS));
}

Sizes sizes_of(const msgl_attention_config &config, int64_t blocks) {
    const int64_t pairs =
        static_cast<int64_t>(config.max_sequences) * config.num_kv_heads * tiles_of_heads(config);
    if (pairs > INT32_MAX) refuse("%lld sequences and heads are too many",
                                  static_cast<long long>(pairs));
    Sizes sizes{};
    sizes.schedule = aligned(2 * static_cast<int64_t>(sizeof(int64_t)) +
                             blocks * static_cast<int64_t>(sizeof(Start)) +
                             config.max_sequences * static_cast<int64_t>(sizeof(int32_t)));
    sizes.arrivals = aligned(pairs * static_cast<int64_t>(sizeof(int32_t)));
    sizes.softmaxes = aligned(2 * blocks * HEADS * static_cast<int64_t>(sizeof(Softmax)));
    sizes.partial = aligned(2 * blocks * HEADS * config.head_dim *
                            static_cast<int64_t>(sizeof(float)));
    return sizes;
}

class Native final : public Backend {
   public:
    explicit Native(const msgl_attention_config &config)
        : config_(config), kernel_(find_decode_kernel(config)), few_(find_few_kernel(config)) {
        if (kernel_.launch == nullptr) return;
        blocks_ = num_processors() * kernel_.blocks_per_processor;
        sizes_ = sizes_of(config, blocks_);
        memory_ = DeviceMemory(sizes_.device());
        pinned_ = std::make_unique<PinnedPair>(sizes_.schedule);
        check(cudaMemset(memory_.as<char>() + sizes_.schedule, 0,
                         static_cast<size_t>(sizes_.arrivals)),
              "clearing the counters of the decode kernel");
    }

    void plan(const msgl_attention_args &args, const HostBatch &batch,
              cudaStream_t stream) override {
        const int n = batch.n;
        tokens_ = batch.tokens();
        n_ = n;
        decodes_ = kernel_.launch != nullptr && n > 0 && batch.is_decode() &&
                   args.num_slots <= INT32_MAX;
        if (!decodes_) return;

        char *pinned = pinned_->next();
        const auto [num_tiles, num_blocks, starts, kv_lens] = parts_of(pinned);
        const int64_t heads = pairs_of_sequence();
        const DecodeKernel &kernel = kernel_for(n);
        const int64_t blocks = blocks_of(kernel);
        const auto tiles_of = [&](int sequence) {
            return std::max<int64_t>(ceil_div(batch.kv_lens[sequence], kernel.tile), 1);
        };
        *num_tiles = 0;
        for (int j = 0; j < n; ++j) *num_tiles += heads * tiles_of(j);
        int sequence = 0;
        int64_t before = 0;  // tiles of the sequences before
        // Where there are fewer tiles than blocks, a block for each; but for a few tiles of one
        // sequence a block for each pair, since merging takes longer than they do.
        const bool whole = n == 1 && batch.kv_lens[0] <= WHOLE && heads <= blocks;
        const auto busy = static_cast<int>(whole ? heads : std::min(blocks, *num_tiles));
        *num_blocks = busy;
        for (int block = 0; block < busy; ++block) {
            const int64_t first = first_tile_of(block, busy, *num_tiles);
            while (first >= before + heads * tiles_of(sequence)) {
                before += heads * tiles_of(sequence);
                ++sequence;
            }
            const int64_t tiles = tiles_of(sequence), offset = first - before;
            starts[block] = {static_cast<int32_t>(sequence * heads + offset / tiles),
                             static_cast<int32_t>(offset % tiles)};
        }
        std::copy(batch.kv_lens, batch.kv_lens + n, kv_lens);
        const size_t bytes = static_cast<size_t>(reinterpret_cast<char *>(kv_lens + n) - pinned);
        check(cudaMemcpyAsync(memory_.as<char>(), pinned, bytes, cudaMemcpyHostToDevice, stream),
              "copying the schedule");
        pinned_->queued(stream);
    }

    void run(const msgl_rows &q, const msgl_attention_args &args, const msgl_rows &out,
             cudaStream_t stream) override {
        if (args.n != n_ || q.rows != tokens_) {
            refuse("%d sequences of %lld tokens; the plan is for %d of %lld", args.n,
                   static_cast<long long>(q.rows), n_, static_cast<long long>(tokens_));
        }
        // The kernel moves 16 bytes at a time.
        const bool fits = is_aligned(q, sizeof(bf16), WIDE) &&
                          is_aligned(out, sizeof(bf16), WIDE) && is_aligned(args.k_pool, WIDE) &&
                          is_aligned(args.v_pool, WIDE);
        if (!decodes_ || !fits) {
            attention_native(config_.dtype, q, args, out, stream);
            return;
        }
        constexpr float LOG2_E = 1.4426950408889634f;
        char *at = memory_.as<char>();
        const auto [num_tiles, num_blocks, starts, kv_lens] = parts_of(at);
        DecodeArguments a{};
        a.q = static_cast<const bf16 *>(q.data);
        a.out = static_cast<bf16 *>(out.data);
        a.q_stride = q.stride;
        a.out_stride = out.stride;
        a.k_pool = static_cast<const bf16 *>(args.k_pool);
        a.v_pool = static_cast<const bf16 *>(args.v_pool);
        a.num_slots = args.num_slots;
        a.page_table = args.page_table;
        a.rows = args.rows;
        a.num_rows = args.num_rows;
        a.max_pages = args.max_pages;
        a.page_table_stride = args.page_table_stride;
        a.page_size = args.page_size;
        a.window = args.window;
        a.group = args.num_q_heads / args.num_kv_heads;
        a.num_kv_heads = args.num_kv_heads;
        a.tiles_of_heads = tiles_of_heads(config_);
        a.scale_log2 = args.scale * LOG2_E;
        a.schedule = {num_tiles, num_blocks, starts, kv_lens};
        at += sizes_.schedule;
        a.arrivals = reinterpret_cast<int32_t *>(at);
        at += sizes_.arrivals;
        a.partial_softmax = reinterpret_cast<Softmax *>(at);
        at += sizes_.softmaxes;
        a.partial = reinterpret_cast<float *>(at);
        const DecodeKernel &kernel = kernel_for(n_);
        kernel.launch(a, static_cast<int>(blocks_of(kernel)), stream);
    }

   private:
    // A schedule in memory of the host or the device.
    struct Parts {
        int64_t *num_tiles, *num_blocks;
        Start *starts;
        int32_t *kv_lens;
    };
    Parts parts_of(char *schedule) const {
        auto *num_tiles = reinterpret_cast<int64_t *>(schedule);
        auto *num_blocks = num_tiles + 1;
        auto *starts = reinterpret_cast<Start *>(num_blocks + 1);
        return {num_tiles, num_blocks, starts, reinterpret_cast<int32_t *>(starts + blocks_)};
    }
    int64_t pairs_of_sequence() const {
        return static_cast<int64_t>(config_.num_kv_heads) * tiles_of_heads(config_);
    }
    // By nothing but the number of sequences: a graph keeps its kernel.
    const DecodeKernel &kernel_for(int n) const {
        const bool few = few_.launch != nullptr && n * pairs_of_sequence() <= num_processors();
        return few ? few_ : kernel_;
    }
    // Not more than blocks_.
    int64_t blocks_of(const DecodeKernel &kernel) const {
        return std::min<int64_t>(
            blocks_, static_cast<int64_t>(num_processors()) * kernel.blocks_per_processor);
    }

    msgl_attention_config config_;
    DecodeKernel kernel_, few_;
    int blocks_ = 0;
    Sizes sizes_{};
    DeviceMemory memory_;
    std::unique_ptr<PinnedPair> pinned_;
    bool decodes_ = false;
    int64_t tokens_ = 0;
    int n_ = 0;
};

}  // namespace

int64_t native_bytes(const msgl_attention_config &config) {
    if (config.dtype != MSGL_F32 && config.dtype != MSGL_BF16) {
        refuse("dtype is %d; it must be 0 (float32) or 1 (bfloat16)", config.dtype);
    }
    const DecodeKernel kernel = find_decode_kernel(config);
    if (kernel.launch == nullptr) return 0;
    return sizes_of(config, num_processors() * kernel.blocks_per_processor).device();
}

std::unique_ptr<Backend> make_native(const msgl_attention_config &config) {
    return std::make_unique<Native>(config);
}

}  // namespace msgl
