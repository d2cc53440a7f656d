//! Made-up files in crates that may be unsafe and others.

use super::check;
use crate::tidy::source::Source;

fn problems(path: &str, text: &str) -> Vec<String> {
    let package = path.split('/').next().unwrap();
    check(&[Source::new(path, package, text)]).iter().map(ToString::to_string).collect()
}

#[test]
fn unsafe_stays_in_its_crates() {
    let text = "// unsafe\nfn f() { \"unsafe\"; unsafe { g() } }\n";
    for path in
        ["minisgl-kernels/src/cpu.rs", "minisgl-comm/tests/it/x.rs", "minisgl-kernels/src/lib.rs"]
    {
        assert_eq!(problems(path, text), [""; 0]);
    }
    for path in [
        "minisgl-cache/src/radix.rs",
        "minisgl-cache/tests/it/x.rs",
        "minisgl-kernels/examples/x.rs",
    ] {
        let expected = format!("{path}:2: `unsafe` belongs into minisgl-kernels or minisgl-comm");
        assert_eq!(problems(path, text), [expected]);
    }
}

#[test]
fn roots_forbid_unsafe_code() {
    for path in ["minisgl-cache/src/lib.rs", "xtask/src/main.rs"] {
        assert_eq!(problems(path, "#![forbid(unsafe_code)]\n"), [""; 0]);
        let expected = format!("{path}: `#![forbid(unsafe_code)]` is missing");
        assert_eq!(problems(path, "// #![forbid(unsafe_code)]\n"), [expected]);
    }
    assert_eq!(problems("minisgl-cache/src/radix/lib.rs", ""), [""; 0]);
}

#[test]
fn shipped_code_does_not_give_up() {
    let text =
        "/// x.unwrap()\nfn f() { x.unwrap_or(1) }\n#[cfg(test)]\nmod tests { x.unwrap() }\n";
    assert_eq!(problems("a/src/x.rs", text), [""; 0]);
    for banned in ["x.unwrap()", "todo!()", "unimplemented!(\"y\")", "dbg!(x)"] {
        let text = format!("fn f() {{\n    {banned};\n}}\n");
        let found = problems("a/src/x.rs", &text);
        assert_eq!(found.len(), 1, "{banned}");
        assert!(found[0].starts_with("a/src/x.rs:2: "), "{found:?}");
        for path in ["a/src/x/tests.rs", "a/tests/it/main.rs", "a/examples/x.rs"] {
            assert_eq!(problems(path, &text), [""; 0]);
        }
    }
}
