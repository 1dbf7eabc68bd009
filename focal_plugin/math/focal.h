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
    const FocalTerms terms = focal_terms(t, target);
    const V modulating = power<GAMMA>(terms.one_minus_pt, terms.log_one_minus_pt, gamma);
    const V modulated = target.mix(parameter[1], parameter[2]) * modulating;
    const V through = gamma * (1.f - 2.f * target.y) * terms.d_log_one_minus_pt;
    return {modulated * terms.cross_entropy, modulated * fma(through, terms.cross_entropy, residual_of(t, target))};
  }
};

}  // namespace focal_plugin
