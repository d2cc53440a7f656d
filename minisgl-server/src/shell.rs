//! The shell: a chat in the terminal, without a server. `/reset` forgets the chat, `/exit` or Ctrl-D
//! leaves, Ctrl-C ends an answer. Reads a pipe as well, one message a line.
//!
//! Never knows tokens.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use minisgl_sched::{Driver, Executor, Scheduler};
use minisgl_server::template::ChatMessage;
use minisgl_server::{Llm, LlmParams, ServerError};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::config::{Config, ShellConfig};
use crate::launch::{Loaded, load};
use crate::startup::Startup;

const PROMPT: &str = "$ ";

/// Loads the model and talks until there is nothing more to say.
///
/// # Errors
/// If the model does not load, the engine fails, or the terminal is gone.
pub(crate) fn run(config: &Config, shell: &ShellConfig, startup: &Startup) -> Result<()> {
    let Loaded { group, text, name, .. } = load(config)?;
    let driver = Driver::new(Scheduler::new(group.limits().scheduler)?, group, config.overlap);
    let params = LlmParams {
        max_tokens: Some(shell.max_tokens),
        temperature: Some(shell.temperature),
        top_k: Some(shell.top_k),
        top_p: Some(shell.top_p),
        ..LlmParams::default()
    };
    let interrupted = watch_interrupts()?;
    startup.leave_interrupts();
    let chat = Chat { llm: Llm::new(driver, text), params, messages: Vec::new() };
    let mut out = io::stdout();
    if io::stdin().is_terminal() {
        writeln!(out, "Talking to {name}. /reset forgets, /exit leaves, Ctrl-C ends an answer.")?;
        let mut editor = DefaultEditor::new()?;
        let read = || loop {
            match editor.readline(PROMPT) {
                Ok(line) => {
                    // Without a history it is only less convenient.
                    let _ = editor.add_history_entry(&line);
                    return Ok(Some(line));
                }
                // Nothing to interrupt: a new line.
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        chat.talk(read, &mut out, &interrupted)
    } else {
        let mut lines = io::stdin().lock().lines();
        let read = || match interrupted.load(Ordering::Relaxed) {
            true => Ok(None),
            false => Ok(lines.next().transpose()?),
        };
        chat.talk(read, &mut out, &interrupted)
    }
}

/// Set at each Ctrl-C, which does nothing else from now on.
fn watch_interrupts() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watch = async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            flag.store(true, Ordering::Relaxed);
        }
    };
    std::thread::Builder::new()
        .name("interrupts".to_owned())
        .spawn(move || runtime.block_on(watch))?;
    Ok(interrupted)
}

/// A model and what was said.
struct Chat<E> {
    llm: Llm<E>,
    params: LlmParams,
    messages: Vec<ChatMessage>,
}

impl<E: Executor> Chat<E> {
    /// Answers each line that `read` returns, until there is none.
    fn talk(
        mut self,
        mut read: impl FnMut() -> Result<Option<String>>,
        out: &mut impl Write,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        while let Some(line) = read()? {
            match line.trim() {
                "" => {}
                "/exit" => break,
                "/reset" => self.messages.clear(),
                command if command.starts_with('/') => {
                    writeln!(out, "There is no {command}: there are /reset and /exit.")?;
                }
                text => {
                    interrupted.store(false, Ordering::Relaxed);
                    self.messages.push(ChatMessage::new("user", text));
                    self.answer(out, interrupted)?;
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, out: &mut impl Write, interrupted: &AtomicBool) -> Result<()> {
        let prompt = [self.messages.clone().into()];
        let mut generating = match self.llm.start(&prompt, &self.params) {
            Ok(generating) => generating,
            Err(ServerError::Engine(reason)) => return Err(ServerError::Engine(reason).into()),
            // About what was said; the chat goes on without it.
            Err(error) => {
                self.messages.pop();
                writeln!(out, "{error}. /reset starts anew.")?;
                return Ok(());
            }
        };
        while !generating.is_done() && !interrupted.load(Ordering::Relaxed) {
            for (_, piece) in generating.step()? {
                out.write_all(piece.as_bytes())?;
                out.flush()?;
            }
        }
        writeln!(out)?;
        let answer = generating.finish().pop().map(|output| output.text).unwrap_or_default();
        self.messages.push(ChatMessage::new("assistant", answer));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
