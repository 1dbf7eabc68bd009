// The point function of focal_star.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct focal_star {
  static constexpr int parameters = 4;  // gamma, beta, alpha of positives, alpha of negatives
  static constexpr int probabilities = kNoProbabilities;

  template <int, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const V gamma = parameter[0], sign = 2.f * (target.y + V{}) - 1.f;
    const V infinite = all(infinity());
    const V signed_x = select((sign == 0.f) & ((t.x == infinite) | (t.x == -infinite)), V{}, t.x * sign);
    const Terms margin = terms_of_logit(gamma * signed_x + parameter[1]);
    const V alpha = target.mix(parameter[2], parameter[3]);
    return {alpha * -margin.log_p / gamma, -alpha * margin.q * sign};
  }
};

}  // namespace focal_plugin
