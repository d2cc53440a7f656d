//! Penalties, `logit_bias` and `min_tokens` over HTTP, with the demo model: that they do what they say,
//! and the same as without a server.

use minisgl_server::llm::Generated;
use minisgl_server::{Llm, LlmOptions, LlmParams};
use serde_json::{Value, json};

use crate::server::{Server, Setup};

const PROMPT: &str = "Once upon a time";
const EOS: u32 = 2;

async fn ask(server: &Server, fields: Value) -> Value {
    let mut body = json!({"prompt": PROMPT, "temperature": 0, "max_tokens": 40});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let json = server.post("/v1/completions", &body).await.json();
    assert!(json["choices"].is_array(), "{json}");
    json
}

async fn text(server: &Server, fields: Value) -> String {
    ask(server, fields).await["choices"][0]["text"].as_str().unwrap().to_owned()
}

fn without_a_server(params: LlmParams) -> Generated {
    let params = LlmParams { temperature: Some(0.0), max_tokens: Some(40), ..params };
    let mut llm = Llm::load(&LlmOptions::default()).unwrap();
    llm.generate(&[PROMPT.into()], &params).unwrap().remove(0)
}

fn most_frequent(tokens: &[u32]) -> usize {
    tokens.iter().map(|token| tokens.iter().filter(|of| *of == token).count()).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn penalties_and_biases_have_their_effect() {
    let server = Setup::default().start_demo(|_| {}).await;
    let plain = without_a_server(LlmParams { ignore_eos: true, ..LlmParams::default() });
    assert_eq!(text(&server, json!({"ignore_eos": true})).await, plain.text);

    let first = plain.token_ids[0];
    let banned =
        without_a_server(LlmParams { logit_bias: vec![(first, -100.0)], ..LlmParams::default() });
    assert!(!banned.token_ids.contains(&first));
    let fields = json!({"logit_bias": {first.to_string(): -100}});
    assert_eq!(text(&server, fields).await, banned.text);

    let forced = server.encode("fox")[0];
    let shown = server.text.tokenizer.decode(&[forced], true);
    let fields = json!({"max_tokens": 5, "logit_bias": {forced.to_string(): 100, "0": 0.5}});
    assert_eq!(text(&server, fields).await, shown.repeat(5));

    // Few tokens may repeat, however long it goes on.
    let penalized = without_a_server(LlmParams {
        ignore_eos: true,
        frequency_penalty: 2.0,
        presence_penalty: 2.0,
        ..LlmParams::default()
    });
    let fields = json!({"ignore_eos": true, "frequency_penalty": 2, "presence_penalty": 2.0});
    assert_eq!(text(&server, fields).await, penalized.text);
    assert!(most_frequent(&penalized.token_ids) < most_frequent(&plain.token_ids));

    let repetition =
        LlmParams { ignore_eos: true, repetition_penalty: Some(1.5), ..LlmParams::default() };
    let repetition = without_a_server(repetition);
    assert_ne!(repetition.text, plain.text);
    let fields = json!({"ignore_eos": true, "repetition_penalty": 1.5});
    assert_eq!(text(&server, fields).await, repetition.text);
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_end_tokens_nor_stop_strings_come_before_min_tokens() {
    let server = Setup::default().start_demo(|_| {}).await;
    let ends = json!({"logit_bias": {EOS.to_string(): 100}});
    let response = ask(&server, ends.clone()).await;
    assert_eq!(response["usage"]["completion_tokens"], 1);
    assert_eq!(response["choices"][0]["finish_reason"], "stop");
    for n in [1, 5] {
        let mut fields = ends.clone();
        fields["min_tokens"] = json!(n);
        let response = ask(&server, fields).await;
        assert_eq!(response["usage"]["completion_tokens"], n + 1);
        assert_eq!(response["choices"][0]["finish_reason"], "stop");
    }
    let forced = server.encode("fox")[0];
    let shown = server.text.tokenizer.decode(&[forced], true);
    for (min_tokens, expected) in [(0, 0), (3, 3)] {
        let fields = json!({"logit_bias": {forced.to_string(): 100}, "stop": shown.trim(),
            "min_tokens": min_tokens, "include_stop_str_in_output": false});
        let response = ask(&server, fields).await;
        let text = response["choices"][0]["text"].as_str().unwrap();
        assert_eq!(text.matches(shown.trim()).count(), expected, "{response}");
        assert_eq!(response["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_makers_repetition_penalty_is_the_default() {
    let plain = Setup::default().start_demo(|_| {}).await;
    let server = Setup::default().start_demo(|text| text.sampling.repetition_penalty = 1.5).await;
    let without = text(&plain, json!({"ignore_eos": true})).await;
    let explicit = json!({"ignore_eos": true, "repetition_penalty": 1.5});
    let expected = text(&plain, explicit).await;
    assert_ne!(expected, without);
    assert_eq!(text(&server, json!({"ignore_eos": true})).await, expected);
    let neutral = json!({"ignore_eos": true, "repetition_penalty": 1});
    assert_eq!(text(&server, neutral).await, without);
}
