//! The fields of a JSON request, each parsed by itself, so that an error can name the field and
//! needs not repeat what was sent.
//!
//! `null` is as good as absent. A field that was not asked for is ignored and counted.
//! Never knows what the fields mean.

use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::api::error::ApiError;

/// More fields than this are not a request.
const MAX_FIELDS: usize = 256;

/// Fields that were not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    fields: Vec<(String, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// Splits a JSON object into its fields.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            let problem = if error.is_data() {
                "is not a JSON object with at most 256 fields"
            } else {
                "is not valid JSON"
            };
            ApiError::bad_request(format!("the body {problem} ({place})"))
        })
    }

    fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let index = self.fields.iter().position(|(field, _)| field == name)?;
        let (_, value) = self.fields.swap_remove(index);
        (value.get() != "null").then_some(value)
    }

    /// The field `name`, which is to be `expected`, such as "a string".
    pub(crate) fn get<T: Deserialize<'a>>(
        &mut self,
        name: &'static str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match serde_json::from_str(value.get()) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(ApiError::field(name, &format!("must be {expected}"))),
        }
    }

    /// [`Fields::get`] of a field that must be there.
    pub(crate) fn require<T: Deserialize<'a>>(
        &mut self,
        name: &'static str,
        expected: &str,
    ) -> Result<T, ApiError> {
        let missing = || ApiError::field(name, &format!("is missing: it must be {expected}"));
        self.get(name, expected)?.ok_or_else(missing)
    }

    /// A number in a range; JSON has none that are not finite.
    pub(crate) fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ApiError> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let value: Option<f64> = self.get(name, &expected)?;
        match value {
            Some(value) if !range.contains(&value) => {
                Err(ApiError::field(name, &format!("must be {expected}")))
            }
            value => Ok(value),
        }
    }

    /// A whole number in a range. `1.0` is one, too.
    pub(crate) fn integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let expected = match (*range.start(), *range.end()) {
            (i64::MIN, i64::MAX) => "an integer of 64 bits".to_owned(),
            (start, i64::MAX) => format!("an integer, at least {start}"),
            (start, end) => format!("an integer from {start} to {end}"),
        };
        let Some(number) = self.get::<Number>(name, &expected)? else { return Ok(None) };
        let value = number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            // Whole numbers below 2^53 are exact.
            (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
        });
        match value {
            Some(value) if range.contains(&value) => Ok(Some(value)),
            _ => Err(ApiError::field(name, &format!("must be {expected}"))),
        }
    }

    /// True or false; false if absent.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, ApiError> {
        Ok(self.get(name, "true or false")?.unwrap_or(false))
    }

    /// Refuses a field that is known but does nothing here, unless its value asks for nothing: is
    /// one of `neutral`, in JSON.
    pub(crate) fn refuse(&mut self, name: &'static str, neutral: &[&str]) -> Result<(), ApiError> {
        let Some(value) = self.take(name) else { return Ok(()) };
        if neutral.iter().any(|neutral| same_json(value.get(), neutral)) {
            return Ok(());
        }
        Err(ApiError::field(name, "is not supported by this server"))
    }

    /// Drops a field that makes no difference here, whatever its value.
    pub(crate) fn ignore(&mut self, name: &'static str) {
        self.take(name);
    }

    /// How many fields nobody asked for.
    pub(crate) fn finish(self) -> usize {
        for (name, _) in &self.fields {
            let name: String = name.chars().take(64).collect();
            tracing::debug!("a request has an unknown field {name:?}");
        }
        self.fields.len()
    }
}

fn same_json(value: &str, neutral: &str) -> bool {
    // Longer ones cannot be neutral, and need not be parsed.
    if value.len() > 64 {
        return false;
    }
    let parse = |text| serde_json::from_str::<Value>(text).ok();
    match (parse(value), parse(neutral)) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() == b.as_f64(),
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields: Vec<(String, &RawValue)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if fields.len() == MAX_FIELDS {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        return Err(A::Error::custom("too many fields"));
                    }
                    let value = map.next_value()?;
                    // Of a field given twice the last counts, as in other JSON parsers.
                    fields.retain(|(known, _)| *known != name);
                    fields.push((name, value));
                }
                Ok(Fields { fields })
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests;
