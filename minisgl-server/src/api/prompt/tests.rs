//! The four kinds of prompts.

use super::*;

fn parse(json: &str) -> Option<Vec<Prompt>> {
    serde_json::from_str(json).ok().map(|Prompts(prompts)| prompts)
}

#[test]
fn all_four_kinds() {
    let text = |text: &str| Prompt::Text(text.to_owned());
    let tokens = |tokens: &[TokenId]| Prompt::Tokens(tokens.to_vec());
    assert_eq!(parse(r#""a\n""#), Some(vec![text("a\n")]));
    assert_eq!(parse(r#"["a", ""]"#), Some(vec![text("a"), text("")]));
    assert_eq!(parse("[1, 2, 4294967295]"), Some(vec![tokens(&[1, 2, u32::MAX])]));
    assert_eq!(parse("[[1, 2], [], [3]]"), Some(vec![tokens(&[1, 2]), tokens(&[]), tokens(&[3])]));
}

#[test]
fn nothing_else() {
    for json in [
        "[]",
        "5",
        "true",
        "null",
        "{}",
        "[1, \"a\"]",
        "[\"a\", 1]",
        "[[[1]]]",
        "[-1]",
        "[1.5]",
        "[4294967296]",
        "[[\"a\"]]",
        "[null]",
    ] {
        assert_eq!(parse(json), None, "{json}");
    }
}

#[test]
fn at_most_64() {
    let list = |element: &str, count: usize| format!("[{}]", vec![element; count].join(","));
    for element in ["\"a\"", "[1]"] {
        assert_eq!(parse(&list(element, 64)).unwrap().len(), 64);
        assert_eq!(parse(&list(element, 65)), None);
    }
    assert!(parse(&list("1", 100_000)).is_some());
}
