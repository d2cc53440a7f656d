//! The table of cosines and sines that rotates queries and keys by position.
//! Knows frequencies, not heads or sequences.

use std::ops::Range;

use crate::config::{RopeConfig, RopeScaling};

/// `head_dim / 2` angles per position, highest frequency first: `theta^(-2i / head_dim)`, scaled as
/// transformers' `ROPE_INIT_FUNCTIONS` do.
pub fn inverse_frequencies(config: &RopeConfig, head_dim: usize) -> Vec<f64> {
    let plain = (0..head_dim / 2).map(|i| config.theta.powf(-((2 * i) as f64) / head_dim as f64));
    match config.scaling {
        RopeScaling::Default => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max } => {
            let original_max = original_max as f64;
            let scale = |frequency: f64| {
                let wavelength = std::f64::consts::TAU / frequency;
                if wavelength > original_max / low_freq_factor {
                    frequency / factor
                } else if wavelength < original_max / high_freq_factor {
                    frequency
                } else {
                    let smooth = (original_max / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            };
            plain.map(scale).collect()
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_max, .. } => {
            // The dimension that rotates so often over the original context.
            let dimension = |rotations: f64| {
                let wavelength = original_max as f64 / rotations;
                head_dim as f64 * (wavelength / std::f64::consts::TAU).ln()
                    / (2.0 * config.theta.ln())
            };
            let (low, high) = (dimension(beta_fast), dimension(beta_slow));
            let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
            let (low, high) = (low.max(0.0), high.min((head_dim - 1) as f64));
            let width = if low == high { 0.001 } else { high - low };
            let stretch = |(i, frequency): (usize, f64)| {
                let stretched = ((i as f64 - low) / width).clamp(0.0, 1.0);
                frequency / factor * stretched + frequency * (1.0 - stretched)
            };
            plain.enumerate().map(stretch).collect()
        }
    }
}

/// `[positions, head_dim]`, row-major: each row the cosines of all angles, then the sines, times the
/// attention factor of YaRN.
///
/// Frequencies and angles are rounded to f32, as where the models were trained: at positions in the
/// hundred thousands that is a visible part of the angle.
pub fn cos_sin_table(config: &RopeConfig, head_dim: usize, positions: Range<usize>) -> Vec<f32> {
    let frequencies: Vec<f32> = inverse_frequencies(config, head_dim)
        .into_iter()
        .map(|frequency| frequency as f32)
        .collect();
    let scale = match config.scaling {
        RopeScaling::Yarn { attention_factor, .. } => attention_factor,
        _ => 1.0,
    };
    let mut table = Vec::with_capacity(positions.len() * head_dim);
    for position in positions {
        let angles = || frequencies.iter().map(|frequency| f64::from(position as f32 * frequency));
        table.extend(angles().map(|angle| (angle.cos() * scale) as f32));
        table.extend(angles().map(|angle| (angle.sin() * scale) as f32));
    }
    table
}
