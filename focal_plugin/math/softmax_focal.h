// The point function of softmax_focal.py: that of the sigmoid focal loss, at the margin.
#pragma once
#include "focal.h"

namespace focal_plugin {

using softmax_focal = focal;

}  // namespace focal_plugin
