//! Attention by a backend that plans each step once and then runs it for every layer.
//!
//! Never knows: which backend is best for a step; the caller has chosen it.

use std::fmt;

use super::{AttentionParams, PagedKv, VarlenBatch, check, paged_attention};
use crate::cuda::ops::CudaAttention;
use crate::ops::check::Check;
use crate::{DType, Device, Error, Stream, View, ViewMut};

const CHECK: Check = Check::of("attention");

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionBackend {
    /// This project's own: every dtype, head size and group, on every device; on a GPU the fastest
    /// for a few sequences that decode. The only one of the CPU.
    Native,
    /// FlashInfer's kernels in the manner of FlashAttention 2: prefill, extend and decode.
    Fi,
    /// FlashInfer's kernels for Hopper in the manner of FlashAttention 3: prefill and extend.
    Fa,
}

/// As options name it: `native`, `fi`, `fa`.
impl fmt::Display for AttentionBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Fi => "fi",
            Self::Fa => "fa",
        })
    }
}

/// What an [`Attention`] is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionConfig {
    /// Who computes.
    pub backend: AttentionBackend,
    /// Of queries and outputs.
    pub dtype: DType,
    /// Of keys and values in the pool: `dtype`, or 8-bit floats.
    pub kv_dtype: DType,
    /// A multiple of `num_kv_heads`.
    pub num_q_heads: usize,
    /// At least 1.
    pub num_kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Positions per page, at least 1.
    pub page_size: usize,
    /// The most sequences of a batch.
    pub max_sequences: usize,
    /// The most queries of a batch.
    pub max_tokens: usize,
    /// The most pages of a batch, summed over its sequences (a shared page counts for each).
    pub max_pages: usize,
}

/// What a plan needs to know of a [`VarlenBatch`] before the device does.
#[derive(Clone, Copy, Debug)]
pub struct HostBatch<'a> {
    /// The elements of [`VarlenBatch::cu_seqlens_q`].
    pub cu_seqlens_q: &'a [i32],
    /// The elements of [`VarlenBatch::kv_lens`].
    pub kv_lens: &'a [i32],
    /// Whether runs of this plan are, or will be, captured in a graph: one query per sequence, and
    /// the launch depends on the number of sequences only, so that the graph can be replayed after
    /// any later plan for the same number. On a GPU, a sequence with `kv_len` 0 (padding) gets
    /// zeros.
    pub fixed_batch: bool,
}

/// A backend with its workspaces: planned once per step, run once per layer.
pub struct Attention {
    config: AttentionConfig,
    /// `None` on the CPU, which needs no plan.
    cuda: Option<CudaAttention>,
    /// The numbers of sequences and queries of the last plan.
    planned: Option<(usize, usize)>,
}

impl Attention {
    /// Bytes of device memory that [`Attention::new`] takes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the backend cannot do that on this device, with a sentence that
    /// lists what there is; [`Error::Parameter`] or [`Error::DType`] if a value is out of its
    /// domain.
    pub fn device_bytes(device: &Device, config: &AttentionConfig) -> Result<u64, Error> {
        config.check()?;
        match device {
            Device::Cpu(_) => config.check_cpu().map(|()| 0),
            Device::Cuda(device) => CudaAttention::device_bytes(device, config),
        }
    }

    /// A backend for steps on `stream`'s device.
    ///
    /// # Errors
    /// As for [`Attention::device_bytes`], and [`Error::Device`] if the memory cannot be had.
    pub fn new(stream: &Stream, config: &AttentionConfig) -> Result<Self, Error> {
        config.check()?;
        let cuda = match stream {
            Stream::Cpu(_) => {
                config.check_cpu()?;
                None
            }
            Stream::Cuda(stream) => Some(CudaAttention::new(stream, config)?),
        };
        Ok(Self { config: *config, cuda, planned: None })
    }

    /// What it was made for.
    pub fn config(&self) -> &AttentionConfig {
        &self.config
    }

    /// Prepares the runs of one step, for all layers. Two plans may be under way: the host does not
    /// wait for the runs of the step before.
    ///
    /// - `kv`: of any layer; only its page table and shapes count.
    /// - `batch`: the tables on the device, valid in stream order. `host`: what they will say.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the batch is larger than the configuration allows, if the host's
    /// tables are no such tables, or if a fixed batch has other than one query per sequence;
    /// [`Error::Length`] if they are not as long as the device's; those of [`paged_attention`].
    pub fn plan(
        &mut self,
        stream: &Stream,
        kv: PagedKv<'_>,
        batch: VarlenBatch<'_>,
        host: HostBatch<'_>,
    ) -> Result<(), Error> {
        self.planned = None;
        let num_sequences = batch.rows.num_elements();
        let num_tokens = self.check_host(num_sequences, host)?;
        CHECK.tensor("rows", batch.rows, DType::I32, [num_sequences])?;
        CHECK.tensor("cu_seqlens_q", batch.cu_seqlens_q, DType::I32, [num_sequences + 1])?;
        CHECK.tensor("kv_lens", batch.kv_lens, DType::I32, [num_sequences])?;
        self.check_kv(kv)?;
        match (&mut self.cuda, stream) {
            (None, Stream::Cpu(_)) => {}
            (Some(cuda), Stream::Cuda(stream)) => {
                // The scale and the window are each run's own.
                let params = AttentionParams { scale: 1.0, window: None };
                cuda.plan(stream, self.config.num_q_heads, kv, batch, params, host)?;
            }
            _ => return Err(Self::other_device(stream)),
        }
        self.planned = Some((num_sequences, num_tokens));
        Ok(())
    }

    /// [`paged_attention`] of one layer, as planned. Can be captured in a graph, which `self` must then
    /// outlive. [`AttentionBackend::Fa`] has no sliding window: with one, a GPU answers
    /// [`Error::Device`].
    ///
    /// # Errors
    /// [`Error::Parameter`] if there is no plan for such a batch, and those of [`paged_attention`].
    pub fn run(
        &mut self,
        stream: &Stream,
        q: View<'_>,
        kv: PagedKv<'_>,
        batch: VarlenBatch<'_>,
        params: AttentionParams,
        out: ViewMut<'_>,
    ) -> Result<(), Error> {
        check(q, kv, batch, params, out.as_view())?;
        self.check_kv(kv)?;
        CHECK.dtype("q", q, self.config.dtype)?;
        let sizes = (batch.rows.num_elements(), q.shape().dims()[0]);
        if self.planned != Some(sizes) || q.shape().dims()[1] != self.config.num_q_heads {
            let (sequences, tokens) = sizes;
            let value = format!("{sequences} sequences with {tokens} queries");
            return Err(CHECK.parameter("batch", value, "what the last plan was for"));
        }
        match (&mut self.cuda, stream) {
            (None, Stream::Cpu(_)) => paged_attention(stream, q, kv, batch, params, out),
            (Some(cuda), Stream::Cuda(stream)) => cuda.run(stream, q, kv, batch, params, out),
            _ => Err(Self::other_device(stream)),
        }
    }

    /// Checks the host's tables and returns the number of queries.
    fn check_host(&self, num_sequences: usize, host: HostBatch<'_>) -> Result<usize, Error> {
        let HostBatch { cu_seqlens_q, kv_lens, fixed_batch } = host;
        for (got, expected) in
            [(cu_seqlens_q.len(), num_sequences + 1), (kv_lens.len(), num_sequences)]
        {
            if got != expected {
                let (op, unit) = ("attention plan", "elements");
                return Err(Error::Length { op, got, expected, unit });
            }
        }
        if num_sequences > self.config.max_sequences {
            return Err(CHECK.parameter("number of sequences", num_sequences, "max_sequences"));
        }
        let mut num_pages = 0;
        for (window, &kv_len) in cu_seqlens_q.windows(2).zip(kv_lens) {
            let q_len = i64::from(window[1]) - i64::from(window[0]);
            if q_len < 0 || (fixed_batch && q_len != 1) {
                let allowed = "not negative, and 1 in a fixed batch";
                return Err(CHECK.parameter("queries of a sequence", q_len, allowed));
            }
            let padding = fixed_batch && kv_len == 0;
            let Some(kv_len) =
                usize::try_from(kv_len).ok().filter(|&kv_len| padding || kv_len as i64 >= q_len)
            else {
                let allowed = "at least the sequence's number of queries";
                return Err(CHECK.parameter("kv_len", kv_len, allowed));
            };
            num_pages += kv_len.div_ceil(self.config.page_size);
        }
        let num_tokens = usize::try_from(cu_seqlens_q[num_sequences]).unwrap_or(0);
        if cu_seqlens_q[0] != 0 {
            return Err(CHECK.parameter("cu_seqlens_q[0]", cu_seqlens_q[0], "0"));
        }
        if num_tokens > self.config.max_tokens {
            return Err(CHECK.parameter("number of queries", num_tokens, "max_tokens"));
        }
        if num_pages > self.config.max_pages {
            return Err(CHECK.parameter("number of pages", num_pages, "max_pages"));
        }
        Ok(num_tokens)
    }

    fn check_kv(&self, kv: PagedKv<'_>) -> Result<(), Error> {
        let AttentionConfig { kv_dtype, num_kv_heads, head_dim, page_size, .. } = self.config;
        let [num_slots, _, _] = CHECK.dims("k_pool", kv.k_pool)?;
        CHECK.tensor("k_pool", kv.k_pool, kv_dtype, [num_slots, num_kv_heads, head_dim])?;
        CHECK.tensor("v_pool", kv.v_pool, kv_dtype, [num_slots, num_kv_heads, head_dim])?;
        let [num_rows, max_pages] = CHECK.dims("page_table", kv.page_table)?;
        CHECK.tensor("page_table", kv.page_table, DType::I32, [num_rows, max_pages])?;
        if kv.page_size != page_size {
            return Err(CHECK.parameter("page_size", kv.page_size, "that of the configuration"));
        }
        Ok(())
    }

    fn other_device(stream: &Stream) -> Error {
        let (op, argument) = ("attention", "attention");
        let got = "another device".to_owned();
        Error::OtherDevice { op, argument, got, expected: stream.device().description() }
    }
}

impl AttentionConfig {
    fn check(&self) -> Result<(), Error> {
        if !matches!(self.dtype, DType::F32 | DType::Bf16) {
            let (op, argument, expected) = ("attention", "dtype", "float32 or bfloat16");
            return Err(Error::DType { op, argument, got: self.dtype, expected });
        }
        if self.kv_dtype != self.dtype && self.kv_dtype != DType::F8E4M3 {
            let (op, argument) = ("attention", "kv_dtype");
            let expected = "the dtype of queries, or float8_e4m3fn";
            return Err(Error::DType { op, argument, got: self.kv_dtype, expected });
        }
        if self.num_kv_heads == 0 || !self.num_q_heads.is_multiple_of(self.num_kv_heads) {
            let allowed = "a multiple of the number of kv heads";
            return Err(CHECK.parameter("number of query heads", self.num_q_heads, allowed));
        }
        for (name, size) in [
            ("number of query heads", self.num_q_heads),
            ("head_dim", self.head_dim),
            ("page_size", self.page_size),
            ("max_sequences", self.max_sequences),
            ("max_tokens", self.max_tokens),
            ("max_pages", self.max_pages),
        ] {
            if !(1..=i32::MAX as usize).contains(&size) {
                return Err(CHECK.parameter(name, size, "at least 1, below 2^31"));
            }
        }
        Ok(())
    }

    fn check_cpu(&self) -> Result<(), Error> {
        if self.backend == AttentionBackend::Native {
            return Ok(());
        }
        let text =
            format!("the attention backend {:?} needs a GPU; the CPU has Native", self.backend);
        Err(Error::Unavailable(text))
    }
}

impl fmt::Debug for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attention").field("config", &self.config).finish_non_exhaustive()
    }
}
