// The point function of position_supervised.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct position_supervised {
  static constexpr int parameters = 3;  // gamma, alpha of positives, alpha of negatives
  static constexpr int probabilities = kNoProbabilities;

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const auto positive = [&] {
      if constexpr (Target::is_hard) return times(parameter[1], quality<GAMMA>(t, target, parameter[0]));
      const V y = target.y + V{};
      return times(parameter[1], quality<GAMMA>(t, Soft{y * y, Mask{}}, parameter[0]));
    };
    const auto negative = [&] { return times(parameter[2], focal_negative<GAMMA>(t, parameter[0], V{})); };
    return target.split(positive, negative);
  }
};

}  // namespace focal_plugin
