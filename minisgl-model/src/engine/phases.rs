//! The attention kernels of the two phases: steps in which every sequence has one token, and all
//! others. Knows which backends a device has; never what is attended to.

use std::fmt;

use minisgl_cache::KvPool;
use minisgl_kernels::ops::{
    Attention, AttentionBackend, AttentionConfig, HostBatch as HostLengths,
};
use minisgl_kernels::{Device, Error, Stream, View};

use super::StepLimits;
use crate::batch::{Field, HostBatch, StepInputs};
use crate::decoder::Geometry;
use crate::options::{AttentionBackend as Choice, AttentionChoice};
use crate::{ModelConfig, ModelError};

/// Decodes of up to so many sequences leave most of a GPU idle, unless each is cut into parts.
const FEW: usize = 16;

/// Why `fa` is refused for decodes.
pub(crate) const FA_IS_FOR_PREFILL: &str = "fa has prefill kernels only: use fa,fi";

/// That a backend was named on the CPU.
pub(crate) fn needs_a_gpu(choice: &dyn fmt::Display) -> ModelError {
    let problem = format!("{choice} needs a GPU; the CPU has only auto");
    ModelError::Option { option: "--attn", problem }
}

/// Which kernels each phase uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhaseBackends {
    /// For steps with more than one token of some sequence.
    pub prefill: AttentionBackend,
    /// For steps with one token of each sequence.
    pub decode: AttentionBackend,
    /// For such steps of a few sequences.
    pub few: AttentionBackend,
}

/// The attention of both phases.
pub struct Phases {
    prefill: Attention,
    decode: Attention,
    few: Attention,
    planned: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    Prefill,
    Decode,
    Few,
}

impl fmt::Display for PhaseBackends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for prefill, {} for decode", self.prefill, self.decode)?;
        if self.few != self.decode {
            write!(f, ", {} for a few sequences", self.few)?;
        }
        Ok(())
    }
}

impl PhaseBackends {
    /// What the CPU has.
    pub const CPU: Self = Self {
        prefill: AttentionBackend::Native,
        decode: AttentionBackend::Native,
        few: AttentionBackend::Native,
    };

    /// What `choice` means on `device` for a model.
    ///
    /// # Errors
    /// [`ModelError::Option`] if the device or the model allows no such backend.
    pub fn resolve(
        choice: AttentionChoice,
        device: &Device,
        config: &ModelConfig,
        geometry: &Geometry,
        limits: &StepLimits,
    ) -> Result<Self, ModelError> {
        if matches!(device, Device::Cpu(_)) && choice != AttentionChoice::AUTO {
            return Err(needs_a_gpu(&choice));
        }
        let has_window = config.windows.iter().any(Option::is_some);
        let try_one = |backend: AttentionBackend, is_decode: bool| -> Result<u64, String> {
            if backend == AttentionBackend::Fa && is_decode {
                return Err(FA_IS_FOR_PREFILL.to_owned());
            }
            if backend == AttentionBackend::Fa && has_window {
                return Err("fa has no sliding windows, which the model needs".to_owned());
            }
            let config = configuration(backend, geometry, limits, is_decode);
            Attention::device_bytes(device, &config).map_err(|error| error.to_string())
        };
        let resolve = |choice: Choice, is_decode: bool| {
            let candidates: &[AttentionBackend] = match (choice, device) {
                (Choice::Auto, Device::Cpu(_)) => &[AttentionBackend::Native],
                (Choice::Fa, _) => &[AttentionBackend::Fa],
                (Choice::Fi, _) => &[AttentionBackend::Fi],
                (Choice::Native, _) => &[AttentionBackend::Native],
                (Choice::Auto, _) => {
                    &[AttentionBackend::Fa, AttentionBackend::Fi, AttentionBackend::Native]
                }
            };
            let mut problem = String::new();
            for backend in candidates {
                match try_one(*backend, is_decode) {
                    Ok(_) => return Ok(*backend),
                    Err(error) => problem = error,
                }
            }
            Err(ModelError::Option { option: "--attn", problem: format!("{choice}: {problem}") })
        };
        let decode = resolve(choice.decode, true)?;
        // What was asked for by name is used for all.
        // Native has no fast kernel for a pool of 8-bit floats.
        let native_is_fast =
            geometry.kv_dtype == geometry.dtype && try_one(AttentionBackend::Native, true).is_ok();
        let few = if choice.decode == Choice::Auto && native_is_fast {
            AttentionBackend::Native
        } else {
            decode
        };
        Ok(Self { prefill: resolve(choice.prefill, false)?, decode, few })
    }

    /// Bytes of device memory that [`Phases`] take.
    ///
    /// # Errors
    /// If the device has no such backend.
    pub fn bytes(
        self,
        device: &Device,
        geometry: &Geometry,
        limits: &StepLimits,
    ) -> Result<usize, Error> {
        let bytes = |backend, is_decode| {
            let config = configuration(backend, geometry, limits, is_decode);
            Attention::device_bytes(device, &config)
        };
        let sum = bytes(self.prefill, false)? + bytes(self.decode, true)? + bytes(self.few, true)?;
        Ok(sum as usize)
    }
}

fn configuration(
    backend: AttentionBackend,
    geometry: &Geometry,
    limits: &StepLimits,
    is_decode: bool,
) -> AttentionConfig {
    AttentionConfig {
        backend,
        dtype: geometry.dtype,
        kv_dtype: geometry.kv_dtype,
        num_q_heads: geometry.num_qo_heads,
        num_kv_heads: geometry.num_kv_heads,
        head_dim: geometry.head_dim,
        page_size: limits.page_size,
        max_sequences: limits.max_sequences,
        max_tokens: if is_decode { limits.max_sequences } else { limits.max_tokens },
        // Sequences may share pages, so that there may be more of them than in the pool.
        max_pages: limits.max_sequences * limits.max_pages_per_row,
    }
}

impl Phases {
    pub(super) fn new(
        stream: &Stream,
        geometry: &Geometry,
        limits: &StepLimits,
        backends: PhaseBackends,
    ) -> Result<Self, Error> {
        let attention = |backend, is_decode| {
            Attention::new(stream, &configuration(backend, geometry, limits, is_decode))
        };
        Ok(Self {
            prefill: attention(backends.prefill, false)?,
            decode: attention(backends.decode, true)?,
            few: attention(backends.few, true)?,
            planned: Phase::Prefill,
        })
    }

    /// Once per step, before [`Phases::planned`] is run for each layer.
    #[expect(clippy::too_many_arguments, reason = "what attention reads has many owners")]
    pub(super) fn plan(
        &mut self,
        stream: &Stream,
        batch: &HostBatch,
        inputs: &StepInputs,
        pool: &KvPool,
        page_table: View<'_>,
        page_size: usize,
        for_graph: bool,
    ) -> Result<(), Error> {
        self.planned = match batch.layout().sequences {
            _ if !batch.is_decode() => Phase::Prefill,
            0..=FEW => Phase::Few,
            _ => Phase::Decode,
        };
        let host = HostLengths {
            cu_seqlens_q: batch.field(Field::CuSeqlensQ),
            kv_lens: batch.field(Field::KvLens),
            fixed_batch: for_graph,
        };
        let kv = pool.layer(0).paged(page_table, page_size);
        self.planned().plan(stream, kv, inputs.sequences()?, host)
    }

    /// The attention of the phase that was planned last.
    pub(super) fn planned(&mut self) -> &mut Attention {
        match self.planned {
            Phase::Prefill => &mut self.prefill,
            Phase::Decode => &mut self.decode,
            Phase::Few => &mut self.few,
        }
    }
}
