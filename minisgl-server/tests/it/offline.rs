//! The model without a server, on the simulator; and what the text side of a checkpoint says.

use std::collections::BTreeMap;

use minisgl_model::{Checkpoint, EngineOptions};
use minisgl_sched::sim::{self, SimExecutor};
use minisgl_sched::{
    Driver, FinishReason, Request, RequestId, SamplingParams, Scheduler, SchedulerConfig,
};
use minisgl_server::generation::End;
use minisgl_server::llm::Prompt;
use minisgl_server::template::ChatMessage;
use minisgl_server::text::{SamplingDefaults, TextModel};
use minisgl_server::tokenizer::AddSpecial;
use minisgl_server::{Llm, LlmOptions, LlmParams, ServerError};
use serde_json::{Value, json};

use crate::fixture::{
    CHAT_TEMPLATE, EOS, VOCAB_SIZE, byte_fallback_tokenizer, byte_level_tokenizer,
    metaspace_tokenizer, text_model, write_model,
};

const SEED: u64 = 9;

fn llm() -> Llm<SimExecutor> {
    let scheduler =
        SchedulerConfig { num_pages: 2048, max_seq_len: 512, ..SchedulerConfig::default() };
    let executor = SimExecutor::new(&scheduler, SEED);
    let driver = Driver::new(Scheduler::new(scheduler).unwrap(), executor, true);
    Llm::new(driver, text_model(512))
}

fn expected(prompt: &[u32], max_tokens: usize, ignore_eos: bool) -> (Vec<u32>, End) {
    let request = Request {
        id: RequestId(0),
        prompt: prompt.to_vec(),
        max_tokens,
        stop_token_ids: if ignore_eos { [].into() } else { [EOS].into() },
        sampling: SamplingParams { seed: 1, ..SamplingParams::GREEDY },
        adjustments: None,
    };
    let (tokens, reason) = sim::expected(&request, SEED, None);
    (tokens, if reason == FinishReason::Stop { End::Stop } else { End::Length })
}

#[test]
fn all_kinds_of_prompts_together() {
    let mut llm = llm();
    let encode = |text: &str| llm.text().tokenizer.encode(text, AddSpecial::Yes).unwrap();
    let message = vec![ChatMessage::new("user", "abc")];
    let ids = [
        encode("abc the"),
        vec![4, 5, 6],
        encode("<|start|>user\nabc<|end|>\n<|start|>assistant\n"),
    ];
    let prompts: [Prompt; 3] = ["abc the".into(), vec![4, 5, 6].into(), message.into()];
    // Twice, for the second time with a prefix cache.
    for _ in 0..2 {
        let params = LlmParams { max_tokens: Some(30), seed: Some(1), ..LlmParams::default() };
        let outputs = llm.generate(&prompts, &params).unwrap();
        for (output, prompt) in outputs.iter().zip(&ids) {
            let (tokens, end) = expected(prompt, 30, false);
            assert_eq!((&output.token_ids, output.end), (&tokens, Some(end)));
            let shown = &tokens[..tokens.len() - usize::from(end == End::Stop)];
            assert_eq!(output.text, llm.text().tokenizer.decode(shown, true));
        }
    }
    assert_eq!(llm.generate(&[], &LlmParams::default()).unwrap(), []);
}

#[test]
fn pieces_add_up_and_may_be_left_behind() {
    let mut llm = llm();
    let params = LlmParams {
        max_tokens: Some(60),
        seed: Some(1),
        ignore_eos: true,
        logprobs: Some(2),
        ..LlmParams::default()
    };
    let prompts: [Prompt; 2] = ["abc".into(), "the".into()];
    let whole = llm.generate(&prompts, &params).unwrap();
    assert_eq!(whole[0].logprobs.len(), 60);
    let mut generating = llm.start(&prompts, &params).unwrap();
    let mut texts: BTreeMap<usize, String> = BTreeMap::new();
    while !generating.is_done() {
        for (index, piece) in generating.step().unwrap() {
            texts.entry(index).or_default().push_str(&piece);
        }
    }
    assert_eq!(generating.finish(), whole);
    assert_eq!([&texts[&0], &texts[&1]], [&whole[0].text, &whole[1].text]);

    let mut generating = llm.start(&prompts, &params).unwrap();
    for _ in 0..10 {
        generating.step().unwrap();
    }
    let part = generating.finish();
    assert!(part[0].end.is_none() && whole[0].text.starts_with(&part[0].text));
    drop(llm.start(&prompts, &params).unwrap());
    // What was left behind is in nobody's way.
    assert_eq!(llm.generate(&prompts, &params).unwrap(), whole);
}

#[test]
fn stop_strings_end_one_output_alone() {
    let mut llm = llm();
    let whole =
        LlmParams { max_tokens: Some(50), seed: Some(1), ignore_eos: true, ..LlmParams::default() };
    let prompts: [Prompt; 2] = ["abc".into(), "the".into()];
    let texts: Vec<String> =
        llm.generate(&prompts, &whole).unwrap().into_iter().map(|output| output.text).collect();
    let stop: String = texts[0].chars().skip(4).take(3).collect();
    let params = LlmParams { stop: vec![stop.clone()], ..whole };
    let outputs = llm.generate(&prompts, &params).unwrap();
    for (output, text) in outputs.iter().zip(&texts) {
        let end = text.find(&stop);
        assert_eq!(output.text, text[..end.unwrap_or(text.len())]);
        assert_eq!(output.end, Some(if end.is_some() { End::Stop } else { End::Length }));
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let mut llm = llm();
    let params = LlmParams::default();
    let long = Prompt::Tokens(vec![4; 512]);
    for (prompt, message) in [
        (Prompt::from(""), "empty"),
        (Prompt::Tokens(vec![]), "empty"),
        (vec![VOCAB_SIZE as u32].into(), "vocabulary"),
        (long, "maximum context length is 512 tokens"),
    ] {
        let error = llm.generate(&["abc".into(), prompt], &params).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    for params in [
        LlmParams { temperature: Some(f32::NAN), ..LlmParams::default() },
        LlmParams { temperature: Some(-1.0), ..LlmParams::default() },
        LlmParams { top_p: Some(0.0), ..LlmParams::default() },
        LlmParams { min_p: Some(1.5), ..LlmParams::default() },
        LlmParams { logprobs: Some(1 << 30), ..LlmParams::default() },
        LlmParams { repetition_penalty: Some(0.0), ..LlmParams::default() },
        LlmParams { frequency_penalty: -2.5, ..LlmParams::default() },
        LlmParams { presence_penalty: f32::NAN, ..LlmParams::default() },
        LlmParams { logit_bias: vec![(3, 101.0)], ..LlmParams::default() },
        LlmParams { logit_bias: (0..1025).map(|id| (id, 1.0)).collect(), ..LlmParams::default() },
        LlmParams { max_tokens: Some(3), min_tokens: 4, ..LlmParams::default() },
    ] {
        let error = llm.generate(&["abc".into()], &params).unwrap_err();
        assert!(matches!(error, ServerError::Param { .. }));
    }
    let params = LlmParams { logit_bias: vec![(320, 1.0)], ..LlmParams::default() };
    let error = llm.generate(&["abc".into()], &params).unwrap_err();
    assert!(matches!(error, ServerError::UnknownToken { token: 320, .. }));
    let params = LlmParams { max_tokens: Some(0), ..LlmParams::default() };
    assert!(llm.generate(&["abc".into()], &params).is_err());
    let params = LlmParams { max_tokens: Some(2), ..LlmParams::default() };
    assert_eq!(llm.generate(&["abc".into()], &params).unwrap().len(), 1);
}

/// SentencePiece models spell a space before each word, and their decoders take the first one off.
#[test]
fn a_space_after_the_prompt_stays_and_one_before_an_answer_goes() {
    let load = |decoder: Value| {
        let config = json!({"chat_template": CHAT_TEMPLATE});
        load(&[("tokenizer.json", decoder), ("tokenizer_config.json", config)], None, &[])
    };
    for tokenizer in [byte_fallback_tokenizer(), metaspace_tokenizer()] {
        let scheduler = SchedulerConfig::default();
        let driver = Driver::new(
            Scheduler::new(scheduler).unwrap(),
            SimExecutor::new(&scheduler, SEED),
            true,
        );
        let mut llm = Llm::new(driver, load(tokenizer));
        let params = LlmParams { max_tokens: Some(1), ..LlmParams::default() };
        let word = llm.text().tokenizer.token_id("▁the").unwrap();
        let (bos, a) = (1, llm.text().tokenizer.token_id("▁a").unwrap());
        let mut text_of_word = |prompt: Prompt| {
            let mut answers = (0..4000).filter_map(|seed| {
                let params = LlmParams { seed: Some(seed), ..params.clone() };
                let output =
                    llm.generate(std::slice::from_ref(&prompt), &params).unwrap().remove(0);
                (output.token_ids == [word]).then_some(output.text)
            });
            answers.next().expect("some seed has it")
        };
        assert_eq!(text_of_word("a b".into()), " the");
        assert_eq!(text_of_word(Prompt::Tokens(vec![bos, a])), " the");
        // Here the text begins.
        assert_eq!(text_of_word(Prompt::Tokens(vec![bos])), "the");
        assert_eq!(text_of_word(vec![ChatMessage::new("user", "a")].into()), "the");
    }
}

#[test]
fn a_temperature_near_zero_is_greedy() {
    let engine = EngineOptions {
        num_pages: Some(256),
        max_running_requests: 4,
        max_prefill_tokens: 64,
        ..EngineOptions::default()
    };
    let mut demo = Llm::load(&LlmOptions { engine, ..LlmOptions::default() }).unwrap();
    let mut text = |temperature| {
        let temperature = Some(temperature);
        let params = LlmParams { max_tokens: Some(8), temperature, ..LlmParams::default() };
        demo.generate(&["Once upon".into()], &params).unwrap().remove(0).text
    };
    let greedy = text(0.0);
    assert!(!greedy.is_empty());
    for temperature in [1e-45, 1e-30, 1e-6] {
        assert_eq!(text(temperature), greedy, "{temperature}");
    }
}

fn load(files: &[(&str, Value)], template: Option<&str>, eos: &[u32]) -> TextModel {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = [("tokenizer.json", byte_level_tokenizer())];
    let files: Vec<_> = tokenizer.iter().chain(files).cloned().collect();
    let checkpoint = write_model(folder.path(), &files);
    TextModel::load(&checkpoint, template, eos, VOCAB_SIZE, 512).unwrap()
}

#[test]
fn end_tokens_are_those_of_all_files() {
    let config = |eos: Value| ("tokenizer_config.json", json!({"eos_token": eos}));
    let generation = |eos: Value| ("generation_config.json", json!({"eos_token_id": eos}));
    for (files, config_eos, expected) in [
        (vec![], vec![], vec![]),
        (vec![], vec![7, 5], vec![5, 7]),
        (vec![config(json!("<|end|>"))], vec![], vec![2]),
        (vec![config(json!({"content": "<|end|>", "lstrip": false}))], vec![5], vec![2, 5]),
        (vec![config(json!("<unheard of>"))], vec![5], vec![5]),
        (vec![config(json!(null)), generation(json!(9))], vec![], vec![9]),
        (vec![config(json!("<|end|>")), generation(json!([9, 2]))], vec![9], vec![2, 9]),
    ] {
        assert_eq!(load(&files, None, &config_eos).eos_token_ids, expected, "{files:?}");
    }
}

#[test]
fn templates_are_found_wherever_they_are() {
    let rendered = |files: &[(&str, Value)], template: Option<&str>| {
        load(files, template, &[]).render(&[ChatMessage::new("user", "hi")], &[]).ok()
    };
    let config = |value: Value| ("tokenizer_config.json", json!({"chat_template": value}));
    let named =
        json!([{"name": "tool_use", "template": "no"}, {"name": "default", "template": "list"}]);
    assert_eq!(rendered(&[], None), None);
    assert_eq!(rendered(&[config(json!("text"))], None).as_deref(), Some("text"));
    assert_eq!(rendered(&[config(named)], None).as_deref(), Some("list"));
    assert_eq!(rendered(&[config(json!([]))], None), None);
    let third = ("chat_template.json", json!({"chat_template": "third"}));
    assert_eq!(rendered(std::slice::from_ref(&third), None).as_deref(), Some("third"));
    assert_eq!(rendered(&[third, config(json!("text"))], None).as_deref(), Some("text"));
    // The file of its own comes before that, and the command line before both.
    let folder = tempfile::tempdir().unwrap();
    let files = [("tokenizer.json", byte_level_tokenizer()), config(json!("text"))];
    let checkpoint = write_model(folder.path(), &files);
    std::fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    for (template, expected) in [(None, "file"), (Some("mine"), "mine")] {
        let text = TextModel::load(&checkpoint, template, &[], VOCAB_SIZE, 512).unwrap();
        assert_eq!(text.render(&[ChatMessage::new("user", "hi")], &[]).unwrap(), expected);
    }
}

#[test]
fn sampling_defaults_are_the_makers() {
    let defaults = |json: Value| load(&[("generation_config.json", json)], None, &[]).sampling;
    let standard = SamplingDefaults {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
    };
    assert_eq!(defaults(json!({})), standard);
    let given = json!({"temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1,
        "do_sample": true, "unknown": []});
    let expected = SamplingDefaults {
        temperature: 0.6,
        top_p: 0.9,
        top_k: 20,
        min_p: 0.0,
        repetition_penalty: 1.1,
    };
    assert_eq!(defaults(given), expected);
    // What makes no sense is left out.
    let nonsense = json!({"temperature": -1, "top_p": 0, "top_k": -1, "min_p": 3,
        "repetition_penalty": 0});
    assert_eq!(defaults(nonsense), standard);
}

#[test]
fn a_bos_token_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let template = "{{ bos_token }}{{ messages[0].content }}";
    let files = [
        ("tokenizer.json", byte_fallback_tokenizer()),
        ("tokenizer_config.json", json!({"bos_token": "<s>", "chat_template": template})),
    ];
    let checkpoint = write_model(folder.path(), &files);
    let text = TextModel::load(&checkpoint, None, &[], VOCAB_SIZE, 512).unwrap();
    let prompt = text.render(&[ChatMessage::new("user", "a")], &[]).unwrap();
    let chat = text.encode(&prompt, AddSpecial::No).unwrap();
    let bare = text.encode("a", AddSpecial::Yes).unwrap();
    for tokens in [chat, bare] {
        assert_eq!(tokens.iter().filter(|token| **token == 1).count(), 1, "{tokens:?}");
        assert_eq!(tokens[0], 1);
    }
}

#[test]
fn a_model_without_files_speaks_in_numbers() {
    let checkpoint = Checkpoint::Config(b"{}".to_vec());
    let text = TextModel::load(&checkpoint, None, &[7], VOCAB_SIZE, 512).unwrap();
    assert_eq!(text.eos_token_ids, [7]);
    assert_eq!(text.tokenizer.decode(&[0, 17, 319, 320], true), "0 17 319 ");
    let error = text.encode("17", AddSpecial::Yes).unwrap_err().to_string();
    assert_eq!(
        error,
        "this model has no tokenizer.json: prompts must be token ids, in completions"
    );
    assert!(text.render(&[ChatMessage::new("user", "hi")], &[]).is_err());
    text.check(&[17, 319]).unwrap();
}

#[test]
fn files_that_are_missing_or_broken() {
    let folder = tempfile::tempdir().unwrap();
    let load = |checkpoint: &Checkpoint| {
        let loaded = TextModel::load(checkpoint, None, &[], VOCAB_SIZE, 512);
        loaded.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let checkpoint = write_model(folder.path(), &[]);
    assert!(load(&checkpoint).starts_with("the model has no tokenizer.json"));
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("tokenizer.json", "{");
    assert!(load(&checkpoint).starts_with("tokenizer.json: "));
    write("tokenizer.json", &byte_level_tokenizer().to_string());
    write("tokenizer_config.json", "[]");
    assert!(load(&checkpoint).starts_with("tokenizer_config.json: "));
    write("tokenizer_config.json", r#"{"chat_template": "{% if %}"}"#);
    assert!(load(&checkpoint).starts_with("the chat template is not valid"));
    write("tokenizer_config.json", "{}");
    write("generation_config.json", r#"{"eos_token_id": "x"}"#);
    assert!(load(&checkpoint).starts_with("generation_config.json: "));
    write("generation_config.json", "{}");
    assert_eq!(load(&checkpoint), "");
}
