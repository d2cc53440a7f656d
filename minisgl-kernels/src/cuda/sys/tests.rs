//! The declarations against the header they follow.

use super::{ABI_VERSION, BF16, F8E4M3, F32, MAX_PEERS, SIGNATURES};

const HEADER: &str = include_str!("../../../csrc/minisgl_kernels.h");

/// The header without comments.
fn code() -> String {
    let mut parts = HEADER.split("/*");
    let mut code = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        code.push_str(part.split_once("*/").unwrap().1);
    }
    code
}

/// The Rust name of a C type.
fn rust_type(c: &str) -> &'static str {
    match c {
        "int32_t" => "i32",
        "int64_t" => "i64",
        "float" => "f32",
        "msgl_rows" => "Rows",
        "msgl_stream" => "Stream",
        "const char *" => "*const c_char",
        "const int32_t *" => "*const i32",
        "int32_t *" => "*mut i32",
        "const float *" => "*const f32",
        "float *" => "*mut f32",
        "const uint64_t *" => "*const u64",
        "const void *" => "*const c_void",
        "void *" => "*mut c_void",
        "const msgl_rows *" => "*const Rows",
        "const msgl_attention_args *" => "*const AttentionArgs",
        "const msgl_attention_config *" => "*const AttentionConfig",
        "msgl_attention *" => "*mut Attention",
        "msgl_attention **" => "*mut *mut Attention",
        "const msgl_peers *" => "*const Peers",
        other => panic!("the header has a type that this test does not know: {other}"),
    }
}

/// `const int32_t *ids` without the name, with one space before the stars.
fn type_of(parameter: &str) -> String {
    let parameter = parameter.split_whitespace().collect::<Vec<_>>().join(" ");
    let name = parameter.rfind([' ', '*']).unwrap();
    parameter[..=name].trim().to_owned()
}

#[test]
fn functions_are_those_of_the_header() {
    let code = code();
    let mut declared = Vec::new();
    for statement in code.split(';').filter(|statement| statement.contains('(')) {
        // What stands before a declaration (macros, the end of a struct) ends in a line of its own.
        let (before, parameters) = statement.split_once('(').unwrap();
        let before = before.rsplit('\n').next().unwrap();
        let parameters = parameters.rsplit_once(')').unwrap().0;
        let name = before.rsplit([' ', '*']).next().unwrap();
        let result = rust_type(&type_of(before));
        let types: Vec<_> = match parameters.trim() {
            "void" => Vec::new(),
            parameters => parameters.split(',').map(|p| rust_type(&type_of(p))).collect(),
        };
        declared.push((name.to_owned(), types, result));
    }
    // Looked up on its own, before the others.
    declared.retain(|(name, ..)| name != "msgl_abi_version");
    let ours: Vec<_> = SIGNATURES
        .iter()
        .map(|&(name, types, result)| (name.to_owned(), types.to_vec(), result))
        .collect();
    assert!(ours.len() > 30, "{}", ours.len());
    assert_eq!(ours, declared);
}

#[test]
fn constants_are_those_of_the_header() {
    let code = code();
    let constant = |name: &str| {
        let line = code.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")));
        line.unwrap().trim().parse::<i32>().unwrap()
    };
    assert_eq!(constant("MSGL_ABI_VERSION"), ABI_VERSION);
    assert_eq!(constant("MSGL_F32"), F32);
    assert_eq!(constant("MSGL_BF16"), BF16);
    assert_eq!(constant("MSGL_F8E4M3"), F8E4M3);
    assert_eq!(constant("MSGL_ATTENTION_FI"), super::ATTENTION_FI);
    assert_eq!(constant("MSGL_ATTENTION_FA"), super::ATTENTION_FA);
    assert_eq!(constant("MSGL_ATTENTION_NATIVE"), super::ATTENTION_NATIVE);
    assert_eq!(constant("MSGL_MAX_PEERS"), MAX_PEERS as i32);
}

#[test]
fn structs_have_the_sizes_of_c() {
    // On the 64-bit machines CUDA runs on, counted by hand from the header.
    assert_eq!(size_of::<super::Rows>(), 32);
    assert_eq!(size_of::<super::AttentionArgs>(), 2 * 8 + 8 + 8 + 3 * 8 + 8 + 3 * 8 + 6 * 4);
    assert_eq!(size_of::<super::AttentionConfig>(), 8 * 4 + 2 * 8);
    assert_eq!(size_of::<super::Peers>(), 2 * 4 + 8 * 8 + 8 * 8 + 8 + 8);
}
