// The softmax losses: each row becomes one margin, which the variant's point function takes as the logit of a positive.
//
// With l = log(sum of exp(x_j), j != y), p_y = sigmoid(d) at d = x_y - l; the derivative L'(d) is the gradient of x_y,
// and -L'(d) exp(x_j - l) that of the others. LANES neighbouring threads share a row, of which each takes groups of
// NEIGHBOURS logits that one access brings; SIDE_BY_SIDE: all classes of a row are neighbours. HELD: a thread's share
// of a row, so many logits, stays in registers; of longer rows the logits are read again for every use.
#include "variant.h"

namespace focal_plugin {

constexpr int N = NEIGHBOURS, GROUPS = HELD > 0 ? HELD / N : 1;
constexpr bool precise = sizeof(X) == 4;
constexpr float kLargest = 3.40282347e38f;

// exp(x - top) of a logit that is at most top, or infinite; NaN stays NaN.
FP_INLINE float exp_below(float x, float top) {
  const float below = lesser(x - top, 0.f);
  return precise ? exp_nonpositive(below) : exp2(below * 1.44269504f);
}

// x_y - l. What target - greatest loses by rounding is put back: the error of a margin is multiplied by gamma + 1.
FP_INLINE float margin(float target, float greatest, float sum) {
  const float near = __fsub_rn(target, greatest), back = __fsub_rn(near, target);
  const float lost = __fsub_rn(__fsub_rn(target, __fsub_rn(near, back)), __fadd_rn(greatest, back));
  const float log_of_sum = precise ? logf(sum) : log2(sum) * 0.693147181f;
  return near - (log_of_sum - (fabsf(near) <= kLargest ? lost : 0.f));
}

FP_INLINE int64 at_class(int c, const Operand &operand) { return SIDE_BY_SIDE ? c : wide(c, operand.step); }

// use(its first class, which of the thread's) for each group that a thread takes.
template <class Use>
FP_INLINE void each_group(int lane, Use use) {
  if constexpr (HELD > 0) {
#pragma unroll
    for (int k = 0; k < GROUPS; ++k) use((k * LANES + lane) * N, k);
  } else {
    for (int c = lane * N; c < CLASSES; c += LANES * N) use(c, 0);
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
  float held[GROUPS][N], greatest = -kLargest, sum = 0.f;
  const auto read_others = [&](int c, float (&others)[N]) {
    if (c < CLASSES) load(logits + at_class(c, call.x), others);
#pragma unroll
    for (int i = 0; i < N; ++i) others[i] = c < CLASSES && c + i != row.label ? others[i] : -infinity();
  };
  each_group(lane, [&](int c, int k) {
    read_others(c, held[k]);
#pragma unroll
    for (int i = 0; i < N; ++i) greatest = fmaxf(held[k][i], greatest);  // a NaN is left to the sum
  });
#pragma unroll
  for (int apart = LANES / 2; apart > 0; apart /= 2) {
    greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffffu, greatest, apart));
  }
  const float top = fminf(greatest, kLargest);  // so that no infinity is taken from another
  const auto exps_of = [&](int c, float (&group)[N]) {
    if (HELD == 0) read_others(c, group);
#pragma unroll
    for (int i = 0; i < N; ++i) group[i] = exp_below(group[i], top);
  };
  each_group(lane, [&](int c, int k) {
    exps_of(c, held[k]);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += held[k][i];
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
  const float value = value_at(margin(target, greatest, sum), Positive{}, {call, has_label ? row.label : 0});
  float result = GRADIENT ? factor * value : times(factor, value);
  if (HAS_IGNORE && !row.is_kept) result = 0.f;

  // 3. the gradient, spread over the classes; or the value of the row, or a part of the sum
  if (GRADIENT) {
    const float by = sum == 0.f && result == result ? 0.f : -result * reciprocal(sum);  // 0: no others, or all are -inf
    OUT *const to = static_cast<OUT *>(call.out.data) + place.in(call.out);
    each_group(lane, [&](int c, int k) {
      if (!is_inside || c >= CLASSES) return;
      if (HELD == 0) exps_of(c, held[k]);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        held[k][i] = c + i == row.label ? result : held[k][i] * by;
        if (HAS_IGNORE && !row.is_kept) held[k][i] = 0.f;
      }
      store(to + at_class(c, call.out), held[k]);
    });
  } else if (OUTPUT == kRow && is_inside && lane == 0) {
    narrow(result, static_cast<OUT *>(call.out.data)[place.in(call.out)]);
  }
  if (GRADIENT || OUTPUT != kSum) return;
  const float total = sum_of_block(is_inside && lane == 0 ? result : 0.f);
  if (threadIdx.x == 0) call.partial[blockIdx.x] = total;
}

}  // namespace focal_plugin
