//! The pinned ring through which uploads go, so that they need not wait for queued work.
//!
//! Never knows: dtypes or shapes; it moves bytes.
//!
//! The ring is cut into segments. A segment is filled from its start; when the next piece does not
//! fit, an event marks the end of its copies, and the next segment is taken, once its own event of
//! the round before has passed.

use super::event::CudaEvent;
use super::memory::Pinned;
use super::stream::CudaStream;
use crate::Error;

const SEGMENT_BYTES: usize = 4 << 20;
const NUM_SEGMENTS: usize = 8;

/// Pieces start at multiples of this.
const ALIGNMENT: usize = 64;

/// The ring of one stream.
pub(super) struct Staging {
    memory: Pinned,
    events: Vec<CudaEvent>,
    segment: usize,
    used: usize,
}

impl Staging {
    /// The most bytes of one piece.
    pub(super) const MAX_PIECE: usize = SEGMENT_BYTES;

    pub(super) fn new(stream: &CudaStream) -> Result<Self, Error> {
        let device = stream.device();
        let memory = Pinned::zeroed(device, SEGMENT_BYTES * NUM_SEGMENTS)?;
        let events = (0..NUM_SEGMENTS).map(|_| CudaEvent::new(device, false));
        Ok(Self { memory, events: events.collect::<Result<_, _>>()?, segment: 0, used: 0 })
    }

    /// Room for a piece of `bytes`, at most [`Self::MAX_PIECE`], that no copy reads any more. The
    /// copy from it must be queued on `stream` before the next piece is asked for.
    pub(super) fn piece(&mut self, stream: &CudaStream, bytes: usize) -> Result<*mut u8, Error> {
        assert!(bytes <= Self::MAX_PIECE, "a piece fits into a segment");
        if self.used + bytes > SEGMENT_BYTES {
            self.events[self.segment].record(stream)?;
            let next = (self.segment + 1) % NUM_SEGMENTS;
            self.events[next].wait()?;
            (self.segment, self.used) = (next, 0);
        }
        let offset = self.segment * SEGMENT_BYTES + self.used;
        self.used += bytes.next_multiple_of(ALIGNMENT);
        // Inside the ring, by the check above.
        Ok(self.memory.address().wrapping_add(offset))
    }
}
