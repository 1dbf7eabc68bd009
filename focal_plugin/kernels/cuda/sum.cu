// Adds the parts of a sum in a fixed order, and divides by avg_factor.
#include "operand.h"

namespace focal_plugin {

extern "C" __global__ void __launch_bounds__(THREADS) sum(const GRID_CONSTANT Call call) {
  float total = 0.f;
  for (int i = threadIdx.x; i < call.rows; i += THREADS) total += call.partial[i];
  total = sum_of_block(total);
  if (threadIdx.x == 0) *static_cast<float *>(call.out.data) = divided(total, call.avg);
}

}  // namespace focal_plugin
