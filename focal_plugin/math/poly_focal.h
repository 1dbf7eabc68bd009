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
    const bool vanishes = parameter.may_be(1, 0.f) || parameter.may_be(2, 0.f);
    const V product = alpha * miss.cross_entropy, weighted = vanishes ? select(alpha == 0.f, V{}, product) : product;
    return {modulating * fma(poly, miss.wrong, weighted),
            modulating * fma(all(1.f) - 2.f * target.y, through, alpha * residual_of(t, target))};
  }
};

}  // namespace focal_plugin
