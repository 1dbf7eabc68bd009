// A parallel loop without a runtime of our own: torch's OpenMP threads where they are found, else std::thread.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace focal_plugin {

using GompParallel = void (*)(void (*)(void *), void *, unsigned threads, unsigned flags);

// Calls work(state) on each thread; the work takes its share through a counter that the threads have in common.
inline void parallel(void *gomp_parallel, int64_t threads, void (*work)(void *), void *state) {
  if (threads <= 1) return work(state);
  if (gomp_parallel != nullptr) {
    return reinterpret_cast<GompParallel>(gomp_parallel)(work, state, static_cast<unsigned>(threads), 0);
  }
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) others.emplace_back(work, state);
  work(state);
  for (std::thread &other : others) other.join();
}

}  // namespace focal_plugin
