//! Where 8-bit floats can be used in place of the engine's own: which models and devices have what it
//! takes, said before anything is loaded. Knows options and sizes, never a tensor.

use minisgl_kernels::ops::fp8;
use minisgl_kernels::{DType, Device};

use crate::decoder::Geometry;
use crate::shard::Shard;
use crate::{EngineOptions, KvCacheDType, ModelConfig, ModelError, QuantizationChoice};

/// The sizes of one rank's share, with what `options` quantize.
///
/// # Errors
/// [`ModelError::Option`] if the model or the device does not allow that.
pub(crate) fn geometry(
    config: &ModelConfig,
    options: &EngineOptions,
    shard: &Shard,
    dtype: DType,
    device: &Device,
) -> Result<Geometry, ModelError> {
    let mut geometry = Geometry::new(config, shard, dtype);
    if options.kv_cache_dtype == KvCacheDType::Fp8 {
        geometry.kv_dtype = DType::F8E4M3;
    }
    if options.quantization == QuantizationChoice::None {
        return Ok(geometry);
    }
    let refuse = |problem| Err(ModelError::Option { option: "--quantization", problem });
    if config.moe.is_some() {
        let name = config.architecture.name();
        return refuse(format!("fp8 is for dense models; {name} has experts: use none"));
    }
    if let Err(error) = fp8::check_device(device) {
        return refuse(format!("fp8: {error}"));
    }
    if let Device::Cuda(_) = device {
        for (what, size) in [
            ("columns of the hidden layer", geometry.hidden_size),
            ("columns of attention", geometry.attention_size()),
            ("rows of the query, key and value projection", geometry.qkv_size()),
            ("columns of the MLP", geometry.intermediate_size),
        ] {
            if !size.is_multiple_of(fp8::CUDA_ALIGNMENT) {
                return refuse(format!(
                    "fp8: a rank has {size} {what}, on a GPU that must be a multiple of {}: use \
                     none, or fewer ranks",
                    fp8::CUDA_ALIGNMENT
                ));
            }
        }
    }
    Ok(Geometry { fp8_projections: true, ..geometry })
}
