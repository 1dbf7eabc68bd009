// Vectors of floats, exp, log1p and log on them, and conversions of half-precision numbers.
//
// The vectors are the compiler's own (GCC and Clang), as wide as the instruction set that a library is built for: what
// is written with them is vector code by construction, where a plain loop is only as long as the optimiser likes it.
// The coefficients are those of tools/maintain/fit.py; the comment before each gives the fit's relative error.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FP_INLINE static inline __attribute__((always_inline))
#define FP_METHOD inline __attribute__((always_inline))

namespace focal_plugin {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else  // SSE2 or NEON
constexpr int kLanes = 4;
#endif

typedef float V __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Mask __attribute__((vector_size(kLanes * sizeof(float))));  // of a comparison: 0 or -1 a lane
typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(float))));

// a * b + c, rounded once where the processor can. The compiler fuses nothing, which would differ from loop to loop.
FP_INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}
FP_INLINE V fma(V a, V b, float c) { return fma(a, b, c - V{}); }
FP_INLINE V fma(V a, float b, V c) { return fma(a, b - V{}, c); }
FP_INLINE V fma(float a, V b, V c) { return fma(a - V{}, b, c); }
FP_INLINE V fma(V a, float b, float c) { return fma(a, b - V{}, c - V{}); }

FP_INLINE V all(float value) { return value - V{}; }
FP_INLINE float infinity() { return __builtin_inff(); }
FP_INLINE V select(Mask mask, V yes, V no) { return mask ? yes : no; }
FP_INLINE bool any(Mask mask) {
#if defined(__AVX512DQ__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#elif defined(__aarch64__)
  return vmaxvq_u32(reinterpret_cast<uint32x4_t>(mask)) != 0;
#else
  int32_t some = 0;
  for (int lane = 0; lane < kLanes; ++lane) some |= mask[lane];
  return some != 0;
#endif
}
FP_INLINE V greater(V a, V b) { return select(a < b, b, a); }  // NaN where a is
FP_INLINE V clamp(V v, float limit) {                          // to [-limit, limit]; NaN stays NaN
  v = select(v > limit, all(limit), v);
  return select(v < -limit, all(-limit), v);
}
FP_INLINE V load(const float *from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
FP_INLINE void store(float *to, V v) { std::memcpy(to, &v, sizeof v); }

template <class To, class From>
FP_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits_as keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// The polynomial with these coefficients, that of the highest power first.
template <class... Coefficients>
FP_INLINE V polynomial(V x, float highest, Coefficients... lower) {
  V p = all(highest);
  ((p = fma(p, x, lower)), ...);
  return p;
}

// e^x for x <= 0; results below the smallest normal number become 0. NaN stays NaN.
FP_INLINE V exp_nonpositive(V x) {
  const float shift = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer held in the low bits
  const V t = fma(x, 1.44269504f, shift);
  const V n = t - shift;
  const V r = fma(n, 2.12194440e-4f, fma(n, -0.693359375f, x));  // Cody and Waite: ln 2 in two parts
  // 2.6e-9 of e^r on [-ln(2)/2, ln(2)/2]
  const V p = polynomial(r, 0.0013941108434f, 0.00837512639815f, 0.0416663528968f, 0.166664155147f, 0.500000004712f,
                         1.00000003772f, 1.f);
  const V power = bits_as<V>((bits_as<Bits>(t) << 23) + 0x3f800000u);
  return select(x < -87.3365448f, V{}, p * power);
}

// The same where what is left to 1 matters: it is off by a rounding everywhere.
FP_INLINE V exp_near_one(V x) { return exp_nonpositive(x); }

// log(1 + e) / e for e in [0, 1]: this quotient is fitted, so that the logarithm of a small e keeps its digits.
FP_INLINE V log1p_over(V e) {
  // 5.4e-9
  return polynomial(e, -0.00317605701843f, 0.019542527261f, -0.0563736128301f, 0.105436237954f, -0.152696670744f,
                    0.196632742572f, -0.249516162629f, 0.333297104989f, -0.499998926481f, 0.999999994656f);
}

// log(x 2^-shift) for a normal x > 0.
FP_INLINE V log_normal(V x, V shift = V{}) {
  // The mantissa is taken into [sqrt(1/2), sqrt(2)), so that f = m - 1 is small on both sides of 1.
  const Bits shifted = bits_as<Bits>(x) - 0x3f3504f3u;
  const V n = __builtin_convertvector(bits_as<Mask>(shifted) >> 23, V) - shift;
  const V f = bits_as<V>((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.f;
  // 9e-8 of f^3 / 3
  const V p = polynomial(f, 0.0697161147145f, -0.114797338466f, 0.116854199235f, -0.124256873315f, 0.142490576457f,
                         -0.166678023195f, 0.200007157489f, -0.24999996958f, 0.3333333118f);
  const V f2 = f * f;
  return fma(n, 0.693359375f, fma(n, -2.12194440e-4f, fma(p * f, f2, -0.5f * f2)) + f);
}

// The same where it may be off by 2^-22: far from x = 1, or as an exponent. The GPU is faster then.
FP_INLINE V rough_log(V x) { return log_normal(x); }

// log(x) for x >= 0: log(0) = -inf, NaN stays NaN.
FP_INLINE V log_nonnegative(V x) {
  const Mask subnormal = x < 1.17549435e-38f;
  const V log = log_normal(select(subnormal, x * 16777216.f, x), select(subnormal, all(24.f), V{}));
  return select(x != x, x, select(x == 0.f, all(-infinity()), log));
}

FP_INLINE float from_bf16(uint16_t h) { return bits_as<float>(static_cast<uint32_t>(h) << 16); }

FP_INLINE uint16_t to_bf16(float f) {
  const uint32_t u = bits_as<uint32_t>(f);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(f != f ? (u >> 16) | 0x40u : rounded);
}

#if defined(__aarch64__)  // has instructions for both
FP_INLINE float from_half(uint16_t h) { return bits_as<__fp16>(h); }
FP_INLINE uint16_t to_half(float f) { return bits_as<uint16_t>(static_cast<__fp16>(f)); }
#else
FP_INLINE float from_half(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7fffu) << 13;
  const float scaled = bits_as<float>(magnitude) * 5.192296858534828e33f;  // 2^112: rebias the exponent
  const uint32_t finite = bits_as<uint32_t>(scaled);
  const uint32_t special = magnitude | 0x7f800000u;
  return bits_as<float>((magnitude >= 0x0f800000u ? special : finite) | sign);
}

// Round to nearest even; above 65504 + half a unit becomes inf.
FP_INLINE uint16_t to_half(float f) {
  const uint32_t u = bits_as<uint32_t>(f);
  const uint32_t sign = u & 0x80000000u;
  const uint32_t a = u ^ sign;
  const uint32_t special = a > 0x7f800000u ? 0x7e00u : 0x7c00u;
  // Below 2^-14 the result is subnormal: adding 0.5 aligns the wanted bits at the bottom of the sum.
  const uint32_t tiny = bits_as<uint32_t>(bits_as<float>(a) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  const uint32_t finite = a < 0x38800000u ? tiny : normal;
  return static_cast<uint16_t>((a >= 0x47800000u ? special : finite) | (sign >> 16));
}
#endif

}  // namespace focal_plugin
