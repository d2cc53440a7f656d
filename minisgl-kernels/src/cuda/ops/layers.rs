//! Norms, rotary embedding, activation, and the KV store.
//!
//! Never knows: which layer they belong to.

use std::ffi::c_void;

use crate::cuda::call::{Call, code};
use crate::cuda::stream::CudaStream;
use crate::ops::{KvStore, QkNorm};
use crate::{DType, Error, View, ViewMut};

pub(crate) fn rms_norm(
    stream: &CudaStream,
    x: View<'_>,
    weight: View<'_>,
    eps: f32,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("rms_norm", stream)?;
    let (rows, weight) = (call.rows("x", x)?, call.address("weight", weight)?);
    let out = call.rows_mut("out", &mut out)?;
    if x.num_elements() == 0 {
        return Ok(());
    }
    let rms_norm = call.functions().msgl_rms_norm;
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { rms_norm(code(x.dtype()), rows, weight, eps, out, call.stream()) })
}

pub(crate) fn add_rms_norm(
    stream: &CudaStream,
    mut x: ViewMut<'_>,
    mut residual: ViewMut<'_>,
    weight: View<'_>,
    eps: f32,
) -> Result<(), Error> {
    let call = Call::new("add_rms_norm", stream)?;
    let (rows, weight) = (call.rows_mut("x", &mut x)?, call.address("weight", weight)?);
    let residual = call.rows_mut("residual", &mut residual)?;
    if x.num_elements() == 0 {
        return Ok(());
    }
    let add_rms_norm = call.functions().msgl_add_rms_norm;
    let dtype = code(x.dtype());
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { add_rms_norm(dtype, rows, residual, weight, eps, call.stream()) })
}

pub(crate) fn silu_and_mul(
    stream: &CudaStream,
    gate_up: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("silu_and_mul", stream)?;
    let rows = call.rows("gate_up", gate_up)?;
    let target = call.rows_mut("out", &mut out)?;
    if out.num_elements() == 0 {
        return Ok(());
    }
    let silu_and_mul = call.functions().msgl_silu_and_mul;
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { silu_and_mul(code(gate_up.dtype()), rows, target, call.stream()) })
}

/// The norm's and the rotation's arguments as the library takes them.
struct Rotation {
    head_dim: i32,
    q_weight: *const c_void,
    k_weight: *const c_void,
    eps: f32,
    positions: *const i32,
    cos_sin: *const f32,
    max_positions: i64,
    rotary_dim: i32,
}

impl Rotation {
    fn new(
        call: &Call<'_>,
        head_dim: usize,
        norm: Option<QkNorm<'_>>,
        positions: View<'_>,
        cos_sin: View<'_>,
    ) -> Result<Self, Error> {
        let (q_weight, k_weight, eps) = match norm {
            Some(norm) => (
                call.address("q_weight", norm.q_weight)?,
                call.address("k_weight", norm.k_weight)?,
                norm.eps,
            ),
            None => (std::ptr::null(), std::ptr::null(), 0.0),
        };
        let &[max_positions, rotary_dim] = cos_sin.shape().dims() else {
            unreachable!("the op has checked the rank of cos_sin")
        };
        Ok(Self {
            head_dim: head_dim as i32,
            q_weight,
            k_weight,
            eps,
            positions: call.elements("positions", positions)?,
            cos_sin: call.dense("cos_sin", cos_sin)?.cast(),
            max_positions: max_positions as i64,
            rotary_dim: rotary_dim as i32,
        })
    }
}

pub(crate) fn qk_norm_rope(
    stream: &CudaStream,
    mut q: ViewMut<'_>,
    mut k: ViewMut<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
) -> Result<(), Error> {
    let call = Call::new("qk_norm_rope", stream)?;
    let (dtype, head_dim) = (code(q.dtype()), q.shape().dims()[2]);
    let rotation = Rotation::new(&call, head_dim, norm, positions, cos_sin)?;
    let (q_rows, k_rows) = (call.rows_mut("q", &mut q)?, call.rows_mut("k", &mut k)?);
    if q.num_elements() == 0 && k.num_elements() == 0 {
        return Ok(());
    }
    let Rotation { q_weight, k_weight, eps, .. } = rotation;
    // SAFETY: the op has checked the shapes; the kernel checks the positions.
    call.done(unsafe {
        (call.functions().msgl_qk_norm_rope)(
            dtype,
            q_rows,
            k_rows,
            rotation.head_dim,
            q_weight,
            k_weight,
            eps,
            rotation.positions,
            rotation.cos_sin,
            rotation.max_positions,
            rotation.rotary_dim,
            call.stream(),
        )
    })
}

pub(crate) fn store_kv(
    stream: &CudaStream,
    k: View<'_>,
    v: View<'_>,
    slots: View<'_>,
    mut k_pool: ViewMut<'_>,
    mut v_pool: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("store_kv", stream)?;
    let (k_rows, v_rows) = (call.rows("k", k)?, call.rows("v", v)?);
    let slots = call.elements("slots", slots)?;
    let k_pool_dtype = k_pool.dtype();
    let k_pool = call.rows_mut("k_pool", &mut k_pool)?;
    let v_pool = call.rows_mut("v_pool", &mut v_pool)?;
    if k.num_elements() == 0 {
        return Ok(());
    }
    let functions = call.functions();
    let store_kv = match k_pool_dtype {
        DType::F8E4M3 => functions.msgl_store_kv_fp8,
        _ => functions.msgl_store_kv,
    };
    let dtype = code(k.dtype());
    // SAFETY: the op has checked the shapes; the kernel checks the slots.
    call.done(unsafe { store_kv(dtype, k_rows, v_rows, slots, k_pool, v_pool, call.stream()) })
}

pub(crate) fn qk_norm_rope_store(
    stream: &CudaStream,
    mut q: ViewMut<'_>,
    k: View<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
    mut store: KvStore<'_>,
) -> Result<(), Error> {
    let call = Call::new("qk_norm_rope_store", stream)?;
    let (dtype, head_dim) = (code(q.dtype()), q.shape().dims()[2]);
    let rotation = Rotation::new(&call, head_dim, norm, positions, cos_sin)?;
    let q_rows = call.rows_mut("q", &mut q)?;
    let (k_rows, v_rows) = (call.rows("k", k)?, call.rows("v", store.v)?);
    let slots = call.elements("slots", store.slots)?;
    let functions = call.functions();
    let rope_store = match store.k_pool.dtype() {
        DType::F8E4M3 => functions.msgl_qk_norm_rope_store_fp8,
        _ => functions.msgl_qk_norm_rope_store,
    };
    let k_pool = call.rows_mut("k_pool", &mut store.k_pool)?;
    let v_pool = call.rows_mut("v_pool", &mut store.v_pool)?;
    if q.num_elements() == 0 && k.num_elements() == 0 {
        return Ok(());
    }
    let Rotation { q_weight, k_weight, eps, .. } = rotation;
    // SAFETY: the op has checked the shapes; the kernel checks the positions and slots.
    call.done(unsafe {
        rope_store(
            dtype,
            q_rows,
            k_rows,
            v_rows,
            rotation.head_dim,
            q_weight,
            k_weight,
            eps,
            rotation.positions,
            rotation.cos_sin,
            rotation.max_positions,
            rotation.rotary_dim,
            slots,
            k_pool,
            v_pool,
            call.stream(),
        )
    })
}
