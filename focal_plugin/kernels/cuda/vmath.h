// What the point functions compute with, a float per thread: the GPU's counterpart of kernels/native/vmath.h.
//
// Exponentials, reciprocals and, of half-precision logits, logarithms are the GPU's approximate instructions; what
// rounding loses before them is put back. The coefficients are those of tools/maintain/fit.py.
#pragma once

#define FP_INLINE static __device__ __forceinline__
#define FP_METHOD __device__ __forceinline__

namespace focal_plugin {

typedef float V;
typedef bool Mask;

FP_INLINE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FP_INLINE float all(float value) { return value; }
FP_INLINE float infinity() { return __int_as_float(0x7f800000); }
FP_INLINE float not_a_number() { return __int_as_float(0x7fc00000); }
FP_INLINE float select(bool mask, float yes, float no) { return mask ? yes : no; }
FP_INLINE bool any(bool mask) { return mask; }
// NaN where one is.
FP_INLINE float lesser(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float least;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(least) : "f"(a), "f"(b));
  return least;
#else
  return a < b || a != a ? a : b;
#endif
}
FP_INLINE float greater(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float most;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(most) : "f"(a), "f"(b));
  return most;
#else
  return a > b || a != a ? a : b;
#endif
}
FP_INLINE float clamp(float v, float limit) { return greater(lesser(v, limit), -limit); }  // NaN stays NaN

template <class... Coefficients>
FP_INLINE float polynomial(float x, float highest, Coefficients... lower) {
  float p = highest;
  ((p = fma(p, x, lower)), ...);
  return p;
}

FP_INLINE float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FP_INLINE float log2(float x) {  // of a normal x
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FP_INLINE float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// e^x for x <= 0; results below the smallest normal number become 0. NaN stays NaN.
FP_INLINE float exp_nonpositive(float x) {
  const float near = greater(x, -1000.f), power_of_two = near * 1.44269504f;
  const float e = exp2(power_of_two);
  return fma(e, fma(power_of_two, -0.693147181f, near), e);
}

// The same where what is left to 1 matters, by which the instruction is off a few roundings: near it the series.
FP_INLINE float exp_near_one(float x) {
  const float series = polynomial(x, 0.001388888889f, 0.008333333333f, 0.041666666667f, 0.166666666667f, 0.5f, 1.f);
  return x > -0.25f ? fma(series, x, 1.f) : exp_nonpositive(x);
}

// log(1 + e) / e for e in [0, 1]: this quotient is fitted, so that the logarithm of a small e keeps its digits.
FP_INLINE float log1p_over(float e) {
  // 5.4e-9
  return polynomial(e, -0.00317605701843f, 0.019542527261f, -0.0563736128301f, 0.105436237954f, -0.152696670744f,
                    0.196632742572f, -0.249516162629f, 0.333297104989f, -0.499998926481f, 0.999999994656f);
}

FP_INLINE float log_normal(float x) { return logf(x); }
// Off by 2^-22 at most where it is near 0.
FP_INLINE float rough_log(float x) { return log2(x) * 0.693147181f; }
FP_INLINE float log_nonnegative(float x) { return logf(x); }

}  // namespace focal_plugin
