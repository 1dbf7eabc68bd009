// Loads and stores: of one element, of the neighbours that one access brings, and where the rows of an operand lie.
#pragma once
#include "call.h"
#include "vmath.h"

namespace focal_plugin {

struct Half {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};

FP_INLINE float widened(Half v) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(v.bits));
  return wide;
}
FP_INLINE float widened(BFloat16 v) { return __uint_as_float(static_cast<unsigned>(v.bits) << 16); }
template <class Stored> FP_INLINE float widened(Stored v) { return static_cast<float>(v); }

FP_INLINE void narrow(float v, float &to) { to = v; }
FP_INLINE void narrow(float v, Half &to) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(v)); }
FP_INLINE void narrow(float v, BFloat16 &to) {
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(v));
#else
  const unsigned u = __float_as_uint(v), rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  to.bits = static_cast<unsigned short>(v != v ? 0x7fffu : rounded);
#endif
}

// So many bytes, in one access.
template <int BYTES> struct Words;
template <> struct Words<1> {
  typedef unsigned char type;
};
template <> struct Words<2> {
  typedef unsigned short type;
};
template <> struct Words<4> {
  typedef unsigned type;
};
template <> struct Words<8> {
  typedef uint2 type;
};
template <> struct Words<16> {
  typedef uint4 type;
};

// As many elements as one access brings of N.
template <class Stored, int N>
union Neighbours {
  static constexpr int count = N * sizeof(Stored) > 16 ? 16 / sizeof(Stored) : N;
  typedef typename Words<count * sizeof(Stored)>::type Access;
  Access words;
  Stored each[count];
  unsigned pairs[(sizeof(each) + 3) / 4];

  FP_METHOD float wide(int i) const { return wide(i, Stored()); }
  template <class Other> FP_METHOD float wide(int i, Other) const { return widened(each[i]); }
  FP_METHOD float wide(int i, BFloat16) const {  // the second of a pair is where a float has it
    if (count == 1) return widened(each[i]);
    return __uint_as_float(i % 2 == 0 ? pairs[i / 2] << 16 : pairs[i / 2] & 0xffff0000u);
  }
};

template <class Stored, int N>
FP_INLINE void load(const Stored *from, float (&to)[N]) {
  typedef Neighbours<Stored, N> Some;
  Some read;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i % Some::count == 0) read.words = reinterpret_cast<const typename Some::Access *>(from)[i / Some::count];
    to[i] = read.wide(i % Some::count);
  }
}

template <class Stored, int N>
FP_INLINE void store(Stored *to, const float (&from)[N]) {
  typedef Neighbours<Stored, N> Some;
  Some written;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    narrow(from[i], written.each[i % Some::count]);
    if (i % Some::count == Some::count - 1) {
      reinterpret_cast<typename Some::Access *>(to)[i / Some::count] = written.words;
    }
  }
}

template <class Stored>
FP_INLINE float at(const Operand &operand, int64 offset) {
  return widened(static_cast<const Stored *>(operand.data)[offset]);
}

FP_INLINE int64 wide(int index, int stride) { return static_cast<int64>(index) * stride; }

// The indices of a row over the dimensions of the rows, and where it begins in an operand.
struct Place {
  int index[3];

  FP_METHOD Place(const Call &call, int plane, int row)
      : index{DIMS > 2 ? plane / call.n1 : 0, DIMS > 2 ? plane % call.n1 : plane, row} {}
  FP_METHOD Place(const Call &call, int row)
      : Place(call, DIMS > 1 ? row / call.n2 : 0, DIMS > 1 ? row % call.n2 : row) {}
  FP_METHOD Place after(int rows) const {  // in the same plane
    Place place = *this;
    place.index[2] += rows;
    return place;
  }
  FP_METHOD int64 in(const Operand &operand) const {
    int64 offset = wide(index[2], operand.row[2]);
    if (DIMS > 1) offset += wide(index[1], operand.row[1]);
    if (DIMS > 2) offset += wide(index[0], operand.row[0]);
    return offset;
  }
  FP_METHOD int64 of_row(const Operand &operand) const {  // of what each row has one of
    return ROWS_IN_ORDER ? index[2] : in(operand);
  }
};

// A product in which a factor of 0 wins over an infinite loss.
FP_INLINE float times(float factor, float value) {
  const float product = factor * value;
  return factor == 0.f && fabsf(value) == infinity() ? 0.f : product;
}

FP_INLINE float divided(float factor, const void *avg) {
  return HAS_AVG ? factor * reciprocal(widened(*static_cast<const AVG *>(avg)) + EPS) : factor;
}

// The sum over a block, in a fixed order; of the first thread's.
FP_INLINE float sum_of_block(float value) {
  __shared__ float of_warp[32];
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0.f;
  if (threadIdx.x == 0) {
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; ++warp) total += of_warp[warp];
  }
  return total;
}

}  // namespace focal_plugin
