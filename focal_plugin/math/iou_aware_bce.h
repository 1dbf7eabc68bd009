// The point function of iou_aware_bce.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct iou_aware_bce {
  static constexpr int parameters = 3;  // gamma, k, detach_weight
  static constexpr int probabilities = kNoProbabilities;

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const auto positive = [&] {
      V goal = power_by_log_near_one(t.log_p, parameter[1]);
      // The difference keeps a NaN, of which the power of 0 is 1.
      if constexpr (!Target::is_hard) goal *= power_by_base(target.y, 1.f - parameter[1]) + (target.y - target.y);
      return cross_entropy(t, Soft{select(goal < 0.01f, all(0.01f), goal), Mask{}});
    };
    const auto negative = [&] { return focal_negative<GAMMA>(t, parameter[0], parameter[2]); };
    return target.split(positive, negative);
  }
};

}  // namespace focal_plugin
