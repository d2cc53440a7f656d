//! Reading the weights of one rank: only its own rows and columns, converted to the engine's dtype.
//!
//! [`files`] finds tensors in safetensors files; [`loader`] cuts shards out of them, or of random
//! numbers, and collects what is missing or misshapen. Never knows what a weight is for.

mod dummy;
pub mod files;
mod fp8;
pub mod loader;

pub use files::SafetensorsFiles;
pub use loader::{Loader, Part, Source};
