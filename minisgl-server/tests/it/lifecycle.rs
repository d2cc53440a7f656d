//! Clients that go away, queues that are full, engines that fail, servers that stop.

use std::time::Duration;

use minisgl_sched::SchedulerConfig;
use minisgl_server::engine::Health;
use minisgl_server::http::HttpLimits;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::server::{Fault, Server, Setup, until};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn endless(stream: bool) -> Value {
    json!({"prompt": "abc", "max_tokens": 400, "ignore_eos": true, "stream": stream})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_its_request() {
    let server = Server::start().await;
    for (stream, n) in [(true, 1), (false, 1), (true, 4), (false, 4)] {
        // Before the first step, in the middle, and while a sibling has yet to be submitted.
        for steps in [0, 1, 3] {
            server.gate.close();
            let mut body = endless(stream);
            body["n"] = json!(n);
            let connection = server.begin(COMPLETIONS, &body).await;
            until("the request to run", || {
                server.engine.open_requests() == n && server.engine.stats().running > 0
            })
            .await;
            server.gate.pass(steps);
            drop(connection);
            until("the request to be given up", || server.engine.open_requests() == 0).await;
            server.gate.open();
            server.quiet().await;
        }
    }
    assert_eq!(server.metric("minisgl_outputs_total{finished_reason=\"abort\"}").await, 3 * 10);
    let generated = server.metric("minisgl_generation_tokens_total").await;
    assert!(generated < 12 * 4 * 20, "{generated} tokens for nobody");
    server.canary().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_clients_that_go_away_leaves_nothing_behind() {
    let scheduler = SchedulerConfig { num_pages: 600, max_seq_len: 512, ..Default::default() };
    let server = std::sync::Arc::new(Setup { scheduler, ..Setup::default() }.start().await);
    let clients: Vec<_> = (0..100u64)
        .map(|client| {
            let server = server.clone();
            tokio::spawn(async move {
                let mut body = endless(client % 2 == 0);
                body["n"] = json!(1 + client % 3);
                body["prompt"] = json!("abc ".repeat(1 + client as usize % 9));
                let text = body.to_string();
                let mut connection = if client % 5 == 0 {
                    // Gone in the middle of the body.
                    let mut connection = crate::client::Connection::open(server.address).await;
                    let head = format!(
                        "POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\
                         \r\nContent-Length: {}\r\n\r\n{}",
                        text.len(),
                        &text[..text.len() / 2]
                    );
                    connection.send_raw(head.as_bytes()).await;
                    connection
                } else {
                    server.begin(COMPLETIONS, &body).await
                };
                for _ in 0..client % 7 {
                    tokio::task::yield_now().await;
                }
                if client % 4 == 0 && client % 5 != 0 && client % 2 == 0 {
                    connection.head().await;
                }
                if client % 3 == 0 {
                    connection.stream.set_zero_linger().unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    server.quiet().await;
    server.canary().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_before_any_work_is_done() {
    let server = Setup::with_max_open(3).start().await;
    server.gate.close();
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(server.begin(COMPLETIONS, &endless(true)).await);
    }
    until("three requests", || server.engine.open_requests() == 3).await;
    let response = server.post(COMPLETIONS, &endless(false)).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.head.header("retry-after"), Some("1"));
    assert_eq!(response.json()["error"]["code"], "queue_full");
    // Nor is there room for a part of a request.
    waiting.pop();
    until("two requests", || server.engine.open_requests() == 2).await;
    let mut two = endless(false);
    two["n"] = json!(2);
    assert_eq!(server.post(COMPLETIONS, &two).await.status(), 503);
    // And never for more than there is.
    two["n"] = json!(4);
    assert_eq!(server.post(COMPLETIONS, &two).await.status(), 400);
    // A full queue is no reason to be restarted.
    assert_eq!(server.get("/health").await.status(), 200);
    server.gate.open();
    drop(waiting);
    server.quiet().await;
    server.canary().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_fails_says_so_to_everybody() {
    for fault in [Fault::Error, Fault::Panic] {
        let mut server = Server::start().await;
        server.gate.close();
        let mut stream = server
            .begin(
                CHAT,
                &json!({
                    "messages": [{"role": "user", "content": "a"}], "stream": true
                }),
            )
            .await;
        assert_eq!(stream.head().await.unwrap().status, 200);
        let mut whole = server.begin(COMPLETIONS, &endless(false)).await;
        until("both to be open", || server.engine.open_requests() == 2).await;
        server.gate.fail(fault);

        let response = whole.response(false).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.json()["error"]["code"], "engine_failed");
        let mut body = Vec::new();
        while let Some(chunk) = stream.chunk().await
            && !chunk.is_empty()
        {
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8(body).unwrap();
        let error = body.strip_suffix("data: [DONE]\n\n").unwrap().strip_prefix("data: ").unwrap();
        let error: Value = serde_json::from_str(error).unwrap();
        assert_eq!(error["error"]["code"], "engine_failed");

        let reason = server.ended.take().unwrap().await.unwrap();
        let expected = match fault {
            Fault::Error => "rank 3 has burnt down",
            Fault::Panic => "panic: the executor panics, as it was told to",
        };
        assert_eq!(reason.as_deref(), Some(expected));
        assert_eq!(server.engine.health(), Health::Failed(expected.into()));
        let health = server.get("/health").await;
        assert_eq!((health.status(), health.text().as_str()), (503, r#"{"status":"failed"}"#));
        assert_eq!(server.post(COMPLETIONS, &endless(false)).await.status(), 503);
        assert_eq!(server.engine.open_requests(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_hangs_is_noticed() {
    let mut setup = Setup::default();
    setup.engine.step_timeout = Duration::from_millis(50);
    let server = setup.start().await;
    server.gate.close();
    let mut connection = server.begin(COMPLETIONS, &endless(false)).await;
    until("the step to be late", || server.engine.health() == Health::Stalled).await;
    let health = server.get("/health").await;
    assert_eq!((health.status(), health.text().as_str()), (503, r#"{"status":"stalled"}"#));
    // It was only late.
    server.gate.open();
    assert_eq!(connection.response(false).await.unwrap().status(), 200);
    assert_eq!(server.get("/health").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn logits_that_are_not_finite_fail_one_request_only() {
    let server = Setup { not_finite_every: Some(40), ..Setup::default() }.start().await;
    let (mut good, mut bad) = (0, 0);
    for seed in 0..40 {
        let mut body = json!({"prompt": "abc", "max_tokens": 20, "seed": seed, "ignore_eos": true});
        let response = server.post(COMPLETIONS, &body).await;
        body["stream"] = json!(true);
        let stream = server.post(COMPLETIONS, &body).await.text();
        match response.status() {
            200 => {
                good += 1;
                assert!(!stream.contains("\"error\""));
            }
            status => {
                bad += 1;
                assert_eq!(status, 500);
                assert!(response.text().contains("not finite"));
                assert!(stream.contains("not finite") && stream.ends_with("data: [DONE]\n\n"));
            }
        }
    }
    assert!(good > 5 && bad > 5, "{good} good, {bad} bad");
    assert_eq!(server.get("/health").await.status(), 200);
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_what_is_open_and_takes_nothing_more() {
    let mut server = Server::start().await;
    server.gate.close();
    let mut body = endless(true);
    body["max_tokens"] = json!(5);
    body["seed"] = json!(1);
    let mut connection = server.begin(COMPLETIONS, &body).await;
    assert_eq!(connection.head().await.unwrap().status, 200);
    server.engine.drain();
    let health = server.get("/health").await;
    assert_eq!((health.status(), health.text().as_str()), (503, r#"{"status":"draining"}"#));
    let refused = server.post(COMPLETIONS, &body).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.head.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["error"]["code"], "shutting_down");
    server.gate.open();
    let mut text = Vec::new();
    while let Some(chunk) = connection.chunk().await
        && !chunk.is_empty()
    {
        text.extend_from_slice(&chunk);
    }
    assert!(String::from_utf8(text).unwrap().ends_with("data: [DONE]\n\n"));
    server.quiet().await;
    server.close().await;
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_what_is_open_with_an_error() {
    let mut server = Server::start().await;
    server.gate.close();
    let mut stream = server.begin(COMPLETIONS, &endless(true)).await;
    assert_eq!(stream.head().await.unwrap().status, 200);
    let mut whole = server.begin(COMPLETIONS, &endless(false)).await;
    until("both to be open", || server.engine.open_requests() == 2).await;
    server.engine.stop();
    server.gate.open();
    let response = whole.response(false).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.json()["error"]["code"], "shutting_down");
    let mut last = Vec::new();
    while let Some(chunk) = stream.chunk().await
        && !chunk.is_empty()
    {
        last = chunk;
    }
    assert!(String::from_utf8(last).unwrap().contains("shutting_down"));
    // This was asked for.
    assert_eq!(server.ended.take().unwrap().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_that_hangs_leaves_open_can_be_ended_all_the_same() {
    let server = Server::start().await;
    server.gate.close();
    let mut stream = server.begin(COMPLETIONS, &endless(true)).await;
    assert_eq!(stream.head().await.unwrap().status, 200);
    let mut whole = server.begin(COMPLETIONS, &endless(false)).await;
    until("both to be open", || server.engine.open_requests() == 2).await;
    // It does not stop, since the step does not end.
    server.engine.stop();
    server.engine.abandon();
    assert_eq!(whole.response(false).await.unwrap().json()["error"]["code"], "shutting_down");
    assert!(String::from_utf8(stream.chunk().await.unwrap()).unwrap().contains("shutting_down"));
    until("both to be closed", || server.engine.open_requests() == 0).await;
    assert_eq!(server.post(COMPLETIONS, &endless(false)).await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_given_up() {
    let scheduler =
        SchedulerConfig { num_pages: 50_000, max_seq_len: 50_000, ..Default::default() };
    let write_timeout = Duration::from_millis(200);
    let limits = HttpLimits { write_timeout, ..HttpLimits::default() };
    let server = Setup { scheduler, limits, ..Setup::default() }.start().await;
    // Log-probabilities make a token a kilobyte, so that few fill the buffers of the system.
    let body = json!({"prompt": "abc", "max_tokens": 6000, "ignore_eos": true, "stream": true,
        "logprobs": 20});
    let connection = server.begin(COMPLETIONS, &body).await;
    until("the request to run", || server.engine.open_requests() == 1).await;
    server.quiet().await;
    assert_eq!(server.metric("minisgl_num_open_reqs").await, 0);
    drop(connection);
    server.canary().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_sending_side_is_gone() {
    let server = Server::start().await;
    server.gate.close();
    let mut connection = server.begin(COMPLETIONS, &endless(false)).await;
    until("the request to run", || server.engine.open_requests() == 1).await;
    connection.stream.shutdown().await.unwrap();
    until("the request to be given up", || server.engine.open_requests() == 0).await;
    server.gate.open();
    server.quiet().await;
}
