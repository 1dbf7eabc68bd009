// Runs of an operand in and out of contiguous floats.
#pragma once
#include "api.h"
#include "vmath.h"

namespace focal_plugin {

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
  switch (operand.type) {
    case kFloat:
      return each(static_cast<const float *>(operand.data) + offset, stride, count,
                  [&](float v, int64_t i) __attribute__((always_inline)) { use(v, i); });
    case kBFloat16:
      return each(static_cast<const uint16_t *>(operand.data) + offset, stride, count,
                  [&](uint16_t v, int64_t i) __attribute__((always_inline)) { use(from_bf16(v), i); });
    case kHalf:
      return each(static_cast<const uint16_t *>(operand.data) + offset, stride, count,
                  [&](uint16_t v, int64_t i) __attribute__((always_inline)) { use(from_half(v), i); });
    case kByte:
      return each(static_cast<const uint8_t *>(operand.data) + offset, stride, count,
                  [&](uint8_t v, int64_t i) __attribute__((always_inline)) { use(static_cast<float>(v), i); });
    default:
      return each(static_cast<const int64_t *>(operand.data) + offset, stride, count,
                  [&](int64_t v, int64_t i) __attribute__((always_inline)) { use(static_cast<float>(v), i); });
  }
}

inline void copy_in(const Operand &operand, int64_t offset, int64_t stride, int64_t count, float *to) {
  read_run(operand, offset, stride, count, [&](float v, int64_t i) __attribute__((always_inline)) { to[i] = v; });
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

inline void multiply_by(const Operand &operand, int64_t offset, int64_t stride, int64_t count, float *values) {
  read_run(operand, offset, stride, count,
           [&](float v, int64_t i) __attribute__((always_inline)) { values[i] *= v; });
}

inline void saturate(const Operand &operand, float *values, int64_t count) {
  const float largest = operand.type == kHalf ? 65504.f : (operand.type == kBFloat16 ? 3.38953139e38f : 3.40282347e38f);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = values[i] > largest ? largest : (values[i] < -largest ? -largest : values[i]);
  }
}

inline void copy_out(const Operand &operand, int64_t offset, int64_t stride, int64_t count, const float *from) {
  if (operand.type == kFloat) {
    each(static_cast<float *>(operand.data) + offset, stride, count,
         [&](float &v, int64_t i) __attribute__((always_inline)) { v = from[i]; });
  } else if (operand.type == kBFloat16) {
    each(static_cast<uint16_t *>(operand.data) + offset, stride, count,
         [&](uint16_t &v, int64_t i) __attribute__((always_inline)) { v = to_bf16(from[i]); });
  } else {
    each(static_cast<uint16_t *>(operand.data) + offset, stride, count,
         [&](uint16_t &v, int64_t i) __attribute__((always_inline)) { v = to_half(from[i]); });
  }
}

}  // namespace focal_plugin
