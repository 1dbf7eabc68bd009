// Everything that is the same for all variants: tiles, strides, labels, weights, sums, storing.
//
// A call is cut into tiles of at most kTile elements, each a rectangle outer x inner, where inner is the direction in
// which the logits lie closest together: the classes of one row, or (a permuted map) the rows of one class. A tile is
// read into contiguous floats (not copied where it lies so already), the variant's loop runs over all of it as negatives,
// and the few positives are gathered, computed and put in their places.
#include <algorithm>
#include <cmath>
#include <vector>

#include "api.h"
#include "operand.h"
#include "schedule.h"
#include "variant.h"
#include "plan.h"

namespace focal_plugin {
namespace {

constexpr int64_t kTile = 4096;          // 16 KiB of floats: two buffers stay in the first-level cache
constexpr int64_t kBlock = 32;           // labels compared at once
constexpr int64_t kTableRun = 640;       // elements: eight rows of 80 classes
constexpr int64_t kMostStatistics = 64;  // batches with sums of their own
constexpr int64_t kSumRun = 64;          // vectors added in float before the sum goes on in double

struct Plan {
  const Call &call;
  const Variant &variant;
  const Operand *operand[kRoles];
  std::vector<Dim> rows;  // outermost first
  Dim classes;
  bool rows_inner;  // the last of `rows` is the inner direction
  int64_t outer, inner;             // the sizes of the two directions, `outer` over all outer dimensions
  int64_t outer_step, inner_step;   // of a tile
  int64_t outer_tiles, inner_tiles, tiles;  // tiles of the same rows are neighbours
  int64_t class_tiles() const { return rows_inner ? outer_tiles : inner_tiles; }
};

Plan plan_of(const Call &call, const Variant &variant) {
  Plan plan{call, variant, {&call.input, &call.target, &call.score, &call.weight, &call.upstream, &call.output}, {}, {}, false, 1, 1, 1, 1, 1, 1, 1};
  std::vector<Dim> dims = dims_of(call);
  const bool classes_matter = call.channel != nullptr || call.labels || call.table != nullptr || call.by_row || call.statistics != nullptr;
  if (classes_matter) {
    plan.classes = dims.back();
    dims.pop_back();
    plan.rows = call.channel == nullptr ? coalesce(dims) : dims;
  } else {
    plan.rows = coalesce(dims);
    plan.classes = plan.rows.empty() ? Dim{1, {}} : plan.rows.back();
    if (!plan.rows.empty()) plan.rows.pop_back();
  }
  plan.rows_inner = classes_matter && call.channel == nullptr && !plan.rows.empty() && plan.classes.size > 1 &&
                    plan.rows.back().stride[kInput] < plan.classes.stride[kInput];
  int64_t rows = 1;
  for (const Dim &dim : plan.rows) rows *= dim.size;
  if (plan.rows_inner) {
    plan.inner = plan.rows.back().size;
    plan.outer = plan.classes.size;
    plan.inner_step = std::min(plan.inner, kTile);  // whole planes of a map lie one behind the other
    plan.outer_step = std::min(plan.outer, kTile / plan.inner_step);
    plan.inner_tiles = ceil_div(plan.inner, plan.inner_step);
    plan.outer_tiles = ceil_div(plan.outer, plan.outer_step);
    plan.tiles = (rows / plan.inner) * plan.outer_tiles * plan.inner_tiles;
  } else {
    plan.inner = plan.classes.size;
    plan.outer = rows;
    plan.inner_step = std::min(plan.inner, kTile);
    plan.outer_step = std::min(plan.outer, kTile / plan.inner_step);
    plan.inner_tiles = ceil_div(plan.inner, plan.inner_step);
    plan.outer_tiles = ceil_div(plan.outer, plan.outer_step);
    plan.tiles = plan.outer_tiles * plan.inner_tiles;
  }
  return plan;
}

// The sum of rows, each times its factor: in float by vector lanes, every kSumRun vectors in double.
double sum_rows(const float *values, int64_t rows, int64_t length, const float *factor) {
  double total = 0;
  V part{};
  int64_t pending = 0;
  const auto flush = [&] {
    for (int lane = 0; lane < kLanes; ++lane) total += part[lane];
    part = V{};
    pending = 0;
  };
  for (int64_t row = 0; row < rows; ++row) {
    const float by = factor == nullptr ? 1.f : factor[row];
    const float *from = values + row * length;
    int64_t i = 0;
    for (; i + kLanes <= length; i += kLanes) {
      part = fma(load(from + i), by, part);
      if (++pending == kSumRun) flush();
    }
    for (; i < length; ++i) total += from[i] * by;
  }
  flush();
  return total;
}

// A thread's buffers, kept from call to call: for a small loss allocating them would be most of the time.
struct Scratch {
  std::vector<int64_t> offset[kRoles];  // of each outer index, where the tile is not linear
  std::vector<float> buffer, value, input, factor, row_weight, y, compact[4], table, compact_table;
  std::vector<int32_t> labelled_row, labelled_class, positive_at, positive_row;
  std::vector<double> row_sums;
  std::vector<float> kept;

  void reserve(const Call &call, int parameters) {
    const auto at_least = [](auto &values, int64_t size) {
      if (static_cast<int64_t>(values.size()) < size) values.resize(size);
    };
    for (auto &offsets : offset) at_least(offsets, kTile);
    for (auto *values : {&buffer, &value, &input, &factor, &row_weight, &y}) at_least(*values, kTile);
    at_least(row_sums, call.by_row ? kTile : 0);
    for (auto &values : compact) at_least(values, call.labels ? kTile : 0);
    for (auto *values : {&table, &compact_table}) at_least(*values, call.table == nullptr ? 0 : kTile * parameters);
  }
};

Scratch &scratch_of_thread() {
  static thread_local Scratch scratch;
  return scratch;
}

// Where the loop puts values, or derivatives and perhaps values beside them.
struct Results {
  bool derivative;
  float scale;  // of what goes to `to`
  float *to, *value;
};

struct Worker {
  const Plan &plan;
  const Call &call;
  const SubnormalsToZero &mode;
  int64_t outer = 0, inner = 0;            // this tile's sizes
  int64_t first_class = 0, classes = 0;    // this tile's classes
  int64_t rows = 0;                        // this tile's rows
  int64_t inner_stride[kRoles], outer_stride[kRoles];
  int64_t start[kRoles];                   // of the tile
  bool linear = true;                      // outer indices lie outer_stride apart; else each has an offset of its own
  Scratch &scratch;
  std::vector<int64_t> (&offset)[kRoles] = scratch.offset;
  std::vector<float> &buffer = scratch.buffer, &factor = scratch.factor, &table = scratch.table;
  std::vector<float> (&compact)[4] = scratch.compact;
  std::vector<float> &compact_table = scratch.compact_table;
  std::vector<int32_t> &labelled_row = scratch.labelled_row, &labelled_class = scratch.labelled_class;
  std::vector<int32_t> &positive_at = scratch.positive_at, &positive_row = scratch.positive_row;
  int64_t expanded[3] = {-1, -1, -1};  // first class, outer and inner size that `table` was expanded for
  int64_t period = 1;                  // elements after which it repeats
  int64_t bad_row = -1, is_out_of_range = 0;
  int64_t rows_of_tile = -1;           // counts the tiles with other rows
  int64_t listed = -1, weighed = -1;   // the rows whose labels are listed, whose weights are at hand

  Worker(const Plan &p, const SubnormalsToZero &m) : plan(p), call(p.call), mode(m), scratch(scratch_of_thread()) {
    const Dim &direction = plan.rows_inner ? plan.rows.back() : plan.classes;
    std::copy(direction.stride, direction.stride + kRoles, inner_stride);
    const Dim across = plan.rows_inner ? plan.classes : plan.rows.empty() ? Dim{1, {}} : plan.rows.back();
    std::copy(across.stride, across.stride + kRoles, outer_stride);
    scratch.reserve(call, plan.variant.parameters);
  }

  // Adds the offsets of a row, given by its index over the outermost `count` dimensions.
  void add_row(int64_t row, size_t count, int64_t *offsets) const {
    for (size_t d = count; d-- > 0;) {
      const int64_t index = row % plan.rows[d].size;
      row /= plan.rows[d].size;
      for (int role = 0; role < kRoles; ++role) offsets[role] += index * plan.rows[d].stride[role];
    }
  }

  void place(int64_t tile) {
    const int64_t slow = tile / plan.class_tiles(), fast = tile % plan.class_tiles();
    const int64_t inner_index = (plan.rows_inner ? slow % plan.inner_tiles : fast) * plan.inner_step;
    const int64_t outer_index = (plan.rows_inner ? fast : slow) * plan.outer_step;
    inner = std::min(plan.inner_step, plan.inner - inner_index);
    outer = std::min(plan.outer_step, plan.outer - outer_index);
    std::fill(start, start + kRoles, 0);
    linear = plan.rows_inner || (plan.rows.size() <= 1 && call.channel == nullptr);
    if (plan.rows_inner) {
      first_class = outer_index, classes = outer, rows = inner;
      add_row(slow / plan.inner_tiles, plan.rows.size() - 1, start);
    } else {
      first_class = inner_index, classes = inner, rows = outer;
    }
    for (int role = 0; role < kRoles; ++role) start[role] += inner_index * inner_stride[role];
    if (linear) {
      for (int role = 0; role < kRoles; ++role) start[role] += outer_index * outer_stride[role];
      return;
    }
    const int64_t last = plan.rows.back().size;
    for (int64_t o = 0; o < outer;) {
      int64_t first[kRoles];
      std::copy(start, start + kRoles, first);
      add_row(outer_index + o, plan.rows.size(), first);
      const int64_t run = std::min(outer - o, last - (outer_index + o) % last);
      for (int role = 0; role < kRoles; ++role) {
        for (int64_t i = 0; i < run; ++i) offset[role][o + i] = first[role] + i * outer_stride[role];
      }
      o += run;
    }
    if (call.channel != nullptr) pick_channels(outer_index);
  }

  void pick_channels(int64_t first_row) {
    for (int64_t o = 0; o < outer; ++o) {
      const int64_t channel = call.channel[first_row + o];
      if (channel < 0 || channel >= call.channels) {
        bad_row = first_row + o;
        continue;
      }
      offset[kInput][o] += channel * call.channel_stride[0];
      offset[kOutput][o] += channel * call.channel_stride[1];
    }
  }

  // Where an outer index of the tile begins in an operand.
  int64_t at(Role role, int64_t o) const { return linear ? start[role] + o * outer_stride[role] : offset[role][o]; }

  // Whether the tile of this operand is one contiguous run.
  bool contiguous(Role role) const {
    if (inner_stride[role] != 1 && inner != 1) return false;
    if (linear) return outer == 1 || outer_stride[role] == inner;
    bool steps = true;
    for (int64_t o = 1; o < outer; ++o) steps &= offset[role][o] - offset[role][o - 1] == inner;
    return steps;
  }

  // One float from the beginning of every outer index.
  const float *column(Role role) {
    const Operand &operand = *plan.operand[role];
    if (linear) {
      if (operand.type == kFloat && outer_stride[role] == 1) return static_cast<const float *>(operand.data) + start[role];
      copy_in(operand, start[role], outer_stride[role], outer, factor.data());
    } else {
      for (int64_t o = 0; o < outer; ++o) copy_in(operand, offset[role][o], 1, 1, &factor[o]);
    }
    return factor.data();
  }

  // One float of every inner index; those of the weight serve all tiles of the same rows.
  const float *of_rows(Role role) {
    std::vector<float> &into = role == kWeight ? scratch.row_weight : factor;
    if (role != kWeight || weighed != rows_of_tile) {
      copy_in(*plan.operand[role], start[role], inner_stride[role], inner, into.data());
    }
    if (role == kWeight) weighed = rows_of_tile;
    return into.data();
  }

  template <class Use>
  void each_run(Role role, Use use) const {
    if (contiguous(role)) return use(at(role, 0), int64_t{1}, outer * inner, int64_t{0});
    for (int64_t o = 0; o < outer; ++o) use(at(role, o), inner_stride[role], inner, o * inner);
  }

  const float *load(Role role, std::vector<float> &into) const {
    const Operand &operand = *plan.operand[role];
    if (operand.type == kFloat && contiguous(role)) return static_cast<const float *>(operand.data) + at(role, 0);
    each_run(role, [&](int64_t from, int64_t stride, int64_t count, int64_t to) {
      copy_in(operand, from, stride, count, into.data() + to);
    });
    return into.data();
  }

  int64_t row_offset(Role role, int64_t row) const {
    return plan.rows_inner ? start[role] + row * inner_stride[role] : at(role, row);
  }
  int64_t element(int64_t row, int64_t c) const { return plan.rows_inner ? c * inner + row : row * inner + c; }

  // Parameters of every element, one plane a parameter: of the whole tile where its rows are inner, else of as many rows
  // as leave room for the logits in the first-level cache; most tiles are of whole rows, and one expansion serves them all.
  void expand_table() {
    const int64_t repeated = plan.rows_inner ? outer : std::min(outer, std::max<int64_t>(1, kTableRun / inner));
    if (expanded[0] == first_class && expanded[1] == repeated && expanded[2] == inner) return;
    expanded[0] = first_class, expanded[1] = repeated, expanded[2] = inner;
    period = repeated * inner;
    for (int k = 0; k < plan.variant.parameters; ++k) {
      const float *from = call.table + k * plan.classes.size + first_class;
      float *to = table.data() + k * kTile;
      for (int64_t o = 0; o < repeated; ++o) {
        for (int64_t i = 0; i < inner; ++i) to[o * inner + i] = from[plan.rows_inner ? o : i];
      }
    }
  }

  // The loop over the whole tile.
  void run(Kind kind, const float *values, const float *targets, const Results &results) {
    const int64_t count = outer * inner, step = call.table == nullptr ? count : period;
    for (int64_t i = 0; i < count; i += step) {
      const Results part{results.derivative, results.scale, results.to + i, results.value == nullptr ? nullptr : results.value + i};
      run(kind, values + i, targets == nullptr ? nullptr : targets + i, part, std::min(step, count - i), table);
    }
  }

  void run(Kind kind, const float *values, const float *targets, const Results &results, int64_t count, const std::vector<float> &planes) {
    Loop loop{};
    loop.input = values, loop.y = targets, loop.output = results.to, loop.value = results.value, loop.count = count;
    loop.scale = results.scale, loop.is_out_of_range = &is_out_of_range;
    for (int k = 0; k < plan.variant.parameters; ++k) {
      loop.parameter[k] = call.parameter[k];
      if (call.table != nullptr) loop.table[k] = planes.data() + k * kTile;
    }
    plan.variant.loop(kind, results.derivative, call.activated, static_cast<int>(call.exponent), call.table != nullptr)(loop);
  }

  bool all_background(const int64_t *label) const {
    int64_t different = 0;
    for (int64_t i = 0; i < kBlock; ++i) different |= label[i] ^ plan.classes.size;
    return different == 0;
  }

  // The rows with a class, and which: the same for all tiles of these rows.
  void list_labels() {
    labelled_row.clear();
    labelled_class.clear();
    const int64_t *labels = static_cast<const int64_t *>(call.target.data);
    // Nearly all rows are background: where labels lie side by side, a block of nothing else is seen in one comparison.
    const bool adjacent = plan.rows_inner ? inner_stride[kTarget] == 1
                                          : plan.rows.size() == 1 && plan.rows.back().stride[kTarget] == 1;
    for (int64_t row = 0; row < rows; ++row) {
      if (adjacent && row + kBlock <= rows && all_background(labels + row_offset(kTarget, row))) {
        row += kBlock - 1;
        continue;
      }
      const int64_t label = labels[row_offset(kTarget, row)];
      if (call.has_ignore_index && label == call.ignore_index) continue;
      if (label < 0 || label > plan.classes.size) bad_row = row_offset(kTarget, row);
      if (label < 0 || label >= plan.classes.size) continue;
      labelled_row.push_back(static_cast<int32_t>(row));
      labelled_class.push_back(static_cast<int32_t>(label));
    }
  }

  void positives(const float *values, const Results &results) {
    if (listed != rows_of_tile) list_labels();
    listed = rows_of_tile;
    positive_at.clear();
    positive_row.clear();
    for (size_t i = 0; i < labelled_row.size(); ++i) {
      const int64_t c = labelled_class[i] - first_class;
      if (c < 0 || c >= classes) continue;
      positive_at.push_back(static_cast<int32_t>(element(labelled_row[i], c)));
      positive_row.push_back(labelled_row[i]);
    }
    const int64_t count = static_cast<int64_t>(positive_at.size());
    if (count == 0) return;
    const bool scored = call.score.data != nullptr;
    for (int64_t i = 0; i < count; ++i) {
      compact[0][i] = values[positive_at[i]];
      if (scored) copy_in(call.score, row_offset(kScore, positive_row[i]), 1, 1, &compact[1][i]);
      for (int k = 0; call.table != nullptr && k < plan.variant.parameters; ++k) {
        compact_table[k * kTile + i] = table[k * kTile + positive_at[i] % period];
      }
    }
    const Results compacted{results.derivative, results.scale, compact[2].data(), results.value == nullptr ? nullptr : compact[3].data()};
    run(scored ? kScored : kPositive, compact[0].data(), compact[1].data(), compacted, count, compact_table);
    for (int64_t i = 0; i < count; ++i) results.to[positive_at[i]] = compact[2][i];
    for (int64_t i = 0; results.value != nullptr && i < count; ++i) results.value[positive_at[i]] = compact[3][i];
  }

  // Of one class, as masks have it, positives are common: 1 where the label is 0, without a list of them.
  const float *targets_of_one_class() {
    const int64_t *labels = static_cast<const int64_t *>(call.target.data);
    float *y = scratch.y.data();
    int64_t bits = 0;  // of all labels, ignored ones taken for 0
    const int64_t ignored = call.has_ignore_index ? call.ignore_index : 0;
    const auto convert = [&](const int64_t *label, int64_t count, float *to) __attribute__((always_inline)) {
      int64_t any = 0;
      for (int64_t i = 0; i < count; ++i) {
        to[i] = label[i] == 0 ? 1.f : 0.f;
        any |= label[i] == ignored ? 0 : label[i];
      }
      bits |= any;
    };
    if (linear && outer_stride[kTarget] == 1) {
      convert(labels + start[kTarget], rows, y);
    } else {
      for (int64_t row = 0; row < rows; ++row) convert(labels + at(kTarget, row), 1, y + row);
    }
    for (int64_t row = 0; (bits & ~int64_t{1}) != 0 && row < rows; ++row) {
      const int64_t label = labels[at(kTarget, row)];
      if (label != ignored && (label & ~int64_t{1}) != 0) bad_row = at(kTarget, row);
    }
    return y;
  }

  void evaluate(const float *values, const float *targets, const Results &results) {
    if (targets != nullptr) {
      run(call.labels ? kHard : kSoft, values, targets, results);
    } else {
      run(kNegative, values, nullptr, results);
      positives(values, results);
    }
  }

  // Whether the loops of derivatives have clamped a logit.
  bool any_beyond(const float *values) const {
    int any = 0;
    for (int64_t i = 0; !call.activated && i < outer * inner; ++i) any |= std::fabs(values[i]) > kLargestLogit ? 1 : 0;
    return any != 0;
  }

  // After every product: a weight or an upstream gradient of an ignored row may be NaN or infinite.
  void silence_ignored(float *values) const {
    if (!call.labels || !call.has_ignore_index) return;
    const int64_t *labels = static_cast<const int64_t *>(call.target.data);
    for (int64_t row = 0; row < rows; ++row) {
      if (labels[row_offset(kTarget, row)] != call.ignore_index) continue;
      for (int64_t c = 0; c < classes; ++c) values[element(row, c)] = 0.f;
    }
  }

  void multiply(Role role, float *values) {
    const Operand &operand = *plan.operand[role];
    if (operand.data == nullptr) return;
    if (inner_stride[role] == 0) {
      return multiply_rows(column(role), outer, inner, values);
    }
    if (plan.rows_inner && outer_stride[role] == 0) {
      const float *by = of_rows(role);
      for (int64_t o = 0; o < outer; ++o) {
        for (int64_t i = 0; i < inner; ++i) values[o * inner + i] *= by[i];
      }
      return;
    }
    each_run(role, [&](int64_t from, int64_t stride, int64_t count, int64_t to) {
      multiply_by(operand, from, stride, count, values + to);
    });
  }

  // Weighs losses: where a factor is 0, also that of an infinite loss is 0.
  void weigh(const float *inputs, const float *targets, float *values, float scale) {
    multiply(kWeight, values);
    if (has_nan(values)) weigh_with_care(inputs, targets, values, scale);
    silence_ignored(values);
  }

  // The weighted sum; a weight that is the same along the inner direction multiplies on the way.
  double sum(const float *inputs, const float *targets, float *values) {
    const bool by_row = call.weight.data != nullptr && inner_stride[kWeight] == 0 && inner >= kLanes && !call.has_ignore_index;
    if (by_row) {
      const double total = sum_rows(values, outer, inner, column(kWeight));
      if (total == total) return total;
      weigh_with_care(inputs, targets, values, 1.f);
    } else {
      multiply(kWeight, values);
      silence_ignored(values);
      const double total = sum_rows(values, 1, outer * inner, nullptr);
      if (total == total) return total;
      weigh_with_care(inputs, targets, values, 1.f);
    }
    silence_ignored(values);
    return sum_rows(values, 1, outer * inner, nullptr);
  }

  bool has_nan(const float *values) const {
    int nan = 0;
    for (int64_t i = 0; i < outer * inner; ++i) nan |= values[i] != values[i] ? 1 : 0;
    return nan != 0;
  }

  // The weighted losses anew, in a tile that has a NaN: it is one where an input is, and elsewhere the product of a 0 (of a
  // parameter, the weight or the scale) and the infinite loss of an infinite logit, whose limit is 0.
  void weigh_with_care(const float *inputs, const float *targets, float *values, float scale) {
    const int64_t count = outer * inner;
    evaluate(inputs, targets, {false, 1.f, values, nullptr});
    std::vector<float> weights(count, 1.f);
    multiply(kWeight, weights.data());
    std::vector<bool> unknown(count);
    for (int64_t i = 0; i < count; ++i) unknown[i] = targets != nullptr && targets[i] != targets[i];
    for (size_t i = 0; targets == nullptr && call.score.data != nullptr && i < positive_at.size(); ++i) {
      unknown[positive_at[i]] = compact[1][i] != compact[1][i];
    }
    for (int64_t i = 0; i < count; ++i) {
      if (std::isinf(inputs[i]) && values[i] != values[i] && !unknown[i]) values[i] = 0.f;
      for (const float factor : {weights[i], scale}) {
        values[i] = factor == 0.f && std::isinf(values[i]) ? 0.f : values[i] * factor;
      }
    }
  }

  // Adds this tile's rows to their sums; after the last of their tiles they are whole.
  void add_to_rows(const float *values, bool first, bool last) {
    std::vector<double> &sums = scratch.row_sums;
    if (first) std::fill(sums.begin(), sums.begin() + rows, 0.0);
    for (int64_t o = 0; o < outer; ++o) {
      const float *from = values + o * inner;
      if (!plan.rows_inner) {
        sums[o] += sum_rows(from, 1, inner, nullptr);
      } else {
        for (int64_t i = 0; i < inner; ++i) sums[i] += from[i];
      }
    }
    for (int64_t row = 0; last && row < rows; ++row) {
      const float sum = static_cast<float>(sums[row]);
      copy_out(call.output, row_offset(kOutput, row), 1, 1, &sum);
    }
  }

  // Adds the absolute derivatives of positives and of negatives, class by class.
  void gather(float *values, const float *targets, double *statistics) {
    const int64_t count = outer * inner;
    std::vector<float> &kept = scratch.kept;
    if (targets != nullptr) {
      positive_at.clear();
      for (int64_t i = 0; i < count; ++i) {
        if (!(targets[i] <= 0.f)) positive_at.push_back(static_cast<int32_t>(i));
      }
    }
    // The positives step aside while the others are added.
    kept.clear();
    for (const int32_t at : positive_at) {
      statistics[first_class + (plan.rows_inner ? at / inner : at % inner)] += std::fabs(values[at]);
      kept.push_back(values[at]);
      values[at] = 0.f;
    }
    double *negatives = statistics + plan.classes.size + first_class;
    for (int64_t o = 0; o < outer; ++o) {
      const float *from = values + o * inner;
      if (plan.rows_inner) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < inner; ++i) sum += std::fabs(from[i]);
        negatives[o] += sum;
      } else {
#pragma omp simd
        for (int64_t i = 0; i < inner; ++i) negatives[i] += std::fabs(from[i]);
      }
    }
    for (size_t i = 0; i < kept.size(); ++i) values[positive_at[i]] = kept[i];
  }

  void multiply_upstream(float *values) {
    const float after = static_cast<float>(call.after);
    // As PyTorch multiplies the gradient that one pass has left behind.
    if (after != 1.f) mode.suspended([&] { for (int64_t i = 0; i < outer * inner; ++i) values[i] *= after; });
    multiply(kUpstream, values);
    silence_ignored(values);
  }

  double process(int64_t tile, double *statistics) {
    place(tile);
    rows_of_tile = tile / plan.class_tiles();
    const bool stores = call.output.data != nullptr && !call.by_row;
    const bool in_place = stores && call.output.type == kFloat && contiguous(kOutput);
    float *to = in_place ? static_cast<float *>(call.output.data) + at(kOutput, 0) : buffer.data();
    const float *values = load(kInput, scratch.input);
    const bool one_class = call.labels && plan.classes.size == 1 && call.score.data == nullptr;
    const float *targets = one_class ? targets_of_one_class() : call.labels ? nullptr : load(kTarget, scratch.y);
    if (call.table != nullptr) expand_table();
    float *const value = call.both ? scratch.value.data() : nullptr;
    const float scale = call.output.data != nullptr ? static_cast<float>(call.scale) : 1.f;
    evaluate(values, targets, {call.derivative != 0, scale, to, value});
    if (value != nullptr && any_beyond(values)) evaluate(values, targets, {false, 1.f, value, nullptr});
    if (!stores && !call.by_row) return sum(values, targets, to);
    const double total = value == nullptr ? 0 : sum(values, targets, value);
    if (call.derivative) {
      multiply(kWeight, to);
      silence_ignored(to);
    } else {
      weigh(values, targets, to, scale);
    }
    if (call.by_row) {
      const int64_t part = tile % plan.class_tiles();
      add_to_rows(to, part == 0, part == plan.class_tiles() - 1);
      return 0;
    }
    if (statistics != nullptr) gather(to, targets, statistics);
    if (call.derivative) multiply_upstream(to);
    // The derivative by a probability reaches 1e12 at the ends.
    if (call.activated && call.derivative) saturate(call.output, to, outer * inner);
    if (!in_place) {
      each_run(kOutput, [&](int64_t at, int64_t stride, int64_t count, int64_t from) {
        copy_out(call.output, at, stride, count, to + from);
      });
    }
    return total;
  }
};

struct Shared {
  const Plan &plan;
  int64_t batch;                   // tiles that one thread takes at a time, neighbours: it touches a page first and last
  std::vector<double> sums;        // one a tile, added in the tiles' order: the same bits for any number of threads
  std::vector<double> statistics;  // (2, classes) a batch, likewise
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> bad_row{-1};
  std::atomic<int64_t> is_out_of_range{0};
};

int64_t batch_of(const Plan &plan) {
  if (plan.call.statistics != nullptr) return ceil_div(plan.tiles, kMostStatistics);
  const int64_t batch = std::max<int64_t>(1, std::min<int64_t>(64, plan.tiles / (8 * plan.call.threads)));
  return plan.call.by_row ? ceil_div(batch, plan.class_tiles()) * plan.class_tiles() : batch;
}

void work(void *state) {
  Shared &shared = *static_cast<Shared *>(state);
  const SubnormalsToZero mode(shared.plan.call.table != nullptr);
  Worker worker(shared.plan, mode);
  for (;;) {
    const int64_t batch = shared.next.fetch_add(1), first = batch * shared.batch;
    if (first >= shared.plan.tiles) break;
    double *statistics =
        shared.statistics.empty() ? nullptr : shared.statistics.data() + 2 * shared.plan.classes.size * batch;
    for (int64_t tile = first; tile < std::min(first + shared.batch, shared.plan.tiles); ++tile) {
      const double sum = worker.process(tile, statistics);
      if (!shared.sums.empty()) shared.sums[tile] = sum;
    }
  }
  if (worker.bad_row >= 0) shared.bad_row = worker.bad_row;
  if (worker.is_out_of_range) shared.is_out_of_range = 1;
}

void run_call(Call &call, const Variant &variant) {
  int64_t elements = 1;
  for (int64_t d = 0; d < call.dims; ++d) elements *= call.size[d];
  call.sum = 0;
  call.bad_row = -1;
  call.is_out_of_range = 0;
  if (elements == 0) return;
  const Plan plan = plan_of(call, variant);
  const int64_t batch = batch_of(plan), classes = plan.classes.size;
  Shared shared{plan, batch, std::vector<double>(call.output.data == nullptr || call.both ? plan.tiles : 0),
                std::vector<double>(call.statistics == nullptr ? 0 : 2 * classes * ceil_div(plan.tiles, batch))};
  advise(call, elements);
  parallel(call.gomp_parallel, elements < kParallelFrom ? 1 : std::min(call.threads, plan.tiles), work, &shared);
  for (const double sum : shared.sums) call.sum += sum;
  call.sum = scaled(call.sum, call.scale);
  for (size_t i = 0; i < shared.statistics.size(); ++i) call.statistics[i % (2 * classes)] += shared.statistics[i];
  call.bad_row = shared.bad_row;
  call.is_out_of_range = shared.is_out_of_range;
}

}  // namespace
}  // namespace focal_plugin

extern "C" __attribute__((visibility("default"))) void focal_plugin_run(focal_plugin::Call *call,
                                                                         const focal_plugin::Variant *variant) {
  focal_plugin::run_call(*call, *variant);
}

extern "C" __attribute__((visibility("default"))) void focal_plugin_advise(void *data, int64_t bytes) {
  focal_plugin::advise(data, bytes);
}
