//! Attention: without a plan by the library's plain kernel, or planned by one of its backends.
//!
//! Never knows: which backend suits a step; the caller has chosen it.

use crate::cuda::call::{Call, code};
use crate::cuda::device::CudaDevice;
use crate::cuda::stream::CudaStream;
use crate::cuda::sys;
use crate::ops::{
    AttentionBackend, AttentionConfig, AttentionParams, HostBatch, PagedKv, VarlenBatch,
};
use crate::{Error, View, ViewMut};

/// What the library takes, from what the op takes. The op has checked the shapes.
fn args(
    call: &Call<'_>,
    num_q_heads: usize,
    kv: PagedKv<'_>,
    batch: VarlenBatch<'_>,
    params: AttentionParams,
) -> Result<sys::AttentionArgs, Error> {
    let &[num_slots, num_kv_heads, head_dim] = kv.k_pool.shape().dims() else {
        unreachable!("the op has checked the rank of the pool")
    };
    let page_table = call.rows("page_table", kv.page_table)?;
    let small = |size: usize| i32::try_from(size).unwrap_or(i32::MAX);
    Ok(sys::AttentionArgs {
        k_pool: call.dense("k_pool", kv.k_pool)?,
        v_pool: call.dense("v_pool", kv.v_pool)?,
        num_slots: num_slots as i64,
        page_table: page_table.data.cast_const().cast(),
        num_rows: page_table.rows,
        max_pages: page_table.row_len,
        page_table_stride: page_table.stride,
        page_size: small(kv.page_size),
        kv_dtype: code(kv.k_pool.dtype()),
        rows: call.elements("rows", batch.rows)?,
        cu_seqlens_q: call.elements("cu_seqlens_q", batch.cu_seqlens_q)?,
        kv_lens: call.elements("kv_lens", batch.kv_lens)?,
        n: small(batch.rows.num_elements()),
        num_q_heads: small(num_q_heads),
        num_kv_heads: small(num_kv_heads),
        head_dim: small(head_dim),
        scale: params.scale,
        // A window beyond every position is none.
        window: params.window.map_or(0, |window| i32::try_from(window).unwrap_or(0)),
    })
}

pub(crate) fn paged_attention(
    stream: &CudaStream,
    q: View<'_>,
    kv: PagedKv<'_>,
    batch: VarlenBatch<'_>,
    params: AttentionParams,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("paged_attention", stream)?;
    let args = args(&call, q.shape().dims()[1], kv, batch, params)?;
    let (rows, target) = (call.rows("q", q)?, call.rows_mut("out", &mut out)?);
    if out.num_elements() == 0 {
        return Ok(());
    }
    let (dtype, native) = (code(q.dtype()), call.functions().msgl_attention_native);
    // SAFETY: the op has checked the shapes; the kernel checks the tables.
    call.done(unsafe { native(dtype, rows, &args, target, call.stream()) })
}

/// A backend of the library with its workspaces.
pub(crate) struct CudaAttention {
    raw: *mut sys::Attention,
    device: CudaDevice,
}

// SAFETY: the library's object may be used from every thread, by one at a time.
unsafe impl Send for CudaAttention {}
// SAFETY: without `&mut` nothing can be done with it.
unsafe impl Sync for CudaAttention {}

/// The library's form of a configuration.
fn config_of(config: &AttentionConfig) -> sys::AttentionConfig {
    let backend = match config.backend {
        AttentionBackend::Native => sys::ATTENTION_NATIVE,
        AttentionBackend::Fi => sys::ATTENTION_FI,
        AttentionBackend::Fa => sys::ATTENTION_FA,
    };
    let small = |size: usize| i32::try_from(size).unwrap_or(i32::MAX);
    sys::AttentionConfig {
        backend,
        dtype: code(config.dtype),
        kv_dtype: code(config.kv_dtype),
        num_q_heads: small(config.num_q_heads),
        num_kv_heads: small(config.num_kv_heads),
        head_dim: small(config.head_dim),
        page_size: small(config.page_size),
        max_sequences: small(config.max_sequences),
        max_tokens: config.max_tokens as i64,
        max_pages: config.max_pages as i64,
    }
}

impl CudaAttention {
    /// Bytes of device memory that [`CudaAttention::new`] takes.
    pub(crate) fn device_bytes(
        device: &CudaDevice,
        config: &AttentionConfig,
    ) -> Result<u64, Error> {
        device.make_current()?;
        let (config, kernels) = (config_of(config), device.kernels());
        // SAFETY: it reads the configuration, and computes.
        let bytes = unsafe { (kernels.functions.msgl_attention_device_bytes)(&config) };
        u64::try_from(bytes).map_err(|_| Error::Unavailable(kernels.last_error(-1)))
    }

    pub(crate) fn new(stream: &CudaStream, config: &AttentionConfig) -> Result<Self, Error> {
        let device = stream.device().clone();
        stream.refuse_while_capturing("attention")?;
        // Says what there is, if this is not.
        Self::device_bytes(&device, config)?;
        let (config, kernels) = (config_of(config), device.kernels());
        let mut raw = std::ptr::null_mut();
        // SAFETY: it reads the configuration and writes one pointer.
        let status = unsafe { (kernels.functions.msgl_attention_create)(&config, &mut raw) };
        kernels.check("attention", status)?;
        let attention = Self { raw, device };
        // The library clears its counters on the default stream, for which no other waits.
        attention.device.synchronize()?;
        Ok(attention)
    }

    pub(crate) fn plan(
        &mut self,
        stream: &CudaStream,
        num_q_heads: usize,
        kv: PagedKv<'_>,
        batch: VarlenBatch<'_>,
        params: AttentionParams,
        host: HostBatch<'_>,
    ) -> Result<(), Error> {
        let call = Call::new("attention plan", stream)?;
        stream.refuse_while_capturing("attention plan")?;
        let args = args(&call, num_q_heads, kv, batch, params)?;
        // SAFETY: the op has checked that the host's arrays are as long as the device's.
        call.done(unsafe {
            (call.functions().msgl_attention_plan)(
                self.raw,
                &args,
                host.cu_seqlens_q.as_ptr(),
                host.kv_lens.as_ptr(),
                i32::from(host.fixed_batch),
                call.stream(),
            )
        })
    }

    pub(crate) fn run(
        &mut self,
        stream: &CudaStream,
        q: View<'_>,
        kv: PagedKv<'_>,
        batch: VarlenBatch<'_>,
        params: AttentionParams,
        mut out: ViewMut<'_>,
    ) -> Result<(), Error> {
        let call = Call::new("attention", stream)?;
        let args = args(&call, q.shape().dims()[1], kv, batch, params)?;
        let (rows, target) = (call.rows("q", q)?, call.rows_mut("out", &mut out)?);
        if out.num_elements() == 0 {
            return Ok(());
        }
        let run = call.functions().msgl_attention_run;
        // SAFETY: the op has checked the shapes; the kernels check the tables.
        call.done(unsafe { run(self.raw, rows, &args, target, call.stream()) })
    }
}

impl Drop for CudaAttention {
    fn drop(&mut self) {
        if self.device.synchronize().is_ok() {
            // SAFETY: `new` created it, and no queued work uses it any more.
            let _ = unsafe { (self.device.kernels().functions.msgl_attention_destroy)(self.raw) };
        }
    }
}
