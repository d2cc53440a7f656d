//! What is done row by row between products. Never knows which layer it is.

use minisgl_kernels::{Error, Tensor, ops};

use super::{Bench, Sizes, Work, fill};

const EPS: f32 = 1e-6;

impl Bench<'_> {
    /// The norm with its sum, and the gated activation.
    pub(super) fn rows(&mut self) -> Result<(), Error> {
        let (num_rows, hidden, intermediate) =
            (self.sizes.num_rows, self.sizes.hidden, self.sizes.intermediate);
        self.section("row by row, rows x columns".to_owned());

        // Both arrays are read and written.
        let work = Work::moving(4 * num_rows * hidden);
        let mut pairs = self.pairs(work, [num_rows, hidden], [num_rows, hidden])?;
        let weight = fill::noise(&self.stream, [hidden], 1.0)?;
        let calls = Sizes::calls(pairs.len());
        let seconds = self.timer.in_graph(&self.stream, calls, |stream, number| {
            let index = number % pairs.len();
            let [x, residual] = &mut pairs[index];
            ops::add_rms_norm(stream, x.view_mut(), residual.view_mut(), weight.view(), EPS)
        })?;
        self.timed(format!("add_rms_norm, {num_rows} x {hidden}"), seconds, work, String::new());

        let work = Work::moving(3 * num_rows * intermediate);
        let mut pairs = self.pairs(work, [num_rows, 2 * intermediate], [num_rows, intermediate])?;
        let calls = Sizes::calls(pairs.len());
        let seconds = self.timer.in_graph(&self.stream, calls, |stream, number| {
            let index = number % pairs.len();
            let [gate_up, out] = &mut pairs[index];
            ops::silu_and_mul(stream, gate_up.view(), out.view_mut())
        })?;
        self.timed(format!("silu_mul, {num_rows} x {intermediate}"), seconds, work, String::new());
        Ok(())
    }

    /// Copies of two arrays that take turns.
    fn pairs(
        &self,
        work: Work,
        first: [usize; 2],
        second: [usize; 2],
    ) -> Result<Vec<[Tensor; 2]>, Error> {
        let pair = |_| {
            Ok([fill::noise(&self.stream, first, 1.0)?, fill::noise(&self.stream, second, 1.0)?])
        };
        (0..self.sizes.copies(work.bytes as usize)).map(pair).collect()
    }
}
