// The point function of focal.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct focal {
  static constexpr int parameters = 3;  // gamma, alpha of positives, alpha of negatives
  static constexpr int probabilities = kStopped;

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const V gamma = parameter[0];
    const Miss miss = miss_of(t, target);
    const V modulated = target.mix(parameter[1], parameter[2]) * power<GAMMA>(miss.wrong, miss.log_wrong, gamma);
    const V through = gamma * (1.f - 2.f * target.y) * miss.slope;
    return {modulated * miss.cross_entropy, modulated * fma(through, miss.cross_entropy, residual_of(t, target))};
  }
};

}  // namespace focal_plugin
