//! The demo model, compiled into the program: small enough to carry, so that everything can be tried
//! without a download. Made by `demo-model/train`.

use minisgl_model::Checkpoint;

/// What clients call it.
pub const NAME: &str = "demo";

macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../demo-model/", $name)))
    };
}

const FILES: &[(&str, &[u8])] = &[
    file!("config.json"),
    file!("generation_config.json"),
    file!("model.safetensors"),
    file!("tokenizer.json"),
    file!("tokenizer_config.json"),
    file!("chat_template.jinja"),
];

/// Its files.
pub fn checkpoint() -> Checkpoint {
    Checkpoint::Embedded(FILES)
}
