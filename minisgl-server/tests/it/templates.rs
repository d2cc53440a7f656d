//! Chat templates that use what those of well-known families use, against what Python's Jinja made of
//! them (`tests/templates/make.py`).

use minijinja::Value;
use minisgl_server::template::{Chat, ChatMessage, ChatTemplate, TemplateError};
use serde::Deserialize;

const CASES: &str = include_str!("../templates/cases.json");

/// The order of keys is part of the prompt, so that nothing is read into sorted maps.
#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Message>,
    #[serde(default)]
    tools: Vec<Value>,
    #[serde(default)]
    documents: Vec<Value>,
    variables: Option<Value>,
    expected: Option<String>,
    raised: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Vec<Value>,
    tool_call_id: Option<String>,
}

fn source(name: &str) -> &'static str {
    match name {
        "turns" => include_str!("../templates/turns.jinja"),
        "built_in" => include_str!("../templates/built_in.jinja"),
        "alternating" => include_str!("../templates/alternating.jinja"),
        "documents" => include_str!("../templates/documents.jinja"),
        _ => panic!("no template {name}"),
    }
}

fn template(source: &str) -> ChatTemplate {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let tokens = tokens.map(|(name, text)| (name.to_owned(), text.to_owned()));
    ChatTemplate::new(source, tokens).unwrap()
}

#[test]
fn prompts_are_those_of_python() {
    let cases: Vec<Case> = serde_json::from_str(CASES).unwrap();
    assert!(cases.len() >= 12);
    for (index, case) in cases.into_iter().enumerate() {
        let messages = case.messages.into_iter().map(|message| ChatMessage {
            reasoning_content: message.reasoning_content,
            tool_calls: message.tool_calls,
            tool_call_id: message.tool_call_id,
            ..ChatMessage::new(message.role, message.content)
        });
        let messages: Vec<_> = messages.collect();
        let variables = case.variables.unwrap_or_else(|| Value::from_pairs([("x", 0); 0]));
        let variables: Vec<_> = variables
            .try_iter()
            .unwrap()
            .map(|key| (key.to_string(), variables.get_item(&key).unwrap()))
            .collect();
        let (tools, documents) = (&case.tools, &case.documents);
        let chat = Chat { messages: &messages, tools, documents, variables: &variables };
        let rendered = template(source(&case.template)).render_chat(&chat);
        let what = format!("case {index}, {}", case.template);
        match (rendered, case.expected, case.raised) {
            (Ok(text), Some(expected), _) => assert_eq!(text, expected, "{what}"),
            (Err(TemplateError::Raised(message)), _, Some(raised)) => {
                assert_eq!(message, raised, "{what}");
            }
            (rendered, ..) => panic!("{what}: {rendered:?}"),
        }
    }
}

#[test]
fn chats_with_tools_may_have_a_template_of_their_own() {
    let both = template("plain {{ tools }}").with_tool_use("tools {{ tools[0] }}").unwrap();
    let tools = [Value::from("x")];
    let messages = [ChatMessage::new("user", "hi")];
    let with = Chat { messages: &messages, tools: &tools, ..Chat::default() };
    assert_eq!(both.render_chat(&with).unwrap(), "tools x");
    assert_eq!(both.render(&messages, &[]).unwrap(), "plain None");
    let one = template("plain {{ tools[0] }}");
    assert_eq!(one.render_chat(&with).unwrap(), "plain x");
    assert!(template("").with_tool_use("{% if %}").is_err());
}
