// What a planned attention backend is, and which there are. Never knows how one works.
#pragma once

#include <memory>

#include "attention.cuh"

// Head dimensions of each backend, as the manifest lists them. FlashInfer's Hopper kernels are there
// if the build compiles for Hopper.
#define MSGL_FI_HEAD_DIMS "64, 128, 256"
#define MSGL_NATIVE_HEAD_DIMS "64, 80, 96, 128, 256"
#if MSGL_HOPPER
#define MSGL_FA_HEAD_DIMS "64, 128"
#else
#define MSGL_FA_HEAD_DIMS ""
#endif

namespace msgl {

// A batch as the host knows it.
struct HostBatch {
    const int32_t *cu_seqlens_q, *kv_lens;
    int n;
    bool fixed;

    int64_t tokens() const { return cu_seqlens_q[n]; }
    // Whether every sequence has one query.
    bool is_decode() const {
        for (int j = 0; j <= n; ++j) {
            if (cu_seqlens_q[j] != j) return false;
        }
        return true;
    }
};

class Backend {
   public:
    virtual ~Backend() = default;
    virtual void plan(const msgl_attention_args &args, const HostBatch &batch,
                      cudaStream_t stream) = 0;
    virtual void run(const msgl_rows &q, const msgl_attention_args &args, const msgl_rows &out,
                     cudaStream_t stream) = 0;
};

// For each backend: the device memory that it will take, or a refusal; and the backend itself.
int64_t native_bytes(const msgl_attention_config &config);
std::unique_ptr<Backend> make_native(const msgl_attention_config &config);
int64_t flashinfer_bytes(const msgl_attention_config &config);
std::unique_ptr<Backend> make_flashinfer(const msgl_attention_config &config);

// Attention without a plan, for any head dimension and element type.
void attention_native(int32_t dtype, const msgl_rows &q, const msgl_attention_args &args,
                      const msgl_rows &out, cudaStream_t stream);

}  // namespace msgl
