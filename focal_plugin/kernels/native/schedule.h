// The tiles of a call, shared among threads, and their sums, which have the same bits for any number of threads.
#pragma once
#include <atomic>
#include <cmath>
#include <thread>

#include "memory.h"
#include "plan.h"
#include "vmath.h"

namespace focal_plugin {

constexpr int64_t kParallelFrom = 32768;  // elements
constexpr int64_t kMostStatistics = 64;   // batches with statistics of their own
constexpr int64_t kSumRun = 64;           // vectors added in float before the sum goes on in double

inline double add_lanes(double total, V part) {
  for (int lane = 0; lane < kLanes; ++lane) total += part[lane];
  return total;
}

// The sum of rows, each times its factor: in float by vector lanes, every kSumRun vectors in double.
inline double sum_rows(const float *values, int64_t rows, int64_t length, const float *factor) {
  double total = 0;
  V part{};
  int64_t pending = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const float by = factor == nullptr ? 1.f : factor[row];
    const float *from = values + row * length;
    int64_t i = 0;
    for (; i + kLanes <= length; i += kLanes) {
      part = fma(load(from + i), by, part);
      if (++pending < kSumRun) continue;
      total = add_lanes(total, part);
      part = V{};
      pending = 0;
    }
    for (; i < length; ++i) total += from[i] * by;
  }
  return add_lanes(total, part);
}

// Calls work() on each thread, of torch's OpenMP runtime where that is found.
template <class Work>
void parallel(void *gomp_parallel, int64_t threads, Work work) {
  using Gomp = void (*)(void (*)(void *), void *, unsigned threads, unsigned flags);
  if (threads <= 1) return work();
  if (gomp_parallel != nullptr) {
    const auto call = [](void *work) { (*static_cast<Work *>(work))(); };
    return reinterpret_cast<Gomp>(gomp_parallel)(call, &work, static_cast<unsigned>(threads), 0);
  }
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) others.emplace_back([&] { work(); });
  work();
  for (std::thread &other : others) other.join();
}

// Neighbouring tiles, which a thread takes at a time: it then touches a page first and last.
inline int64_t batch_of(const Plan &plan) {
  if (plan.call.statistics != nullptr) return ceil_div(plan.tiles, kMostStatistics);
  const int64_t batch = std::max<int64_t>(1, std::min<int64_t>(64, plan.tiles / (8 * plan.call.threads)));
  return plan.call.by_row ? ceil_div(batch, plan.class_tiles) * plan.class_tiles : batch;
}

// What the rows have shown that the caller raises an error for, as in Call.
struct Found {
  int64_t bad_row = -1, is_out_of_range = 0;
};

// Worker{plan, found} is what a thread needs. Its process(tile, new_rows, statistics) returns the sum of the tile's
// values where the call has one; new_rows: the tile before was of other rows, or another thread's.
template <class Worker>
void run(Call &call, const Variant &variant) {
  call.sum = 0;
  call.bad_row = -1;
  call.is_out_of_range = 0;
  int64_t elements = 1;
  for (int64_t d = 0; d < call.dims; ++d) elements *= call.size[d];
  if (elements == 0) return;
  for (int64_t row = 0; call.channel != nullptr && row < call.size[0]; ++row) {
    if (call.channel[row] < 0 || call.channel[row] >= call.channels) call.bad_row = row;
  }
  if (call.bad_row >= 0) return;

  const typename Worker::Plan plan(call, variant);
  const int64_t tiles_of_batch = batch_of(plan), numbers = call.statistics == nullptr ? 0 : 2 * plan.classes.size;
  // One sum per tile and statistics per batch, added in their order.
  std::vector<double> sums(call.output.data == nullptr || call.both ? plan.tiles : 0);
  std::vector<double> statistics(numbers * ceil_div(plan.tiles, tiles_of_batch));
  std::atomic<int64_t> next{0}, bad_row{-1}, is_out_of_range{0};
  const bool fills_output = call.output.data != nullptr && !call.by_row && call.channel == nullptr;
  if (fills_output) advise(call.output.data, elements * (call.output.type == kFloat ? 4 : 2));
  const int64_t threads = elements < kParallelFrom ? 1 : std::min(call.threads, plan.tiles);
  parallel(call.gomp_parallel, threads, [&] {
    Found found;
    Worker worker{plan, found};
    for (int64_t batch = next++; batch * tiles_of_batch < plan.tiles; batch = next++) {
      const int64_t first = batch * tiles_of_batch, end = std::min(first + tiles_of_batch, plan.tiles);
      for (int64_t tile = first; tile < end; ++tile) {
        const bool new_rows = tile == first || tile % plan.class_tiles == 0;
        const double sum = worker.process(tile, new_rows, statistics.data() + numbers * batch);
        if (!sums.empty()) sums[tile] = sum;
      }
    }
    if (found.bad_row >= 0) bad_row = found.bad_row;
    if (found.is_out_of_range) is_out_of_range = 1;
  });
  for (const double sum : sums) call.sum += sum;
  // A scale of 0 silences infinite losses too.
  call.sum = call.scale == 0 && std::isinf(call.sum) ? 0 : call.sum * call.scale;
  for (size_t i = 0; i < statistics.size(); ++i) call.statistics[i % numbers] += statistics[i];
  call.bad_row = bad_row;
  call.is_out_of_range = is_out_of_range;
}

}  // namespace focal_plugin
