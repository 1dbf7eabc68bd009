// class_balanced_focal.py has focal.py's point function.
#pragma once
#include "focal.h"

namespace focal_plugin {

struct class_balanced_focal : focal {
  static constexpr int probabilities = kNoProbabilities;
};

}  // namespace focal_plugin
