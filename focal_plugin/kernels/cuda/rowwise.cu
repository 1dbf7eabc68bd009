// The softmax losses: each row becomes one margin, which the variant's point function takes as the logit of a positive.
//
// With l = log(sum of exp(x_j), j != y), p_y = sigmoid(d) at d = x_y - l; the derivative L'(d) is the gradient of x_y,
// and -L'(d) exp(x_j - l) that of the others. LANES neighbouring threads share a row. HELD: a thread's share of a row,
// so many logits, stays in registers; of longer rows the logits are read again for every use.
#include "variant.h"

namespace focal_plugin {

constexpr int SHARE = HELD > 0 ? HELD : 1;
constexpr float kLargest = 3.40282347e38f;

// exp(x - top) of a logit that is at most top, whose infinities are taken from the largest number; NaN stays NaN.
FP_INLINE float exp_below(float x, float top) {
  const float below = x - clamp(top, kLargest);
  return exp_nonpositive(below > 0.f ? 0.f : below < -1e30f ? -1e30f : below);
}

// x_y - l. What target - top loses by rounding is put back: the error of a margin is multiplied by gamma + 1.
FP_INLINE float margin(float target, float top, float sum) {
  const float near = __fsub_rn(target, top), back = __fsub_rn(near, target);
  const float lost = __fsub_rn(__fsub_rn(target, __fsub_rn(near, back)), __fadd_rn(top, back));
  return near - (logf(sum) - (fabsf(near) <= kLargest ? lost : 0.f));
}

// use(class, share: which of the thread's) for each class that a thread takes.
template <class Use>
FP_INLINE void each_class(const Call &call, int lane, Use use) {
  if constexpr (HELD > 0) {
#pragma unroll
    for (int k = 0; k < HELD; ++k) use(k * LANES + lane, k);
  } else {
    for (int c = lane; c < call.classes; c += LANES) use(c, 0);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) rowwise(const GRID_CONSTANT Call call) {
  const int lane = threadIdx.x % LANES, index = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
  const bool is_inside = index < call.rows;  // threads beyond the last row take it too: all of a warp add up
  const Place place(call, is_inside ? index : call.rows - 1);
  Row row;
  row.read(call, place, call.scale);
  const X *const logits = static_cast<const X *>(call.x.data) + place.in(call.x);

  // 1. the greatest other logit, the sum of the others' exponentials, and the margin
  float held[SHARE], top = -infinity(), sum = 0.f;
  const auto other = [&](int c) {
    return c < call.classes && c != row.label ? widened(logits[wide(c, call.x.step)]) : -infinity();
  };
  each_class(call, lane, [&](int c, int k) {
    held[k] = other(c);
    top = greater(held[k], top);
  });
#pragma unroll
  for (int apart = LANES / 2; apart > 0; apart /= 2) top = greater(top, __shfl_xor_sync(0xffffffffu, top, apart));
  each_class(call, lane, [&](int c, int k) {
    held[k] = exp_below(HELD > 0 ? held[k] : other(c), top);
    sum += held[k];
  });
#pragma unroll
  for (int apart = LANES / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, apart);
  const bool has_label = row.has_positive(call);
  const float target = has_label ? widened(logits[wide(row.label, call.x.step)]) : 0.f;

  // 2. the variant there
  float factor = row.factor;
  if (GRADIENT) {
    factor *= at<UPSTREAM>(call.upstream, OUTPUT == kSum ? 0 : place.in(call.upstream));
    if (OUTPUT == kSum) factor = divided(factor, call.avg);
  }
  const float value = value_at(margin(target, top, sum), Positive{}, {call, has_label ? row.label : 0});
  float result = GRADIENT ? factor * value : times(factor, value);
  if (HAS_IGNORE && !row.is_kept) result = 0.f;

  // 3. the gradient, spread over the classes; or the value of the row, or a part of the sum
  if (GRADIENT) {
    const float by = sum == 0.f && result == result ? 0.f : -result * reciprocal(sum);  // 0: no others, or all are -inf
    OUT *const to = static_cast<OUT *>(call.out.data) + place.in(call.out);
    each_class(call, lane, [&](int c, int k) {
      if (!is_inside || c >= call.classes) return;
      float of_class = c == row.label ? result : (HELD > 0 ? held[k] : exp_below(other(c), top)) * by;
      if (HAS_IGNORE && !row.is_kept) of_class = 0.f;
      narrow(of_class, to[wide(c, call.out.step)]);
    });
  } else if (OUTPUT == kRow && is_inside && lane == 0) {
    narrow(result, static_cast<OUT *>(call.out.data)[place.in(call.out)]);
  }
  if (GRADIENT || OUTPUT != kSum) return;
  const float total = sum_of_block(is_inside && lane == 0 ? result : 0.f);
  if (threadIdx.x == 0) call.partial[blockIdx.x] = total;
}

}  // namespace focal_plugin
