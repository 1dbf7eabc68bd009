// The point function of matchability_aware.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct matchability_aware {
  static constexpr int parameters = 2;  // gamma, mal_alpha
  static constexpr int probabilities = kNoProbabilities;

  template <int GAMMA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    const auto positive = [&] {
      if constexpr (Target::is_hard) return cross_entropy(t, target);
      // The difference keeps a NaN, of which the power of 0 is 1.
      return cross_entropy(t, Soft{power_by_base<GAMMA>(target.y + V{}, parameter[0]) + (target.y - target.y), Mask{}});
    };
    const auto negative = [&] { return times(parameter[1], focal_negative<GAMMA>(t, parameter[0], all(1.f))); };
    return target.split(positive, negative);
  }
};

}  // namespace focal_plugin
