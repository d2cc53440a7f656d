//! The `quantization_config` of `config.json`. Knows formats by name, not how they are read.

use serde::Deserialize;

use crate::ModelError;

/// Projections as 8-bit floats (E4M3) with scales.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fp8Config {
    /// Rows and columns that share one scale; a whole matrix does if not given.
    pub block: Option<[usize; 2]>,
}

#[derive(Deserialize)]
pub(super) struct RawQuantization {
    quant_method: Option<String>,
    load_in_4bit: Option<bool>,
    load_in_8bit: Option<bool>,
    fmt: Option<String>,
    weight_block_size: Option<Vec<usize>>,
}

impl RawQuantization {
    pub(super) fn check(&self) -> Result<Fp8Config, ModelError> {
        let bits = [self.load_in_4bit, self.load_in_8bit].contains(&Some(true));
        let unnamed = if bits { "bitsandbytes" } else { "unknown" };
        let method = self.quant_method.as_deref().unwrap_or(unnamed);
        if method != "fp8" {
            return Err(ModelError::Unsupported {
                what: "quantization",
                got: method.to_owned(),
                allowed: "float32, float16, bfloat16 and fp8 checkpoints are".to_owned(),
            });
        }
        if let Some(format) = self.fmt.as_ref().filter(|format| *format != "e4m3") {
            return Err(ModelError::Unsupported {
                what: "fp8 format",
                got: format.clone(),
                allowed: "only e4m3 is".to_owned(),
            });
        }
        let block = match self.weight_block_size.as_deref() {
            None => None,
            Some(&[rows, columns]) if rows > 0 && columns > 0 => Some([rows, columns]),
            Some(other) => {
                return Err(ModelError::Config {
                    field: "weight_block_size",
                    problem: format!("= {other:?} is not allowed: use two sizes above 0"),
                });
            }
        };
        Ok(Fp8Config { block })
    }
}
