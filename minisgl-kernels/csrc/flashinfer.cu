// The backends `fi` and `fa`: FlashInfer's kernels, fed with page tables in its form. Never knows
// FlashInfer's types; see flashinfer.cuh.
//
// FlashInfer wants each sequence's pages one after the other (CSR). The host knows how many pages
// there are; which they are stands in the page table on the device, and a small kernel copies that.
//
// FlashInfer's FA2 kernels count the pieces of a split sequence from the window, so a plan that
// splits sequences of several queries is good for the window it was made for only. Layers of a model
// may differ in it, so such a batch is not split if it is planned with a window; if it is planned
// without, layers with a window take the path without a plan. One query a sequence has no such
// limit.
#include "attention_backend.cuh"
#include "device_memory.cuh"
#include "flashinfer.cuh"

namespace msgl {
namespace {

// ---- which kernels ----------------------------------------------------------------------------

using PlanFunction = void (*)(const PlanSpace &, const PlanInput &, FlashPlan &, cudaStream_t);
using RunFunction = void (*)(const PlanSpace &, const FlashPlan &, const FlashLayer &,
                             cudaStream_t);

struct Kernels {
    PlanFunction plan;
    RunFunction run;
};

template <class Family>
Kernels kernels_of() {
    return {&Family::plan, &Family::run};
}

bool device_is_hopper() {
    int device = 0, major = 0;
    check(cudaGetDevice(&device), "there is no current device");
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
          "the device tells no compute capability");
    return major == 9;
}

template <class KV>
Kernels find_fa2(int head_dim) {
    switch (head_dim) {
        case 64: return kernels_of<Fa2<64, KV>>();
        case 128: return kernels_of<Fa2<128, KV>>();
        case 256: return kernels_of<Fa2<256, KV>>();
        default:
            refuse("the attention backend fi has no kernels for head_dim %d; it has them for %s",
                   head_dim, MSGL_FI_HEAD_DIMS);
    }
}

// The kernels for this configuration, or a refusal that says what there is.
Kernels find_kernels(const msgl_attention_config &config) {
    const bool fa = config.backend == MSGL_ATTENTION_FA;
    const char *name = fa ? "fa" : "fi";
    if (config.dtype != MSGL_BF16) {
        refuse("the attention backend %s works with bfloat16 only; use attention without a plan "
               "for float32",
               name);
    }
    const bool is_fp8 = config.kv_dtype == MSGL_F8E4M3;
    if (!fa) {
        return is_fp8 ? find_fa2<fp8>(config.head_dim) : find_fa2<bf16>(config.head_dim);
    }
    if (is_fp8) {
        refuse("the attention backend fa has no kernels for a KV pool of 8-bit floats; fi and native "
               "have");
    }
#if MSGL_HOPPER
    if (!device_is_hopper()) {
        refuse("the attention backend fa needs a Hopper GPU (compute capability 9.0); this GPU is "
               "another, and can use fi or native");
    }
    switch (config.head_dim) {
        case 64: return kernels_of<Fa3<64>>();
        case 128: return kernels_of<Fa3<128>>();
        default:
            refuse("the attention backend fa has no kernels for head_dim %d; it has them for %s",
                   config.head_dim, MSGL_FA_HEAD_DIMS);
    }
#else
    refuse("the attention backend fa is not in this build, which was not made for sm_90a; there "
           "are fi and native");
#endif
}

// ---- how much memory --------------------------------------------------------------------------

constexpr int64_t ALIGNMENT = 256;
constexpr int64_t aligned(int64_t bytes) { return ceil_div(bytes, ALIGNMENT) * ALIGNMENT; }

// Most rows (of a query and head) in a tile, and the fewest that are planned.
constexpr int64_t MAX_TILE = 128, MIN_TILE = 16;

struct Sizes {
    int64_t floats, ints, tables, indices;
    int64_t device() const { return floats + ints + tables + indices; }
};

Sizes sizes_of(const msgl_attention_config &config) {
    const int64_t sequences = config.max_sequences, tokens = config.max_tokens;
    const int64_t group = config.num_q_heads / config.num_kv_heads;
    // With split-KV there are at most two blocks per multiprocessor, or one per tile.
    const int64_t blocks = 2 * static_cast<int64_t>(num_processors());
    Sizes sizes{};
    // Pieces of lists are aligned; this is more than all their gaps.
    const int64_t slack = 4096;
    if (config.backend == MSGL_ATTENTION_FA) {
        const int64_t tiles = ceil_div(tokens, MAX_TILE) + sequences;
        const int64_t works = tiles * config.num_q_heads;
        sizes.ints = aligned(4 * (7 * works + num_processors() + 1) + slack);
        sizes.floats = ALIGNMENT;
    } else {
        const int64_t tiles = ceil_div(tokens * group, MIN_TILE) + sequences;
        const int64_t works = std::max(blocks, tiles);
        sizes.ints = aligned(4 * (3 * works + sequences + tokens + 2) + works + slack);
        // Partial results of the chunks of split sequences, per row and head: when prefilling, a
        // full set of tiles of any size; when decoding, one query per sequence in the tile that its
        // group of heads takes.
        const int64_t decode_tile = group <= 16 ? 16 : group <= 64 ? 64 : MAX_TILE;
        const int64_t decode_tiles =
            std::max<int64_t>(blocks, sequences * ceil_div(group, decode_tile) *
                                          config.num_kv_heads);
        const int64_t rows = std::max(blocks * MAX_TILE, decode_tiles * decode_tile) +
                             config.num_q_heads;
        sizes.floats = aligned(rows * (config.head_dim + 1) * 4 + slack);
    }
    // qo_indptr, kv_indptr, last_page_len.
    sizes.tables = aligned(4 * 3 * (sequences + 1));
    sizes.indices = aligned(4 * config.max_pages);
    return sizes;
}

// ---- the page tables --------------------------------------------------------------------------

constexpr int GATHER_THREADS = 128, PAGES_PER_THREAD = 4;

// blockIdx.y: sequence; blockIdx.x: a stretch of its pages. A page that leads out of the pool
// becomes page 0: what is read there counts for nothing, or the sequence is broken already.
__global__ void __launch_bounds__(GATHER_THREADS)
    gather_pages_kernel(msgl_attention_args args, const int32_t *kv_indptr,
                        const int32_t *last_page_len, int32_t *indices) {
    const int j = blockIdx.y;
    const int32_t first = kv_indptr[j], count = kv_indptr[j + 1] - first;
    const int64_t row = args.rows[j];
    const bool valid = row >= 0 && row < args.num_rows;
    for (int i = 0; i < PAGES_PER_THREAD; ++i) {
        const int64_t page =
            (static_cast<int64_t>(blockIdx.x) * PAGES_PER_THREAD + i) * GATHER_THREADS +
            threadIdx.x;
        if (page >= count) return;
        int64_t id = 0;
        if (valid && page < args.max_pages) {
            id = args.page_table[row * args.page_table_stride + page];
            // The pool may end within a sequence's last page.
            const int64_t used = page + 1 == count ? last_page_len[j] : args.page_size;
            if (id < 0 || id * args.page_size + used > args.num_slots) id = 0;
        }
        indices[first + page] = static_cast<int32_t>(id);
    }
}

class FlashInfer final : public Backend {
   public:
    explicit FlashInfer(const msgl_attention_config &config)
        : config_(config),
          kernels_(find_kernels(config)),
          sizes_(sizes_of(config)),
          memory_(sizes_.device()),
          pinned_(sizes_.ints + sizes_.tables) {}

    void plan(const msgl_attention_args &args, const HostBatch &batch,
              cudaStream_t stream) override {
        if (batch.fixed && config_.backend == MSGL_ATTENTION_FA) {
            refuse("the attention backend fa has no decode for graphs; use fi or native");
        }
        tokens_ = batch.tokens();
        n_ = batch.n;
        decodes_ = batch.is_decode();
        if (tokens_ == 0) return;
        char *pinned = pinned_.next();
        auto *qo_indptr = reinterpret_cast<int32_t *>(pinned + sizes_.ints);
        int32_t *kv_indptr = qo_indptr + n_ + 1, *last_page_len = kv_indptr + n_ + 1;
        int64_t most_pages = 0;
        kv_indptr[0] = 0;
        for (int j = 0; j < n_; ++j) {
            const int64_t kv_len = batch.kv_lens[j];
            const int64_t pages = ceil_div(kv_len, config_.page_size);
            most_pages = std::max(most_pages, pages);
            kv_indptr[j + 1] = kv_indptr[j] + static_cast<int32_t>(pages);
            last_page_len[j] =
                static_cast<int32_t>(kv_len == 0 ? 0 : kv_len - (pages - 1) * config_.page_size);
        }
        std::copy(batch.cu_seqlens_q, batch.cu_seqlens_q + n_ + 1, qo_indptr);

        const PlanInput input{qo_indptr,
                              kv_indptr,
                              const_cast<int32_t *>(batch.kv_lens),
                              tokens_,
                              n_,
                              config_.num_q_heads,
                              config_.num_kv_heads,
                              config_.page_size,
                              batch.fixed,
                              decodes_ || args.window == 0};
        const Tables tables = tables_on_device();
        kernels_.plan(space(pinned), input, plan_, stream);
        check(cudaMemcpyAsync(tables.qo_indptr, qo_indptr, sizeof(int32_t) * 3 * (n_ + 1),
                              cudaMemcpyHostToDevice, stream),
              "copying page counts");
        pinned_.queued(stream);
        if (most_pages == 0) return;
        const dim3 blocks(
            static_cast<unsigned>(ceil_div(most_pages, GATHER_THREADS * PAGES_PER_THREAD)),
            static_cast<unsigned>(n_));
        gather_pages_kernel<<<blocks, GATHER_THREADS, 0, stream>>>(
            args, tables.kv_indptr, tables.last_page_len, tables.indices);
        check_launch();
    }

    void run(const msgl_rows &q, const msgl_attention_args &args, const msgl_rows &out,
             cudaStream_t stream) override {
        if (args.n != n_ || q.rows != tokens_) {
            refuse("%d sequences of %lld tokens; the plan is for %d of %lld", args.n,
                   static_cast<long long>(q.rows), n_, static_cast<long long>(tokens_));
        }
        if (tokens_ == 0) return;
        if (config_.backend == MSGL_ATTENTION_FA && args.window > 0) {
            refuse("the attention backend fa has no sliding window; use fi or native");
        }
        // FlashInfer reads and writes 16 bytes at a time, and results without gaps.
        const bool fits = is_aligned(q, sizeof(bf16), WIDE) && is_aligned(out.data, WIDE) &&
                          (out.rows <= 1 || out.stride == out.row_len) && q.stride <= INT32_MAX &&
                          is_aligned(args.k_pool, WIDE) && is_aligned(args.v_pool, WIDE);
        const bool planned = args.window == 0 || decodes_ || !plan_.splits;
        if (!fits || !planned) {
            attention_native(config_.dtype, q, args, out, stream);
            return;
        }
        const Tables tables = tables_on_device();
        const FlashLayer layer{q.data,
                               q.rows > 1 ? q.stride : q.row_len,
                               args.k_pool,
                               args.v_pool,
                               out.data,
                               tables.qo_indptr,
                               tables.kv_indptr,
                               tables.indices,
                               tables.last_page_len,
                               tokens_,
                               n_,
                               config_.num_q_heads,
                               config_.num_kv_heads,
                               config_.page_size,
                               args.window,
                               args.scale};
        kernels_.run(space(nullptr), plan_, layer, stream);
    }

   private:
    struct Tables {
        int32_t *qo_indptr, *kv_indptr, *last_page_len, *indices;
    };

    // Where the tables of the current batch lie; the same for every batch of as many sequences.
    Tables tables_on_device() const {
        char *at = memory_.as<char>() + sizes_.floats + sizes_.ints;
        auto *qo_indptr = reinterpret_cast<int32_t *>(at);
        auto *indices = reinterpret_cast<int32_t *>(at + sizes_.tables);
        return {qo_indptr, qo_indptr + n_ + 1, qo_indptr + 2 * (n_ + 1), indices};
    }

    PlanSpace space(char *pinned) const {
        char *floats = memory_.as<char>();
        return {floats, sizes_.floats, floats + sizes_.floats, pinned, sizes_.ints};
    }

    msgl_attention_config config_;
    Kernels kernels_;
    Sizes sizes_;
    DeviceMemory memory_;
    PinnedPair pinned_;
    FlashPlan plan_{};
    int64_t tokens_ = 0;
    int n_ = 0;
    bool decodes_ = false;
};

}  // namespace

int64_t flashinfer_bytes(const msgl_attention_config &config) {
    find_kernels(config);
    if (config.max_sequences > 65535) {
        refuse("batches of %d sequences; up to 65535 are possible", config.max_sequences);
    }
    return sizes_of(config).device();
}

std::unique_ptr<Backend> make_flashinfer(const msgl_attention_config &config) {
    return std::make_unique<FlashInfer>(config);
}

}  // namespace msgl
