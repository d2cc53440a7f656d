//! A chat with the simulator, which answers in the demo model's vocabulary.

use minisgl_sched::SchedulerConfig;
use minisgl_sched::sim::SimExecutor;
use minisgl_server::demo;
use minisgl_server::text::TextModel;

use super::*;

fn talk(lines: &[&str], max_tokens: usize, interrupted: bool) -> String {
    let scheduler =
        SchedulerConfig { max_seq_len: 256, num_pages: 256, ..SchedulerConfig::default() };
    let driver =
        Driver::new(Scheduler::new(scheduler).unwrap(), SimExecutor::new(&scheduler, 1), true);
    let text = TextModel::load(&demo::checkpoint(), None, &[], 4096, 256).unwrap();
    let params = LlmParams {
        max_tokens: Some(max_tokens),
        seed: Some(1),
        skip_special_tokens: false,
        ignore_eos: true,
        ..LlmParams::default()
    };
    let chat = Chat { llm: Llm::new(driver, text), params, messages: Vec::new() };
    let flag = AtomicBool::new(false);
    let mut lines = lines.iter();
    let mut out = Vec::new();
    let read = || Ok(lines.next().map(|line| (*line).to_owned()));
    if interrupted {
        // Interrupts at the first byte.
        chat.talk(read, &mut Interrupting(&mut out, &flag), &flag).unwrap();
    } else {
        chat.talk(read, &mut out, &flag).unwrap();
    }
    String::from_utf8(out).unwrap()
}

struct Interrupting<'a>(&'a mut Vec<u8>, &'a AtomicBool);

impl Write for Interrupting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.store(true, Ordering::Relaxed);
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_chat_is_remembered_until_it_is_reset() {
    let once = talk(&["hello"], 10, false);
    assert!(once.len() > 5);
    let twice = talk(&["hello", "hello"], 10, false);
    assert!(twice.starts_with(&once) && twice != once.repeat(2));
    assert_eq!(talk(&["hello", "/reset", "hello"], 10, false), once.repeat(2));
    assert_eq!(talk(&["", "  ", "hello", "/exit", "hello"], 10, false), once);
}

#[test]
fn what_cannot_be_answered_is_said_and_forgotten() {
    let once = talk(&["hello"], 10, false);
    assert!(talk(&["/unknown"], 10, false).contains("There is no /unknown"));
    let long = "word ".repeat(300);
    let said = talk(&[&long, "hello"], 10, false);
    assert!(said.contains("maximum context length is 256 tokens") && said.ends_with(&once));
}

#[test]
fn an_answer_can_be_interrupted() {
    let whole = talk(&["hello"], 100, false);
    let part = talk(&["hello"], 100, true);
    assert!(whole.starts_with(part.trim_end_matches('\n')) && part.len() < whole.len() / 2);
    // And the chat goes on.
    assert!(talk(&["hello", "more"], 100, true).len() > part.len());
}
