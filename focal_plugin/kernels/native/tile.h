// Where the elements of one tile lie in every operand, and their way in and out of contiguous floats.
#pragma once
#include "memory.h"
#include "operand.h"
#include "plan.h"

namespace focal_plugin {

struct Tile {
  const ElementwisePlan &plan;
  float *const line;             // a buffer for one number per row or class
  int64_t *const offsets;        // of each operand's outer indices, unless plan.linear
  int64_t start[kRoles]{};       // where the tile begins; without the outer index if that has an offset
  int64_t outer = 0, inner = 0;  // sizes
  int64_t first_class = 0;

  void place(int64_t index) {
    const int64_t slow = index / plan.class_tiles, fast = index % plan.class_tiles;
    const int64_t inner_index = (plan.rows_inner ? slow % plan.inner_tiles : fast) * plan.inner_step;
    const int64_t outer_index = (plan.rows_inner ? fast : slow) * plan.outer_step;
    inner = std::min(plan.inner_step, plan.inner.size - inner_index);
    outer = std::min(plan.outer_step, plan.outer.size - outer_index);
    first_class = plan.rows_inner ? outer_index : inner_index;
    for (int role = 0; role < kRoles; ++role) {
      start[role] = inner_index * plan.inner.stride[role];
      if (plan.linear) start[role] += outer_index * plan.outer.stride[role];
    }
    if (plan.rows_inner) plan.add_row(slow / plan.inner_tiles, plan.rows.size() - 1, start);
    if (!plan.linear) place_rows(outer_index);
  }

  void place_rows(int64_t first) {
    plan.each_run(first, outer, [&](const Run &run) {
      for (int role = 0; role < kRoles; ++role) {
        const int64_t at = start[role] + run.at[role], step = plan.outer.stride[role];
        for (int64_t i = 0; i < run.count; ++i) offset(role, run.first + i) = at + i * step;
      }
    });
    for (int64_t o = 0; plan.call.channel != nullptr && o < outer; ++o) {
      const int64_t channel = plan.call.channel[first + o];
      offset(kInput, o) += channel * plan.call.input_channel_stride;
      offset(kOutput, o) += channel * plan.call.output_channel_stride;
    }
  }

  int64_t &offset(int role, int64_t o) const { return offsets[role * kTile + o]; }

  int64_t count() const { return outer * inner; }
  int64_t rows() const { return plan.rows_inner ? inner : outer; }
  int64_t classes() const { return plan.rows_inner ? outer : inner; }

  // The place of an element among the tile's floats, and back.
  int64_t element(int64_t row, int64_t c) const { return plan.rows_inner ? c * inner + row : row * inner + c; }
  int64_t row_of(int64_t element) const { return plan.rows_inner ? element % inner : element / inner; }
  int64_t class_of(int64_t element) const { return plan.rows_inner ? element / inner : element % inner; }

  // Where an outer index, and where a row of the tile begins in an operand.
  int64_t at(Role role, int64_t o) const {
    return plan.linear ? start[role] + o * plan.outer.stride[role] : offset(role, o);
  }
  int64_t row_at(Role role, int64_t row) const {
    return plan.rows_inner ? start[role] + row * plan.inner.stride[role] : at(role, row);
  }

  // Whether the tile's rows lie side by side in an operand.
  bool has_adjacent_rows(Role role) const {
    return plan.linear && (plan.rows_inner ? plan.inner : plan.outer).stride[role] == 1;
  }

  // Whether the tile is one contiguous run of an operand.
  bool is_contiguous(Role role) const {
    if (plan.inner.stride[role] != 1 && inner != 1) return false;
    if (plan.linear) return outer == 1 || plan.outer.stride[role] == inner;
    bool steps = true;
    for (int64_t o = 1; o < outer; ++o) steps &= offset(role, o) - offset(role, o - 1) == inner;
    return steps;
  }

  // The tile of an operand of 2 bytes an element, where it is one run; else null.
  const uint16_t *halves(Role role) const {
    const Operand &operand = *plan.operand[role];
    const bool has_halves = operand.data != nullptr && (operand.type == kBFloat16 || operand.type == kHalf);
    return has_halves && is_contiguous(role) ? static_cast<const uint16_t *>(operand.data) + at(role, 0) : nullptr;
  }

  // The same of the tile after it, which mostly lies next to it.
  const uint16_t *next_halves(Role role) const {
    const uint16_t *const own = halves(role);
    return own == nullptr ? nullptr : own + count();
  }

  // use(where in the operand, stride, count, where among the tile's floats) for each run of an operand.
  template <class Use>
  void each_run(Role role, Use use) const {
    if (is_contiguous(role)) return use(at(role, 0), int64_t{1}, count(), int64_t{0});
    for (int64_t o = 0; o < outer; ++o) use(at(role, o), plan.inner.stride[role], inner, o * inner);
  }

  // The tile of an operand as contiguous floats, which are the operand's own where it lies so.
  const float *read(Role role, float *into) const {
    const Operand &operand = *plan.operand[role];
    if (operand.type == kFloat && is_contiguous(role)) return static_cast<const float *>(operand.data) + at(role, 0);
    each_run(role, [&](int64_t from, int64_t stride, int64_t count, int64_t to) {
      copy_in(operand, from, stride, count, into + to);
    });
    return into;
  }

  void write(Role role, const float *values) const {
    each_run(role, [&](int64_t to, int64_t stride, int64_t count, int64_t from) {
      copy_out(*plan.operand[role], to, stride, count, values + from);
    });
  }

  // What an operand has at the beginning of every outer index, or at so many places a stride apart.
  const float *read_line(Role role, int64_t stride, int64_t count) const {
    const Operand &operand = *plan.operand[role];
    if (operand.type == kFloat && stride == 1) return static_cast<const float *>(operand.data) + start[role];
    copy_in(operand, start[role], stride, count, line);
    return line;
  }
  const float *read_outer(Role role) const {
    if (plan.linear) return read_line(role, plan.outer.stride[role], outer);
    for (int64_t o = 0; o < outer; ++o) copy_in(*plan.operand[role], offset(role, o), 1, 1, line + o);
    return line;
  }

  // values *= an operand that need not be there.
  void multiply(Role role, float *values) const {
    if (plan.operand[role]->data == nullptr) return;
    if (plan.inner.stride[role] == 0) {
      multiply_rows(read_outer(role), outer, inner, values);
    } else if (plan.rows_inner && plan.outer.stride[role] == 0) {
      const float *by = read_line(role, plan.inner.stride[role], inner);
      for (int64_t o = 0; o < outer; ++o) {
        for (int64_t i = 0; i < inner; ++i) values[o * inner + i] *= by[i];
      }
    } else {
      each_run(role, [&](int64_t from, int64_t stride, int64_t count, int64_t to) {
        multiply_by(*plan.operand[role], from, stride, count, values + to);
      });
    }
  }
};

}  // namespace focal_plugin
