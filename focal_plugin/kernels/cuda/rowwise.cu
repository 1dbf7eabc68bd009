// The softmax losses: each row becomes one margin, which the variant's point function takes as the logit of a positive.
//
// With l = log(sum of exp(x_j), j != y), p_y = sigmoid(d) at d = x_y - l; the derivative L'(d) is the gradient of x_y, and
// -L'(d) exp(x_j - l) that of the others. LANES threads share a row: 32, or ALONG_ROWS, where logits lie closer together from
// row to row, one.
#include "variant.h"

namespace focal_plugin {

constexpr int LANES = ALONG_ROWS ? 1 : 32;
constexpr float kLargest = 3.40282347e38f;

FP_INLINE float greater(float a, float b) { return a > b || a != a ? a : b; }  // NaN where one is

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

extern "C" __global__ void __launch_bounds__(THREADS) rowwise(const GRID_CONSTANT Call call) {
  const int lane = threadIdx.x % LANES;
  const int index = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
  float total = 0.f;
  if (index < call.rows) {  // all of a warp, or each thread for itself
    const Place place(call, index);
    Row row;
    row.read(call, place, call.scale);
    const X *const logits = static_cast<const X *>(call.x.data) + place.in(call.x);

    // 1. the greatest other logit, the sum of the others' exponentials, and the margin
    float top = -infinity();
    for (int c = lane; c < call.classes; c += LANES) {
      if (c != row.label) top = greater(widened(logits[c * call.x.step]), top);
    }
    for (int apart = LANES / 2; apart > 0; apart /= 2) top = greater(top, __shfl_xor_sync(0xffffffffu, top, apart));
    float sum = 0.f;
    for (int c = lane; c < call.classes; c += LANES) {
      if (c != row.label) sum += exp_below(widened(logits[c * call.x.step]), top);
    }
    for (int apart = LANES / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, apart);
    const bool has_label = row.label >= 0;
    const float target = has_label ? widened(logits[row.label * call.x.step]) : 0.f;

    // 2. the variant there
    float factor = row.factor;
    if (GRADIENT) {
      const int64 upstream = OUTPUT == kSum ? 0 : place.in(call.upstream);
      factor *= at<UPSTREAM>(call.upstream, upstream);
      if (OUTPUT == kSum) factor = divided(factor, call.avg);
    }
    const float value = value_at(margin(target, top, sum), Positive{}, {call, has_label ? row.label : 0});
    float result = GRADIENT ? factor * value : times(factor, value);
    if (HAS_IGNORE && !row.is_kept) result = 0.f;

    // 3. the gradient, spread over the classes; or the value of the row, or a part of the sum
    if (GRADIENT) {
      const float by = sum == 0.f && result == result ? 0.f : -result * reciprocal(sum);  // 0: no others, or all are -inf
      OUT *const to = static_cast<OUT *>(call.out.data) + place.in(call.out);
      for (int c = lane; c < call.classes; c += LANES) {
        float of_class = result;
        if (c != row.label) of_class = exp_below(widened(logits[c * call.x.step]), top) * by;
        if (HAS_IGNORE && !row.is_kept) of_class = 0.f;
        narrow(of_class, to[c * call.out.step]);
      }
    } else if (lane == 0) {
      if (OUTPUT == kSum) {
        total = result;
      } else {
        narrow(result, static_cast<OUT *>(call.out.data)[place.in(call.out)]);
      }
    }
  }
  if (GRADIENT || OUTPUT != kSum) return;
  total = sum_of_block(total);
  if (threadIdx.x == 0) call.partial[blockIdx.x] = total;
}

}  // namespace focal_plugin
