//! Checks of op arguments, so that each op states its contract in a few lines.
//!
//! Never knows: what the ops compute.

// Every op's own check, by the op's name, for `reference` to make too.
pub(crate) use super::activation::check as silu_and_mul;
pub(crate) use super::attention::{check as paged_attention, check_tables as attention_tables};
pub(crate) use super::embedding::check as embedding;
pub(crate) use super::few_rows::{
    check_gemm_add as gemm_add, check_norm_gemm as norm_gemm,
    check_norm_gemm_silu as norm_gemm_silu,
};
pub(crate) use super::fp8::{check_gemm as fp8_gemm, check_quantize as quantize_rows};
pub(crate) use super::gather::{
    check_gather_rows as gather_rows, check_ids as ids, check_indices as indices,
};
pub(crate) use super::gemm::check as gemm;
pub(crate) use super::kv::{check as store_kv, check_slots as slots};
pub(crate) use super::moe::{
    check_combine as combine, check_experts as experts, check_group as group,
    check_grouped_gemm as grouped_gemm, check_offsets as offsets, check_route as route,
    check_rows as grouped_rows,
};
pub(crate) use super::norm::{check_add_rms_norm as add_rms_norm, check_rms_norm as rms_norm};
pub(crate) use super::pointwise::{check_add as add, check_reduce_sum as reduce_sum};
pub(crate) use super::rope::{check as qk_norm_rope, check_positions as positions};
pub(crate) use super::rope_store::check as qk_norm_rope_store;
pub(crate) use super::sampling::{
    check_argmax as argmax, check_best_of_shards as best_of_shards,
    check_bias_indices as bias_indices, check_bias_logits as bias_logits,
    check_choose_ids as choose_ids, check_clear_counts as clear_counts,
    check_count_ids as count_ids, check_gumbel_argmax as gumbel_argmax,
    check_histogram as threshold_histogram, check_mass_target as mass_target,
    check_min_p as min_p_threshold, check_penalize_logits as penalize_logits,
    check_pick_logits as pick_logits, check_refine as threshold_refine, check_sum_exp as sum_exp,
    check_table_rows as table_rows, check_top_n as top_n,
};
use crate::{DType, Error, HostElement, Shape, View};

/// Checks for the op of this name.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    op: &'static str,
}

impl Check {
    pub(crate) const fn of(op: &'static str) -> Self {
        Self { op }
    }

    /// The sizes of a view that must have `N` dimensions.
    pub(crate) fn dims<const N: usize>(
        self,
        argument: &'static str,
        view: View<'_>,
    ) -> Result<[usize; N], Error> {
        view.shape().dims().try_into().map_err(|_| Error::Rank {
            op: self.op,
            argument,
            got: view.shape(),
            expected: N,
        })
    }

    /// The dtype of a view that must be f32 or bf16.
    pub(crate) fn float(self, argument: &'static str, view: View<'_>) -> Result<DType, Error> {
        match view.dtype() {
            dtype @ (DType::F32 | DType::Bf16) => Ok(dtype),
            got => {
                Err(Error::DType { op: self.op, argument, got, expected: "float32 or bfloat16" })
            }
        }
    }

    /// The dtype of a KV pool for keys and values of `dtype`: that, or 8-bit floats.
    pub(crate) fn stored(
        self,
        argument: &'static str,
        view: View<'_>,
        dtype: DType,
    ) -> Result<DType, Error> {
        match view.dtype() {
            got if got == dtype || got == DType::F8E4M3 => Ok(got),
            got => {
                let expected = match dtype {
                    DType::F32 => "float32 or float8_e4m3fn",
                    _ => "bfloat16 or float8_e4m3fn",
                };
                Err(Error::DType { op: self.op, argument, got, expected })
            }
        }
    }

    /// A view must have this dtype.
    pub(crate) fn dtype(
        self,
        argument: &'static str,
        view: View<'_>,
        expected: DType,
    ) -> Result<(), Error> {
        if view.dtype() == expected {
            return Ok(());
        }
        let (got, expected) = (view.dtype(), expected.name());
        Err(Error::DType { op: self.op, argument, got, expected })
    }

    /// A view must have this shape.
    pub(crate) fn shape(
        self,
        argument: &'static str,
        view: View<'_>,
        expected: impl Into<Shape>,
    ) -> Result<(), Error> {
        let (got, expected) = (view.shape(), expected.into());
        if got == expected {
            return Ok(());
        }
        Err(Error::Shape { op: self.op, argument, got, expected })
    }

    /// A view must have no gaps inside its rows.
    pub(crate) fn rows(self, argument: &'static str, view: View<'_>) -> Result<(), Error> {
        if view.row_layout().is_some() {
            return Ok(());
        }
        let (shape, strides) = (view.shape(), view.strides().to_vec());
        Err(Error::Layout { op: self.op, argument, shape, strides })
    }

    /// A view must have this dtype and shape, and no gaps inside its rows.
    pub(crate) fn tensor(
        self,
        argument: &'static str,
        view: View<'_>,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<(), Error> {
        self.dtype(argument, view, dtype)?;
        self.shape(argument, view, shape)?;
        self.rows(argument, view)
    }

    /// A scalar parameter is outside its domain.
    pub(crate) fn parameter(
        self,
        parameter: &'static str,
        value: impl ToString,
        allowed: &'static str,
    ) -> Error {
        Error::Parameter { op: self.op, parameter, value: value.to_string(), allowed }
    }

    /// A norm's epsilon must not be negative or NaN.
    pub(crate) fn eps(self, eps: f32) -> Result<(), Error> {
        if eps >= 0.0 && eps.is_finite() {
            return Ok(());
        }
        Err(self.parameter("eps", eps, "a finite number that is not negative"))
    }

    /// The shape of a shard of logits, whose ids must fit in an i32.
    pub(crate) fn logits(self, logits: View<'_>, first_id: i32) -> Result<[usize; 2], Error> {
        let [n, v_local] = self.dims("logits", logits)?;
        self.tensor("logits", logits, DType::F32, [n, v_local])?;
        if v_local == 0 {
            return Err(self.parameter("number of logits", v_local, "at least 1"));
        }
        if i64::from(first_id) + v_local as i64 > i64::from(i32::MAX) {
            return Err(self.parameter("first_id", first_id, "ids that fit in an i32"));
        }
        Ok([n, v_local])
    }

    /// Every index must be in `0..limit`.
    pub(crate) fn indices(
        self,
        argument: &'static str,
        indices: &[i32],
        limit: usize,
    ) -> Result<(), Error> {
        let inside = |&index: &i32| usize::try_from(index).is_ok_and(|index| index < limit);
        match indices.iter().position(|index| !inside(index)) {
            None => Ok(()),
            Some(position) => Err(Error::Index {
                op: self.op,
                argument,
                position,
                value: i64::from(indices[position]),
                min: 0,
                max: limit as i64,
            }),
        }
    }
}

/// The check of [`crate::Stream::upload`] and [`crate::Stream::download`].
pub(crate) fn check_transfer<T: HostElement>(
    op: &'static str,
    argument: &'static str,
    host_len: usize,
    view: View<'_>,
) -> Result<(), Error> {
    let check = Check::of(op);
    check.dtype(argument, view, T::DTYPE)?;
    check.rows(argument, view)?;
    if host_len != view.num_elements() {
        let expected = view.num_elements();
        return Err(Error::Length { op, got: host_len, expected, unit: "elements" });
    }
    Ok(())
}

/// A view must be f32 or bf16 with no gaps inside its rows.
pub(crate) fn check_float_rows(
    op: &'static str,
    argument: &'static str,
    view: View<'_>,
) -> Result<(), Error> {
    let check = Check::of(op);
    check.float(argument, view)?;
    check.rows(argument, view)
}
