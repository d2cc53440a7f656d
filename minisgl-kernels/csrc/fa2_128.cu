// FlashInfer's FA2-style kernels for head dimension 128. Never knows the others.
#include "fa2.cuh"

template struct msgl::Fa2<128>;
