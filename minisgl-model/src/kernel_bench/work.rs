//! What operations have to move and to compute at least, and which ceiling that meets first.
//! Never knows a device.

use minisgl_kernels::DType;

/// Bytes of an element: everything that is timed is bfloat16.
const ELEMENT: u64 = DType::Bf16.size_bytes() as u64;

/// What one call has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// What it moves, or the large part of it: keys and values, or weights.
    pub bytes: u64,
    /// Multiplications and additions.
    pub flops: u64,
}

impl Work {
    /// One query for each of `sequences`, which sees `context` positions: their keys and values are
    /// read once.
    pub fn decode(
        sequences: usize,
        context: usize,
        [num_q_heads, num_kv_heads, head_dim]: [usize; 3],
    ) -> Self {
        let positions = (sequences * context) as u64;
        Self {
            bytes: 2 * positions * (num_kv_heads * head_dim) as u64 * ELEMENT,
            flops: 4 * positions * (num_q_heads * head_dim) as u64,
        }
    }

    /// One prompt whose tokens see those before them: half of the square.
    pub fn prefill(tokens: usize, [num_q_heads, num_kv_heads, head_dim]: [usize; 3]) -> Self {
        let square = (tokens * tokens) as u64;
        // Queries, keys, values and outputs, once each.
        let heads = 2 * (num_q_heads + num_kv_heads);
        Self {
            bytes: (tokens * heads * head_dim) as u64 * ELEMENT,
            flops: 4 * square * (num_q_heads * head_dim) as u64 / 2,
        }
    }

    /// `m` rows times a matrix of `k` by `n`, which is read once.
    pub fn product([m, k, n]: [usize; 3]) -> Self {
        let matrix = (k * n) as u64;
        Self { bytes: matrix * ELEMENT, flops: 2 * m as u64 * matrix }
    }

    /// So many elements are read or written; what is computed does not count.
    pub fn moving(elements: usize) -> Self {
        Self { bytes: elements as u64 * ELEMENT, flops: 0 }
    }
}

/// What the device can do at best, measured in the same run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Bytes per second of a copy, read and written.
    pub copy: f64,
    /// Bytes per second of a sum of eight arrays: eight parts are read for one that is written.
    pub read: f64,
    /// The product that [`Ceilings::flops`] is from: `m`, `k`, `n`.
    pub product: [usize; 3],
    /// Operations per second of it.
    pub flops: f64,
}

/// Which of the ceilings an operation meets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Memory.
    Bytes,
    /// Arithmetic.
    Flops,
}

impl Ceilings {
    /// Bytes per second: the better one of the two.
    pub fn bytes(&self) -> f64 {
        self.copy.max(self.read)
    }

    /// What bounds this work.
    pub fn bound(&self, work: Work) -> Bound {
        let (bytes, flops) = (work.bytes as f64 / self.bytes(), work.flops as f64 / self.flops);
        if flops > bytes { Bound::Flops } else { Bound::Bytes }
    }

    /// How much per second an operation does of what bounds it, and that as a share of the ceiling.
    pub fn rate(&self, work: Work, seconds: f64) -> (Bound, f64, f64) {
        let bound = self.bound(work);
        let (amount, ceiling) = match bound {
            Bound::Bytes => (work.bytes, self.bytes()),
            Bound::Flops => (work.flops, self.flops),
        };
        let rate = amount as f64 / seconds;
        (bound, rate, rate / ceiling)
    }
}
