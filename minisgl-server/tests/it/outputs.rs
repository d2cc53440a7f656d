//! What comes out of the endpoints that generate, byte by byte.

use minisgl_server::text::TextModel;
use serde_json::{Value, json};

use crate::fixture::{Random, VOCAB_SIZE, byte_fallback_tokenizer, write_model};
use crate::server::{MODEL, Server, Setup};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// The prompt that the fixture's template makes of one user message.
fn chat_prompt(message: &str) -> String {
    format!("<|start|>user\n{message}<|end|>\n<|start|>assistant\n")
}

fn user(message: &str) -> Value {
    json!([{"role": "user", "content": message}])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_in_one_piece() {
    let server = Server::start().await;
    let prompt = server.encode(&chat_prompt("abc"));
    let expected = server.expected(&prompt, 400, 5, false);
    let body = json!({"model": MODEL, "messages": user("abc"), "seed": 5, "max_tokens": 400});
    let response = server.post(CHAT, &body).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.head.header("content-type"), Some("application/json"));
    let mut json = response.json();
    let id = json["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("chatcmpl-") && id.len() == "chatcmpl-".len() + 32, "{id}");
    assert!(json["created"].as_u64().unwrap() > 1_600_000_000);
    json["id"] = json!("?");
    json["created"] = json!(0);
    let usage = json!({
        "prompt_tokens": prompt.len(),
        "completion_tokens": expected.completion_tokens,
        "total_tokens": prompt.len() + expected.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    });
    let message = json!({"role": "assistant", "content": expected.text, "refusal": null});
    let choice = json!({"index": 0, "message": message, "logprobs": null,
        "finish_reason": expected.finish_reason});
    assert_eq!(
        json,
        json!({"id": "?", "object": "chat.completion", "created": 0, "model": MODEL,
            "choices": [choice], "usage": usage})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_as_a_stream_byte_by_byte() {
    let server = Server::start().await;
    let prompt = server.encode(&chat_prompt("abc"));
    let vocabulary = server.text.tokenizer.token_bytes();
    // A seed with three tokens that are whole characters.
    let is_text = |token: &u32| {
        !vocabulary.is_special(*token) && std::str::from_utf8(vocabulary.get(*token)).is_ok()
    };
    let expected = |seed: &i64| server.expected(&prompt, 3, *seed, true).tokens;
    let seed = (0..).find(|seed| expected(seed).iter().all(is_text)).unwrap();

    server.gate.close();
    let body = json!({"messages": user("abc"), "seed": seed, "max_tokens": 3, "ignore_eos": true,
        "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": false}});
    let mut connection = server.begin(CHAT, &body).await;
    // The head does not wait for the first token.
    let head = connection.head().await.unwrap();
    assert_eq!(head.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(head.header(name), Some(value));
    }
    let mut pieces = Vec::new();
    for _ in 0..3 {
        server.gate.pass(1);
        pieces.push(String::from_utf8(connection.chunk().await.unwrap()).unwrap());
    }
    assert_eq!(connection.chunk().await.unwrap(), b"");

    let first: Value = serde_json::from_str(pieces[0][6..].split("\n\n").next().unwrap()).unwrap();
    let (id, created) = (first["id"].as_str().unwrap(), &first["created"]);
    let chunk = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\
             \"model\":\"{MODEL}\",\"choices\":[{choices}],\"usage\":{usage}}}\n\n"
        )
    };
    let choice = |delta: &str, reason: &str| {
        let choice = format!(
            "{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{reason}}}"
        );
        chunk(&choice, "null")
    };
    // One write per step.
    let mut all: Vec<String> = expected(&seed)
        .iter()
        .map(|token| choice(&format!("{{\"content\":{}}}", json!(vocabulary.text(*token))), "null"))
        .collect();
    all[0].insert_str(0, &choice(r#"{"role":"assistant","content":""}"#, "null"));
    all[2] += &choice("{}", "\"length\"");
    let (tokens, total) = (prompt.len(), prompt.len() + 3);
    all[2] += &chunk(
        "",
        &format!(
            "{{\"prompt_tokens\":{tokens},\"completion_tokens\":3,\"total_tokens\":{total},\
             \"prompt_tokens_details\":{{\"cached_tokens\":0}}}}"
        ),
    );
    all[2] += "data: [DONE]\n\n";
    assert_eq!(pieces, all);
}

/// The text of each choice of a stream, with its finish reason; checks the form on the way.
fn gather(events: &[Value], is_chat: bool) -> Vec<(String, String)> {
    let mut outputs: Vec<(String, Option<String>)> = Vec::new();
    let mut begun = Vec::new();
    for event in events {
        assert_eq!((&event["id"], &event["created"]), (&events[0]["id"], &events[0]["created"]));
        assert!(event.get("usage").is_none());
        let choice = &event["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        outputs.resize(outputs.len().max(index + 1), Default::default());
        begun.resize(outputs.len(), false);
        let (text, reason) = &mut outputs[index];
        assert_eq!(*reason, None, "a chunk after the last");
        let piece = if is_chat { &choice["delta"]["content"] } else { &choice["text"] };
        if let (true, Value::String(role)) = (is_chat, &choice["delta"]["role"]) {
            assert_eq!((role.as_str(), begun[index]), ("assistant", false));
        } else if choice["finish_reason"].is_null() {
            assert!(piece.as_str().is_some_and(|piece| !piece.is_empty()), "an empty chunk");
        }
        begun[index] = true;
        text.push_str(piece.as_str().unwrap_or_default());
        *reason = choice["finish_reason"].as_str().map(str::to_owned);
    }
    outputs.into_iter().map(|(text, reason)| (text, reason.expect("an end"))).collect()
}

/// The same output whether streamed or not, and both what the definition of stop strings says.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_the_same_as_whole_answers_and_both_are_right() {
    let server = Server::start().await;
    let mut random = Random(5);
    let mut stopped = 0;
    for round in 0..60 {
        let is_chat = round % 2 == 0;
        let message: String = ["a", "b", "é", " the", "\n", "😀"][random.below(6)].repeat(3);
        let seed = random.below(1000) as i64;
        let stops: Vec<&str> =
            ["ab", "\u{fffd}", "the", "é", "STOP", "\n"][..random.below(6)].to_vec();
        let mut body = json!({"seed": seed, "max_tokens": 40, "stop": stops, "temperature": 0.5});
        let (path, prompt) = if is_chat {
            body["messages"] = user(&message);
            (CHAT, chat_prompt(&message))
        } else {
            body["prompt"] = json!(message);
            (COMPLETIONS, message)
        };
        let expected = server.expected(&server.encode(&prompt), 40, seed, false);
        let cut = stops
            .iter()
            .filter_map(|stop| Some((expected.text.find(stop)?, *stop)))
            // The first to be completed; the longest of those.
            .min_by_key(|(start, stop)| (start + stop.len(), *start));
        let expected = match cut {
            Some((start, _)) => (expected.text[..start].to_owned(), "stop".to_owned()),
            None => (expected.text, expected.finish_reason.to_owned()),
        };
        stopped += usize::from(cut.is_some());

        let whole = server.post(path, &body).await.json();
        let choice = &whole["choices"][0];
        let text = if is_chat { &choice["message"]["content"] } else { &choice["text"] };
        assert_eq!(text, &json!(expected.0), "{body}");
        assert_eq!(choice["finish_reason"], json!(expected.1), "{body}");

        body["stream"] = json!(true);
        let events = server.post(path, &body).await.events();
        assert_eq!(gather(&events, is_chat), [expected], "{body}");
    }
    assert!(stopped > 10, "only {stopped} of 60 met a stop string");
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_of_all_four_kinds_and_n_of_each() {
    let server = Server::start().await;
    let (a, b) = (server.encode("abc the"), server.encode("é\n"));
    for (prompt, prompts) in [
        (json!("abc the"), vec![&a]),
        (json!(["abc the", "é\n"]), vec![&a, &b]),
        (json!(a), vec![&a]),
        (json!([a, b]), vec![&a, &b]),
    ] {
        for stream in [false, true] {
            let body = json!({"prompt": prompt, "n": 3, "seed": 11, "max_tokens": 9,
                "stream": stream});
            let response = server.post(COMPLETIONS, &body).await;
            let outputs: Vec<(String, String)> = if stream {
                gather(&response.events(), false)
            } else {
                let json = response.json();
                let prompt_tokens: usize = prompts.iter().map(|prompt| prompt.len()).sum();
                assert_eq!(json["usage"]["prompt_tokens"], prompt_tokens);
                let text = |field: &Value| field.as_str().unwrap().to_owned();
                let choices = json["choices"].as_array().unwrap().iter().enumerate();
                let choices =
                    choices.inspect(|(index, choice)| assert_eq!(choice["index"], *index));
                choices.map(|(_, c)| (text(&c["text"]), text(&c["finish_reason"]))).collect()
            };
            let expected: Vec<_> = prompts
                .iter()
                // The choices of a prompt differ by their seeds.
                .flat_map(|prompt| [11, 12, 13].map(|seed| server.expected(prompt, 9, seed, false)))
                .map(|output| (output.text, output.finish_reason.to_owned()))
                .collect();
            assert_eq!(outputs, expected, "{body}");
        }
    }
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_find_the_prompt_in_the_prefix_cache() {
    let server = Server::start().await;
    let body = json!({"prompt": "abc".repeat(60), "n": 4, "max_tokens": 2, "ignore_eos": true});
    server.post(COMPLETIONS, &body).await;
    let prompt = server.encode(&"abc".repeat(60)).len() as u64;
    // All but the token that must be computed to sample another.
    assert_eq!(server.metric("minisgl_cached_tokens_total").await, 3 * (prompt - 1));
    let usage = &server.post(COMPLETIONS, &body).await.json()["usage"];
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], prompt - 1);
    assert_eq!(usage["prompt_tokens"], prompt);
    assert_eq!(usage["completion_tokens"], 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_tokens_are_counted_when_a_stop_string_ends_it() {
    let server = Server::start().await;
    let tokens = server.expected(&server.encode("abcabc"), 6, 1, true);
    let stop = tokens.text.chars().nth(2).unwrap();
    let body = json!({"prompt": "abcabc", "max_tokens": 50, "seed": 1, "stop": stop.to_string(),
        "ignore_eos": true});
    server.post(COMPLETIONS, &body).await;
    let json = server.post(COMPLETIONS, &body).await.json();
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    assert!(json["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0);
    assert!(json["usage"]["completion_tokens"].as_u64().unwrap() < 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_decide_and_are_random_if_not_given() {
    let server = Server::start().await;
    let text = async |seed: Value| {
        let body = json!({"prompt": "abc", "max_tokens": 20, "ignore_eos": true, "seed": seed});
        server.post(COMPLETIONS, &body).await.json()["choices"][0]["text"].clone()
    };
    assert_eq!(text(json!(-3)).await, text(json!(-3.0)).await);
    assert_ne!(text(json!(1)).await, text(json!(2)).await);
    assert_ne!(text(json!(null)).await, text(json!(null)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn max_tokens_has_a_default_and_is_cut_to_the_context() {
    let server = Server::start().await;
    let completion_tokens = async |path: &str, mut body: Value| {
        body["ignore_eos"] = json!(true);
        let json = server.post(path, &body).await.json();
        assert_eq!(json["choices"][0]["finish_reason"], "length", "{json}");
        json["usage"]["completion_tokens"].as_u64().unwrap() as usize
    };
    let prompt = json!({"prompt": "abc"});
    assert_eq!(completion_tokens(COMPLETIONS, prompt).await, 16);
    let left = 512 - server.encode("abc").len();
    let prompt = json!({"prompt": "abc", "max_tokens": 100_000});
    assert_eq!(completion_tokens(COMPLETIONS, prompt).await, left);
    let left = 512 - server.encode(&chat_prompt("abc")).len();
    assert_eq!(completion_tokens(CHAT, json!({"messages": user("abc")})).await, left);
    // The newer name wins.
    let both = json!({"messages": user("abc"), "max_tokens": 3, "max_completion_tokens": 4});
    assert_eq!(completion_tokens(CHAT, both).await, 4);
    // The longest prompt that leaves room for one token.
    let prompt = json!({"prompt": vec![4; 511], "max_tokens": 5});
    assert_eq!(completion_tokens(COMPLETIONS, prompt).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn end_tokens_are_counted_but_not_shown() {
    let server = Server::start().await;
    let prompt = server.encode("abc");
    let seed = (0..).find(|seed| {
        let expected = server.expected(&prompt, 30, *seed, false);
        expected.finish_reason == "stop" && !expected.tokens.is_empty()
    });
    let expected = server.expected(&prompt, 30, seed.unwrap(), false);
    let ask = async |extra: Value| {
        let mut body = json!({"prompt": "abc", "max_tokens": 30, "seed": seed});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        server.post(COMPLETIONS, &body).await.json()
    };
    let json = ask(json!({})).await;
    assert_eq!(json["choices"][0]["text"], json!(expected.text));
    assert_eq!(json["usage"]["completion_tokens"], expected.tokens.len() + 1);
    let shown = json!({"include_stop_str_in_output": true, "skip_special_tokens": false});
    let text = ask(shown).await["choices"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.ends_with("<|end|>"), "{text:?}");
    // A token of one's own choice.
    let token = expected.tokens[0];
    let json = ask(json!({"stop_token_ids": [token], "ignore_eos": true})).await;
    assert_eq!(json["choices"][0]["text"], "");
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    // A stop string that is to be shown.
    let whole = server.expected(&prompt, 30, 4, true).text;
    let stop: String = whole.chars().skip(1).take(2).collect();
    let shown = json!({"stop": stop, "no_stop_trim": true, "seed": 4, "ignore_eos": true});
    let end = whole.find(&stop).unwrap() + stop.len();
    assert_eq!(ask(shown).await["choices"][0]["text"], whole[..end]);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_in_both_forms() {
    let server = Server::start().await;
    let prompt = server.encode("abc");
    let expected = server.expected(&prompt, 12, 2, true);
    let vocabulary = server.text.tokenizer.token_bytes();
    let body = json!({"prompt": "abc", "max_tokens": 12, "seed": 2, "ignore_eos": true,
        "logprobs": 3, "skip_special_tokens": false});
    let json = server.post(COMPLETIONS, &body).await.json();
    let choice = &json["choices"][0];
    let logprobs = &choice["logprobs"];
    let texts: Vec<_> = expected.tokens.iter().map(|token| vocabulary.text(*token)).collect();
    assert_eq!(logprobs["tokens"], json!(texts));
    assert_eq!(logprobs["token_logprobs"], json!(vec![-1.0; 12]));
    for (index, top) in logprobs["top_logprobs"].as_array().unwrap().iter().enumerate() {
        let top = top.as_object().unwrap();
        assert_eq!(top[&texts[index]].as_f64().map(|p| p <= -1.0), Some(true));
        assert!((1..=4).contains(&top.len()));
    }
    let offsets: Vec<usize> = logprobs["text_offset"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o.as_u64().unwrap() as usize)
        .collect();
    assert!(offsets.is_sorted() && offsets[0] == 0);

    let body = json!({"messages": user("abc"), "max_tokens": 12, "seed": 2, "ignore_eos": true,
        "logprobs": true, "top_logprobs": 2});
    let whole = server.post(CHAT, &body).await.json();
    let whole = whole["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(whole.len(), 12);
    let tokens = server.expected(&server.encode(&chat_prompt("abc")), 12, 2, true).tokens;
    for (entry, token) in whole.iter().zip(&tokens) {
        assert_eq!(entry["bytes"], json!(vocabulary.get(*token)));
        assert_eq!(entry["token"], json!(vocabulary.text(*token)));
        assert_eq!(entry["logprob"], -1.0);
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 2);
    }
    let mut body = body;
    body["stream"] = json!(true);
    let streamed: Vec<Value> = server
        .post(CHAT, &body)
        .await
        .events()
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(streamed, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prompt_is_echoed() {
    let server = Server::start().await;
    let prompt = server.encode("é the");
    let expected = format!("é the{}", server.expected(&prompt, 4, 1, true).text);
    for prompt in [json!("é the"), json!(prompt)] {
        let mut body = json!({"prompt": prompt, "echo": true, "max_tokens": 4, "seed": 1,
            "ignore_eos": true});
        let json = server.post(COMPLETIONS, &body).await.json();
        assert_eq!(json["choices"][0]["text"], json!(expected));
        body["stream"] = json!(true);
        let events = server.post(COMPLETIONS, &body).await.events();
        assert_eq!(gather(&events, false), [(expected.clone(), "length".to_owned())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_of_mini_sglang_streams_bare_text() {
    let server = Server::start().await;
    let expected = server.expected(&server.encode("abc"), 60, 0, true);
    assert!(expected.text.contains('\n'), "the test needs a line break");
    let body = json!({"prompt": "abc", "max_tokens": 60, "ignore_eos": true});
    let text = server.post("/generate", &body).await.text();
    // What the standard tells a client to do (WHATWG, server-sent events).
    let mut events: Vec<String> = Vec::new();
    let mut data: Vec<&str> = Vec::new();
    for line in text.split('\n') {
        match line.strip_prefix("data:") {
            Some(value) => data.push(value.strip_prefix(' ').unwrap_or(value)),
            None if !data.is_empty() => events.push(std::mem::take(&mut data).join("\n")),
            None => assert_eq!(line, ""),
        }
    }
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    assert_eq!(events.concat(), expected.text.replace("\r\n", "\n").replace('\r', "\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_in_parts_and_unusual_but_valid_fields() {
    let server = Server::start().await;
    let parts = json!([{"role": "developer", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
        {"role": "assistant", "content": null, "tool_calls": []},
        {"role": "user", "content": "x", "name": "who", "unknown": 1}]);
    let prompt = "<|start|>system\na<|end|>\n<|start|>user\nb\nc<|end|>\n\
        <|start|>assistant\n<|end|>\n<|start|>user\nx<|end|>\n<|start|>assistant\n";
    let expected = server.expected(&server.encode(prompt), 3, 1, true);
    let body = json!({
        "messages": parts, "seed": 1, "max_tokens": 3.0, "ignore_eos": true, "model": null,
        "stop": null, "tools": null, "tool_choice": "none", "response_format": {"type": "text"},
        "presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {}, "n": 1.0, "user": "u",
        "top_k": -1, "top_p": 1, "min_p": 0, "repetition_penalty": 1.0, "stream": null,
        "chat_template_kwargs": {"enable_thinking": false}, "input_length_override": 5,
        "metadata": {"a": "b"}, "store": false, "logprobs": false, "top_logprobs": 0,
    });
    let json = server.post(CHAT, &body).await.json();
    assert_eq!(json["choices"][0]["message"]["content"], json!(expected.text), "{json}");
    assert_eq!(server.metric("minisgl_unknown_fields_total").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_streams_at_once() {
    let server = std::sync::Arc::new(Setup::with_max_open(64).start().await);
    let clients: Vec<_> = (0..64)
        .map(|seed| {
            let server = server.clone();
            tokio::spawn(async move {
                // Some of the prompts are the same.
                let prompt = "abc the ".repeat(1 + seed as usize % 7);
                let expected = server.expected(&server.encode(&prompt), 60, seed, false);
                let body = json!({"prompt": prompt, "seed": seed, "max_tokens": 60,
                    "stream": true});
                let events = server.post(COMPLETIONS, &body).await.events();
                let expected = (expected.text, expected.finish_reason.to_owned());
                assert_eq!(gather(&events, false), [expected]);
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn special_tokens_around_a_prompt_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let files = [("tokenizer.json", byte_fallback_tokenizer())];
    let checkpoint = write_model(folder.path(), &files);
    let text = TextModel::load(&checkpoint, None, &[], VOCAB_SIZE, 512).unwrap();
    let server = Setup { text: Some(text), ..Setup::default() }.start().await;
    let mut tokens = Vec::new();
    for special in [json!(null), json!(true), json!(false)] {
        let body = json!({"prompt": "a", "max_tokens": 1, "add_special_tokens": special});
        let json = server.post(COMPLETIONS, &body).await.json();
        tokens.push(json["usage"]["prompt_tokens"].as_u64().unwrap());
    }
    assert_eq!(tokens, [2, 2, 1], "with and without the BOS token");
}
