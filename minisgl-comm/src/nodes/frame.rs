//! Frames: what is on a connection is cut into pieces of a kind and a length that is checked before
//! any memory is taken for it.
//!
//! Never knows: what is in a frame.

use std::io::{self, Read, Write};

/// What a frame is. One byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Challenge = 2,
    Proof = 3,
    Welcome = 4,
    Refusal = 5,
    Message = 16,
    Heartbeat = 17,
    Goodbye = 18,
    Abort = 19,
    Arrays = 32,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Self::Hello,
        Self::Challenge,
        Self::Proof,
        Self::Welcome,
        Self::Refusal,
        Self::Message,
        Self::Heartbeat,
        Self::Goodbye,
        Self::Abort,
        Self::Arrays,
    ];
}

/// Length and kind.
const HEADER_BYTES: usize = 5;

/// A frame that is being made; its memory is used again for the next one.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    /// A frame of `kind` with `body`.
    pub(super) fn of(kind: Kind, body: &[u8]) -> Self {
        let mut frame = Self::default();
        frame.begin(kind).extend_from_slice(body);
        frame
    }

    /// Begins a frame; its body is what is appended.
    pub(super) fn begin(&mut self, kind: Kind) -> &mut Vec<u8> {
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0; HEADER_BYTES - 1]);
        self.bytes.push(kind as u8);
        &mut self.bytes
    }

    /// Writes it in one piece.
    pub(super) fn write(&mut self, mut stream: impl Write) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too long");
        let length = u32::try_from(self.bytes.len() - HEADER_BYTES).map_err(too_long)?;
        self.bytes[..HEADER_BYTES - 1].copy_from_slice(&length.to_le_bytes());
        stream.write_all(&self.bytes)
    }
}

/// Reads a frame of at most `max` bytes into `body`, and says its kind.
///
/// # Errors
/// As the stream, and `InvalidData` for what is no frame or longer than allowed.
pub(super) fn read(mut stream: impl Read, max: usize, body: &mut Vec<u8>) -> io::Result<Kind> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let [a, b, c, d, kind] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let invalid = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
    let known = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
    let kind = known.ok_or_else(|| invalid(format!("a frame of the unknown kind {kind}")))?;
    if length > max {
        return Err(invalid(format!("a frame of {length} bytes, at most {max} are allowed")));
    }
    body.resize(length, 0);
    stream.read_exact(body)?;
    Ok(kind)
}

/// Takes values off the front of a frame's body.
pub(super) struct Parts<'a>(pub(super) &'a [u8]);

impl<'a> Parts<'a> {
    /// The next `count` bytes, if there are so many.
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A text behind its length, as [`push_text`] writes it.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()?;
        std::str::from_utf8(self.bytes(length as usize)?).ok()
    }
}

/// Appends a text behind its length.
pub(super) fn push_text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u32).to_le_bytes());
    body.extend_from_slice(text.as_bytes());
}
