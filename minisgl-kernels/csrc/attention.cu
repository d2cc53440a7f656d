// The planned attention backends behind the C functions. Never knows how any of them works.
#include "attention_backend.cuh"

struct msgl_attention {
    msgl_attention_config config;
    std::unique_ptr<msgl::Backend> backend;
};

namespace msgl {
namespace {

void check_config(const msgl_attention_config &config) {
    if (config.backend != MSGL_ATTENTION_FI && config.backend != MSGL_ATTENTION_FA &&
        config.backend != MSGL_ATTENTION_NATIVE) {
        refuse("there is no attention backend %d; there are 1 (fi), 2 (fa) and 3 (native)",
               config.backend);
    }
    if (config.num_kv_heads < 1 || config.num_q_heads < 1 ||
        config.num_q_heads % config.num_kv_heads != 0) {
        refuse("%d query heads and %d kv heads; the former must be a multiple of the latter",
               config.num_q_heads, config.num_kv_heads);
    }
    if (config.head_dim < 1 || config.head_dim > MAX_HEAD_DIM) {
        refuse("head_dim is %d; 1 to %d are possible", config.head_dim, MAX_HEAD_DIM);
    }
    check_kv_dtype(config.dtype, config.kv_dtype);
    if (config.page_size < 1) refuse("page_size is %d; it must be at least 1", config.page_size);
    if (config.max_sequences < 1 || config.max_tokens < 1 || config.max_pages < 1) {
        refuse("max_sequences, max_tokens and max_pages are %d, %lld and %lld; each must be at "
               "least 1",
               config.max_sequences, static_cast<long long>(config.max_tokens),
               static_cast<long long>(config.max_pages));
    }
    if (config.max_tokens > INT32_MAX || config.max_pages > INT32_MAX) {
        refuse("max_tokens and max_pages are %lld and %lld; up to 2147483647 are possible",
               static_cast<long long>(config.max_tokens), static_cast<long long>(config.max_pages));
    }
}

void check_same(const char *what, int32_t of_config, int32_t of_args) {
    if (of_config != of_args) refuse("%s is %d; it was %d at create", what, of_args, of_config);
}

void check_args(const msgl_attention_config &config, const msgl_attention_args &args) {
    check_same("page_size", config.page_size, args.page_size);
    check_same("num_q_heads", config.num_q_heads, args.num_q_heads);
    check_same("num_kv_heads", config.num_kv_heads, args.num_kv_heads);
    check_same("head_dim", config.head_dim, args.head_dim);
    check_same("kv_dtype", config.kv_dtype, args.kv_dtype);
}

void check_batch(const msgl_attention_config &config, const HostBatch &batch) {
    if (batch.n < 0 || batch.n > config.max_sequences) {
        refuse("a batch of %d sequences; up to %d were asked for at create", batch.n,
               config.max_sequences);
    }
    if (batch.cu_seqlens_q[0] != 0) {
        refuse("cu_seqlens_q starts at %d; it must start at 0", batch.cu_seqlens_q[0]);
    }
    int64_t pages = 0;
    for (int j = 0; j < batch.n; ++j) {
        const int64_t q_len =
            static_cast<int64_t>(batch.cu_seqlens_q[j + 1]) - batch.cu_seqlens_q[j];
        const int64_t kv_len = batch.kv_lens[j];
        if (q_len < 0) refuse("sequence %d has %lld queries", j, static_cast<long long>(q_len));
        if (kv_len < q_len && !(kv_len == 0 && q_len == 1)) {
            refuse("sequence %d has %lld queries, but %lld positions", j,
                   static_cast<long long>(q_len), static_cast<long long>(kv_len));
        }
        if (batch.fixed && q_len != 1) {
            refuse("sequence %d has %lld queries; with fixed_batch each has one", j,
                   static_cast<long long>(q_len));
        }
        pages += ceil_div(kv_len, config.page_size);
    }
    if (batch.tokens() > config.max_tokens || pages > config.max_pages) {
        refuse("a batch of %lld tokens and %lld pages; up to %lld and %lld were asked for at create",
               static_cast<long long>(batch.tokens()), static_cast<long long>(pages),
               static_cast<long long>(config.max_tokens), static_cast<long long>(config.max_pages));
    }
}

int64_t bytes_of(const msgl_attention_config &config) {
    check_config(config);
    return config.backend == MSGL_ATTENTION_NATIVE ? native_bytes(config)
                                                   : flashinfer_bytes(config);
}

}  // namespace
}  // namespace msgl

using namespace msgl;

extern "C" int64_t msgl_attention_device_bytes(const msgl_attention_config *config) {
    int64_t bytes = -1;
    guarded("attention_device_bytes", [&] { bytes = bytes_of(*config); });
    return bytes;
}

extern "C" int32_t msgl_attention_create(const msgl_attention_config *config,
                                         msgl_attention **out) {
    return guarded("attention_create", [&] {
        bytes_of(*config);  // refuses what is not supported
        auto backend = config->backend == MSGL_ATTENTION_NATIVE ? make_native(*config)
                                                                : make_flashinfer(*config);
        *out = new msgl_attention{*config, std::move(backend)};
    });
}

extern "C" int32_t msgl_attention_destroy(msgl_attention *attention) {
    return guarded("attention_destroy", [&] { delete attention; });
}

extern "C" int32_t msgl_attention_plan(msgl_attention *attention, const msgl_attention_args *args,
                                       const int32_t *cu_seqlens_q_host,
                                       const int32_t *kv_lens_host, int32_t fixed_batch,
                                       msgl_stream stream) {
    return guarded("attention_plan", [&] {
        const HostBatch batch{cu_seqlens_q_host, kv_lens_host, args->n, fixed_batch != 0};
        check_args(attention->config, *args);
        check_batch(attention->config, batch);
        attention->backend->plan(*args, batch, stream_of(stream));
    });
}

extern "C" int32_t msgl_attention_run(msgl_attention *attention, msgl_rows q,
                                      const msgl_attention_args *args, msgl_rows out,
                                      msgl_stream stream) {
    return guarded("attention_run", [&] {
        check_args(attention->config, *args);
        check_attention(q, *args, out);
        attention->backend->run(q, *args, out, stream_of(stream));
    });
}
