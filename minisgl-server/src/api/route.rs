//! Paths and methods. Never knows what is behind them.

use hyper::Method;

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Root,
    Health,
    Metrics,
    Models,
    /// With the name that was asked for.
    Model(String),
    Chat,
    Completions,
    Generate,
    Tokenize,
    Detokenize,
}

impl Route {
    /// The route of exactly this path.
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/v1" => Route::Root,
            "/health" => Route::Health,
            "/metrics" => Route::Metrics,
            "/v1/models" => Route::Models,
            "/v1/chat/completions" => Route::Chat,
            "/v1/completions" => Route::Completions,
            "/generate" => Route::Generate,
            "/tokenize" => Route::Tokenize,
            "/detokenize" => Route::Detokenize,
            _ => Route::Model(percent_decode(path.strip_prefix("/v1/models/")?)?),
        })
    }

    /// The methods it takes, as in an `Allow` header.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Route::Root => "GET, HEAD, POST, OPTIONS",
            Route::Health | Route::Metrics | Route::Models | Route::Model(_) => {
                "GET, HEAD, OPTIONS"
            }
            _ => "POST, OPTIONS",
        }
    }

    pub(super) fn allows(&self, method: &Method) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Names of models have slashes, which some clients escape (RFC 3986, section 2.1).
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = escaped.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &escaped[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_decoded() {
        for (path, name) in [
            ("/v1/models/demo", Some("demo")),
            ("/v1/models/Qwen/Qwen3-0.6B", Some("Qwen/Qwen3-0.6B")),
            ("/v1/models/Qwen%2FQwen3", Some("Qwen/Qwen3")),
            ("/v1/models/%C3%A9", Some("é")),
            ("/v1/models/%+1", None),
            ("/v1/models/%2", None),
            ("/v1/models/%FF", None),
        ] {
            assert_eq!(Route::of(path), name.map(|name| Route::Model(name.to_owned())), "{path}");
        }
    }

    #[test]
    fn only_exact_paths_are_known() {
        for path in ["/", "/v1/", "//v1/models", "/V1/models", "/health/", "/v1/../health"] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }
}
