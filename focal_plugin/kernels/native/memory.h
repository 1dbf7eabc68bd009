// A thread's buffers, and large pages for what a call fills.
#pragma once
#include <cstdint>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace focal_plugin {

// Buffers are kept from call to call: for a small loss, allocating them would be most of the time.
class Buffers {
 public:
  // Those of this thread. What was taken before is free to be taken again.
  static Buffers &of_thread() {
    static thread_local Buffers buffers;
    buffers.taken_ = 0;
    return buffers;
  }

  // A buffer of `count` numbers, whose values are what an earlier call left. Each begins elsewhere in a page: where the
  // lowest bits of two addresses agree, the processor makes a load from one buffer wait for a store to the other.
  template <class T>
  T *take(int64_t count) {
    constexpr uintptr_t page = 4096, apart = 320;
    if (taken_ == blocks_.size()) blocks_.emplace_back();
    std::vector<char> &block = blocks_[taken_];
    const size_t bytes = count * sizeof(T) + 2 * page;
    if (block.size() < bytes) block.resize(bytes);
    const uintptr_t first_page = (reinterpret_cast<uintptr_t>(block.data()) + page - 1) & ~(page - 1);
    return reinterpret_cast<T *>(first_page + taken_++ * apart % page);
  }

 private:
  std::vector<std::vector<char>> blocks_;
  size_t taken_ = 0;
};

// Fresh memory costs more than the arithmetic: large pages make its first touch cheap.
inline void advise(void *data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t{2} << 20;
  if (bytes < static_cast<int64_t>(4 * page)) return;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + page - 1) & ~(page - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(page - 1);
  madvise(reinterpret_cast<void *>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace focal_plugin
