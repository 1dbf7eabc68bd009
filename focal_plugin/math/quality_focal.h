// The point function of quality_focal.py.
#pragma once
#include "point.h"

namespace focal_plugin {

struct quality_focal {
  static constexpr int parameters = 1;  // beta
  static constexpr int probabilities = kStopped;

  template <int BETA, class Target, class Parameters>
  FP_INLINE Point value_and_grad(const Terms &t, const Target &target, const Parameters &parameter) {
    return quality<BETA>(t, target, parameter[0]);
  }
};

}  // namespace focal_plugin
