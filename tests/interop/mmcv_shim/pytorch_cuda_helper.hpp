// Stands in for mmcv's header of this name, so that mmcv's kernels of the focal losses compile without torch's CUDA
// headers: by nvcc as it is, by a host compiler as a plain loop over the logits.
#pragma once
#include <c10/util/Half.h>

#include <cfloat>
#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define CUDA_1D_KERNEL_LOOP(i, n) for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += blockDim.x * gridDim.x)
#else
#define __global__
#define CUDA_1D_KERNEL_LOOP(i, n) for (int i = 0; i < (n); ++i)
// CUDA's overloads, which C lacks; c10::Half has none of its own and is taken as a float. max(NaN, x) is x.
inline float exp(float x) { return expf(x); }
inline float log(float x) { return logf(x); }
inline float pow(float x, float y) { return powf(x, y); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
#endif
