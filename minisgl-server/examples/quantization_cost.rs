//! What 8-bit floats cost in accuracy: a model reads answers to questions that were held out of its
//! training, with its weights as they are and as 8-bit floats, and the same of keys and values.
//!
//! `python minisgl-server/demo-model/train/corpus.py --out FOLDER --train 10 --test 300`, then
//! `cargo run --release -p minisgl-server --example quantization_cost -- FOLDER/test.jsonl [MODEL]`
//! with a model in a folder in place of the demo model. Without a file it reads one answer, which shows
//! how it works and says nothing about accuracy.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;

use minisgl_model::{
    Checkpoint, DTypeChoice, DeviceChoice, EngineOptions, KvCacheDType, QuantizationChoice,
};
use minisgl_sched::{
    Driver, Event, Request, RequestId, SamplingParams, Scheduler, TokenId, TokenLogprobs,
};
use minisgl_server::demo;
use minisgl_server::llm::{Silent, load_model};
use minisgl_server::template::ChatMessage;
use minisgl_server::text::TextModel;
use minisgl_server::tokenizer::AddSpecial;
use serde_json::Value;

/// Answers that are read.
const NUM_TEXTS: usize = 150;
/// Most likely tokens that are known of each step.
const NUM_TOP: u32 = 20;

/// What is read if no file is named.
const SAMPLE: &str = r#"{"messages": [
    {"role": "user", "content": "What is a prefix cache?"},
    {"role": "assistant", "content": "With a prefix cache, requests that share the same first tokens, such as a system message, compute it only once."}
]}"#;

/// A question with its answer.
struct Text {
    tokens: Vec<TokenId>,
    /// Where the answer begins.
    first: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let lines = match arguments.next() {
        Some(file) => std::fs::read_to_string(file)?,
        None => SAMPLE.replace('\n', ""),
    };
    let model = match arguments.next() {
        Some(folder) => Checkpoint::folder(&folder)?,
        None => demo::checkpoint(),
    };
    let mut reference: Vec<TokenLogprobs> = Vec::new();
    println!("| weights | keys and values | perplexity | mean difference | largest | same first |");
    println!("|---|---|---|---|---|---|");
    for (quantization, kv_cache_dtype) in [
        (QuantizationChoice::None, KvCacheDType::Auto),
        (QuantizationChoice::Fp8, KvCacheDType::Auto),
        (QuantizationChoice::None, KvCacheDType::Fp8),
        (QuantizationChoice::Fp8, KvCacheDType::Fp8),
    ] {
        let options = EngineOptions {
            device: DeviceChoice::Cpu,
            dtype: DTypeChoice::Bfloat16,
            quantization,
            kv_cache_dtype,
            ..EngineOptions::default()
        };
        let (group, text_model) = load_model(&model, &options, None, &Silent)?;
        let texts = lines.lines().filter_map(|line| text(line, &text_model).transpose());
        let texts = texts.take(NUM_TEXTS).collect::<Result<Vec<Text>, Box<dyn Error>>>()?;
        let scheduler = Scheduler::new(group.limits().scheduler)?;
        let mut driver = Driver::new(scheduler, group, true);
        let (mut steps, mut expected) = (Vec::new(), Vec::new());
        for text in &texts {
            // Once as a whole, so that its keys and values are there for its beginnings.
            run(&mut driver, &[&text.tokens])?;
            let beginnings: Vec<&[TokenId]> =
                (text.first..text.tokens.len()).map(|end| &text.tokens[..end]).collect();
            steps.extend(run(&mut driver, &beginnings)?);
            expected.extend_from_slice(&text.tokens[text.first..]);
        }
        if reference.is_empty() {
            reference.clone_from(&steps);
            println!("{} tokens in {} answers", expected.len(), texts.len());
        }
        report(quantization, kv_cache_dtype, &steps, &reference, &expected);
    }
    Ok(())
}

/// The first answer of a chat, with all that comes before it; `None` for other texts.
fn text(line: &str, model: &TextModel) -> Result<Option<Text>, Box<dyn Error>> {
    let line: Value = serde_json::from_str(line)?;
    let Some(messages) = line["messages"].as_array() else { return Ok(None) };
    let content = |message: &Value| message["content"].as_str().unwrap_or("").to_owned();
    let mut question = Vec::new();
    for message in messages {
        let role = message["role"].as_str().unwrap_or("user");
        if role != "assistant" {
            question.push(ChatMessage::new(role, content(message)));
            continue;
        }
        let mut tokens = model.encode(&model.render(&question, &[])?, AddSpecial::No)?;
        let first = tokens.len();
        tokens.extend(model.encode(&content(message), AddSpecial::No)?);
        return Ok(Some(Text { tokens, first }));
    }
    Ok(None)
}

/// What comes after each of `prompts`, as the model has it.
fn run(
    driver: &mut Driver<minisgl_model::RankGroup>,
    prompts: &[&[TokenId]],
) -> Result<Vec<TokenLogprobs>, Box<dyn Error>> {
    let sampling = SamplingParams { logprobs: Some(NUM_TOP), ..SamplingParams::GREEDY };
    for (prompt, id) in prompts.iter().zip(0..) {
        driver.add(Request {
            id: RequestId(id),
            prompt: prompt.to_vec(),
            max_tokens: 1,
            stop_token_ids: [].into(),
            sampling,
            adjustments: None,
        })?;
    }
    let mut steps = BTreeMap::new();
    while !driver.is_idle() {
        for event in driver.step()? {
            if let Event::Token { id, logprobs: Some(logprobs), .. } = event {
                steps.insert(id, logprobs);
            }
        }
    }
    Ok(steps.into_values().collect())
}

/// One line of the table. A token that is not among the most likely ones counts as the last of them.
fn report(
    quantization: QuantizationChoice,
    kv_cache_dtype: KvCacheDType,
    steps: &[TokenLogprobs],
    reference: &[TokenLogprobs],
    expected: &[TokenId],
) {
    let logprob = |step: &TokenLogprobs, token: TokenId| {
        let found = step.top.iter().find(|(id, _)| *id == token).or(step.top.last());
        found.map_or(0.0, |(_, logprob)| f64::from(*logprob))
    };
    let count = expected.len() as f64;
    let (mut sum, mut differences, mut largest, mut same) = (0.0, 0.0, 0f64, 0.0);
    for ((step, reference), &token) in steps.iter().zip(reference).zip(expected) {
        sum += logprob(step, token);
        let difference = (logprob(step, token) - logprob(reference, token)).abs();
        differences += difference;
        largest = largest.max(difference);
        same += f64::from(u8::from(step.top[0].0 == reference.top[0].0));
    }
    println!(
        "| {} | {} | {:.4} | {:.4} | {largest:.3} | {:.2} % |",
        quantization.name(),
        kv_cache_dtype.name(),
        (-sum / count).exp(),
        differences / count,
        100.0 * same / count,
    );
}
