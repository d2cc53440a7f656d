//! Comments and literals hide code, and only they do.

use super::{Source, lines_with};

fn source(path: &str, text: &str) -> Source {
    Source::new(path, "a", text)
}

/// The code of `text`, each run of blanks as one.
fn code(text: &str) -> String {
    let code = source("a/src/lib.rs", text).code;
    assert_eq!(code.len(), text.len());
    assert_eq!(code.lines().count(), text.lines().count());
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn comments_are_hidden() {
    assert_eq!(code("a // unsafe \"\n//! '\n/// x\nb"), "a b");
    assert_eq!(code("a /* x /* \" */ y */ b /**/ c"), "a b c");
    assert_eq!(code("a /* never closed"), "a");
    assert_eq!(code("a /*/ x */ b"), "a b");
    assert_eq!(code("a / b * c"), "a / b * c");
}

#[test]
fn strings_are_hidden() {
    assert_eq!(code(r#"a("x \" // \\") b"#), "a( ) b");
    assert_eq!(code(r##"a(r#"x " \"#) b"##), "a( ) b");
    assert_eq!(code(r###"a(br##"x "# y"##) b"###), "a( ) b");
    assert_eq!(code("a(r\"\\\") b"), "a( ) b");
    assert_eq!(code("a(\"x\ny // é\") b"), "a( ) b");
    assert_eq!(code("a(b\"x\", c\"y\") d"), "a(b , c ) d");
    assert_eq!(code("a(\"never closed"), "a(");
    assert_eq!(code("a(r#\"never closed\""), "a(");
}

#[test]
fn characters_are_hidden_and_lifetimes_are_not() {
    assert_eq!(
        code(r"a('x', '\'', '\\', '\u{1F600}', '{', '/', 'é', b'\'') b"),
        "a( , , , , , , , b ) b"
    );
    assert_eq!(
        code("fn f<'a, 'b>(x: &'a str, c: char) { c == '\"' } b"),
        "fn f<'a, 'b>(x: &'a str, c: char) { c == } b"
    );
    assert_eq!(code("'outer: loop { break 'outer }"), "'outer: loop { break 'outer }");
    assert_eq!(code("'"), "'");
}

#[test]
fn names_are_not_mistaken_for_literals() {
    assert_eq!(code("r#type for r in br"), "r#type for r in br");
    assert_eq!(code("letter\"x\" number1\"y\""), "letter number1");
    assert_eq!(code("größe \"x\" = 1e3f32"), "größe = 1e3f32");
}

#[test]
fn this_file_and_its_module_survive() {
    for text in [include_str!("tests.rs"), include_str!("../source.rs")] {
        let code = code(text);
        for (open, close) in [('{', '}'), ('(', ')'), ('[', ']')] {
            assert_eq!(code.matches(open).count(), code.matches(close).count(), "{open}");
        }
    }
}

#[test]
fn items_under_cfg_test_are_left_out() {
    let text = "fn a() {}\n\
                #[cfg(test)]\n\
                mod tests;\n\
                fn b() { '}'; }\n\
                #[cfg(test)]\n\
                #[expect(dead_code)]\n\
                mod more {\n\
                    use x::{y, z};\n\
                    fn c(_: [u8; 3]) { \"}\"; }\n\
                }\n\
                struct D {\n\
                    #[cfg(test)]\n\
                    field: [u8; 3],\n\
                }\n";
    let source = source("a/src/lib.rs", text);
    let code = source.code_without_tests();
    assert_eq!(code.len(), text.len());
    let words: Vec<_> = code.split_whitespace().collect();
    assert_eq!(words.join(" "), "fn a() {} fn b() { ; } struct D { }");
    assert_eq!(source.num_lines_without_tests(), text.lines().count() - 2 - 6 - 2);
}

#[test]
fn words_are_whole() {
    let code = "unsafe {\nunsafe_code\nis_unsafe\nx = unsafe{}\na.unwrap()\na.unwrap_or()\ntodo!()";
    assert_eq!(lines_with(code, "unsafe"), [1, 4]);
    assert_eq!(lines_with(code, ".unwrap()"), [5]);
    assert_eq!(lines_with(code, "todo!"), [7]);
    assert_eq!(lines_with("hash_map HashMap\nMyHashMap<\nHashMaps HashMap", "HashMap"), [1, 3]);
}

#[test]
fn paths_tell_tests_from_shipped_code() {
    for (path, is_test, is_shipped) in [
        ("a/src/lib.rs", false, true),
        ("a/src/radix/walk.rs", false, true),
        ("a/src/tests.rs", true, false),
        ("a/src/radix/tests.rs", true, false),
        ("a/src/radix/tests/random.rs", true, false),
        ("a/tests/it/main.rs", true, false),
        ("a/benches/ops.rs", true, false),
        ("a/examples/small.rs", false, false),
        ("a/build.rs", false, false),
    ] {
        let source = source(path, "");
        assert_eq!((source.is_test(), source.is_shipped()), (is_test, is_shipped), "{path}");
    }
}
