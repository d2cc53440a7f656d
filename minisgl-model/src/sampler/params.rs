//! The sampling parameters of a batch as arrays on the device.
//! Knows parameters and what stands for their absence; never how they are applied.

use minisgl_kernels::ops::sampling::ThresholdMode;
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, View};
use minisgl_sched::SamplingParams;

/// Lists of each kind, one after the other, each as long as the batch.
const NUM_FLOATS: usize = 6;
const NUM_INTS: usize = 4;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct DeviceParams {
    floats: Tensor,
    ints: Tensor,
    seeds: Tensor,
    used: Filters,
}

/// Which filters some row asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filters {
    pub(super) top_k: bool,
    pub(super) top_p: bool,
    pub(super) min_p: bool,
}

impl DeviceParams {
    pub(super) fn new(device: &Device, max_rows: usize) -> Result<Self, Error> {
        Ok(Self {
            floats: device.zeros(DType::F32, [NUM_FLOATS * max_rows])?,
            ints: device.zeros(DType::I32, [NUM_INTS * max_rows])?,
            seeds: device.zeros(DType::U64, [max_rows])?,
            used: Filters::default(),
        })
    }

    pub(super) fn upload(
        &mut self,
        stream: &Stream,
        params: &[SamplingParams],
        vocab_size: usize,
    ) -> Result<(), Error> {
        let m = params.len();
        // Greedy rows are drawn too, at temperature 1, and not looked at; so they need no filters.
        let is_random = |params: &SamplingParams| params.temperature != 0.0;
        let top_k = |params: &SamplingParams| {
            is_random(params) && (1..vocab_size).contains(&(params.top_k as usize))
        };
        let top_p = |params: &SamplingParams| is_random(params) && params.top_p < 1.0;
        let min_p = |params: &SamplingParams| is_random(params) && params.min_p > 0.0;
        self.used = Filters {
            top_k: params.iter().any(top_k),
            top_p: params.iter().any(top_p),
            min_p: params.iter().any(min_p),
        };
        let inverse = |params: &SamplingParams| {
            if is_random(params) { 1.0 / params.temperature } else { 1.0 }
        };
        let mut floats = Vec::with_capacity(NUM_FLOATS * m);
        floats.extend(params.iter().map(inverse));
        floats.extend(params.iter().map(|params| params.top_k as f32));
        floats.extend(params.iter().map(|params| params.top_p));
        // p >= min_p * p_max, with p proportional to exp(x / temperature); -inf excludes nothing.
        let ln = |params: &SamplingParams| {
            if min_p(params) { params.min_p.ln() } else { f32::NEG_INFINITY }
        };
        floats.extend(params.iter().map(ln));
        floats.resize(5 * m, f32::NEG_INFINITY);
        floats.resize(NUM_FLOATS * m, 1.0);
        stream.upload(&floats, self.floats.view_mut().rows(0..floats.len())?)?;

        let mode = |is_on: bool, mode: ThresholdMode| {
            if is_on { mode as i32 } else { ThresholdMode::Off as i32 }
        };
        let mut ints = Vec::with_capacity(NUM_INTS * m);
        ints.extend(params.iter().map(|params| i32::from(!is_random(params))));
        ints.extend(params.iter().map(|params| mode(top_k(params), ThresholdMode::Count)));
        ints.extend(params.iter().map(|params| mode(top_p(params), ThresholdMode::Mass)));
        ints.resize(NUM_INTS * m, 0);
        stream.upload(&ints, self.ints.view_mut().rows(0..ints.len())?)?;

        let seeds: Vec<u64> = params.iter().map(|params| params.seed).collect();
        stream.upload(&seeds, self.seeds.view_mut().rows(0..m)?)
    }

    pub(super) fn used(&self) -> Filters {
        self.used
    }

    pub(super) fn inv_temperature(&self, m: usize) -> Result<View<'_>, Error> {
        self.floats.view().rows(0..m)
    }

    /// How many to keep, as the target of a search.
    pub(super) fn top_k(&self, m: usize) -> Result<View<'_>, Error> {
        self.floats.view().rows(m..2 * m)
    }

    pub(super) fn top_p(&self, m: usize) -> Result<View<'_>, Error> {
        self.floats.view().rows(2 * m..3 * m)
    }

    pub(super) fn ln_min_p(&self, m: usize) -> Result<View<'_>, Error> {
        self.floats.view().rows(3 * m..4 * m)
    }

    /// Excludes nothing.
    pub(super) fn no_threshold(&self, m: usize) -> Result<View<'_>, Error> {
        self.floats.view().rows(4 * m..5 * m)
    }

    pub(super) fn ones(&self, m: usize) -> Result<View<'_>, Error> {
        self.floats.view().rows(5 * m..6 * m)
    }

    /// i32, 0 or 1.
    pub(super) fn is_greedy(&self, m: usize) -> Result<View<'_>, Error> {
        self.ints.view().rows(0..m)
    }

    /// `mode` for the rows that take part in such a search.
    pub(super) fn mode(&self, m: usize, mode: ThresholdMode) -> Result<View<'_>, Error> {
        let list = match mode {
            ThresholdMode::Count => 1,
            ThresholdMode::Mass => 2,
            ThresholdMode::Off => 3,
        };
        self.ints.view().rows(list * m..(list + 1) * m)
    }

    /// i32
    pub(super) fn zeros(&self, m: usize) -> Result<View<'_>, Error> {
        self.ints.view().rows(3 * m..4 * m)
    }

    pub(super) fn seeds(&self, m: usize) -> Result<View<'_>, Error> {
        self.seeds.view().rows(0..m)
    }
}
