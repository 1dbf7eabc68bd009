// How the skeletons walk through operands: dimensions joined, memory made ready.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "api.h"

namespace focal_plugin {

constexpr int64_t kParallelFrom = 32768;  // elements

enum Role { kInput, kTarget, kScore, kWeight, kUpstream, kOutput, kRoles };

struct Dim {
  int64_t size;
  int64_t stride[kRoles];
};

// A sum of losses times a factor, of which 0 silences infinite ones too.
inline double scaled(double sum, double scale) { return scale == 0 && std::isinf(sum) ? 0 : sum * scale; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline std::vector<Dim> dims_of(const Call &call) {
  const Operand *operand[kRoles] = {&call.input, &call.target, &call.score, &call.weight, &call.upstream, &call.output};
  std::vector<Dim> dims(call.dims);
  for (int64_t d = 0; d < call.dims; ++d) {
    dims[d].size = call.size[d];
    for (int role = 0; role < kRoles; ++role) {
      dims[d].stride[role] = operand[role]->data != nullptr ? operand[role]->stride[d] : 0;
    }
  }
  return dims;
}

inline bool mergeable(const Dim &slow, const Dim &fast) {
  for (int role = 0; role < kRoles; ++role) {
    if (slow.stride[role] != fast.stride[role] * fast.size) return false;
  }
  return true;
}

// Sorts the dimensions by the logits' strides and joins those that every operand walks through in one step.
inline std::vector<Dim> coalesce(std::vector<Dim> dims) {
  dims.erase(std::remove_if(dims.begin(), dims.end(), [](const Dim &d) { return d.size == 1; }), dims.end());
  std::stable_sort(dims.begin(), dims.end(), [](const Dim &a, const Dim &b) { return a.stride[kInput] > b.stride[kInput]; });
  std::vector<Dim> joined;
  for (const Dim &dim : dims) {
    if (!joined.empty() && mergeable(joined.back(), dim)) {
      const int64_t size = joined.back().size * dim.size;
      joined.back() = dim;
      joined.back().size = size;
    } else {
      joined.push_back(dim);
    }
  }
  return joined;
}

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

inline void advise(const Call &call, int64_t elements) {
  const bool filled = call.output.data != nullptr && !call.by_row && call.channel == nullptr;
  if (filled) advise(call.output.data, elements * (call.output.type == kFloat ? 4 : 2));
}

}  // namespace focal_plugin
