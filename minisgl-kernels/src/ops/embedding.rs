//! Token embedding from one shard of the vocabulary.
//!
//! Never knows: how many shards there are.

use super::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// `out[i] = table[ids[i] - first_id]`, or a row of zeros if that row is not in the table.
///
/// - `ids`: `[t]` i32. `table`: `[v_local, h]` T: the rows of ids `first_id..first_id + v_local`.
/// - `out`: `[t, h]` T. Summing the outputs of all shards gives every token its row.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn embedding(
    stream: &Stream,
    ids: View<'_>,
    table: View<'_>,
    first_id: i32,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check(ids, table, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => cpu::gather::embedding(stream.cpu(), ids, table, first_id, out),
        Stream::Cuda(stream) => cuda::ops::embedding(stream, ids, table, first_id, out)?,
    }
    Ok(())
}

pub(crate) fn check(ids: View<'_>, table: View<'_>, out: View<'_>) -> Result<(), Error> {
    let check = Check::of("embedding");
    let dtype = check.float("table", table)?;
    let [_, h] = check.dims("table", table)?;
    let [t] = check.dims("ids", ids)?;
    check.rows("table", table)?;
    check.tensor("ids", ids, DType::I32, [t])?;
    check.tensor("out", out, dtype, [t, h])
}
