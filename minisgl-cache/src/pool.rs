//! The KV pool: the device memory that page ids point into. The one module of this crate that
//! knows a device; it never knows which page belongs to whom.

use minisgl_kernels::ops::PagedKv;
use minisgl_kernels::{DType, Device, Tensor, View};

use crate::{CacheError, PageSize};

/// The geometry of one rank's pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvLayout {
    /// Transformer layers.
    pub num_layers: usize,
    /// KV heads of this rank.
    pub num_kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Element type of K and V.
    pub dtype: DType,
    /// Tokens in a page.
    pub page_size: PageSize,
}

impl KvLayout {
    /// Bytes of K and V of one token in all layers.
    pub fn bytes_per_token(&self) -> usize {
        2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype.size_bytes()
    }

    /// Bytes of one page in all layers.
    pub fn bytes_per_page(&self) -> usize {
        self.bytes_per_token() * self.page_size.get()
    }
}

/// K and V of one layer, each `[num_slots, num_kv_heads, head_dim]`; page `p` is the slots
/// `p * page_size .. (p + 1) * page_size`.
#[derive(Debug)]
pub struct KvLayer {
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

impl KvLayer {
    /// The pool as attention reads it through `page_table`, `[rows, max_pages]` i32.
    pub fn paged<'a>(&'a self, page_table: View<'a>, page_size: usize) -> PagedKv<'a> {
        PagedKv { k_pool: self.k.view(), v_pool: self.v.view(), page_table, page_size }
    }
}

/// K and V of all layers.
#[derive(Debug)]
pub struct KvPool {
    layers: Vec<KvLayer>,
}

impl KvPool {
    /// Allocates `num_pages` pages on `device`.
    ///
    /// # Errors
    /// [`CacheError::Pool`] if the device has no room.
    pub fn new(device: &Device, layout: KvLayout, num_pages: usize) -> Result<Self, CacheError> {
        let num_slots = num_pages * layout.page_size.get();
        let shape = [num_slots, layout.num_kv_heads, layout.head_dim];
        let layer = || -> Result<KvLayer, minisgl_kernels::Error> {
            Ok(KvLayer {
                k: device.zeros(layout.dtype, shape)?,
                v: device.zeros(layout.dtype, shape)?,
            })
        };
        let layers: Result<_, _> = (0..layout.num_layers).map(|_| layer()).collect();
        let bytes = num_pages * layout.bytes_per_page();
        Ok(Self {
            layers: layers
                .map_err(|source| CacheError::Pool { bytes, source: Box::new(source) })?,
        })
    }

    /// The pool of one layer.
    pub fn layer(&self, layer: usize) -> &KvLayer {
        &self.layers[layer]
    }

    /// The pool of one layer, to be written.
    pub fn layer_mut(&mut self, layer: usize) -> &mut KvLayer {
        &mut self.layers[layer]
    }
}
