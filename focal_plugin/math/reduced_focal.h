// The point function of reduced_focal.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct reduced_focal {
  // gamma, logit of the threshold, 1 - threshold, 1 / threshold, alpha of positives and of negatives
  static constexpr int parameters = 6;
  static constexpr int probabilities = kNoProbabilities;

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const FocalTerms terms = focal_terms(t, target);
    // p_t < threshold; of a hard target by its logit, because p is 0.5 for all small ones
    Mask below = select(target.y + V{} == 1.f, t.x, -t.x) < parameter[1];
    if constexpr (!Target::is_hard) {
      const Mask between = (target.y > 0.f) & (target.y < 1.f);
      below = (between & (terms.one_minus_pt > parameter[2])) | (~between & below);
    }
    // Of the ratio, since the power of 1 - p_t alone underflows.
    const V log_ratio = terms.log_one_minus_pt + log_normal(parameter[3]);
    const V modulating = power_above_one<GAMMA>(terms.one_minus_pt * parameter[3], log_ratio, parameter[0]);
    const V factor = target.mix(parameter[4], parameter[5]) * select(below, all(1.f), modulating);
    const V gamma = select(below, V{}, parameter[0]);
    const V through = gamma * (1.f - 2.f * target.y) * terms.d_log_one_minus_pt;
    return {factor * terms.cross_entropy, factor * fma(through, terms.cross_entropy, residual_of(t, target))};
  }
};

}  // namespace focal_plugin
