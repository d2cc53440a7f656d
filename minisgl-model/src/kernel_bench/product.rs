//! Products with weight matrices. Never knows whose weights they are.

use minisgl_kernels::ops::tuning::{self, GemmShape};
use minisgl_kernels::{DType, Device, Error, Tensor, ops};

use super::{Bench, Sizes, Work, fill};

/// Serving tunes the products of decode steps, up to so many rows; prompts take the library's first
/// choice.
const MAX_TUNED_ROWS: usize = 256;

impl Bench<'_> {
    /// All matrices with all numbers of rows, by whatever kernel `ops::gemm` picks.
    pub(super) fn products(&mut self) -> Result<(), Error> {
        let algorithms = match self.stream.device() {
            Device::Cpu(_) => "",
            Device::Cuda(_) => {
                ": up to 256 rows tuned as in decode steps, else by the library's first choice"
            }
        };
        self.section(format!("products, M x K x N{algorithms}"));
        for (name, k, n) in self.sizes.matrices {
            let timed = self.products_with(name, k, n);
            self.unless_lacking(|| name.to_owned(), timed)?;
        }
        Ok(())
    }

    fn products_with(&mut self, name: &str, k: usize, n: usize) -> Result<(), Error> {
        let sizes = self.sizes;
        let copies = sizes.copies(k * n * DType::Bf16.size_bytes());
        let weights = (0..copies)
            .map(|_| fill::noise(&self.stream, [n, k], 1.0 / (k as f32).sqrt()))
            .collect::<Result<Vec<_>, _>>()?;
        for &m in sizes.product_rows {
            let what = format!("{name}, {m} x {k} x {n}");
            let timed = self.product(what.clone(), [m, k, n], &weights);
            self.unless_lacking(|| what, timed)?;
        }
        Ok(())
    }

    /// - `weights`: copies of a matrix, `[n, k]`.
    fn product(&mut self, what: String, mkn: [usize; 3], weights: &[Tensor]) -> Result<(), Error> {
        let first_choice = self.time_product(mkn, weights)?;
        let tuned = if self.tune(mkn)? { Some(self.time_product(mkn, weights)?) } else { None };
        let (seconds, note) = match tuned {
            None => (first_choice, String::new()),
            Some(tuned) if mkn[0] <= MAX_TUNED_ROWS => {
                (tuned, format!("first choice {:.1} us", 1e6 * first_choice))
            }
            Some(tuned) => (first_choice, format!("tuned {:.1} us", 1e6 * tuned)),
        };
        self.timed(what, seconds, Work::product(mkn), note);
        Ok(())
    }

    /// Operations per second of the product that is the ceiling of all others.
    pub(super) fn time_ceiling_product(&self, mkn: [usize; 3]) -> Result<f64, Error> {
        let [_, k, n] = mkn;
        let weights = [fill::noise(&self.stream, [n, k], 1.0 / (k as f32).sqrt())?];
        self.tune(mkn)?;
        let seconds = self.time_product(mkn, &weights)?;
        Ok(Work::product(mkn).flops as f64 / seconds)
    }

    fn time_product(&self, [m, k, n]: [usize; 3], weights: &[Tensor]) -> Result<f64, Error> {
        let x = fill::noise(&self.stream, [m, k], 1.0)?;
        let mut out = self.stream.device().zeros(DType::Bf16, [m, n])?;
        self.timer.in_graph(&self.stream, Sizes::calls(weights.len()), |stream, number| {
            let w = weights[number % weights.len()].view();
            ops::gemm(stream, x.view(), w, None, out.view_mut())
        })
    }

    /// Has `ops::gemm` use the library's fastest algorithm from now on; false if there is no choice.
    fn tune(&self, [m, k, n]: [usize; 3]) -> Result<bool, Error> {
        let dtype = DType::Bf16;
        let shape = GemmShape { m, n, k, dtype, out_dtype: dtype, bias: false };
        Ok(tuning::tune_gemm(&self.stream, &shape)?.is_some())
    }
}
