//! What is refused, how, and that nothing is the worse for it.

use minisgl_model::Checkpoint;
use minisgl_server::text::TextModel;
use serde_json::{Value, json};

use crate::client::{Response, request};
use crate::fixture::{VOCAB_SIZE, byte_level_tokenizer, write_model};
use crate::server::{JSON, MODEL, Server, Setup};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// Checks the form of an error: all four keys, within a kilobyte, nothing of the machine.
fn check(response: &Response, status: u16, param: Option<&str>, code: Option<&str>, what: &str) {
    let text = response.text();
    assert_eq!(response.status(), status, "{what}: {text}");
    assert!(response.body.len() <= 1024, "{what}: {} bytes", response.body.len());
    assert!(!text.contains("/root") && !text.contains("src/") && !text.contains("0x"), "{text}");
    let json = response.json();
    let error = json["error"].as_object().unwrap();
    let keys: Vec<_> = error.keys().map(String::as_str).collect();
    assert_eq!(keys, ["code", "message", "param", "type"], "{what}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert_eq!(error["param"].as_str(), param, "{what}: {text}");
    assert_eq!(error["code"].as_str(), code, "{what}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_wrong_or_do_nothing_here() {
    let server = Server::start().await;
    let long = "x".repeat(2000);
    let cases: &[(&str, Value)] = &[
        ("temperature", json!(-0.1)),
        ("temperature", json!(2.1)),
        ("temperature", json!("hot")),
        ("temperature", json!([])),
        ("top_p", json!(0)),
        ("top_p", json!(1.1)),
        ("top_k", json!(-2)),
        ("top_k", json!(1.5)),
        ("top_k", json!(1e30)),
        ("min_p", json!(-0.1)),
        ("min_p", json!(2)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(1.5)),
        ("max_tokens", json!("5")),
        ("max_tokens", json!(u64::MAX)),
        ("n", json!(0)),
        ("n", json!(17)),
        ("n", json!(1_000_000_000)),
        ("best_of", json!(2)),
        ("seed", json!(1.5)),
        ("seed", json!(1e300)),
        ("stop", json!("")),
        ("stop", json!(["a", ""])),
        ("stop", json!(vec!["a"; 17])),
        ("stop", json!(long)),
        ("stop", json!([1])),
        ("stop", json!({"a": 1})),
        ("stop_token_ids", json!([100_000])),
        ("stop_token_ids", json!([-1])),
        ("stop_token_ids", json!(5)),
        ("stop_token_ids", json!(vec![1; 129])),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("stream_options", json!({})),
        ("ignore_eos", json!(1)),
        ("skip_special_tokens", json!("no")),
        ("presence_penalty", json!(2.01)),
        ("presence_penalty", json!("much")),
        ("frequency_penalty", json!(-2.5)),
        ("frequency_penalty", json!([])),
        ("repetition_penalty", json!(0)),
        ("repetition_penalty", json!(-1)),
        ("repetition_penalty", json!(2.1)),
        ("logit_bias", json!({"5": 100.5})),
        ("logit_bias", json!({"5": "x"})),
        ("logit_bias", json!({"100000": 1})),
        ("logit_bias", json!({"-1": 1})),
        ("logit_bias", json!({"five": 1})),
        ("logit_bias", json!([5])),
        ("logit_bias", (0..1025).map(|id| (id.to_string(), json!(1))).collect()),
        ("min_tokens", json!(-1)),
        ("min_tokens", json!(1.5)),
        ("response_format", json!({"type": "json_object"})),
        ("tools", json!([{"type": "function"}])),
        ("tool_choice", json!("required")),
        ("cache_salt", json!("x")),
        ("modalities", json!(["audio"])),
        ("guided_json", json!({})),
        ("chat_template", json!("{{ 1 }}")),
        ("prompt_logprobs", json!(1)),
        ("use_beam_search", json!(true)),
        ("allowed_token_ids", json!([5])),
        ("logits_processors", json!(["x"])),
        ("return_token_ids", json!(true)),
        ("stop_regex", json!("a+")),
        ("prompt_embeds", json!("x")),
        ("lora_path", json!("x")),
    ];
    for (field, value) in cases {
        for (path, mut body) in [
            (CHAT, json!({"messages": [{"role": "user", "content": "a"}]})),
            (COMPLETIONS, json!({"prompt": "a"})),
        ] {
            body[*field] = value.clone();
            let response = server.post(path, &body).await;
            check(&response, 400, Some(field), None, &format!("{path} {field} {value}"));
            assert!(response.json()["error"]["message"].as_str().unwrap().contains(field));
        }
    }
    server.canary().await;
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_is_said() {
    let server = Server::start().await;
    let cases: &[(&str, Value, &str)] = &[
        ("presence_penalty", json!(3), "a number from -2 to 2"),
        ("repetition_penalty", json!(0.001), "a number from 0.01 to 2"),
        ("logit_bias", json!({"5": 101}), "at most 1024 token ids with numbers from -100 to 100"),
        ("logit_bias", json!({"3": 1, "320": 1}), "names the token 320; ids are below 320"),
        ("min_tokens", json!(10), "at most the 9 of `max_tokens`"),
    ];
    for (field, value, expected) in cases {
        let mut body = json!({"prompt": "a", "max_tokens": 9});
        body[*field] = value.clone();
        let response = server.post(COMPLETIONS, &body).await;
        check(&response, 400, Some(field), None, &format!("{field} {value}"));
        let text = response.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(text.contains(expected), "{text}");
    }
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_that_are_wrong() {
    let server = Server::start().await;
    let message = json!([{"role": "user", "content": "a"}]);
    let cases: &[(Value, &str)] = &[
        (json!({}), "messages"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "a"}), "messages"),
        (json!({"messages": [{"role": "user"}]}), "messages[0]"),
        (json!({"messages": [{"content": "a"}]}), "messages"),
        (json!({"messages": [{"role": "user", "content": null}]}), "messages[0]"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages"),
        (json!({"messages": [{"role": "judge", "content": "a"}]}), "messages[0]"),
        (json!({"messages": [{"role": "tool", "content": "a"}]}), "messages[0]"),
        (
            json!({"messages": [{"role": "assistant", "content": null,
                "tool_calls": [{"id": "1", "function": {}}]}]}),
            "messages[0]",
        ),
        (
            json!({"messages": [message[0], {"role": "user", "content": [{"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/"}}]}]}),
            "messages[1]",
        ),
        (json!({"messages": message, "logprobs": 3}), "logprobs"),
        (json!({"messages": message, "top_logprobs": 3}), "top_logprobs"),
        (json!({"messages": message, "logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"messages": message, "logprobs": true, "top_logprobs": -1}), "top_logprobs"),
        (json!({"messages": message, "max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"messages": message, "echo": true}), "echo"),
        (json!({"messages": message, "add_special_tokens": true}), "add_special_tokens"),
        (
            json!({"messages": message, "chat_template_kwargs": {"messages": "x"}}),
            "chat_template_kwargs",
        ),
        (
            json!({"messages": message, "chat_template_kwargs": {"bos_token": "x"}}),
            "chat_template_kwargs",
        ),
        (
            json!({"messages": message, "chat_template_kwargs": {"tokenize": true}}),
            "chat_template_kwargs",
        ),
        (json!({"messages": message, "chat_template_kwargs": {"a": []}}), "chat_template_kwargs"),
        (json!({"messages": message, "chat_template_kwargs": 5}), "chat_template_kwargs"),
        (json!({"messages": message, "model": 5}), "model"),
    ];
    for (body, param) in cases {
        check(&server.post(CHAT, body).await, 400, Some(param), None, &body.to_string());
        server.canary().await;
    }
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_other_endpoints_have() {
    let server = Server::start().await;
    let stream = |options: Value| json!({"prompt": "a", "stream": true, "stream_options": options});
    let chat = |field: &str, value: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        body[field] = value;
        body
    };
    let generate = |field: &str, value: Value| {
        let mut body = json!({"prompt": "a", "max_tokens": 1});
        body[field] = value;
        body
    };
    for (path, body, param) in [
        ("/tokenize", chat("add_generation_prompt", json!(false)), "add_generation_prompt"),
        ("/tokenize", chat("continue_final_message", json!(true)), "continue_final_message"),
        ("/tokenize", chat("add_special_tokens", json!(true)), "add_special_tokens"),
        ("/tokenize", chat("return_token_strs", json!(true)), "return_token_strs"),
        ("/tokenize", chat("tools", json!([{}])), "tools"),
        ("/tokenize", chat("prompt", json!("a")), "messages"),
        (COMPLETIONS, stream(json!({"continuous_usage_stats": true})), "stream_options"),
        (COMPLETIONS, stream(json!({"include_usage": 1})), "stream_options"),
        ("/generate", generate("temperature", json!(0.7)), "temperature"),
        ("/generate", generate("top_k", json!(5)), "top_k"),
        ("/generate", generate("n", json!(2)), "n"),
        ("/generate", generate("stop", json!("x")), "stop"),
        ("/generate", generate("stream", json!(false)), "stream"),
        ("/generate", generate("logprobs", json!(1)), "logprobs"),
        ("/generate", generate("tools", json!([{}])), "tools"),
        ("/generate", generate("presence_penalty", json!(1)), "presence_penalty"),
        ("/generate", generate("logit_bias", json!({"1": 1})), "logit_bias"),
    ] {
        let response = server.post(path, &body).await;
        check(&response, 400, Some(param), None, &format!("{path} {body}"));
    }
    for (path, body) in [
        ("/tokenize", chat("add_generation_prompt", json!(true))),
        ("/tokenize", chat("add_special_tokens", json!(false))),
        ("/tokenize", json!({"prompt": "a", "messages": null, "return_token_strs": false})),
        (COMPLETIONS, stream(json!({"continuous_usage_stats": false, "include_usage": null}))),
        (COMPLETIONS, stream(json!({"include_obfuscation": false}))),
        ("/generate", generate("temperature", json!(0))),
        ("/generate", generate("stream", json!(true))),
        ("/generate", generate("model", json!(MODEL))),
    ] {
        assert_eq!(server.post(path, &body).await.status(), 200, "{path} {body}");
    }
    let body = json!({"prompt": "a", "unknown": 1});
    assert_eq!(server.post("/tokenize", &body).await.status(), 200);
    assert_eq!(server.metric("minisgl_unknown_fields_total").await, 1);
    let body = generate("model", json!("other"));
    let response = server.post("/generate", &body).await;
    check(&response, 404, Some("model"), Some("model_not_found"), "another model");
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_that_are_wrong() {
    let server = Server::start().await;
    for body in [
        json!({}),
        json!({"prompt": null}),
        json!({"prompt": ""}),
        json!({"prompt": []}),
        json!({"prompt": [""]}),
        json!({"prompt": [[]]}),
        json!({"prompt": [1, "a"]}),
        json!({"prompt": [1, [2]]}),
        json!({"prompt": [[1], 2]}),
        json!({"prompt": [[1, "a"]]}),
        json!({"prompt": [1.5]}),
        json!({"prompt": [-1]}),
        json!({"prompt": [4_294_967_296u64]}),
        json!({"prompt": [100_000]}),
        json!({"prompt": {"a": 1}}),
        json!({"prompt": vec!["a"; 65]}),
        json!({"prompt": vec![[1]; 65]}),
    ] {
        let what = body.to_string();
        check(&server.post(COMPLETIONS, &body).await, 400, Some("prompt"), None, &what);
        server.canary().await;
    }
    for (body, param) in [
        (json!({"prompt": "a", "logprobs": 21}), "logprobs"),
        (json!({"prompt": "a", "logprobs": true}), "logprobs"),
        (json!({"prompt": "a", "logprobs": 1, "echo": true}), "echo"),
        (json!({"prompt": "a", "suffix": "b"}), "suffix"),
        (json!({"prompt": "a", "best_of": 2}), "best_of"),
    ] {
        check(&server.post(COMPLETIONS, &body).await, 400, Some(param), None, &body.to_string());
    }
    for (body, param) in [
        (json!({"prompt": "a"}), "max_tokens"),
        (json!({"max_tokens": 5}), "prompt"),
        (json!({"prompt": ["a"], "max_tokens": 5}), "prompt"),
        (json!({"prompt": "a", "max_tokens": 0}), "max_tokens"),
    ] {
        check(&server.post("/generate", &body).await, 400, Some(param), None, &body.to_string());
    }
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_that_are_too_long() {
    let server = Server::start().await;
    let token = vec![4; 512];
    // Also one that is not even tokenized.
    for prompt in [json!(token), json!("abc ".repeat(300)), json!("a".repeat(60_000))] {
        let response = server.post(COMPLETIONS, &json!({"prompt": prompt})).await;
        check(&response, 400, Some("prompt"), Some("context_length_exceeded"), "too long");
        assert!(response.text().contains("maximum context length is 512 tokens"));
    }
    let body = json!({"messages": [{"role": "user", "content": "abc ".repeat(300)}]});
    let response = server.post(CHAT, &body).await;
    check(&response, 400, Some("messages"), Some("context_length_exceeded"), "too long");
    server.canary().await;
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_object() {
    let server = Server::start().await;
    let deep = "[".repeat(10_000);
    let many =
        format!("{{{}\"a\":1}}", (0..300).map(|i| format!("\"{i}\":1,")).collect::<String>());
    let secret = "s3cret".repeat(2000);
    for body in [
        "",
        "{",
        "[]",
        "5",
        "null",
        "\"a\"",
        "{\"prompt\": NaN}",
        "{\"prompt\": \"a\",}",
        "{'a': 1}",
        "{\"prompt\": \"\\ud800\"",
        "\u{feff}{}",
        deep.as_str(),
        many.as_str(),
        secret.as_str(),
    ] {
        for path in [CHAT, COMPLETIONS, "/generate", "/tokenize", "/detokenize"] {
            let response = server.post_bytes(path, body.as_bytes()).await;
            check(&response, 400, None, None, body.get(..20).unwrap_or(body));
            assert!(!response.text().contains("s3cret"), "the body is repeated");
        }
    }
    let response = server.post_bytes(COMPLETIONS, b"{\"prompt\": \"\xff\"}").await;
    check(&response, 400, None, None, "not UTF-8");
    let huge = format!("{{\"prompt\": \"a\", \"temperature\": 1{}}}", "0".repeat(400));
    let response = server.post_bytes(COMPLETIONS, huge.as_bytes()).await;
    check(&response, 400, Some("temperature"), None, "a number that is not finite");
    let nested = format!(
        "{{\"prompt\": \"a\", \"chat_template_kwargs\": {}{}}}",
        &deep[..500],
        "]".repeat(500)
    );
    let response = server.post_bytes(CHAT, nested.as_bytes()).await;
    check(&response, 400, Some("messages"), None, "nested");
    server.canary().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_types_other_than_json() {
    let server = Server::start().await;
    let body = json!({"prompt": "abc"}).to_string();
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json")]
    {
        let headers: Vec<_> = kind.iter().map(|kind| ("Content-Type", *kind)).collect();
        let response =
            request(server.address, "POST", COMPLETIONS, &headers, body.as_bytes()).await;
        check(&response, 400, None, None, &format!("{kind:?}"));
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        let headers = [("Content-Type", kind)];
        let response =
            request(server.address, "POST", COMPLETIONS, &headers, body.as_bytes()).await;
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_paths_that_are_not_there() {
    let server = Server::start().await;
    for (path, mut body) in [
        (CHAT, json!({"messages": [{"role": "user", "content": "a"}]})),
        (COMPLETIONS, json!({"prompt": "a"})),
        ("/tokenize", json!({"prompt": "a"})),
        ("/detokenize", json!({"tokens": [4]})),
    ] {
        body["model"] = json!("gpt-5\nERROR fake");
        let response = server.post(path, &body).await;
        check(&response, 404, Some("model"), Some("model_not_found"), path);
        for model in ["", MODEL] {
            body["model"] = json!(model);
            assert_eq!(server.post(path, &body).await.status(), 200);
        }
    }
    for path in ["/", "/v2", "/v1/", "/v1/embeddings", "//health", "/health?x/../v1", "/v1/chat"] {
        let response = server.get(path).await;
        if path.contains('?') {
            assert_eq!(response.status(), 200);
        } else {
            check(&response, 404, None, Some("not_found"), path);
        }
    }
    let response = server.get("/v1/models/other").await;
    check(&response, 404, Some("model"), Some("model_not_found"), "model");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_a_path_does_not_take() {
    let server = Server::start().await;
    for (path, wrong, allowed) in [
        ("/health", &["POST", "PUT", "DELETE"][..], "GET, HEAD, OPTIONS"),
        ("/metrics", &["POST"], "GET, HEAD, OPTIONS"),
        ("/v1/models", &["POST"], "GET, HEAD, OPTIONS"),
        ("/v1/models/a", &["DELETE"], "GET, HEAD, OPTIONS"),
        ("/v1", &["PUT", "DELETE"], "GET, HEAD, POST, OPTIONS"),
        (CHAT, &["GET", "PUT", "PATCH", "BREW"], "POST, OPTIONS"),
        (COMPLETIONS, &["GET"], "POST, OPTIONS"),
        ("/generate", &["GET"], "POST, OPTIONS"),
        ("/tokenize", &["GET"], "POST, OPTIONS"),
    ] {
        for method in wrong {
            let response = request(server.address, method, path, &[], b"").await;
            check(&response, 405, None, Some("method_not_allowed"), path);
            assert_eq!(response.head.header("allow"), Some(allowed));
        }
        let response = request(server.address, "OPTIONS", path, &[], b"").await;
        assert_eq!(response.status(), if path == "/v1" { 200 } else { 204 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_but_health_wants_the_key() {
    let setup = Setup { api_key: Some("s3cret".to_owned()), ..Setup::default() };
    let server = setup.start().await;
    let body = json!({"prompt": "a"}).to_string();
    let get = ["/v1", "/metrics", "/v1/models", "/v1/models/a", "/nowhere", "//health", "/Health"];
    let post = [CHAT, COMPLETIONS, "/generate", "/tokenize", "/detokenize", "/v1"];
    let routes = get.map(|path| ("GET", path)).into_iter().chain(post.map(|path| ("POST", path)));
    for (method, path) in routes.chain([("HEAD", "/v1/models")]) {
        for headers in [
            &[JSON][..],
            &[JSON, ("Authorization", "Bearer wrong")],
            &[JSON, ("Authorization", "Bearer s3cret"), ("Authorization", "Bearer s3cret")],
            &[JSON, ("Host", "x/health"), ("X-Forwarded-Path", "/health")],
        ] {
            let response = request(server.address, method, path, headers, body.as_bytes()).await;
            assert_eq!(response.status(), 401, "{method} {path}");
            assert_eq!(response.head.header("www-authenticate"), Some("Bearer"));
            if method != "HEAD" {
                check(&response, 401, None, Some("invalid_api_key"), path);
            }
        }
    }
    assert_eq!(server.get("/health").await.status(), 200);
    let key = [JSON, ("Authorization", "Bearer s3cret")];
    assert_eq!(request(server.address, "GET", "/v1/models", &key, b"").await.status(), 200);
    let response = request(server.address, "POST", COMPLETIONS, &key, body.as_bytes()).await;
    assert_eq!(response.status(), 200);
    // The target may also be a whole URL: what is checked is what is routed.
    let response = request(server.address, "GET", "http://x/v1/models", &[], b"").await;
    assert_eq!(response.status(), 401);
}

async fn with_template(template: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"chat_template": template, "eos_token": {"content": "<|end|>"}});
    let files = [("tokenizer.json", byte_level_tokenizer()), ("tokenizer_config.json", config)];
    let checkpoint = write_model(folder.path(), &files);
    let text = TextModel::load(&checkpoint, None, &[], VOCAB_SIZE, 512).unwrap();
    Setup { text: Some(text), ..Setup::default() }.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_that_refuse_or_misbehave() {
    let chat = json!({"messages": [{"role": "user", "content": "a"}]});
    for (template, message) in [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        (
            "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
            "fuel",
        ),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{% include 'config.json' %}", "template"),
    ] {
        let server = with_template(template).await;
        let response = server.post(CHAT, &chat).await;
        check(&response, 400, Some("messages"), None, template);
        assert!(response.text().contains(message), "{}", response.text());
        server.canary().await;
        server.quiet().await;
    }
    let server = with_template("").await;
    check(&server.post(CHAT, &chat).await, 400, Some("messages"), None, "an empty prompt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_tokenizer_takes_token_ids_only() {
    let checkpoint = Checkpoint::Config(b"{}".to_vec());
    let text = TextModel::load(&checkpoint, None, &[], VOCAB_SIZE, 512).unwrap();
    let server = Setup { text: Some(text), ..Setup::default() }.start().await;
    let completion = |prompt: Value| json!({"prompt": prompt, "max_tokens": 3});
    let response = server.post(COMPLETIONS, &completion(json!("a"))).await;
    assert!(response.text().contains("prompts must be token ids"), "{}", response.text());
    check(&response, 400, Some("prompt"), None, "no tokenizer");
    let response = server.post(COMPLETIONS, &completion(json!([1, 2, 3]))).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    // Three numbers, each with a space after it.
    let text = response.json()["choices"][0]["text"].as_str().unwrap().to_owned();
    let ids: Vec<usize> = text.split_terminator(' ').map(|id| id.parse().unwrap()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id < VOCAB_SIZE), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_template_takes_completions_only() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = write_model(folder.path(), &[("tokenizer.json", byte_level_tokenizer())]);
    let text = TextModel::load(&checkpoint, None, &[], VOCAB_SIZE, 512).unwrap();
    let server = Setup { text: Some(text), ..Setup::default() }.start().await;
    let chat = json!({"messages": [{"role": "user", "content": "a"}]});
    let response = server.post(CHAT, &chat).await;
    assert!(response.text().contains("no chat template"));
    check(&response, 400, Some("messages"), None, "no template");
    server.canary().await;
}
