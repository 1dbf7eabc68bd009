// The point function of asymmetric.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct asymmetric {
  static constexpr int parameters = 4;  // gamma_neg, gamma_pos, clip, detach_weight
  static constexpr int probabilities = kNoProbabilities;

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const V clip = parameter[2], keep = 1.f - parameter[3];
    const auto positive = [&]() -> Point {
      const V modulating = power_by_log(t.log_q, parameter[1]);
      return {modulating * -t.log_p, -modulating * fma(keep * parameter[1] * t.p, -t.log_p, t.q)};
    };
    const auto negative = [&]() -> Point {
      if (parameter.is(2, 0.f)) return focal_negative<GAMMA>(t, parameter[0], parameter[3]);
      const V shifted = greater(p_minus(t, clip), V{}), complement = t.q + clip;
      const V loss = minus_log_of_complement(shifted, rough_log(complement));
      const V modulating = power_by_base<GAMMA>(shifted, parameter[0]);
      const V through = keep * parameter[0] * power_less_one<GAMMA>(shifted, modulating) * loss;
      const V slope = t.p * t.q * (through + modulating / complement);
      return {modulating * loss, select(shifted == 0.f, V{}, slope)};
    };
    if constexpr (!Target::is_hard) {
      const Point one = positive(), zero = negative();
      return {target.choose(one.value, zero.value), target.choose(one.derivative, zero.derivative)};
    }
    return target.split(positive, negative);
  }
};

}  // namespace focal_plugin
