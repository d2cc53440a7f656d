//! Python's methods of strings, maps and lists, within a budget. The engine charges for what a method
//! returns when it is there; those that can make much of little are looked at before.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// The most bytes that one call may make: more than any prompt has.
const MAX_BYTES: usize = 64 << 20;

/// See the [module](self).
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return unknown_method_callback(state, value, method, args);
    };
    match (method, args) {
        ("replace", [old, new, ..]) => check(replaced(text, old, new))?,
        ("join", [items]) => {
            // An iterator can be used up only once.
            let items: Vec<Value> = items.try_iter()?.collect();
            check(joined(text, &items)?)?;
            return unknown_method_callback(state, value, method, &[items.into()]);
        }
        ("format", _) => check(formatted(text, args)?)?,
        _ => {}
    }
    unknown_method_callback(state, value, method, args)
}

fn check(bytes: usize) -> Result<(), Error> {
    if bytes <= MAX_BYTES { Ok(()) } else { Err(Error::from(ErrorKind::OutOfFuel)) }
}

/// At most so many bytes.
fn replaced(text: &str, old: &Value, new: &Value) -> usize {
    let (old, new) = (old.as_str().unwrap_or_default(), new.as_str().unwrap_or_default());
    let count = if new.len() <= old.len() { 0 } else { text.matches(old).count() };
    text.len().saturating_add(count.saturating_mul(new.len()))
}

fn joined(separator: &str, items: &[Value]) -> Result<usize, Error> {
    items.iter().try_fold(0_usize, |sum, item| {
        let text = item.as_str().ok_or_else(|| {
            let detail = format!("join: a string is expected, not {}", item.kind());
            Error::new(ErrorKind::InvalidOperation, detail)
        })?;
        Ok(sum.saturating_add(text.len()).saturating_add(separator.len()))
    })
}

/// At most so many bytes: as many as all numbers in `text` together, each of which may be a width, and
/// the longest value for each field.
fn formatted(text: &str, args: &[Value]) -> Result<usize, Error> {
    let mut longest = 64;
    for value in args {
        if value.kind() == ValueKind::Map {
            // Named values, or a map that is printed as a whole.
            let mut all = 0_usize;
            for key in value.try_iter()? {
                let len = scalar_len(&key)?.saturating_add(scalar_len(&value.get_item(&key)?)?);
                all = all.saturating_add(len).saturating_add(64);
            }
            longest = longest.max(all);
        } else {
            longest = longest.max(scalar_len(value)?);
        }
    }
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widths = numbers.map(|digits| digits.parse().unwrap_or(usize::MAX));
    let widths = widths.fold(0, usize::saturating_add);
    let fields = text.matches('{').count().saturating_mul(longest);
    Ok(text.len().saturating_add(widths).saturating_add(fields))
}

/// The length of a string; other plain values are short. Lists in lists can be of any length.
fn scalar_len(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().map_or(0, str::len)),
        ValueKind::Number | ValueKind::Bool | ValueKind::None => Ok(0),
        kind => {
            let detail = format!("format: a string or a number is expected, not {kind}");
            Err(Error::new(ErrorKind::InvalidOperation, detail))
        }
    }
}
