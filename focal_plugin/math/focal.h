// The point function of focal.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct focal {
  static constexpr int parameters = 3;  // gamma, alpha of positives, alpha of negatives

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const V gamma = parameter[0];
    const V alpha = target.choose(parameter[1], parameter[2]);
    const V wrong = target.choose(t.q, t.p);  // 1 - p_t
    V log_wrong = target.choose(t.log_q, t.log_p);
    V slope = target.choose(t.p, t.q);  // p (1 - p) / (1 - p_t)
    if constexpr (!Target::is_hard) {
      const Mask between = (target.y > 0.f) & (target.y < 1.f);
      log_wrong = select(between, log_nonnegative(wrong), log_wrong);
      slope = select(between, t.p * t.q / select(wrong < 1e-37f, all(1e-37f), wrong), slope);
    }
    const V cross_entropy = -target.choose(t.log_p, t.log_q);
    const V modulated = alpha * power<GAMMA>(wrong, log_wrong, gamma);
    const V residual = target.choose(-t.q, t.p);  // p - y
    return {modulated * cross_entropy, modulated * (gamma * (1.f - 2.f * target.y) * slope * cross_entropy + residual)};
  }
};

}  // namespace focal_plugin
