// The class labels of a tile's rows.
#pragma once
#include "tile.h"

namespace focal_plugin {

constexpr int64_t kLabelBlock = 32;  // labels compared at once

struct Labels {
  const Tile &tile;
  int64_t &bad_row;
  int32_t *const row, *const label;  // the rows with a class that are listed, and the class of each
  int64_t count = 0;
  const Call &call = tile.plan.call;
  const int64_t *const labels = static_cast<const int64_t *>(call.target.data);

  // Lists the rows with a class: the same for all tiles of these rows.
  void list() {
    const int64_t rows = tile.rows(), classes = tile.plan.classes.size;
    // Nearly all rows are background: where labels lie side by side, a block of nothing else is seen in one comparison.
    const bool adjacent = tile.has_adjacent_rows(kTarget);
    count = 0;
    for (int64_t first = 0; first < rows; first += kLabelBlock) {
      const int64_t end = std::min(first + kLabelBlock, rows);
      if (adjacent && end - first == kLabelBlock && is_background(labels + tile.row_at(kTarget, first))) continue;
      for (int64_t r = first; r < end; ++r) {
        const int64_t at = tile.row_at(kTarget, r), y = labels[at];
        if (call.has_ignore_index && y == call.ignore_index) continue;
        if (y < 0 || y > classes) bad_row = at;
        if (y < 0 || y >= classes) continue;
        row[count] = static_cast<int32_t>(r);
        label[count++] = static_cast<int32_t>(y);
      }
    }
  }

  bool is_background(const int64_t *block) const {
    int64_t different = 0;
    for (int64_t i = 0; i < kLabelBlock; ++i) different |= block[i] ^ tile.plan.classes.size;
    return different == 0;
  }

  // Of one class, as masks have it, positives are common: 1 where the label is 0, without a list of them.
  const float *targets_of_one_class(float *y) {
    const int64_t ignored = call.has_ignore_index ? call.ignore_index : 0, rows = tile.rows();
    const int64_t *const first = labels + tile.row_at(kTarget, 0);
    int64_t bad = 0;
    const auto convert = [&](int64_t label, int64_t r) __attribute__((always_inline)) {
      y[r] = label == 0 ? 1.f : 0.f;
      bad |= label == ignored ? 0 : label & ~int64_t{1};
    };
    if (tile.has_adjacent_rows(kTarget)) {
      for (int64_t r = 0; r < rows; ++r) convert(first[r], r);
    } else {
      for (int64_t r = 0; r < rows; ++r) convert(labels[tile.row_at(kTarget, r)], r);
    }
    if (bad != 0) list();  // finds the row
    return y;
  }

  // After every product: a weight or an upstream gradient of an ignored row may be NaN or infinite.
  void silence_ignored(float *values) const {
    if (!call.has_labels || !call.has_ignore_index) return;
    for (int64_t r = 0; r < tile.rows(); ++r) {
      if (labels[tile.row_at(kTarget, r)] != call.ignore_index) continue;
      for (int64_t c = 0; c < tile.classes(); ++c) values[tile.element(r, c)] = 0.f;
    }
  }
};

}  // namespace focal_plugin
