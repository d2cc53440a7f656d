//! Servers on this machine that behave like hubs and their CDNs, and misbehave like them: a handler
//! per server says what is answered, and everything that is asked is written down.

use std::io::{BufRead as _, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The byte that a range begins at.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// After so many bytes of the body: what happens.
    breaks: Option<(usize, Break)>,
    has_length: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Break {
    /// The connection is closed.
    Close,
    /// Nothing comes any more, and the connection stays open.
    Stall,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), breaks: None, has_length: true }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// The end of the connection is the end of the body.
    pub(crate) fn without_length(self) -> Self {
        Self { has_length: false, ..self }
    }

    pub(crate) fn breaks(mut self, after: usize, how: Break) -> Self {
        self.breaks = Some((after, how));
        self
    }

    /// `content`, or the range of it that was asked for, as object stores do it.
    pub(crate) fn content(asked: &Asked, content: &[u8]) -> Self {
        match asked.from() {
            None => Self::new(200, content),
            Some(from) if from >= content.len() => Self::new(416, "no such range"),
            Some(from) => {
                let (last, len) = (content.len() - 1, content.len());
                Self::new(206, &content[from..])
                    .with("Content-Range", format!("bytes {from}-{last}/{len}"))
            }
        }
    }
}

/// A server; ends when it is dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (handler, log, stopping) = (Arc::new(handler), Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                let stopping = Arc::clone(&stopping);
                // A client that goes away is none of the server's business.
                std::thread::spawn(move || {
                    let _ = serve(stream.unwrap(), &*handler, &log, &stopping);
                });
            }
        });
        Self { url, asked, stop, thread: Some(thread) }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often something was asked for whose path has `part` in it.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.target.contains(part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// One request a connection, as simple servers do it.
fn serve(
    mut stream: TcpStream,
    handler: &dyn Fn(&Asked) -> Answer,
    log: &Mutex<Vec<Asked>>,
    stopping: &AtomicBool,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = Vec::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let asked = Asked { method, target, headers };
    log.lock().unwrap().push(asked.clone());
    let answer = handler(&asked);
    let mut head = format!("HTTP/1.1 {} Something\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if answer.has_length {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    match answer.breaks {
        None => stream.write_all(&answer.body)?,
        Some((after, how)) => {
            stream.write_all(&answer.body[..after])?;
            stream.flush()?;
            while matches!(how, Break::Stall) && !stopping.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    Ok(())
}
