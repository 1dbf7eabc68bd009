// How a call is cut into tiles.
#pragma once
#include <algorithm>
#include <vector>

#include "api.h"
#include "variant.h"
#include "vmath.h"

namespace focal_plugin {

enum Role { kInput, kTarget, kScore, kWeight, kUpstream, kOutput, kRoles };

struct Dim {
  int64_t size = 1;
  int64_t stride[kRoles] = {};
};

// Rows that lie one stride of their innermost dimension apart in every operand.
struct Run {
  int64_t first, count;  // first: counted from the first row of the tile
  int64_t at[kRoles];    // where the first row lies
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Whether a step of the slow dimension is in every operand what the fast one's next step would be.
inline bool are_one_walk(const Dim &slow, const Dim &fast) {
  return std::equal(slow.stride, slow.stride + kRoles, fast.stride,
                    [&](int64_t a, int64_t b) { return a == b * fast.size; });
}

// What the plans of both families hold.
struct Plan {
  const Call &call;
  const Variant &variant;
  const Operand *operand[kRoles];
  std::vector<Dim> rows;  // the dimensions of the rows, outermost first
  Dim classes;
  int64_t row_count = 1;
  int64_t tiles = 1;
  int64_t class_tiles = 1;  // tiles of the same rows, which are neighbours

  Plan(const Call &call, const Variant &variant)
      : call(call),
        variant(variant),
        operand{&call.input, &call.target, &call.score, &call.weight, &call.upstream, &call.output},
        rows(call.dims) {
    for (int64_t d = 0; d < call.dims; ++d) {
      rows[d].size = call.size[d];
      for (int role = 0; role < kRoles; ++role) {
        if (operand[role]->data != nullptr) rows[d].stride[role] = operand[role]->stride[d];
      }
    }
  }

  void split_off_classes() {
    if (rows.empty()) return;
    classes = rows.back();
    rows.pop_back();
  }

  // Sorts the dimensions of the rows by the logits' strides and joins those that are one walk through every operand.
  void join_rows() {
    std::vector<Dim> dims;
    std::swap(dims, rows);
    std::stable_sort(dims.begin(), dims.end(),
                     [](const Dim &a, const Dim &b) { return a.stride[kInput] > b.stride[kInput]; });
    for (const Dim &dim : dims) {
      if (dim.size == 1) continue;
      const int64_t joined = !rows.empty() && are_one_walk(rows.back(), dim) ? rows.back().size : 1;
      if (joined > 1) rows.pop_back();
      rows.push_back(dim);
      rows.back().size *= joined;
    }
  }

  void count_rows() {
    for (const Dim &dim : rows) row_count *= dim.size;
  }

  // Adds the offsets of a row, given by its index over the outermost `count` dimensions.
  void add_row(int64_t row, size_t count, int64_t *offsets) const {
    for (size_t d = count; d-- > 0;) {
      const int64_t index = row % rows[d].size;
      row /= rows[d].size;
      for (int role = 0; role < kRoles; ++role) offsets[role] += index * rows[d].stride[role];
    }
  }

  // use(run) for each run of the rows [first, first + count).
  template <class Use>
  void each_run(int64_t first, int64_t count, Use use) const {
    const int64_t innermost = rows.back().size;
    for (int64_t done = 0; done < count;) {
      Run run{done, std::min(count - done, innermost - (first + done) % innermost), {}};
      add_row(first + done, rows.size(), run.at);
      use(run);
      done += run.count;
    }
  }
};

constexpr int64_t kTile = 4096;  // 16 KiB of floats: two buffers stay in the first-level cache

// The tiles of the elementwise family are rectangles outer x inner of at most kTile elements. Inner is the direction in
// which the logits lie closest together: the classes of one row, or (a permuted map) the rows of one class.
struct ElementwisePlan : Plan {
  bool rows_inner;   // the innermost dimension of the rows is the inner direction
  bool linear;       // outer indices lie one stride apart; else each has an offset of its own
  Dim inner, outer;  // outer.size: over all outer dimensions
  int64_t inner_step, outer_step, inner_tiles, outer_tiles;

  ElementwisePlan(const Call &call, const Variant &variant) : Plan(call, variant) {
    // Where nothing depends on the class, the innermost of all joined dimensions takes the place of the classes.
    const bool by_class = call.has_labels || call.by_row || call.channel != nullptr || call.statistics != nullptr ||
                          call.per_class_parameters != nullptr;
    if (by_class) split_off_classes();
    if (call.channel == nullptr) join_rows();
    if (!by_class) split_off_classes();
    count_rows();
    rows_inner = by_class && call.channel == nullptr && !rows.empty() && classes.size > 1 &&
                 rows.back().stride[kInput] < classes.stride[kInput];
    linear = rows_inner || (rows.size() <= 1 && call.channel == nullptr);
    const Dim innermost = rows.empty() ? Dim{} : rows.back();
    inner = rows_inner ? innermost : classes;
    outer = rows_inner ? classes : innermost;
    if (!rows_inner) outer.size = row_count;
    inner_step = std::min(inner.size, kTile);  // whole planes of a map lie one behind the other
    outer_step = std::min(outer.size, kTile / inner_step);
    inner_tiles = ceil_div(inner.size, inner_step);
    outer_tiles = ceil_div(outer.size, outer_step);
    class_tiles = rows_inner ? outer_tiles : inner_tiles;
    tiles = (rows_inner ? row_count / inner.size : 1) * outer_tiles * inner_tiles;
  }
};

constexpr int64_t kTileFloats = 8192;  // with what else a row needs they stay in the first-level cache
constexpr int64_t kShortestRun = 64;   // of rows in a permuted map: shorter runs waste what a memory access brings
constexpr int64_t kMostRows = 256;
constexpr int64_t kFewClasses = 2 * kLanes;

inline int64_t round_up(int64_t n) { return ceil_div(n, kLanes) * kLanes; }

// The tiles of the row-wise family are whole rows.
struct RowwisePlan : Plan {
  bool across_rows;  // of vector lanes
  int64_t step;      // rows of a tile

  RowwisePlan(const Call &call, const Variant &variant) : Plan(call, variant) {
    split_off_classes();
    join_rows();
    if (rows.empty()) rows.emplace_back();
    count_rows();
    const bool permuted = rows.back().size > 1 && rows.back().stride[kInput] < classes.stride[kInput];
    across_rows = classes.size < kFewClasses || permuted;
    const int64_t shortest = across_rows ? kShortestRun : 1;
    step = std::min(row_count, std::min(kMostRows, std::max(shortest, kTileFloats / round_up(classes.size))));
    tiles = ceil_div(row_count, step);
  }
};

}  // namespace focal_plugin
