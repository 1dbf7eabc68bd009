// The point function of varifocal.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct varifocal {
  static constexpr int parameters = 4;  // gamma, alpha, iou_weighted, detach_weight
  static constexpr int probabilities = kNoProbabilities;

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const V y = target.y + V{}, weight = parameter[2] * y + (1.f - parameter[2]);
    const Point positive = times(weight, cross_entropy(t, target));
    if constexpr (Target::is_hard) {
      if (Target::y == 1.f) return positive;
    }
    const Point negative = times(parameter[1], focal_negative<GAMMA>(t, parameter[0], parameter[3]));
    return select(y <= 0.f, negative, positive);  // NaN is no negative
  }
};

}  // namespace focal_plugin
