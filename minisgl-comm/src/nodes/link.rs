//! A connection for messages of the caller, with signs of life on it.
//!
//! Never knows: what the messages say.
//!
//! Both ends send a heartbeat several times within the silence that is allowed. An end that hears
//! nothing for that long, or whose connection breaks, knows that the other one is gone; one that
//! ends on purpose says goodbye first, and one that gives up says why.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::frame::{self, FrameBuffer, Kind};
use crate::{AbortHandle, CommError};

/// The longest message; longer ones are refused on both ends.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Heartbeats within the silence that is allowed.
const HEARTBEATS: u32 = 8;
/// The longest reason that is passed on.
const MAX_REASON_BYTES: usize = 4 << 10;

/// The sending end of a link. Dropping it says goodbye.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    heart: Option<JoinHandle<()>>,
}

/// The receiving end.
#[derive(Debug)]
pub struct LinkReceiver {
    shared: Arc<Shared>,
    body: Vec<u8>,
}

/// What a link brings.
#[derive(Debug)]
pub enum LinkEvent {
    /// A message.
    Message(Vec<u8>),
    /// The other node has left in good order; nothing follows.
    Left,
    /// The other node is gone, or has given up; nothing follows.
    Failed(CommError),
}

#[derive(Debug)]
struct Shared {
    peer: usize,
    stream: TcpStream,
    /// Whoever writes a frame; the frame's memory.
    writing: Mutex<FrameBuffer>,
    silence: Duration,
    has_ended: Mutex<bool>,
    end: Condvar,
}

impl Link {
    /// A link to node `peer` over `stream`; begins to give signs of life.
    pub(super) fn new(
        peer: usize,
        stream: TcpStream,
        silence: Duration,
    ) -> Result<(Self, LinkReceiver), CommError> {
        let broken =
            |source: io::Error| CommError::Node { node: peer, problem: source.to_string() };
        stream.set_read_timeout(Some(silence)).map_err(broken)?;
        stream.set_write_timeout(Some(silence)).map_err(broken)?;
        let shared = Arc::new(Shared {
            peer,
            stream,
            writing: Mutex::default(),
            silence,
            has_ended: Mutex::new(false),
            end: Condvar::new(),
        });
        let beating = shared.clone();
        let heart = thread::Builder::new().name(format!("heart-{peer}"));
        let heart = heart.spawn(move || beating.beat()).map_err(broken)?;
        let receiver = LinkReceiver { shared: shared.clone(), body: Vec::new() };
        Ok((Self { shared, heart: Some(heart) }, receiver))
    }

    /// The node at the other end.
    pub fn peer(&self) -> usize {
        self.shared.peer
    }

    /// Sends a message. Waits while the other end does not take it, but not for ever.
    ///
    /// # Errors
    /// [`CommError::Node`] if the other node is gone.
    pub fn send(&self, message: &[u8]) -> Result<(), CommError> {
        if message.len() > MAX_MESSAGE_BYTES {
            let bytes = message.len();
            let problem = format!("a message of {bytes} bytes, {MAX_MESSAGE_BYTES} are allowed");
            return Err(CommError::Node { node: self.peer(), problem });
        }
        self.shared.send(Kind::Message, message).map_err(|error| self.shared.broken(&error))
    }

    /// Ends the link without waiting for anything; the other end gets the reason, if it can.
    pub(super) fn abort(&self, reason: &str) {
        self.shared.abort(reason);
    }

    /// When the group is aborted, ends this link, and wakes who waits on `data`.
    pub(super) fn end_on_abort(&self, abort: &AbortHandle, data: TcpStream) {
        let shared = Arc::downgrade(&self.shared);
        abort.on_abort(move |reason| {
            if let Some(shared) = shared.upgrade() {
                shared.abort(reason);
            }
            // One that is closed already need not be.
            let _ = data.shutdown(Shutdown::Both);
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.shared.set_ended() {
            // If it cannot be said, the other end will see the connection end.
            let _ = self.shared.send(Kind::Goodbye, &[]);
            let _ = self.shared.stream.shutdown(Shutdown::Write);
        }
        if let Some(heart) = self.heart.take() {
            let _ = heart.join(); // It does not panic.
        }
    }
}

impl LinkReceiver {
    /// The node at the other end.
    pub fn peer(&self) -> usize {
        self.shared.peer
    }

    /// Whether this node has ended the link.
    pub(super) fn has_ended(&self) -> bool {
        *self.shared.ended()
    }

    /// Waits for a message; `None` if the other node has left in good order, or this one has ended
    /// the link.
    ///
    /// # Errors
    /// [`CommError::Node`] if the other node is gone, [`CommError::Aborted`] if it has given up and
    /// says why.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>, CommError> {
        loop {
            let shared = &self.shared;
            let kind = match frame::read(&shared.stream, MAX_MESSAGE_BYTES, &mut self.body) {
                Ok(kind) => kind,
                Err(_) if *shared.ended() => return Ok(None),
                Err(error) => return Err(shared.broken(&error)),
            };
            match kind {
                Kind::Heartbeat => {}
                Kind::Message => return Ok(Some(std::mem::take(&mut self.body))),
                Kind::Goodbye => return Ok(None),
                Kind::Abort => {
                    let reason = String::from_utf8_lossy(&self.body).into();
                    return Err(CommError::Aborted { reason });
                }
                other => {
                    let problem = format!("it sent a frame of kind {other:?}");
                    return Err(CommError::Node { node: shared.peer, problem });
                }
            }
        }
    }
}

impl Shared {
    fn send(&self, kind: Kind, body: &[u8]) -> io::Result<()> {
        let mut frame = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        frame.begin(kind).extend_from_slice(body);
        frame.write(&self.stream)
    }

    /// The life of the heart.
    fn beat(&self) {
        let mut ended = self.ended();
        while !*ended {
            let beat = self.silence / HEARTBEATS;
            let woken = self.end.wait_timeout(ended, beat);
            ended = woken.unwrap_or_else(PoisonError::into_inner).0;
            if *ended {
                return;
            }
            drop(ended);
            if self.send(Kind::Heartbeat, &[]).is_err() {
                // Part of a frame may have been written. The receiver will see the end.
                let _ = self.stream.shutdown(Shutdown::Both);
                return;
            }
            ended = self.ended();
        }
    }

    fn abort(&self, reason: &str) {
        if !self.set_ended() {
            return;
        }
        let end = reason.floor_char_boundary(MAX_REASON_BYTES);
        // Who is writing now may be stuck until the connection is shut down.
        let frame = match self.writing.try_lock() {
            Ok(frame) => Some(frame),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut frame) = frame {
            // A few bytes: either they fit into what the system holds, or nobody listens.
            let _ = self.stream.set_nonblocking(true);
            frame.begin(Kind::Abort).extend_from_slice(&reason.as_bytes()[..end]);
            let _ = frame.write(&self.stream);
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Says whether it had not been.
    fn set_ended(&self) -> bool {
        let was_ended = std::mem::replace(&mut *self.ended(), true);
        self.end.notify_all();
        !was_ended
    }

    fn ended(&self) -> MutexGuard<'_, bool> {
        self.has_ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self, error: &io::Error) -> CommError {
        let problem = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("no sign of life for {:.1} s", self.silence.as_secs_f64())
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "it is gone: the connection has ended".to_owned(),
            _ => error.to_string(),
        };
        CommError::Node { node: self.peer, problem }
    }
}
