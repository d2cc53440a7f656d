//! A Rust file, as the checks see it: its text, and its code without comments and literals.
//!
//! Never knows: Rust's grammar. It knows tokens as far as they hide others (comments, strings,
//! characters), and brackets.

use std::ops::Range;

/// A Rust file of a crate.
pub(super) struct Source {
    /// From the root of the repository.
    pub(super) path: String,
    /// The name of the crate it belongs to.
    pub(super) package: String,
    pub(super) text: String,
    /// The text with a blank for every byte of a comment or literal; same bytes, same lines.
    pub(super) code: String,
}

impl Source {
    pub(super) fn new(path: &str, package: &str, text: &str) -> Self {
        let (path, package, text) = (path.to_owned(), package.to_owned(), text.to_owned());
        let code = code(&text);
        Self { path, package, text, code }
    }

    /// Whether the file holds nothing but tests or benches.
    pub(super) fn is_test(&self) -> bool {
        let mut folders = self.path.split('/');
        let file = folders.next_back();
        file == Some("tests.rs") || folders.any(|folder| matches!(folder, "tests" | "benches"))
    }

    /// Whether the file is compiled into the crate's library or binary.
    pub(super) fn is_shipped(&self) -> bool {
        self.path.split('/').nth(1) == Some("src") && !self.is_test()
    }

    /// [`code`](Self::code) with a blank for every byte of an item under `#[cfg(test)]`.
    pub(super) fn code_without_tests(&self) -> String {
        let mut code = String::new();
        let mut kept = 0;
        for test in self.test_items() {
            code.push_str(&self.code[kept..test.start]);
            push_blanks(&mut code, &self.code[test.clone()]);
            kept = test.end;
        }
        code + &self.code[kept..]
    }

    /// The number of lines outside of items under `#[cfg(test)]`.
    pub(super) fn num_lines_without_tests(&self) -> usize {
        let in_tests: usize =
            self.test_items().into_iter().map(|test| self.code[test].lines().count()).sum();
        self.text.lines().count() - in_tests
    }

    /// Where items under `#[cfg(test)]` stand, attribute included.
    fn test_items(&self) -> Vec<Range<usize>> {
        const ATTRIBUTE: &str = "#[cfg(test)]";
        let mut items = Vec::new();
        let mut from = 0;
        while let Some(found) = self.code[from..].find(ATTRIBUTE) {
            let start = from + found;
            let item = start + ATTRIBUTE.len();
            from = item + item_len(&self.code[item..]);
            items.push(start..from);
        }
        items
    }
}

/// The numbers of the lines of `code` that contain `pattern`: where the pattern begins or ends
/// with a letter, as a whole word.
pub(super) fn lines_with(code: &str, pattern: &str) -> Vec<usize> {
    let begins_word = pattern.starts_with(is_word);
    let ends_word = pattern.ends_with(is_word);
    let has = |line: &str| {
        line.match_indices(pattern).any(|(start, _)| {
            let (before, after) = (&line[..start], &line[start + pattern.len()..]);
            !(begins_word && before.ends_with(is_word) || ends_word && after.starts_with(is_word))
        })
    };
    code.lines().zip(1..).filter(|(line, _)| has(line)).map(|(_, number)| number).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the item that `code` begins with: up to a `;` outside of brackets, or the `}`
/// that closes its body, or the end of what it stands in.
fn item_len(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return at;
        }
        if depth == 0 && matches!(c, ';' | '}') {
            return at + 1;
        }
    }
    code.len()
}

/// `text` with a blank for every byte of a comment or literal, line ends kept.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (len, hides) = next_token(rest);
        let (token, after) = rest.split_at(len);
        if hides {
            push_blanks(&mut code, token)
        } else {
            code.push_str(token)
        }
        rest = after;
    }
    code
}

fn push_blanks(code: &mut String, text: &str) {
    code.extend(text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
}

/// The length of the token that `rest` begins with, and whether it is a comment or literal.
fn next_token(rest: &str) -> (usize, bool) {
    let Some(first) = rest.chars().next() else { return (0, false) };
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), true)
    } else if rest.starts_with("/*") {
        (block_comment_len(rest), true)
    } else if first == '"' {
        (quoted_len(rest, '"'), true)
    } else if first == '\'' {
        char_len(rest).map_or((1, false), |len| (len, true))
    } else if is_word(first) {
        let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(len);
        match word {
            // The `b` of `b"..."` is taken for a word, and does no harm.
            "r" | "br" | "cr" => match raw_string_len(after) {
                Some(raw) => (len + raw, true),
                None => (len, false),
            },
            _ => (len, false),
        }
    } else {
        (first.len_utf8(), false)
    }
}

/// The length of a comment `/* .. */`, which may contain others.
fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let pair = rest.as_bytes().get(at..at + 2);
        match pair {
            Some(b"/*") => depth += 1,
            Some(b"*/") => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a literal between two `quote`s, the first of which `rest` begins with.
fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// The length of the character literal that `rest` begins with, if that is not a lifetime.
fn char_len(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    let (second_at, second) = chars.next()?;
    if first == '\\' {
        Some(quoted_len(rest, '\''))
    } else {
        (second == '\'').then_some(second_at + 1)
    }
}

/// The length of `#"..."#` with any number of `#`, if `rest` begins with that.
fn raw_string_len(rest: &str) -> Option<usize> {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &rest[..hashes]);
    Some(body.find(&end).map_or(rest.len(), |at| hashes + 1 + at + end.len()))
}

#[cfg(test)]
mod tests;
