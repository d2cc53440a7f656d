//! Templates in the manner of well-known models, with what Python's Jinja makes of them; and
//! templates that misbehave.

use super::*;

fn render(source: &str, messages: &[ChatMessage]) -> Result<String, TemplateError> {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let tokens = tokens.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let thinking = [("enable_thinking".to_owned(), Value::from(false))];
    ChatTemplate::new(source, tokens)?.render(messages, &thinking)
}

/// Renders with one message of a user, `hi`.
fn check(source: &str, expected: &str) {
    assert_eq!(render(source, &[ChatMessage::new("user", "hi")]).unwrap(), expected, "{source}");
}

fn chat() -> Vec<ChatMessage> {
    vec![
        ChatMessage::new("system", "Be <brief> & 'kind'."),
        ChatMessage::new("user", "1 < 2?"),
        ChatMessage {
            reasoning_content: Some("hm".to_owned()),
            ..ChatMessage::new("assistant", "<think>\nso\n</think>\n\nYes. ")
        },
        ChatMessage::new("user", " Sure?\n"),
    ]
}

#[test]
fn in_the_manner_of_qwen() {
    // Reversed messages, namespaces, tests, Python's methods, macros left out.
    let source = r#"{%- if tools %}
    {{- 'tools' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.content and '</think>' in message.content %}
            {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- reasoning_content }}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- if message.tool_calls %}{{- 'calls' }}{%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"#;
    let expected = "<|im_start|>system\nBe <brief> & 'kind'.<|im_end|>\n\
        <|im_start|>user\n1 < 2?<|im_end|>\n<|im_start|>assistant\nYes. <|im_end|>\n\
        <|im_start|>user\n Sure?\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
    assert_eq!(render(source, &chat()).unwrap(), expected);
}

#[test]
fn in_the_manner_of_llama_3() {
    let source = r#"{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%Y") %}
    {%- else %}
        {%- set date_string = "never" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}{{- "Environment: ipython\n" }}{%- endif %}
{{- (date_string|int > 2000) ~ "\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"#;
    let rendered = render(source, &chat()[..2]).unwrap();
    let (start, rest) = rendered.split_once("\n\n").unwrap();
    assert_eq!(start, "<s><|start_header_id|>system<|end_header_id|>");
    let rest = rest.split_once('\n').unwrap().1;
    assert_eq!(
        rest,
        "Be <brief> & 'kind'.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n1 < 2?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[test]
fn in_the_manner_of_mistral() {
    let source = "{{ bos_token }}{% for message in messages %}\
        {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\
        {% endif %}\
        {% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\
        {% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}\
        {% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}\
        {% endfor %}";
    check(source, "<s>[INST] hi [/INST]");
    let error = render(source, &chat()).unwrap_err();
    let TemplateError::Raised(message) = error else { panic!("{error:?}") };
    assert!(message.starts_with("Conversation roles must alternate"));
}

#[test]
fn blocks_leave_no_white_space() {
    check("{% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb");
    check("a\n{# note #}\nb", "a\nb");
}

#[test]
fn training_marks_do_nothing() {
    let source = "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration %}!\n\
        {% endfor %}{% raw %}{% generation %}{% endraw %}";
    check(source, "hi!\n{% if true %}");
    assert_eq!(without_generation_tags("{% set generation = 1 %}{%"), "{% set generation = 1 %}{%");
}

#[test]
fn python_spells_true_false_and_none_in_its_own_way() {
    check(
        "{{ true }} {{ false }} {{ none }} {{ 1 }} {{ 1.0 }} {{ missing }}|",
        "True False None 1 1.0 |",
    );
}

#[test]
fn json_is_as_python_dumps_it() {
    for (expression, expected) in [
        ("messages", r#"[{"role": "user", "content": "hi"}]"#),
        ("{'b': [1, 2.5, true, none], 'a': {}}", r#"{"b": [1, 2.5, true, null], "a": {}}"#),
        ("'<a href=\"x\">&\\'é😀\\n\\u0001'", r#""<a href=\"x\">&'é😀\n\u0001""#),
    ] {
        check(&format!("{{{{ {expression} | tojson }}}}"), expected);
    }
    check("{{ 'é😀' | tojson(ensure_ascii=true) }}", r#""\u00e9\ud83d\ude00""#);
    check(
        "{{ {'b': 1, 'a': [2]} | tojson(sort_keys=true, separators=(',', ':')) }}",
        r#"{"a":[2],"b":1}"#,
    );
    check(
        "{{ {'a': [1, {}], 'b': []} | tojson(indent=2) }}",
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}",
    );
    assert!(render("{{ 1 | tojson(other=1) }}", &chat()).is_err());
}

#[test]
fn work_and_memory_are_bounded() {
    for source in [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{% set ns = namespace(x='x') %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include 'x' %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=['']) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ '-'.join(ns.x) }}",
        "{% set ns = namespace(x=['']) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ '{}'.format(ns.x) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
        "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
        "{{ ('a' * 1000000).join(('b ' * 1000000).split()) }}",
        "{{ ('{0}' * 100000).format('a' * 1000000) }}",
        "{{ '{:1000000000}{:>1000000000}'.format(1, 'a') }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'a' | indent(10000000000) }}",
        "{{ ('a\\n' * 1000000) | indent(1000000) }}",
        "{{ [1] | tojson(indent=10000000000) }}",
        "{{ range(10000000000) | list }}",
        "{% set x = 'a' * 1000000 %}{% for i in range(1000) %}{{ x }}{% endfor %}",
        "{{ raise_exception() }}",
        "{{ messages.pop() }}",
    ] {
        let error = render(source, &chat()).unwrap_err();
        assert!(matches!(error, TemplateError::Failed(_)), "{source}: {error:?}");
    }
    assert!(matches!(render("{% if %}", &chat()), Err(TemplateError::Syntax(_))));
}

#[test]
fn pythons_methods_do_their_work() {
    check("{{ 'a-b-a'.replace('a', 'xyz') }}", "xyz-b-xyz");
    check("{{ 'a-b-a'.replace('a', 'xyz', 1) }}", "xyz-b-a");
    check("{{ ', '.join(messages | map(attribute='role')) }}", "user");
    check("{{ '{} {:>4}|{name}'.format('a', 7, name='b') }}", "a    7|b");
    check("{{ 'a b'.split() | length }}{{ ' x '.strip() }}{{ 'ab'.upper().find('B') }}", "2x1");
    check("{% for key, value in {'a': 1}.items() %}{{ key }}{{ value }}{% endfor %}", "a1");
    assert!(render("{{ ', '.join([1, 2]) }}", &chat()).is_err());
}

#[test]
fn variables_hide_nothing_of_the_server() {
    let template = ChatTemplate::new("{{ messages|length }}{{ x }}", []).unwrap();
    let variables = [("messages", "none"), ("x", "y")];
    let variables = variables.map(|(name, value)| (name.to_owned(), Value::from(value)));
    assert_eq!(template.render(&chat(), &variables).unwrap(), "4y");
}
