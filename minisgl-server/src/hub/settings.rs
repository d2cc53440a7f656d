//! What the environment says about a hub: where it is, who asks, where files go.
//! Never knows: how variables are read, so that tests need none.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ureq::http::Uri;

use super::{HubError, Patience};

/// Which hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// huggingface.co, or a mirror of it.
    HuggingFace,
    /// modelscope.cn.
    ModelScope,
}

impl Source {
    /// The variable that says where the hub is.
    pub(super) fn endpoint_variable(self) -> &'static str {
        match self {
            Self::HuggingFace => "HF_ENDPOINT",
            Self::ModelScope => "MODELSCOPE_ENDPOINT",
        }
    }

    /// The variable that says who asks.
    pub(super) fn token_variable(self) -> &'static str {
        match self {
            Self::HuggingFace => "HF_TOKEN",
            Self::ModelScope => "MODELSCOPE_API_TOKEN",
        }
    }

    /// The variable that says where files go.
    pub(super) fn cache_variable(self) -> &'static str {
        match self {
            Self::HuggingFace => "HF_HUB_CACHE",
            Self::ModelScope => "MODELSCOPE_CACHE",
        }
    }

    fn default_endpoint(self) -> &'static str {
        match self {
            Self::HuggingFace => "https://huggingface.co",
            Self::ModelScope => "https://modelscope.cn",
        }
    }
}

/// A secret that is sent to the hub alone and never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// See the fields.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which hub.
    pub source: Source,
    /// Where it is: a URL without a slash at its end.
    pub endpoint: String,
    /// Who asks, if anybody.
    pub token: Option<Token>,
    /// The folder that all models of this hub lie in.
    pub cache: PathBuf,
    /// Ask nobody: take what is in the cache.
    pub offline: bool,
    /// How long to wait, and how often to try again.
    pub patience: Patience,
}

impl Settings {
    /// As environment variables say, which `variable` looks up: for Hugging Face `HF_ENDPOINT`,
    /// `HF_TOKEN` (or the file that its command line wrote), `HF_HUB_CACHE`, `HF_HOME` and
    /// `HF_HUB_OFFLINE`; for ModelScope `MODELSCOPE_ENDPOINT`, `MODELSCOPE_API_TOKEN` and
    /// `MODELSCOPE_CACHE`.
    ///
    /// # Errors
    /// [`HubError::Setting`].
    pub fn from_variables(
        source: Source,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, HubError> {
        let variables = Variables(variable);
        let home = variables.cache_home(source)?;
        let (cache, token, offline) = match source {
            Source::HuggingFace => {
                let cache = variables.path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])?;
                let file =
                    variables.path(&["HF_TOKEN_PATH"])?.unwrap_or_else(|| home.join("token"));
                let token = variables.get(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]);
                let token = token.or_else(|| std::fs::read_to_string(file).ok());
                let offline = variables.flag("HF_HUB_OFFLINE");
                (cache.unwrap_or_else(|| home.join("hub")), token, offline)
            }
            Source::ModelScope => {
                let token = variables.get(&["MODELSCOPE_API_TOKEN"]);
                (home.join("models"), token, false)
            }
        };
        let endpoint = variables.get(&[source.endpoint_variable()]);
        let endpoint = endpoint.unwrap_or_else(|| source.default_endpoint().to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let wrong = |variable, problem: &str| {
            Err(HubError::Setting { variable, problem: problem.to_owned() })
        };
        if Origin::of(&endpoint).is_none() || endpoint.contains(['?', '#', '@']) {
            return wrong(source.endpoint_variable(), "must be a URL with http:// or https://");
        }
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let is_wrong = |token: &String| !token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.as_ref().is_some_and(is_wrong) {
            return wrong(
                source.token_variable(),
                "has spaces or special characters, which no token has",
            );
        }
        let token = token.map(Token);
        Ok(Self { source, endpoint, token, cache, offline, patience: Patience::default() })
    }

    /// The token, if it can be sent without others reading it: over TLS, or on this machine.
    pub(super) fn token_to_send(&self) -> Option<&Token> {
        let origin = Origin::of(&self.endpoint)?;
        self.token.as_ref().filter(|_| origin.is_secret())
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// The first of these that is set to something.
    fn get(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| (self.0)(name).filter(|value| !value.trim().is_empty()))
    }

    fn flag(&self, name: &str) -> bool {
        let value = self.get(&[name]).unwrap_or_default().to_ascii_lowercase();
        ["1", "on", "yes", "true"].contains(&value.as_str())
    }

    fn path(&self, names: &[&str]) -> Result<Option<PathBuf>, HubError> {
        let Some(value) = self.get(names) else { return Ok(None) };
        match value.strip_prefix("~/") {
            Some(rest) => Ok(Some(self.home()?.join(rest))),
            None => Ok(Some(value.into())),
        }
    }

    fn home(&self) -> Result<PathBuf, HubError> {
        let problem = "is not set: say with HF_HOME or MODELSCOPE_CACHE where files may go";
        let missing = || HubError::Setting { variable: "HOME", problem: problem.to_owned() };
        self.get(&["HOME"]).map(PathBuf::from).ok_or_else(missing)
    }

    /// The folder that a hub's tools have for themselves.
    fn cache_home(&self, source: Source) -> Result<PathBuf, HubError> {
        let (name, default) = match source {
            Source::HuggingFace => ("HF_HOME", "huggingface"),
            Source::ModelScope => ("MODELSCOPE_CACHE", "modelscope"),
        };
        if let Some(path) = self.path(&[name])? {
            return Ok(path);
        }
        // ModelScope's tools do not look at this one.
        let shared = match source {
            Source::HuggingFace => self.path(&["XDG_CACHE_HOME"])?,
            Source::ModelScope => None,
        };
        match shared {
            Some(folder) => Ok(folder.join(default)),
            None => Ok(self.home()?.join(".cache").join(default)),
        }
    }
}

/// Scheme, host and port of a URL: what a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// That of `url`, if it is one that can be asked.
    pub(super) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Some(Self { is_https, host, port })
    }

    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    /// Whether it is this machine itself.
    pub(super) fn is_loopback(&self) -> bool {
        let is_own = |address: IpAddr| address.is_loopback();
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(is_own)
    }

    fn is_secret(&self) -> bool {
        self.is_https || self.is_loopback()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.is_https { ("https", 443) } else { ("http", 80) };
        match self.port == usual {
            true => write!(f, "{scheme}://{}", self.host),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// The closest folder above `path`, or itself, that exists.
pub(super) fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests;
