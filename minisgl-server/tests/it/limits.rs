//! Bytes, headers and connections; and the endpoints that generate nothing.

use std::time::Duration;

use minisgl_server::ServerError;
use minisgl_server::http::{BoundAddress, HttpLimits};
use serde_json::json;

use crate::client::{Connection, request};
use crate::server::{JSON, MODEL, Server, Setup};

const COMPLETIONS: &str = "/v1/completions";

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large() {
    let server = Server::start().await;
    let large = vec![b' '; 3 << 20];
    // With its length told before, and in chunks.
    let response = server.post_bytes(COMPLETIONS, &large).await;
    assert_eq!(response.status(), 413);
    assert_eq!(response.json()["error"]["code"], "body_too_large");
    let mut connection = Connection::open(server.address).await;
    let headers = [JSON, ("Transfer-Encoding", "chunked")];
    connection.send("POST", COMPLETIONS, &headers, b"").await;
    let chunk = [b"10000\r\n".as_slice(), &large[..0x10000], b"\r\n"].concat();
    for _ in 0..4 {
        connection.send_raw(&chunk).await;
    }
    connection.send_raw(b"0\r\n\r\n").await;
    assert_eq!(connection.response(false).await.unwrap().status(), 413);
    // Just not too large.
    let mut body = json!({"prompt": "abc", "max_tokens": 1}).to_string().into_bytes();
    body.resize(64 << 10, b' ');
    assert_eq!(server.post_bytes(COMPLETIONS, &body).await.status(), 200);
    body.push(b' ');
    assert_eq!(server.post_bytes(COMPLETIONS, &body).await.status(), 413);
    server.canary().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_also_if_the_body_is_not_wanted() {
    let server = Setup { api_key: Some("key".to_owned()), ..Setup::default() }.start().await;
    let key = ("Authorization", "Bearer key");
    // More than sockets keep: a client that is cut off in the middle never sees the answer.
    let large = vec![b' '; 24 << 20];
    for (path, headers, status) in [
        (COMPLETIONS, vec![JSON], 401),
        ("/v2", vec![JSON, key], 404),
        ("/v1/models", vec![JSON, key], 405),
        (COMPLETIONS, vec![key], 400),
        (COMPLETIONS, vec![JSON, key], 413),
    ] {
        let response = request(server.address, "POST", path, &headers, &large).await;
        assert_eq!(response.status(), status, "{path}");
    }
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_wanted_is_not_asked_for() {
    let server = Server::start().await;
    let asks = [JSON, ("Expect", "100-continue")];
    for (path, length, status) in [("/v2", 10, 404), (COMPLETIONS, 1 << 30, 413)] {
        let mut connection = Connection::open(server.address).await;
        let length = length.to_string();
        let headers = [&asks[..], &[("Content-Length", &length)]].concat();
        connection.send("POST", path, &headers, b"").await;
        assert_eq!(connection.head().await.unwrap().status, status);
    }
    let body = json!({"prompt": "abc", "max_tokens": 1}).to_string().into_bytes();
    let mut connection = Connection::open(server.address).await;
    let length = body.len().to_string();
    let headers = [&asks[..], &[("Content-Length", &length)]].concat();
    connection.send("POST", COMPLETIONS, &headers, b"").await;
    assert_eq!(connection.head().await.unwrap().status, 100);
    connection.send_raw(&body).await;
    assert_eq!(connection.response(false).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_too_many_or_too_long() {
    let server = Server::start().await;
    let long = "x".repeat(100 << 10);
    let response = request(server.address, "GET", "/health", &[("X-Long", &long)], b"").await;
    assert_eq!(response.status(), 431);
    let many = vec![("X-Many", "x"); 100];
    assert_eq!(request(server.address, "GET", "/health", &many, b"").await.status(), 431);
    let mut connection = Connection::open(server.address).await;
    connection.send_raw(b"not http at all\r\n\r\n").await;
    assert_eq!(connection.response(false).await.unwrap().status(), 400);
    server.canary().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_do_not_come() {
    let limits = HttpLimits { header_timeout: Duration::from_millis(100), ..HttpLimits::default() };
    let server = Setup { limits, ..Setup::default() }.start().await;
    for beginning in [&b""[..], b"GET /health HTTP/1.1\r\nHost: x\r\n"] {
        let mut connection = Connection::open(server.address).await;
        connection.send_raw(beginning).await;
        // Closed, with or without a word.
        if let Some(head) = connection.head().await {
            assert_eq!(head.status, 408);
        }
    }
    server.canary().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_allowed_wait() {
    let limits = HttpLimits { max_connections: 2, ..HttpLimits::default() };
    let server = Setup { limits, ..Setup::default() }.start().await;
    let mut first = Connection::open(server.address).await;
    let mut second = Connection::open(server.address).await;
    for connection in [&mut first, &mut second] {
        connection.send("GET", "/health", &[], b"").await;
        assert_eq!(connection.response(false).await.unwrap().status(), 200);
    }
    let mut third = Connection::open(server.address).await;
    third.send("GET", "/health", &[], b"").await;
    let waited = tokio::time::timeout(Duration::from_millis(100), third.head()).await;
    assert!(waited.is_err(), "a third connection was served");
    drop(first);
    assert_eq!(third.head().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_many_requests() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let body = json!({"prompt": "abc", "max_tokens": 3}).to_string();
    for _ in 0..3 {
        connection.send("POST", COMPLETIONS, &[JSON], body.as_bytes()).await;
        assert_eq!(connection.response(false).await.unwrap().status(), 200);
        // An error that was about the content leaves the connection as it is.
        connection.send("POST", COMPLETIONS, &[JSON], b"{}").await;
        assert_eq!(connection.response(false).await.unwrap().status(), 400);
        connection.send("HEAD", "/health", &[], b"").await;
        let response = connection.response(true).await.unwrap();
        assert_eq!(response.head.header("content-length"), Some("15"));
    }
    // Two at once.
    let get = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    connection.send_raw(&[get.as_slice(), get].concat()).await;
    for _ in 0..2 {
        assert_eq!(connection.response(false).await.unwrap().text(), r#"{"status":"ok"}"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_requests_come_back_if_they_are_harmless() {
    let server = Server::start().await;
    let id = async |given: &str| {
        let headers = [("X-Request-Id", given)];
        let response = request(server.address, "GET", "/health", &headers, b"").await;
        response.head.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id("abc-1.2:3_4").await, "abc-1.2:3_4");
    for given in ["", "a b", "é", &"x".repeat(200)] {
        let id = id(given).await;
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    let headers = [("X-Request-Id", "a\x1b[31m")];
    assert_eq!(request(server.address, "GET", "/health", &headers, b"").await.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_for_operators() {
    let server = Server::start().await;
    let models = server.get("/v1/models").await.json();
    let model = &models["data"][0];
    assert_eq!((&models["object"], &model["object"]), (&json!("list"), &json!("model")));
    assert_eq!((&model["id"], &model["max_model_len"]), (&json!(MODEL), &json!(512)));
    assert_eq!(server.get(&format!("/v1/models/{MODEL}")).await.json(), *model);
    let escaped = MODEL.replace('/', "%2F");
    assert_eq!(server.get(&format!("/v1/models/{escaped}")).await.json(), *model);
    for method in ["GET", "POST", "HEAD", "OPTIONS"] {
        let response = request(server.address, method, "/v1", &[], b"").await;
        assert_eq!(response.status(), 200);
        assert!(method == "HEAD" || response.json() == json!({"status": "ok"}));
    }
    let tokens = server.encode("abc <|end|>");
    let tokenized = json!({"count": tokens.len(), "max_model_len": 512, "tokens": tokens});
    let response = server.post("/tokenize", &json!({"prompt": "abc <|end|>"})).await;
    assert_eq!(response.json(), tokenized);
    let response = server.post("/detokenize", &json!({"tokens": tokens})).await;
    assert_eq!(response.json(), json!({"prompt": "abc <|end|>"}));
    let chat = json!({"messages": [{"role": "user", "content": "a"}]});
    let count = server.post("/tokenize", &chat).await.json()["count"].as_u64().unwrap() as usize;
    assert_eq!(count, server.encode("<|start|>user\na<|end|>\n<|start|>assistant\n").len());

    server.canary().await;
    let page = server.get("/metrics").await;
    assert_eq!(page.head.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let page = page.text();
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    for sample in samples {
        let (name, value) = sample.split_once(' ').unwrap();
        let name = name.split('{').next().unwrap();
        assert!(page.contains(&format!("# TYPE {name} ")), "{name} has no type");
        value.parse::<u64>().unwrap();
    }
    assert_eq!(server.metric("minisgl_generation_tokens_total").await, 5);
    assert_eq!(server.metric("minisgl_outputs_total{finished_reason=\"length\"}").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_in_use() {
    let server = Server::start().await;
    let error = BoundAddress::bind("127.0.0.1", server.address.port()).unwrap_err();
    assert!(matches!(error, ServerError::Listen { .. }));
    assert!(error.to_string().starts_with(&format!("cannot listen on {}: ", server.address)));
    assert!(BoundAddress::bind("256.1.1.1", 80).is_err());
}

#[tokio::test]
async fn hosts_of_ipv6_may_have_brackets() {
    // Not every machine has IPv6.
    if let Ok(plain) = BoundAddress::bind("::1", 0) {
        let bracketed = BoundAddress::bind("[::1]", 0).unwrap();
        assert_eq!(bracketed.address().ip(), plain.address().ip());
    }
    let error = BoundAddress::bind("[::1", 0).unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on [::1: "), "{error}");
}
