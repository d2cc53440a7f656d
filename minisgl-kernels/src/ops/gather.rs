//! Picking rows and ids by index.
//!
//! Never knows: what the rows or ids are.

use super::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// `out[i] = x[indices[i]]`, by rows.
///
/// - `x`: `[t, h]` T. `indices`: `[n]` i32, each in `0..t`. `out`: `[n, h]` T.
///
/// # Errors
/// [`Error::Index`] if an index is out of range.
pub fn gather_rows(
    stream: &Stream,
    x: View<'_>,
    indices: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_gather_rows(x, indices, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => {
            check_indices("gather_rows", indices, x)?;
            cpu::gather::gather_rows(stream.cpu(), x, indices, out);
        }
        Stream::Cuda(stream) => cuda::ops::gather_rows(stream, x, indices, out)?,
    }
    Ok(())
}

pub(crate) fn check_gather_rows(
    x: View<'_>,
    indices: View<'_>,
    out: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("gather_rows");
    let dtype = check.float("x", x)?;
    let [_, h] = check.dims("x", x)?;
    let [n] = check.dims("indices", indices)?;
    check.rows("x", x)?;
    check.tensor("indices", indices, DType::I32, [n])?;
    check.tensor("out", out, dtype, [n, h])
}

/// `out[i] = table[indices[i]]`.
///
/// - `table`: `[r]` i32. `indices`: `[n]` i32, each in `0..r`. `out`: `[n]` i32.
///
/// # Errors
/// [`Error::Index`] if an index is out of range.
pub fn gather_ids(
    stream: &Stream,
    table: View<'_>,
    indices: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_ids("gather_ids", table, indices, ("out", out.as_view()))?;
    match stream {
        Stream::Cpu(_) => {
            check_indices("gather_ids", indices, table)?;
            cpu::gather::gather_ids(table, indices, out);
        }
        Stream::Cuda(stream) => cuda::ops::gather_ids(stream, table, indices, out)?,
    }
    Ok(())
}

/// `table[indices[i]] = values[i]`.
///
/// - `values`: `[n]` i32. `indices`: `[n]` i32, each in `0..r`; if one appears twice, which value
///   wins is unspecified. `table`: `[r]` i32; ids that are not named are untouched.
///
/// # Errors
/// [`Error::Index`] if an index is out of range.
pub fn scatter_ids(
    stream: &Stream,
    values: View<'_>,
    indices: View<'_>,
    table: ViewMut<'_>,
) -> Result<(), Error> {
    check_ids("scatter_ids", table.as_view(), indices, ("values", values))?;
    match stream {
        Stream::Cpu(_) => {
            check_indices("scatter_ids", indices, table.as_view())?;
            cpu::gather::scatter_ids(values, indices, table);
        }
        Stream::Cuda(stream) => cuda::ops::scatter_ids(stream, values, indices, table)?,
    }
    Ok(())
}

/// `list` is the argument that is as long as `indices`.
pub(crate) fn check_ids(
    op: &'static str,
    table: View<'_>,
    indices: View<'_>,
    list: (&'static str, View<'_>),
) -> Result<(), Error> {
    let check = Check::of(op);
    let [r] = check.dims("table", table)?;
    let [n] = check.dims("indices", indices)?;
    check.tensor("table", table, DType::I32, [r])?;
    check.tensor("indices", indices, DType::I32, [n])?;
    check.tensor(list.0, list.1, DType::I32, [n])
}

/// Every index must name a row of `table`.
pub(crate) fn check_indices(
    op: &'static str,
    indices: View<'_>,
    table: View<'_>,
) -> Result<(), Error> {
    Check::of(op).indices("indices", indices.host_slice(), table.shape().dims()[0])
}
