// Runs of an operand in and out of contiguous floats.
#pragma once
#include "api.h"
#include "vmath.h"

namespace focal_plugin {

enum class BFloat16 : uint16_t {};
enum class Half : uint16_t {};

FP_INLINE float widened(BFloat16 v) { return from_bf16(static_cast<uint16_t>(v)); }
FP_INLINE float widened(Half v) { return from_half(static_cast<uint16_t>(v)); }
template <class Stored> FP_INLINE float widened(Stored v) { return static_cast<float>(v); }

FP_INLINE void narrow(float v, float &to) { to = v; }
FP_INLINE void narrow(float v, BFloat16 &to) { to = BFloat16{to_bf16(v)}; }
FP_INLINE void narrow(float v, Half &to) { to = Half{to_half(v)}; }

template <class Stored, class Convert>
FP_INLINE void each(Stored *data, int64_t stride, int64_t count, Convert convert) {
  if (stride == 1) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) convert(data[i], i);
  } else {
    for (int64_t i = 0; i < count; ++i) convert(data[i * stride], i);
  }
}

// use(value as a float, index) over a run that starts `offset` elements into the operand.
template <class Use>
FP_INLINE void read_run(const Operand &operand, int64_t offset, int64_t stride, int64_t count, Use use) {
  const auto read = [&](auto *data) __attribute__((always_inline)) {
    each(data + offset, stride, count, [&](auto v, int64_t i) __attribute__((always_inline)) { use(widened(v), i); });
  };
  switch (operand.type) {
    case kFloat: return read(static_cast<const float *>(operand.data));
    case kBFloat16: return read(static_cast<const BFloat16 *>(operand.data));
    case kHalf: return read(static_cast<const Half *>(operand.data));
    case kByte: return read(static_cast<const uint8_t *>(operand.data));
    default: return read(static_cast<const int64_t *>(operand.data));
  }
}

inline void copy_in(const Operand &operand, int64_t offset, int64_t stride, int64_t count, float *to) {
  read_run(operand, offset, stride, count, [&](float v, int64_t i) __attribute__((always_inline)) { to[i] = v; });
}

inline void copy_out(const Operand &operand, int64_t offset, int64_t stride, int64_t count, const float *from) {
  const auto write = [&](auto *data) __attribute__((always_inline)) {
    each(data + offset, stride, count,
         [&](auto &to, int64_t i) __attribute__((always_inline)) { narrow(from[i], to); });
  };
  switch (operand.type) {
    case kFloat: return write(static_cast<float *>(operand.data));
    case kBFloat16: return write(static_cast<BFloat16 *>(operand.data));
    default: return write(static_cast<Half *>(operand.data));
  }
}

inline void multiply_by(const Operand &operand, int64_t offset, int64_t stride, int64_t count, float *values) {
  read_run(operand, offset, stride, count, [&](float v, int64_t i) __attribute__((always_inline)) { values[i] *= v; });
}

// values[o][i] *= factor[o]. Few classes are common, and only a length known at compile time vectorises then.
template <int INNER>
inline void multiply_rows_of(const float *factor, int64_t outer, float *values) {
  for (int64_t o = 0; o < outer; ++o) {
    for (int i = 0; i < INNER; ++i) values[o * INNER + i] *= factor[o];
  }
}

inline void multiply_rows(const float *factor, int64_t outer, int64_t inner, float *values) {
  switch (inner) {
    case 1: return multiply_rows_of<1>(factor, outer, values);
    case 2: return multiply_rows_of<2>(factor, outer, values);
    case 3: return multiply_rows_of<3>(factor, outer, values);
    case 4: return multiply_rows_of<4>(factor, outer, values);
    default:
      for (int64_t o = 0; o < outer; ++o) {
        for (int64_t i = 0; i < inner; ++i) values[o * inner + i] *= factor[o];
      }
  }
}

inline void saturate(const Operand &operand, float *values, int64_t count) {
  const float largest = operand.type == kHalf ? 65504.f : (operand.type == kBFloat16 ? 3.38953139e38f : 3.40282347e38f);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = values[i] > largest ? largest : (values[i] < -largest ? -largest : values[i]);
  }
}

}  // namespace focal_plugin
