// FlashInfer's FA3-style kernels for head dimension 128. Never knows the others.
#include "fa3.cuh"

template struct msgl::Fa3<128>;
