//! Small tokenizers of both families, made so that the first 50 ids, which are what the simulator
//! generates, hold all that can go wrong: halves of characters, broken bytes, special tokens.

use std::path::Path;

use minisgl_model::Checkpoint;
use minisgl_server::text::TextModel;
use serde_json::{Value, json};

/// The rows of the model: some more than its tokenizer has tokens.
pub(crate) const VOCAB_SIZE: usize = 320;

/// The end token of both.
pub(crate) const EOS: u32 = 2;

/// The single quotes are where Jinja and HTML disagree.
pub(crate) const CHAT_TEMPLATE: &str = "{%- for message in messages %}\
    {{- '<|start|>' + message.role + '\\n' + message.content + '<|end|>\\n' }}\
    {%- endfor %}\
    {{- '<|start|>assistant\\n' }}";

/// GPT-2's spelling of bytes.
pub(crate) fn byte_level(bytes: &[u8]) -> String {
    let spell = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=b' ' => char::from_u32(0x100 + u32::from(byte)).unwrap(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap(),
        0xad => '\u{143}',
    };
    bytes.iter().map(|byte| spell(*byte)).collect()
}

/// Byte-level BPE, like GPT-2, Llama 3 and Qwen.
pub(crate) fn byte_level_tokenizer() -> Value {
    let mut tokens: Vec<String> =
        ["<unk>", "<|start|>", "<|end|>", "<plain>"].map(String::from).into();
    let pieces: [&[u8]; 36] = [
        b"a",
        b"b",
        b"c",
        b"ab",
        b"abc",
        b" the",
        b" ",
        b"\n",
        b"\r\n",
        b"\"",
        b"\\",
        b"<",
        b"1",
        b"23",
        "é".as_bytes(),
        b"\xc3",
        b"\xa9",
        b"\xe2",
        b"\x82",
        b"\xac",
        b"\xe2\x82",
        b"\x82\xac",
        "😀".as_bytes(),
        b"\xf0\x9f",
        b"\x98\x80",
        b"\xf0",
        b"\x9f\x98\x80!",
        b"\xff",
        b"\x80",
        b"x\xf0\x9f",
        b"\x98\x80y",
        "中".as_bytes(),
        b"\xe4\xb8",
        b"\xad",
        b"stop",
        b"STOP",
    ];
    tokens.extend(pieces.iter().map(|piece| byte_level(piece)));
    for byte in 0..=255 {
        let token = byte_level(&[byte]);
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    tokens.push(byte_level(b"ing"));
    let added = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    json!({
        "version": "1.0",
        // As left over from training: must not cut prompts.
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [
            added(1, "<|start|>", true), added(2, "<|end|>", true), added(3, "<plain>", false)
        ],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary(&tokens), "merges": [["a", "b"], ["ab", "c"]],
        },
    })
}

/// SentencePiece turned into BPE with byte fallback, like Llama 2 and Mistral: spaces are `▁`, one is
/// put before each text and taken off again, and a BOS token is added to each text.
pub(crate) fn byte_fallback_tokenizer() -> Value {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend(["▁", "▁a", "▁the", "a", "b", "c", "é", "中", "▁▁", ".", "é▁"].map(String::from));
    // The bytes of some characters first, so that random ids often make one.
    let first = "é€😀".bytes().chain([0x80, 0xff, b' ', b'\n']);
    let rest = (0..=255).filter(|byte| !first.clone().any(|known| known == *byte));
    tokens.extend(first.clone().chain(rest).map(|byte| format!("<0x{byte:02X}>")));
    let added = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
            "vocab": vocabulary(&tokens), "merges": [["▁", "a"], ["▁", "▁"]],
        },
    })
}

/// The same with the older decoder of SentencePiece models without byte fallback.
pub(crate) fn metaspace_tokenizer() -> Value {
    let mut tokenizer = byte_fallback_tokenizer();
    tokenizer["decoder"] = json!({"type": "Metaspace", "replacement": "▁",
        "prepend_scheme": "always", "split": true});
    tokenizer
}

fn vocabulary(tokens: &[String]) -> Value {
    let ids = tokens.iter().enumerate();
    Value::Object(ids.map(|(id, token)| (token.clone(), json!(id))).collect())
}

/// Writes files as a model has them.
pub(crate) fn write_model(folder: &Path, files: &[(&str, Value)]) -> Checkpoint {
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    for (name, value) in files {
        std::fs::write(folder.join(name), value.to_string()).unwrap();
    }
    Checkpoint::folder(folder).unwrap()
}

/// The text side of a byte-level model.
pub(crate) fn text_model(max_seq_len: usize) -> TextModel {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"chat_template": CHAT_TEMPLATE, "eos_token": "<|end|>"});
    let files = [("tokenizer.json", byte_level_tokenizer()), ("tokenizer_config.json", config)];
    let checkpoint = write_model(folder.path(), &files);
    TextModel::load(&checkpoint, None, &[], VOCAB_SIZE, max_seq_len).unwrap()
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
