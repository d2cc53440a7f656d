//! The small part of TOML that manifests are written in.
//!
//! Never knows: multi-line strings and types; a value is the text that stands there. Cargo has
//! parsed the manifest before, so what is read here is well-formed.

/// One value, under its full path: `a = { b = 1 }`, `a.b = 1`, and `b = 1` under `[a]` all have
/// the path `a`, `b`. Several tables `[[a]]` share one path.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) path: Vec<String>,
    pub(super) value: String,
    /// Where it begins, counted from 1.
    pub(super) line: usize,
}

/// All values of `text`, in its order.
pub(super) fn read(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut section = Vec::new();
    let mut lines = text.lines().map(without_comment).zip(1..);
    while let Some((first, line)) = lines.next() {
        if first.starts_with('[') {
            section = key_path(first.trim_matches(['[', ']']));
        } else if !first.is_empty() {
            let mut statement = first.to_owned();
            while depth(&statement) > 0
                && let Some((next, _)) = lines.next()
            {
                statement.push(' ');
                statement.push_str(next);
            }
            push_entries(&section, &statement, line, &mut entries);
        }
    }
    entries
}

/// Adds the entries of `key = value`; an inline table has one for each of its keys.
fn push_entries(section: &[String], statement: &str, line: usize, entries: &mut Vec<Entry>) {
    let [key, value] = &split(statement, '=')[..] else { return };
    let path = [section, &key_path(key)].concat();
    match value.strip_prefix('{').and_then(|table| table.strip_suffix('}')) {
        Some(table) => {
            for statement in split(table, ',') {
                push_entries(&path, statement, line, entries);
            }
        }
        None => entries.push(Entry { path, value: (*value).to_owned(), line }),
    }
}

fn key_path(key: &str) -> Vec<String> {
    let parts = split(key, '.').into_iter();
    parts.map(|part| part.trim_matches(['"', '\'']).to_owned()).collect()
}

fn without_comment(line: &str) -> &str {
    let comment = marks(line).find(|(_, c, _)| *c == '#');
    line[..comment.map_or(line.len(), |(at, ..)| at)].trim()
}

/// The pieces of `text` between `separator`s that stand outside of strings and brackets.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, c, depth) in marks(text) {
        if c == separator && depth == 0 {
            pieces.push(text[start..at].trim());
            start = at + separator.len_utf8();
        }
    }
    pieces.push(text[start..].trim());
    pieces
}

/// How many brackets are open at the end of `text`.
fn depth(text: &str) -> i32 {
    marks(text).last().map_or(0, |(_, _, depth)| depth)
}

/// The characters of `text` outside of strings: each with its place and the number of brackets
/// that are open after it.
fn marks(text: &str) -> impl Iterator<Item = (usize, char, i32)> {
    let mut quote = None;
    let mut escaped = false;
    let mut depth = 0;
    text.char_indices().filter_map(move |(at, c)| {
        if let Some(open) = quote {
            if c == open && !escaped {
                quote = None;
            }
            escaped = open == '"' && c == '\\' && !escaped;
            return None;
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        quote.is_none().then_some((at, c, depth))
    })
}

#[cfg(test)]
mod tests;
