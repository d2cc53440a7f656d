//! Moving and adding rows and ids.
//!
//! Never knows: what the rows or ids are.

use crate::cuda::call::{Call, code};
use crate::cuda::stream::CudaStream;
use crate::{Error, View, ViewMut};

pub(crate) fn embedding(
    stream: &CudaStream,
    ids: View<'_>,
    table: View<'_>,
    first_id: i32,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("embedding", stream)?;
    let (ids, table) = (call.elements("ids", ids)?, (call.rows("table", table)?, table.dtype()));
    let rows = call.rows_mut("out", &mut out)?;
    if out.num_elements() == 0 {
        return Ok(());
    }
    let embedding = call.functions().msgl_embedding;
    // SAFETY: the op has checked the shapes; the kernel checks the ids.
    call.done(unsafe { embedding(code(table.1), ids, table.0, first_id, rows, call.stream()) })
}

pub(crate) fn gather_rows(
    stream: &CudaStream,
    x: View<'_>,
    indices: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("gather_rows", stream)?;
    let (rows, indices) = (call.rows("x", x)?, call.elements("indices", indices)?);
    let target = call.rows_mut("out", &mut out)?;
    if out.num_elements() == 0 {
        return Ok(());
    }
    let gather = call.functions().msgl_gather_rows;
    // SAFETY: the op has checked the shapes; the kernel checks the indices.
    call.done(unsafe { gather(code(x.dtype()), rows, indices, target, call.stream()) })
}

pub(crate) fn gather_ids(
    stream: &CudaStream,
    table: View<'_>,
    indices: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("gather_ids", stream)?;
    let (table_len, n) = (table.num_elements() as i64, indices.num_elements() as i64);
    let table = call.elements("table", table)?;
    let indices = call.elements("indices", indices)?;
    let out = call.elements_mut("out", &mut out)?;
    if n == 0 {
        return Ok(());
    }
    let gather = call.functions().msgl_gather_ids;
    // SAFETY: the op has checked the shapes; the kernel checks the indices.
    call.done(unsafe { gather(table, table_len, indices, n, out, call.stream()) })
}

pub(crate) fn scatter_ids(
    stream: &CudaStream,
    values: View<'_>,
    indices: View<'_>,
    mut table: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("scatter_ids", stream)?;
    let (table_len, n) = (table.num_elements() as i64, indices.num_elements() as i64);
    let values = call.elements("values", values)?;
    let indices = call.elements("indices", indices)?;
    let table = call.elements_mut("table", &mut table)?;
    if n == 0 {
        return Ok(());
    }
    let scatter = call.functions().msgl_scatter_ids;
    // SAFETY: the op has checked the shapes; the kernel checks the indices.
    call.done(unsafe { scatter(values, indices, n, table, table_len, call.stream()) })
}

pub(crate) fn copy(
    stream: &CudaStream,
    source: View<'_>,
    mut target: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("copy", stream)?;
    let rows = call.rows("source", source)?;
    let target = call.rows_mut("target", &mut target)?;
    if source.num_elements() == 0 {
        return Ok(());
    }
    let (bytes, copy) = (source.dtype().size_bytes() as i32, call.functions().msgl_copy);
    // SAFETY: the op has checked that both have the same shape and dtype.
    call.done(unsafe { copy(bytes, rows, target, call.stream()) })
}

pub(crate) fn add(stream: &CudaStream, x: View<'_>, mut y: ViewMut<'_>) -> Result<(), Error> {
    let call = Call::new("add", stream)?;
    let (rows, y) = (call.rows("x", x)?, call.rows_mut("y", &mut y)?);
    if x.num_elements() == 0 {
        return Ok(());
    }
    let add = call.functions().msgl_add;
    // SAFETY: the op has checked that both have the same shape and dtype.
    call.done(unsafe { add(code(x.dtype()), rows, y, call.stream()) })
}

pub(crate) fn reduce_sum(
    stream: &CudaStream,
    parts: &[View<'_>],
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("reduce_sum", stream)?;
    let parts = parts.iter().map(|&part| call.rows("parts", part));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let rows = call.rows_mut("out", &mut out)?;
    if out.num_elements() == 0 {
        return Ok(());
    }
    let num_parts = i32::try_from(parts.len()).unwrap_or(i32::MAX);
    let reduce_sum = call.functions().msgl_reduce_sum;
    let dtype = code(out.dtype());
    // SAFETY: the op has checked the shapes; the library copies the descriptions.
    call.done(unsafe { reduce_sum(dtype, parts.as_ptr(), num_parts, rows, call.stream()) })
}
