// A parallel loop without a runtime of our own: torch's OpenMP threads where they are found, else std::thread.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace focal_plugin {

// While it lives, this thread's results below the smallest normal number are 0 if so wanted; operands keep theirs. The
// exponents of a table reach 10, and the many results that small would take the slow way of the processor.
class SubnormalsToZero {
 public:
#if defined(__SSE__)
  explicit SubnormalsToZero(bool wanted) : flushed_(wanted ? before_ | 0x8000u : before_) { _mm_setcsr(flushed_); }
  ~SubnormalsToZero() { _mm_setcsr(before_); }
  template <class Work>
  void suspended(Work work) const {  // as the caller's own arithmetic does it
    _mm_setcsr(before_);
    work();
    _mm_setcsr(flushed_);
  }

 private:
  unsigned before_ = _mm_getcsr(), flushed_;
#else
  explicit SubnormalsToZero(bool) {}
  template <class Work>
  void suspended(Work work) const { work(); }
#endif
};

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
