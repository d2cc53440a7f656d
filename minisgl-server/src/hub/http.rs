//! One request to a hub: redirects, the token, what a refusal means.
//!
//! Redirects are followed here rather than by the client, so that the token is sent to the hub's own
//! origin alone and nothing goes from https to http.
//! Never knows: files, other tries.

use std::io::Read as _;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, Method, Request, Response};
use ureq::{Agent, Body, RequestExt as _};

use super::settings::{Origin, Source};
use super::{HubError, Settings, retry::Failure};

/// Enough for every hub; more go in circles.
const MAX_REDIRECTS: usize = 5;

/// The beginning of an error page that is looked at.
const MAX_MESSAGE: u64 = 4096;

/// A hub, asked about one model.
pub(super) struct Http<'a> {
    agent: Agent,
    settings: &'a Settings,
    origin: Option<Origin>,
    /// The model's page, for messages.
    page: String,
    revision: String,
}

impl<'a> Http<'a> {
    pub(super) fn new(settings: &'a Settings, page: String, revision: String) -> Self {
        let patience = &settings.patience;
        let agent = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("minisgl/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_send_request(Some(patience.stall))
            .timeout_recv_response(Some(patience.stall))
            .timeout_per_read(Some(patience.stall))
            .build()
            .new_agent();
        Self { agent, settings, origin: Origin::of(&settings.endpoint), page, revision }
    }

    pub(super) fn settings(&self) -> &'a Settings {
        self.settings
    }

    /// The answer to GET, after redirects, if it is one of success. With `from`, the content from
    /// that byte on is asked for.
    ///
    /// # Errors
    /// A [`Failure`] that says what the answer means.
    pub(super) fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, Failure> {
        self.follow(Method::GET, url, from, |_| true)
    }

    /// The headers of the hub's own answer to HEAD, without a redirect to elsewhere.
    ///
    /// # Errors
    /// As for [`Http::get`].
    pub(super) fn head(&self, url: &str) -> Result<HeaderMap, Failure> {
        let is_own = |origin: &Origin| Some(origin) == self.origin.as_ref();
        Ok(self.follow(Method::HEAD, url, None, is_own)?.headers().clone())
    }

    /// The whole of a short content.
    ///
    /// # Errors
    /// As for [`Http::get`], or if it is longer than `max`.
    pub(super) fn read(&self, url: &str, max: u64) -> Result<Vec<u8>, Failure> {
        let response = self.get(url, None)?;
        let length = content_length(response.headers());
        let mut content = Vec::new();
        let read = response.into_body().into_reader().take(max + 1).read_to_end(&mut content);
        if content.len() as u64 > max {
            return Err(answer(url, format!("it is longer than {max} bytes")).into());
        }
        let is_short = length.is_some_and(|length| length > content.len() as u64);
        if let Some(reason) = read.err().map(|error| error.to_string()) {
            return Err(Failure::passing(self.unreachable(url, reason)));
        }
        if is_short {
            return Err(Failure::passing(self.unreachable(url, "it broke off".to_owned())));
        }
        Ok(content)
    }

    /// Follows redirects to origins that `may_go` allows; returns the first answer that is none.
    fn follow(
        &self,
        method: Method,
        url: &str,
        from: Option<u64>,
        may_go: impl Fn(&Origin) -> bool,
    ) -> Result<Response<Body>, Failure> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&method, &url, from)?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Err(self.refusal(&url, response));
            }
            let next = target(&url, response.headers())?;
            if !Origin::of(&next).is_some_and(|origin| may_go(&origin)) {
                return Ok(response);
            }
            url = next;
        }
        Err(answer(&url, format!("more than {MAX_REDIRECTS} redirects")).into())
    }

    fn ask(
        &self,
        method: &Method,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, Failure> {
        let origin = Origin::of(url);
        let mut request = Request::builder().method(method.clone()).uri(url);
        if let Some(from) = from {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let (true, Some(token)) = (origin == self.origin, self.settings.token_to_send()) {
            request = match self.settings.source {
                Source::HuggingFace => {
                    request.header(AUTHORIZATION, format!("Bearer {}", token.secret()))
                }
                Source::ModelScope => {
                    request.header(COOKIE, format!("m_session_id={}", token.secret()))
                }
            };
        }
        let request = request.body(()).map_err(|error| answer(url, error.to_string()))?;
        let request = request.with_agent(&self.agent);
        // A proxy is for other machines.
        let request = match origin.is_some_and(|origin| origin.is_loopback()) {
            true => request.configure().proxy(None).build(),
            false => request,
        };
        request.run().map_err(|error| {
            let is_passing = is_passing(&error);
            let error = self.unreachable(url, error.to_string());
            Failure { is_passing, ..Failure::passing(error) }
        })
    }

    pub(super) fn unreachable(&self, url: &str, reason: String) -> HubError {
        HubError::Unreachable {
            origin: Origin::of(url).map_or_else(|| url.to_owned(), |origin| origin.to_string()),
            reason,
            endpoint_variable: self.settings.source.endpoint_variable(),
        }
    }

    /// What an answer without success means.
    fn refusal(&self, url: &str, response: Response<Body>) -> Failure {
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        let code = header("x-error-code").unwrap_or_default();
        let wait = header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
        let stated = header("x-error-message");
        let message = stated.unwrap_or_else(|| message_in(response)).trim().to_owned();
        let has_token = self.settings.token_to_send().is_some();
        let token_variable = self.settings.source.token_variable();
        let page = self.page.clone();
        // Where a redirect led, the model has nothing to do with it.
        let is_own = Origin::of(url) == self.origin;
        let error = match (status, code.as_str()) {
            (_, "GatedRepo") => HubError::Gated { page, has_token, token_variable },
            (404, "RevisionNotFound") => {
                HubError::MissingRevision { page, revision: self.revision.clone() }
            }
            // A file that the hub itself has listed.
            (404, "EntryNotFound") => {
                HubError::Status { url: without_query(url), status, message: String::new() }
            }
            (401 | 404, _) if is_own && !has_token => {
                HubError::MissingOrPrivate { page, token_variable }
            }
            (404, _) if is_own => HubError::Missing { page },
            // The hub does not say what it hides.
            (401, "RepoNotFound") => HubError::Missing { page },
            (401, _) if is_own => HubError::Unauthorized { token_variable },
            (403, _) if is_own && message.is_empty() => {
                HubError::Gated { page, has_token, token_variable }
            }
            (403, _) if is_own => HubError::Forbidden { page, message },
            _ => {
                let message = if message.is_empty() { message } else { format!(": {message}") };
                HubError::Status { url: without_query(url), status, message }
            }
        };
        // A CDN refuses a link that has expired; the hub gives a new one.
        let is_passing =
            matches!(status, 408 | 425 | 429 | 500..=599) || (!is_own && status == 403);
        let wait = wait.map(Duration::from_secs);
        Failure { is_passing, wait, ..Failure::passing(error) }
    }
}

/// `Content-Length`, if there is one.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// An error about what `url` answered.
pub(super) fn answer(url: &str, problem: String) -> HubError {
    HubError::Answer { url: without_query(url), problem }
}

/// Links to a CDN have signatures in their queries, which are nobody's business.
fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// Where a redirect leads.
fn target(url: &str, headers: &HeaderMap) -> Result<String, HubError> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let from = Origin::of(url);
    let next = match &from {
        Some(from) if location.starts_with('/') && !location.starts_with("//") => {
            format!("{from}{location}")
        }
        _ => location.to_owned(),
    };
    match (Origin::of(&next), from) {
        (None, _) => Err(answer(url, format!("it redirects to {location:?}"))),
        (Some(to), Some(from)) if from.is_https() && !to.is_https() => {
            Err(answer(url, format!("it redirects from https to {to}")))
        }
        _ => Ok(next),
    }
}

/// Whether another try may help: not if the request or the certificate is wrong.
fn is_passing(error: &ureq::Error) -> bool {
    // A certificate that is refused comes as data that is not valid.
    if let ureq::Error::Io(error) = error
        && error.kind() == std::io::ErrorKind::InvalidData
    {
        return false;
    }
    !matches!(
        error,
        ureq::Error::BadUri(_)
            | ureq::Error::Http(_)
            | ureq::Error::InvalidProxyUrl
            | ureq::Error::Tls(_)
            | ureq::Error::Pem(_)
            | ureq::Error::Rustls(_)
    )
}

/// What a page of an error says, if it says it in JSON as both hubs do.
fn message_in(response: Response<Body>) -> String {
    #[derive(serde::Deserialize)]
    struct Page {
        #[serde(alias = "Message", alias = "message")]
        error: String,
    }

    let mut text = Vec::new();
    // What does not come is not said.
    let _ = response.into_body().into_reader().take(MAX_MESSAGE).read_to_end(&mut text);
    let page: Option<Page> = serde_json::from_slice(&text).ok();
    let message = page.map(|page| page.error).unwrap_or_default();
    message.chars().filter(|c| !c.is_control()).take(300).collect()
}
