//! Owned, zeroed, 64-byte aligned memory: of the host, or of whatever device.
//!
//! Never knows: element types or shapes; it counts bytes.

use memmap2::MmapMut;

use crate::Error;
use crate::cuda::CudaBuffer;

/// From this size on a buffer is its own memory map: the system zeroes it page by page at first
/// touch, can back it with huge pages, and gets it back at once when it is dropped. Below it, a
/// map would waste most of a page and cost more than zeroing does.
const MAP_FROM_BYTES: usize = 1 << 20;

/// One cache line, the unit of alignment.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Line {
    _bytes: [u8; 64],
}

/// Memory of a device.
pub(crate) enum Buffer {
    Host(HostBuffer),
    Cuda(CudaBuffer),
}

impl Buffer {
    /// The first byte, to read from. Of a GPU's memory it is where the GPU finds it.
    pub(crate) fn address(&self) -> *const u8 {
        match self {
            Self::Host(buffer) => buffer.address(),
            Self::Cuda(buffer) => buffer.address(),
        }
    }

    /// The first byte, to write to. Of a GPU's memory it is where the GPU finds it.
    pub(crate) fn address_mut(&mut self) -> *mut u8 {
        match self {
            Self::Host(buffer) => buffer.address_mut(),
            Self::Cuda(buffer) => buffer.address(),
        }
    }
}

/// Memory of the host, aligned to at least 64 bytes.
pub(crate) enum HostBuffer {
    Heap(Vec<Line>),
    Map(MmapMut),
}

impl HostBuffer {
    pub(crate) fn zeroed(bytes: usize) -> Result<Self, Error> {
        if bytes < MAP_FROM_BYTES {
            return Ok(Self::Heap(vec![Line { _bytes: [0; 64] }; bytes.div_ceil(64)]));
        }
        let map =
            MmapMut::map_anon(bytes).map_err(|source| Error::OutOfMemory { bytes, source })?;
        // Only advice: without huge pages everything works, with more TLB misses.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self::Map(map))
    }

    /// The first byte, to read from.
    pub(crate) fn address(&self) -> *const u8 {
        match self {
            Self::Heap(lines) => lines.as_ptr().cast(),
            Self::Map(map) => map.as_ptr(),
        }
    }

    /// The first byte, to write to.
    pub(crate) fn address_mut(&mut self) -> *mut u8 {
        match self {
            Self::Heap(lines) => lines.as_mut_ptr().cast(),
            Self::Map(map) => map.as_mut_ptr(),
        }
    }
}
