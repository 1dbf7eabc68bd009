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
    const Miss miss = miss_of(t, target);
    // p_t < threshold; of a hard target by its logit, because p is 0.5 for all small ones
    Mask below = select(target.y + V{} == 1.f, t.x, -t.x) < parameter[1];
    if constexpr (!Target::is_hard) {
      const Mask between = (target.y > 0.f) & (target.y < 1.f);
      below = (between & (miss.wrong > parameter[2])) | (~between & below);
    }
    // Of the ratio, since the power of 1 - p_t alone underflows.
    const V log_ratio = miss.log_wrong + log_normal(parameter[3]);
    const V modulating = power_above_one<GAMMA>(miss.wrong * parameter[3], log_ratio, parameter[0]);
    const V factor = target.mix(parameter[4], parameter[5]) * select(below, all(1.f), modulating);
    const V gamma = select(below, V{}, parameter[0]);
    const V through = gamma * (1.f - 2.f * target.y) * miss.slope;
    return {factor * miss.cross_entropy, factor * fma(through, miss.cross_entropy, residual_of(t, target))};
  }
};

}  // namespace focal_plugin
