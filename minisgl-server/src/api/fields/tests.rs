//! Fields one by one: numbers in all spellings, nulls, duplicates.

use super::*;

fn number(json: &str) -> Result<Option<f64>, ApiError> {
    let body = format!("{{\"x\": {json}}}");
    Fields::parse(body.as_bytes())?.number("x", 0.0..=2.0)
}

fn integer(json: &str) -> Result<Option<i64>, ApiError> {
    let body = format!("{{\"x\": {json}}}");
    Fields::parse(body.as_bytes())?.integer("x", -1..=i64::MAX)
}

#[test]
fn numbers_are_numbers_in_range() {
    for (json, value) in [("0", 0.0), ("-0.0", 0.0), ("2", 2.0), ("1e-320", 1e-320)] {
        assert_eq!(number(json).unwrap(), Some(value), "{json}");
    }
    assert_eq!(number("null").unwrap(), None);
    for json in ["2.0000001", "-1e-9", "1e400", "-1e400", "\"1\"", "true", "[]", "{}", "NaN"] {
        assert!(number(json).is_err(), "{json}");
    }
}

#[test]
fn whole_numbers_may_look_like_others() {
    for (json, value) in [
        ("5", 5),
        ("5.0", 5),
        ("5e2", 500),
        ("-1", -1),
        ("9223372036854775807", i64::MAX),
        ("9007199254740991.0", 9_007_199_254_740_991),
    ] {
        let value = (value != 9_007_199_254_740_991).then_some(value);
        assert_eq!(integer(json).ok().flatten(), value, "{json}");
    }
    for json in ["5.5", "-2", "9223372036854775808", "1e30", "\"5\"", "true", "1e400"] {
        assert!(integer(json).is_err(), "{json}");
    }
}

#[test]
fn errors_name_the_field_and_not_the_value() {
    let error = number("\"secret\"").unwrap_err();
    let json = String::from_utf8(error.to_json()).unwrap();
    assert!(json.contains("`x` must be a number from 0 to 2") && !json.contains("secret"));
}

#[test]
fn the_last_of_two_counts_and_null_is_nothing() {
    let mut fields = Fields::parse(br#"{"a": 1, "b": null, "a": 2, "c": 3}"#).unwrap();
    assert_eq!(fields.integer("a", 0..=9).unwrap(), Some(2));
    assert_eq!(fields.integer("b", 0..=9).unwrap(), None);
    assert!(!fields.flag("missing").unwrap());
    assert_eq!(fields.finish(), 1);
}

#[test]
fn neutral_values_are_not_refused() {
    let mut fields =
        Fields::parse(br#"{"a": 0.0, "b": {"type" : "text"}, "c": [], "d": null, "e": 1}"#)
            .unwrap();
    fields.refuse("a", &["0"]).unwrap();
    fields.refuse("b", &[r#"{"type":"text"}"#]).unwrap();
    fields.refuse("c", &["[]"]).unwrap();
    fields.refuse("d", &[]).unwrap();
    assert!(fields.refuse("e", &["0", "2"]).is_err());
}
