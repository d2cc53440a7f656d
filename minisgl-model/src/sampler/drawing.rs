//! One draw per row from what the filters leave. Knows logits and the best token of each row; never
//! whether they are the model's own.

use minisgl_kernels::ops::sampling::{
    self as ops, NUM_BINS, ROUNDS, ThresholdMode, ThresholdState,
};
use minisgl_kernels::{DType, Device, Error, Tensor, View};

use super::params::DeviceParams;
use super::{Best, Call, Finder, ops_copy, sum_over_ranks};
use crate::ModelError;

/// Parameters and memory of a draw.
#[derive(Debug)]
pub(super) struct Drawing {
    pub(super) params: DeviceParams,
    drawn: Best,
    /// `[rows]` i32
    pub(super) chosen: Tensor,
    threshold: Tensor,
    prefix: Tensor,
    remaining: Tensor,
    histogram: Tensor,
    sums: Tensor,
}

impl Drawing {
    pub(super) fn new(device: &Device, max_rows: usize) -> Result<Self, Error> {
        let floats = || device.zeros(DType::F32, [max_rows]);
        let ints = || device.zeros(DType::I32, [max_rows]);
        Ok(Self {
            params: DeviceParams::new(device, max_rows)?,
            drawn: Best::new(device, max_rows)?,
            chosen: ints()?,
            threshold: floats()?,
            prefix: ints()?,
            remaining: floats()?,
            histogram: device.zeros(DType::F32, [max_rows, NUM_BINS])?,
            sums: floats()?,
        })
    }

    /// Draws from the filtered distributions of all rows; greedy rows get their best token.
    pub(super) fn draw(
        &mut self,
        call: &Call<'_>,
        best: &Best,
        finder: &mut Finder,
        positions: View<'_>,
    ) -> Result<(), ModelError> {
        let (m, stream) = (call.len(), call.stream);
        ops_copy(stream, self.params.no_threshold(m)?, &mut self.threshold)?;
        self.filter(call, best)?;
        ops::gumbel_argmax(
            stream,
            call.logits,
            self.params.inv_temperature(m)?,
            self.threshold.view().rows(0..m)?,
            self.params.seeds(m)?,
            positions,
            finder.first_id,
            finder.values.local(m)?,
            finder.ids.local(m)?,
        )?;
        finder.best_of_ranks(call, &mut self.drawn)?;
        ops::choose_ids(
            stream,
            self.params.is_greedy(m)?,
            best.id.view().rows(0..m)?,
            self.drawn.id.view().rows(0..m)?,
            self.chosen.view_mut().rows(0..m)?,
        )?;
        Ok(())
    }

    /// Raises `threshold` to what top-k, top-p and min-p leave.
    fn filter(&mut self, call: &Call<'_>, best: &Best) -> Result<(), ModelError> {
        let (m, stream, used) = (call.len(), call.stream, self.params.used());
        let row_max = best.value.view().rows(0..m)?;
        if used.top_k {
            ops_copy(stream, self.params.top_k(m)?, &mut self.remaining)?;
            self.raise_threshold(call, row_max, ThresholdMode::Count)?;
        }
        if used.top_p {
            ops::sum_exp_above(
                stream,
                call.logits,
                row_max,
                self.params.inv_temperature(m)?,
                self.threshold.view().rows(0..m)?,
                self.sums.view_mut().rows(0..m)?,
            )?;
            sum_over_ranks(call, &mut self.sums)?;
            ops::mass_target(
                stream,
                self.params.top_p(m)?,
                self.sums.view().rows(0..m)?,
                self.remaining.view_mut().rows(0..m)?,
            )?;
            self.raise_threshold(call, row_max, ThresholdMode::Mass)?;
        }
        if used.min_p {
            ops::min_p_threshold(
                stream,
                row_max,
                self.params.ln_min_p(m)?,
                self.params.inv_temperature(m)?,
                self.threshold.view_mut().rows(0..m)?,
            )?;
        }
        Ok(())
    }

    /// For rows that take part, raises `threshold` to the largest value such that the count or mass
    /// of the logits at or above it reaches `remaining`.
    fn raise_threshold(
        &mut self,
        call: &Call<'_>,
        row_max: View<'_>,
        mode: ThresholdMode,
    ) -> Result<(), ModelError> {
        let (m, stream) = (call.len(), call.stream);
        ops_copy(stream, self.params.zeros(m)?, &mut self.prefix)?;
        let mut state = ThresholdState {
            mode: self.params.mode(m, mode)?,
            prefix: self.prefix.view_mut().rows(0..m)?,
            remaining: self.remaining.view_mut().rows(0..m)?,
        };
        for round in 0..ROUNDS {
            ops::threshold_histogram(
                stream,
                call.logits,
                row_max,
                self.params.inv_temperature(m)?,
                &state,
                round,
                self.histogram.view_mut().rows(0..m)?,
            )?;
            call.comm.all_reduce(stream, self.histogram.view_mut().rows(0..m)?)?;
            ops::threshold_refine(stream, self.histogram.view().rows(0..m)?, &mut state, round)?;
        }
        ops::raise_threshold(stream, &state, self.threshold.view_mut().rows(0..m)?)?;
        Ok(())
    }
}
