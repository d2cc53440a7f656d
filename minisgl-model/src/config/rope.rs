//! The rotary part of `config.json`, in both spellings. Knows parameters, not tables.

use serde::Deserialize;

use crate::ModelError;

/// Rotary position embedding.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// How they are changed for long contexts.
    pub scaling: RopeScaling,
}

/// Changes to the frequencies, named as in transformers' `ROPE_INIT_FUNCTIONS`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum RopeScaling {
    /// None. Also what `dynamic` is up to the model's own number of positions, which is as far as
    /// this engine goes: beyond, it would make what is cached of a prefix depend on what follows.
    Default,
    /// All positions divided by `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// By wavelength, as in Llama 3.1.
    Llama3 {
        /// What long wavelengths are stretched by.
        factor: f64,
        /// Wavelengths above `original_max / low_freq_factor` are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths below `original_max / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// The context before stretching.
        original_max: usize,
    },
    /// By the number of rotations, as in YaRN (arXiv 2309.00071).
    Yarn {
        /// What slow rotations are stretched by.
        factor: f64,
        /// Dimensions that rotate more often than this over the original context are kept.
        beta_fast: f64,
        /// Dimensions that rotate less often than this are stretched in full.
        beta_slow: f64,
        /// Whether the border dimensions are rounded outwards to whole ones.
        truncate: bool,
        /// The context before stretching.
        original_max: usize,
        /// Cosines and sines are multiplied by this.
        attention_factor: f64,
    },
}

#[derive(Deserialize)]
pub(super) struct RawRope {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    attention_factor: Option<f64>,
    truncate: Option<bool>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
}

impl RopeConfig {
    pub(super) fn check(
        theta: Option<f64>,
        raw: Option<RawRope>,
        max_positions: usize,
    ) -> Result<Self, ModelError> {
        let given = theta.or(raw.as_ref().and_then(|raw| raw.rope_theta));
        let theta = positive("rope_theta", given)?;
        let Some(raw) = raw else { return Ok(Self { theta, scaling: RopeScaling::Default }) };
        if let Some(factor) = raw.partial_rotary_factor.filter(|factor| *factor != 1.0) {
            return Err(ModelError::Unsupported {
                what: "partial_rotary_factor",
                got: factor.to_string(),
                allowed: "only 1 is: all elements of a head are rotated".to_owned(),
            });
        }
        let original_max = raw.original_max_position_embeddings.unwrap_or(max_positions);
        if original_max == 0 {
            return Err(ModelError::Config {
                field: "original_max_position_embeddings",
                problem: "= 0 is not allowed".to_owned(),
            });
        }
        let scaling = match raw.rope_type.as_deref().or(raw.old_type.as_deref()) {
            None | Some("default" | "dynamic") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear { factor: positive("factor", raw.factor)? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: positive("factor", raw.factor)?,
                low_freq_factor: positive("low_freq_factor", raw.low_freq_factor)?,
                high_freq_factor: positive("high_freq_factor", raw.high_freq_factor)?,
                original_max,
            },
            Some("yarn") => raw.yarn(original_max)?,
            Some(other) => {
                return Err(ModelError::Unsupported {
                    what: "rope type",
                    got: other.to_owned(),
                    allowed: "default, linear, dynamic, llama3 and yarn are".to_owned(),
                });
            }
        };
        Ok(Self { theta, scaling })
    }
}

impl RawRope {
    fn yarn(&self, original_max: usize) -> Result<RopeScaling, ModelError> {
        let factor = positive("factor", self.factor)?;
        // The logits of attention grow by the square of this.
        let scale =
            |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let mscales =
            (self.mscale.filter(|m| *m != 0.0), self.mscale_all_dim.filter(|m| *m != 0.0));
        let inferred = match mscales {
            (Some(mscale), Some(all_dim)) => scale(mscale) / scale(all_dim),
            _ => scale(1.0),
        };
        // Null and 0 mean the defaults, as in the reference.
        let or = |value: Option<f64>, default| value.filter(|v| *v != 0.0).unwrap_or(default);
        Ok(RopeScaling::Yarn {
            factor,
            beta_fast: positive("beta_fast", Some(or(self.beta_fast, 32.0)))?,
            beta_slow: positive("beta_slow", Some(or(self.beta_slow, 1.0)))?,
            truncate: self.truncate.unwrap_or(true),
            original_max,
            attention_factor: positive(
                "attention_factor",
                Some(self.attention_factor.unwrap_or(inferred)),
            )?,
        })
    }
}

fn positive(field: &'static str, value: Option<f64>) -> Result<f64, ModelError> {
    match value {
        None => Err(ModelError::Config { field, problem: "is missing".to_owned() }),
        Some(value) if value.is_finite() && value > 0.0 => Ok(value),
        Some(value) => Err(ModelError::Config {
            field,
            problem: format!("= {value} is not allowed: use a positive number"),
        }),
    }
}
