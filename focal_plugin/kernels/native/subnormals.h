// How the processor treats results below the smallest normal number.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace focal_plugin {

// While it lives, such results of this thread are 0 if so wanted; operands keep theirs. The exponents of per-class
// parameters reach 10, and the many results that small would take the slow way of the processor. Not on ARM, whose
// switch changes operands too.
class SubnormalsToZero {
 public:
#if defined(__SSE__)
  explicit SubnormalsToZero(bool wanted) : flushed_(wanted ? before_ | 0x8000u : before_) { _mm_setcsr(flushed_); }
  ~SubnormalsToZero() { _mm_setcsr(before_); }
  void suspend() const { _mm_setcsr(before_); }
  void resume() const { _mm_setcsr(flushed_); }

 private:
  unsigned before_ = _mm_getcsr(), flushed_;
#else
  explicit SubnormalsToZero(bool) {}
  void suspend() const {}
  void resume() const {}
#endif
};

}  // namespace focal_plugin
