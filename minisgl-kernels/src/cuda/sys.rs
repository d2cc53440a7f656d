//! The C ABI of the kernels library, as in `csrc/minisgl_kernels.h`: types and a table of functions.
//!
//! Never knows: where the library is, or what its functions are called for. A test holds every
//! declaration to the header.

use std::ffi::{c_char, c_void};

use libloading::Library;

/// The version of the header that this file follows.
pub(super) const ABI_VERSION: i32 = 5;

pub(super) const F32: i32 = 0;
pub(super) const BF16: i32 = 1;
pub(super) const F8E4M3: i32 = 2;

pub(super) const MAX_PEERS: usize = 8;

/// A `CUstream`.
pub(super) type Stream = *mut c_void;

/// `rows` rows of `row_len` contiguous elements, `stride` apart.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) data: *mut c_void,
    pub(super) rows: i64,
    pub(super) row_len: i64,
    pub(super) stride: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionArgs {
    pub(super) k_pool: *const c_void,
    pub(super) v_pool: *const c_void,
    pub(super) num_slots: i64,
    pub(super) page_table: *const i32,
    pub(super) num_rows: i64,
    pub(super) max_pages: i64,
    pub(super) page_table_stride: i64,
    pub(super) page_size: i32,
    pub(super) kv_dtype: i32,
    pub(super) rows: *const i32,
    pub(super) cu_seqlens_q: *const i32,
    pub(super) kv_lens: *const i32,
    pub(super) n: i32,
    pub(super) num_q_heads: i32,
    pub(super) num_kv_heads: i32,
    pub(super) head_dim: i32,
    pub(super) scale: f32,
    pub(super) window: i32,
}

pub(super) const ATTENTION_FI: i32 = 1;
pub(super) const ATTENTION_FA: i32 = 2;
pub(super) const ATTENTION_NATIVE: i32 = 3;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionConfig {
    pub(super) backend: i32,
    pub(super) dtype: i32,
    pub(super) kv_dtype: i32,
    pub(super) num_q_heads: i32,
    pub(super) num_kv_heads: i32,
    pub(super) head_dim: i32,
    pub(super) page_size: i32,
    pub(super) max_sequences: i32,
    pub(super) max_tokens: i64,
    pub(super) max_pages: i64,
}

/// What only the library sees the inside of.
#[repr(C)]
pub(super) struct Attention {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Peers {
    pub(super) rank: i32,
    pub(super) world_size: i32,
    pub(super) staging: [*mut c_void; MAX_PEERS],
    pub(super) flags: [*mut u32; MAX_PEERS],
    pub(super) staging_bytes: i64,
    pub(super) abort_flag: *mut u32,
}

/// Makes the table of functions, its loader, and (for the test) the signatures as text.
macro_rules! functions {
    ($(fn $name:ident($($type:ty),*) -> $result:ty;)*) => {
        /// The library's functions. Valid for as long as the library is loaded.
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($type),*) -> $result,)*
        }

        impl Functions {
            /// Looks every function up; the error names one that is missing.
            ///
            /// # Safety
            /// The library follows the header of this file's [`ABI_VERSION`].
            pub(super) unsafe fn load(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types below are those of the header, which the library follows.
                unsafe {
                    Ok(Self {
                        $($name: *library.get(concat!(stringify!($name), "\0").as_bytes())?,)*
                    })
                }
            }
        }

        #[cfg(test)]
        const SIGNATURES: &[(&str, &[&str], &str)] =
            &[$((stringify!($name), &[$(stringify!($type)),*], stringify!($result))),*];
    };
}

functions! {
    fn msgl_manifest() -> *const c_char;
    fn msgl_last_error() -> *const c_char;

    fn msgl_embedding(i32, *const i32, Rows, i32, Rows, Stream) -> i32;
    fn msgl_gather_rows(i32, Rows, *const i32, Rows, Stream) -> i32;
    fn msgl_gather_ids(*const i32, i64, *const i32, i64, *mut i32, Stream) -> i32;
    fn msgl_scatter_ids(*const i32, *const i32, i64, *mut i32, i64, Stream) -> i32;
    fn msgl_copy(i32, Rows, Rows, Stream) -> i32;
    fn msgl_add(i32, Rows, Rows, Stream) -> i32;
    fn msgl_reduce_sum(i32, *const Rows, i32, Rows, Stream) -> i32;

    fn msgl_rms_norm(i32, Rows, *const c_void, f32, Rows, Stream) -> i32;
    fn msgl_add_rms_norm(i32, Rows, Rows, *const c_void, f32, Stream) -> i32;
    fn msgl_silu_and_mul(i32, Rows, Rows, Stream) -> i32;
    fn msgl_add_bias(i32, *const c_void, i32, Rows, Stream) -> i32;
    fn msgl_qk_norm_rope(
        i32, Rows, Rows, i32, *const c_void, *const c_void, f32, *const i32, *const f32, i64, i32,
        Stream
    ) -> i32;
    fn msgl_store_kv(i32, Rows, Rows, *const i32, Rows, Rows, Stream) -> i32;
    fn msgl_qk_norm_rope_store(
        i32, Rows, Rows, Rows, i32, *const c_void, *const c_void, f32, *const i32, *const f32, i64,
        i32, *const i32, Rows, Rows, Stream
    ) -> i32;

    fn msgl_quantize_rows(i32, Rows, Rows, *mut f32, Stream) -> i32;
    fn msgl_scale(i32, Rows, *const f32, *const f32, Stream) -> i32;
    fn msgl_store_kv_fp8(i32, Rows, Rows, *const i32, Rows, Rows, Stream) -> i32;
    fn msgl_qk_norm_rope_store_fp8(
        i32, Rows, Rows, Rows, i32, *const c_void, *const c_void, f32, *const i32, *const f32, i64,
        i32, *const i32, Rows, Rows, Stream
    ) -> i32;

    fn msgl_gemv(i32, Rows, Rows, Rows, Stream) -> i32;
    fn msgl_gemv_add(Rows, Rows, Rows, Stream) -> i32;
    fn msgl_norm_gemv(Rows, *const c_void, f32, Rows, Rows, Stream) -> i32;
    fn msgl_norm_gemv_silu(Rows, *const c_void, f32, Rows, Rows, Stream) -> i32;

    fn msgl_attention_native(i32, Rows, *const AttentionArgs, Rows, Stream) -> i32;
    fn msgl_attention_device_bytes(*const AttentionConfig) -> i64;
    fn msgl_attention_create(*const AttentionConfig, *mut *mut Attention) -> i32;
    fn msgl_attention_destroy(*mut Attention) -> i32;
    fn msgl_attention_plan(
        *mut Attention, *const AttentionArgs, *const i32, *const i32, i32, Stream
    ) -> i32;
    fn msgl_attention_run(*mut Attention, Rows, *const AttentionArgs, Rows, Stream) -> i32;

    fn msgl_moe_route(Rows, i32, Rows, Rows, Stream) -> i32;
    fn msgl_moe_group(
        *const i32, i64, i32, i32, *mut i32, *mut i32, *mut i32, Stream
    ) -> i32;
    fn msgl_moe_grouped_gemm(
        i32, Rows, *const i32, i32, *const c_void, i64, Rows, Stream
    ) -> i32;
    fn msgl_moe_combine(i32, Rows, Rows, Rows, Rows, Stream) -> i32;

    fn msgl_sampling_scratch_bytes(i64) -> i64;
    fn msgl_argmax(Rows, i32, *mut f32, *mut i32, *mut c_void, Stream) -> i32;
    fn msgl_gumbel_argmax(
        Rows, *const f32, *const f32, *const u64, *const i32, i32, *mut f32, *mut i32,
        *mut c_void, Stream
    ) -> i32;
    fn msgl_sum_exp(
        Rows, *const f32, *const f32, *const f32, *mut f32, *mut c_void, Stream
    ) -> i32;
    fn msgl_top_n(Rows, i32, Rows, Rows, *mut c_void, Stream) -> i32;
    fn msgl_threshold_histogram(
        Rows, *const f32, *const f32, *const i32, *const i32, i32, Rows, Stream
    ) -> i32;
    fn msgl_threshold_refine(Rows, *const i32, *mut i32, *mut f32, i32, Stream) -> i32;
    fn msgl_raise_threshold(*const i32, *const i32, *mut f32, i64, Stream) -> i32;
    fn msgl_best_of_shards(
        *const f32, *const i32, i64, i64, *mut f32, *mut i32, Stream
    ) -> i32;
    fn msgl_pick_logits(Rows, *const i32, i32, *mut f32, Stream) -> i32;
    fn msgl_mass_target(*const f32, *const f32, *mut f32, i64, Stream) -> i32;
    fn msgl_min_p_threshold(
        *const f32, *const f32, *const f32, *mut f32, i64, Stream
    ) -> i32;
    fn msgl_choose_ids(*const i32, *const i32, *const i32, *mut i32, i64, Stream) -> i32;

    fn msgl_clear_counts(Rows, *const i32, i64, Stream) -> i32;
    fn msgl_count_ids(Rows, *const i32, *const i32, i64, i32, Stream) -> i32;
    fn msgl_bias_logits(
        Rows, Rows, Rows, *const i32, *const i32, *const i32, i32, Stream
    ) -> i32;
    fn msgl_penalize_logits(
        Rows, Rows, Rows, *const i32, *const f32, *const f32, *const f32, i32, Stream
    ) -> i32;

    fn msgl_peer_flag_bytes() -> i64;
    fn msgl_peer_all_reduce(*const Peers, i32, *mut c_void, i64, i32, Stream) -> i32;
    fn msgl_peer_all_reduce_norm(
        *const Peers, i32, Rows, Rows, *const c_void, f32, Stream
    ) -> i32;
}

#[cfg(test)]
mod tests;
