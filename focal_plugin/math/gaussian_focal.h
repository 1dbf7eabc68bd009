// The point function of gaussian_focal.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct gaussian_focal {
  static constexpr int parameters = 4;  // alpha, gamma, pos_weight, neg_weight
  static constexpr int probabilities = kWithEpsilon;

  template <int ALPHA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    // Powers not from log_p, which holds an epsilon; what stands for a probability of 0 is 0 again, as its square is.
    const auto side = [&](V weight, V wrong, V right, V cross_entropy) -> Point {
      const bool is_kept = !t.holds_epsilon || ALPHA == 2 || ALPHA == 4;
      const V base = is_kept ? wrong : select(wrong <= 1e-30f, V{}, wrong);
      const V modulated = weight * power_by_base<ALPHA>(base, parameter[0]);
      return {modulated * cross_entropy, modulated * fma(parameter[0] * right, cross_entropy, wrong)};
    };
    if constexpr (Target::is_hard) {
      if (Target::y == 0.f) return side(parameter[3], t.p, t.q, -t.log_q);  // 1 - y is 1, and so is its power
    }
    const V far = 1.f - (target.y + V{});
    const V nan = far - far;  // 0, or NaN where far is: it has to stay
    const V spared = parameter.is(1, 4.f) ? power<4>(far, far, far) : power_by_log(rough_log(far), parameter[1]) + nan;
    const Point around = side(parameter[3] * spared, t.p, t.q, -t.log_q);
    const Mask centre = far == 0.f;
    if (!any(centre)) return around;  // nearly always: one logarithm is spared
    const Point at = side(parameter[2], t.q, t.p, -t.log_p);
    return select(centre, Point{at.value, -at.derivative}, around);
  }
};

}  // namespace focal_plugin
