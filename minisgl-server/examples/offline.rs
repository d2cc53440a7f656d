//! The demo model without a server: a text continued, a chat answered, and an answer as it comes.
//!
//! `cargo run --release -p minisgl-server --example offline`
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::io::Write as _;

use minisgl_server::llm::Prompt;
use minisgl_server::template::ChatMessage;
use minisgl_server::{Llm, LlmOptions, LlmParams, ServerError};

fn main() -> Result<(), ServerError> {
    let mut llm = Llm::load(&LlmOptions::default())?;
    let greedy = LlmParams { temperature: Some(0.0), max_tokens: Some(40), ..LlmParams::default() };

    let question = "What is a prefix cache?";
    let chat: Prompt = vec![ChatMessage::new("user", question)].into();
    let prompts = ["Once upon a time".into(), chat.clone()];
    for output in llm.generate(&prompts, &greedy)? {
        println!("{} [{:?}]", output.text.trim(), output.end);
    }

    println!("\n{question}");
    let mut generating = llm.start(&[chat], &greedy)?;
    while !generating.is_done() {
        for (_, piece) in generating.step()? {
            print!("{piece}|");
            std::io::stdout().flush()?;
        }
    }
    println!();
    Ok(())
}
