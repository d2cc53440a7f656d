//! The API key. Never knows which routes need it.

use std::hint::black_box;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

/// A secret: compared in constant time, and never printed.
pub(super) struct ApiKey(String);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey")
    }
}

impl ApiKey {
    pub(super) fn new(key: String) -> Self {
        Self(key)
    }

    /// Whether there is exactly one `Authorization` header, and it is `Bearer` with this key.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, key)) = value.as_bytes().split_at_checked("Bearer ".len()) else {
            return false;
        };
        // The scheme is case-insensitive (RFC 9110, section 11.1).
        scheme.eq_ignore_ascii_case(b"Bearer ") && equals(key, self.0.as_bytes())
    }
}

/// The time depends on the lengths alone.
fn equals(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_right_key() {
        let key = ApiKey::new("secret".to_owned());
        let check = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            key.is_in(&headers)
        };
        assert!(check(&["Bearer secret"]) && check(&["bearer secret"]));
        for wrong in [
            &[][..],
            &["Bearer secre"],
            &["Bearer secrets"],
            &["Bearer  secret"],
            &["Bearer "],
            &["Basic secret"],
            &["secret"],
            &["Bearer secret", "Bearer secret"],
            &["Bearer secret", "x"],
        ] {
            assert!(!check(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{key:?}"), "ApiKey");
    }
}
