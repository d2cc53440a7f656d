//! The forms that manifests use.

use super::read;

/// `a.b = value @line` for each entry.
fn entries(text: &str) -> Vec<String> {
    let entries = read(text);
    let show = |entry: &super::Entry| {
        format!("{} = {} @{}", entry.path.join("|"), entry.value, entry.line)
    };
    entries.iter().map(show).collect()
}

#[test]
fn one_value_has_one_path_however_it_is_written() {
    let expected = "a|b = 1 @";
    for text in ["[a]\nb = 1", "a.b = 1", "a = { b = 1 }", "[a] # [c]\nb = 1 # 2", "\"a\" . b=1"] {
        assert!(entries(text)[0].starts_with(expected), "{text}");
        assert_eq!(entries(text).len(), 1);
    }
}

#[test]
fn strings_hide_what_is_in_them() {
    let text = "a = \"# [ = \\\" {\" # x\n[t.'cfg(target_os = \"a.b\")'.d]\nb = '\\'\nc = { d = \"x, y\", e = 'z' }\n";
    let expected = [
        "a = \"# [ = \\\" {\" @1",
        "t|cfg(target_os = \"a.b\")|d|b = '\\' @3",
        "t|cfg(target_os = \"a.b\")|d|c|d = \"x, y\" @4",
        "t|cfg(target_os = \"a.b\")|d|c|e = 'z' @4",
    ];
    assert_eq!(entries(text), expected);
}

#[test]
fn values_may_span_lines() {
    let text = "# x\na = [ # one\n  \"b]\", # two ]\n]\n\n[[c]]\nd = { e = [\n1, 2] }\n";
    assert_eq!(entries(text), ["a = [ \"b]\", ] @2", "c|d|e = [ 1, 2] @7"]);
}

#[test]
fn half_a_manifest_does_no_harm() {
    assert_eq!(entries("a\nb = [\n"), ["b = [ @2"]);
    assert_eq!(entries("a = {}\n[]\n"), [""; 0]);
}
