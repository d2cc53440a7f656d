// FlashInfer's FA2-style kernels for head dimension 64 and a KV pool of 8-bit floats. Never knows the
// others.
#include "fa2.cuh"

template struct msgl::Fa2<64, msgl::fp8>;
