// The sums of the absolute gradients by class, of positives and of negatives, before the upstream gradient: (2,
// classes) for each block of ROWS rows. A warp takes 32 classes, or ALONG_ROWS one.
#include "variant.h"

namespace focal_plugin {

constexpr int WARPS = THREADS / 32;

extern "C" __global__ void __launch_bounds__(THREADS) statistics(const GRID_CONSTANT Call call) {
  __shared__ float sums[2][WARPS][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int column = ALONG_ROWS ? blockIdx.y * WARPS + warp : blockIdx.y * 32 + lane;
  const float factor = divided(call.scale, call.avg);
  const int first = blockIdx.x * ROWS, last = min(call.rows - first, ROWS);
  float positives = 0.f, negatives = 0.f;
  for (int r = ALONG_ROWS ? lane : warp; r < last && column < call.classes; r += ALONG_ROWS ? 32 : WARPS) {
    const Place place(call, first + r);
    Row row;
    row.read(call, place, factor);
    if (!row.is_kept) continue;
    const float x = at<X>(call.x, place.in(call.x) + wide(column, call.x.step));
    const float y = LABELS ? 0.f : at<TARGET>(call.target, place.in(call.target) + wide(column, call.target.step));
    const bool is_positive = LABELS ? row.label == column : !(y <= 0.f);
    const Parameters parameter{call, column};
    float size = !LABELS       ? value_at(x, Soft{y, is_positive}, parameter)
                 : is_positive ? positive_at(x, row, parameter)
                               : value_at(x, Negative{}, parameter);
    if (ELEMENT_WEIGHT) size *= at<WEIGHT>(call.weight, place.in(call.weight) + wide(column, call.weight.step));
    (is_positive ? positives : negatives) += fabsf(row.factor * size);
  }
  sums[0][warp][lane] = positives, sums[1][warp][lane] = negatives;
  __syncthreads();
  const int of_lanes = ALONG_ROWS ? WARPS : 32;  // the classes of the block
  if (threadIdx.x >= 2 * of_lanes) return;
  const int kind = threadIdx.x / of_lanes, i = threadIdx.x % of_lanes, c = blockIdx.y * of_lanes + i;
  float total = 0.f;
  for (int k = 0; k < (ALONG_ROWS ? 32 : WARPS); ++k) total += ALONG_ROWS ? sums[kind][i][k] : sums[kind][k][i];
  if (c < call.classes) call.partial[(static_cast<int64>(blockIdx.x) * 2 + kind) * call.classes + c] = total;
}

}  // namespace focal_plugin
