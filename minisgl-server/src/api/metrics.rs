//! `GET /metrics`, in the text format of Prometheus (version 0.0.4). No label has a value that a
//! client chose.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::{Response, StatusCode};

use crate::api::Api;
use crate::api::response::{Body, response};

/// Counts of the API itself.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Responses by the first digit of their status, from 1 to 5.
    responses: [AtomicU64; 5],
    pub(super) unknown_fields: AtomicU64,
}

impl Counters {
    pub(super) fn count_response(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.responses.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counter,
    Gauge,
}

/// The page as it grows.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn one(&mut self, kind: Kind, name: &str, help: &str, value: impl TryInto<u64>) {
        self.begin(kind, name, help);
        self.line(format_args!("minisgl_{name} {}", value.try_into().unwrap_or(u64::MAX)));
    }

    /// With one sample for each value of `label`.
    fn many<const N: usize>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        label: &str,
        samples: [(&str, u64); N],
    ) {
        self.begin(kind, name, help);
        for (value, count) in samples {
            self.line(format_args!("minisgl_{name}{{{label}=\"{value}\"}} {count}"));
        }
    }

    fn begin(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.line(format_args!("# HELP minisgl_{name} {help}"));
        self.line(format_args!("# TYPE minisgl_{name} {kind}"));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to memory does not fail.
        let _ = writeln!(self.0, "{text}");
    }
}

impl Api {
    pub(super) fn metrics(&self) -> Response<Body> {
        use Kind::{Counter, Gauge};

        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (engine, ends) = (&self.engine, &self.ends);
        let stats = engine.stats();
        let usage = stats.usage;
        let mut page = Page::default();

        page.one(Gauge, "num_running_reqs", "Requests being computed.", stats.running);
        page.one(Gauge, "num_queue_reqs", "Requests that wait to be computed.", stats.waiting);
        let help = "Requests from their arrival to the last byte of the answer.";
        page.one(Gauge, "num_open_reqs", help, engine.open_requests());
        page.one(Gauge, "max_open_reqs", "The limit.", engine.max_open_requests());
        let help = "KV pages: unused, cached, cached and in use, or held by requests.";
        let pages = [
            ("free", usage.free as u64),
            ("evictable", usage.evictable as u64),
            ("locked", usage.locked as u64),
            ("held", usage.held as u64),
        ];
        page.many(Gauge, "kv_pages", help, "state", pages);
        page.one(Gauge, "max_kv_pages", "KV pages in all.", usage.total);

        page.one(Counter, "steps_total", "Forward passes.", stats.steps);
        page.one(Counter, "prompt_tokens_total", "Tokens in prompts.", stats.prompt_tokens);
        let help = "Of those, tokens found in the prefix cache.";
        page.one(Counter, "cached_tokens_total", help, stats.cached_tokens);
        page.one(Counter, "generation_tokens_total", "Tokens generated.", stats.generated_tokens);
        let outputs = [
            ("stop", load(&ends.stop)),
            ("length", load(&ends.length)),
            ("abort", load(&ends.abort)),
            ("error", load(&ends.error)),
        ];
        let help = "Outputs by how they ended.";
        page.many(Counter, "outputs_total", help, "finished_reason", outputs);
        let [_, ok, _, client_error, server_error] = self.counters.responses.each_ref().map(load);
        let responses = [("2xx", ok), ("4xx", client_error), ("5xx", server_error)];
        page.many(Counter, "http_responses_total", "Responses.", "status", responses);
        let help = "Fields of requests that were not known, and ignored.";
        page.one(Counter, "unknown_fields_total", help, load(&self.counters.unknown_fields));
        response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page.0)
    }
}
