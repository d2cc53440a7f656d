//! The `tojson` filter of chat templates: Python's `json.dumps(value, ensure_ascii=False)`. The one
//! of Jinja escapes `<`, `>`, `&` and `'` for HTML, and models never saw that in training.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// See the [module](self). Takes `indent`, `ensure_ascii`, `separators` and `sort_keys`.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if indent.is_some_and(|indent| indent > MAX_INDENT) {
        let detail = format!("tojson: indent is at most {MAX_INDENT}");
        return Err(Error::new(ErrorKind::InvalidOperation, detail));
    }
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item_separator, key_separator) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            let detail = "tojson: separators are two strings";
            return Err(Error::new(ErrorKind::InvalidOperation, detail));
        }
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let mut writer = Writer {
        out: String::new(),
        indent,
        item_separator,
        key_separator,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        depth: 0,
        values: 0,
    };
    options.assert_all_used()?;
    writer.value(value)?;
    Ok(writer.out)
}

/// Far deeper than any value that came out of a request.
const MAX_DEPTH: usize = 128;

/// The engine charges for the text when it is there. Lists that are in lists more than once would make
/// it as long as one likes before.
const MAX_BYTES: usize = 16 << 20;

/// A value is as much work as so many bytes.
const VALUE_COST: usize = 64;

/// More than anybody has indented by.
const MAX_INDENT: usize = 64;

struct Writer {
    out: String,
    indent: Option<usize>,
    item_separator: String,
    key_separator: String,
    ascii: bool,
    sort_keys: bool,
    depth: usize,
    /// Written so far.
    values: usize,
}

impl Writer {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        self.values += 1;
        if self.out.len() + self.values * VALUE_COST > MAX_BYTES {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.container('{', '}', keys, |writer, key| {
                    writer.string(&key.to_string());
                    writer.out.push_str(&writer.key_separator);
                    writer.value(&value.get_item(&key)?)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect();
                self.container('[', ']', items, |writer, item| writer.value(&item))?;
            }
            _ => self.string(&value.to_string()),
        }
        Ok(())
    }

    fn container(
        &mut self,
        open: char,
        close: char,
        items: Vec<Value>,
        write: impl Fn(&mut Self, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.depth == MAX_DEPTH {
            let detail = format!("tojson: more than {MAX_DEPTH} levels");
            return Err(Error::new(ErrorKind::InvalidOperation, detail));
        }
        let is_empty = items.is_empty();
        self.out.push(open);
        self.depth += 1;
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push_str(&self.item_separator);
            }
            self.new_line();
            write(self, item)?;
        }
        self.depth -= 1;
        if !is_empty {
            self.new_line();
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * self.depth));
        }
    }

    fn string(&mut self, text: &str) {
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ascii || quoted.is_ascii() {
            self.out.push_str(&quoted);
            return;
        }
        for c in quoted.chars() {
            if c.is_ascii() {
                self.out.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    self.out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}
