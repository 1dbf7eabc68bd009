// The point function of poly_focal.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct poly_focal {
  // gamma, alpha of positives and of negatives, coefficient of the polynomial term of positives and of negatives
  static constexpr int parameters = 5;
  static constexpr int probabilities = kNoProbabilities;

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const V gamma = parameter[0];
    const V alpha = target.mix(parameter[1], parameter[2]), poly = target.mix(parameter[3], parameter[4]);
    const FocalTerms terms = focal_terms(t, target);
    const V modulating = power<GAMMA>(terms.one_minus_pt, terms.log_one_minus_pt, gamma);
    const V by_log = alpha * gamma * terms.cross_entropy + poly * (gamma + 1.f) * terms.one_minus_pt;
    const V through = terms.d_log_one_minus_pt * by_log;
    // Without alpha an infinite cross-entropy leaves the polynomial term.
    const bool vanishes = parameter.may_be(1, 0.f) || parameter.may_be(2, 0.f);
    const V product = alpha * terms.cross_entropy, weighted = vanishes ? select(alpha == 0.f, V{}, product) : product;
    return {modulating * fma(poly, terms.one_minus_pt, weighted),
            modulating * fma(all(1.f) - 2.f * target.y, through, alpha * residual_of(t, target))};
  }
};

}  // namespace focal_plugin
