// The point function of poly_focal.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct poly_focal {
  static constexpr int parameters = 5;  // gamma, then of positives and of negatives: alpha, coefficient of the poly term
  static constexpr int probabilities = kNoProbabilities;

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const V gamma = parameter[0];
    const V alpha = target.mix(parameter[1], parameter[2]), poly = target.mix(parameter[3], parameter[4]);
    const Miss miss = miss_of(t, target);
    const V modulating = power<GAMMA>(miss.wrong, miss.log_wrong, gamma);
    const V through = miss.slope * (alpha * gamma * miss.cross_entropy + poly * (gamma + 1.f) * miss.wrong);
    // Without alpha an infinite cross-entropy leaves the polynomial term.
    const V weighted = select(alpha == 0.f, V{}, alpha * miss.cross_entropy);
    return {modulating * (weighted + poly * miss.wrong),
            modulating * ((1.f - 2.f * target.y) * through + alpha * residual_of(t, target))};
  }
};

}  // namespace focal_plugin
