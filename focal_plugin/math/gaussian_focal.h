// The point function of gaussian_focal.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct gaussian_focal {
  static constexpr int parameters = 4;  // alpha, gamma, pos_weight, neg_weight
  static constexpr int probabilities = kWithEpsilon;

  template <int ALPHA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const V y = target.y + V{};
    const Mask centre = y == 1.f;
    V weight = select(centre, parameter[2], parameter[3]);
    if constexpr (!Target::is_hard) {
      const V far = 1.f - y;
      weight *= select(centre, all(1.f), parameter.is(1, 4.f) ? power<4>(far, far, far) : power_of(far, parameter[1]));
    }
    const V wrong = select(centre, t.q, t.p), right = select(centre, t.p, t.q);
    // Not from log_p, which holds an epsilon; what stands for a probability of 0 is 0 again.
    const V modulated = weight * powered<ALPHA>(select(wrong <= 1e-30f, V{}, wrong), parameter[0]);
    const V cross_entropy = -select(centre, t.log_p, t.log_q);
    const V derivative = modulated * (parameter[0] * right * cross_entropy + wrong);
    return {modulated * cross_entropy, select(centre, -derivative, derivative)};
  }
};

}  // namespace focal_plugin
