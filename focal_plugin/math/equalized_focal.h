// equalized_focal.py has focal.py's point function.
#pragma once
#include "focal.h"

namespace focal_plugin {

struct equalized_focal : focal {
  static constexpr int probabilities = kNoProbabilities;
};

}  // namespace focal_plugin
