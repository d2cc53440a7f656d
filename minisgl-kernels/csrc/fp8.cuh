// 8-bit floats (E4M3) as numbers that kernels load and store. Never knows scales.
#pragma once

#include <cuda_fp8.h>

#include "common.cuh"

namespace msgl {

using fp8 = __nv_fp8_e4m3;

// Exact.
__device__ __forceinline__ float to_float(fp8 x) { return static_cast<float>(x); }

// Rounds to nearest, ties to even; what is beyond the largest number becomes that, NaN stays NaN.
template <>
__device__ __forceinline__ fp8 from_float<fp8>(float x) {
    fp8 rounded;
    rounded.__x = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
    return rounded;
}

}  // namespace msgl
