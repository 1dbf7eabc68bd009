// The softmax losses: each row becomes one margin, which the variant's loop takes as the logit of a positive.
//
// With d = x_y - log(sum of exp(x_j), j != y), p_y = sigmoid(d). A tile of rows is read into contiguous floats; its
// rows' greatest other logits, sums of exponentials and margins are found, the variant's loop runs over the margins,
// and the derivative L'(d) is spread over the row: L'(d) to x_y, -L'(d) exp(x_j) / sum to the others.
//
// Vector lanes lie across the classes of a row, or, where these are few or the logits lie closer together from row to
// row (a permuted map), across rows.
#include <limits>
#include <utility>

#include "operand.h"
#include "schedule.h"

namespace focal_plugin {
namespace {

constexpr int32_t kIgnored = -1;  // label of an ignored row, and of those that fill up the last vector
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

FP_INLINE Mask load_labels(const int32_t *from) {
  Mask m;
  std::memcpy(&m, from, sizeof m);
  return m;
}

FP_INLINE V greater(V a, V b) { return select(a > b, a, b); }  // b where a is NaN

FP_INLINE float greatest_lane(V v) {
  float greatest = -kInfinity;
  for (int lane = 0; lane < kLanes; ++lane) greatest = v[lane] > greatest ? v[lane] : greatest;
  return greatest;
}

// exp(x - greatest), where `finite` is the greatest logit or, in place of an infinite one, the largest number.
FP_INLINE V exp_below(V x, V finite) {
  const V below = x - finite;
  return exp_nonpositive(select(below > 0.f, V{}, below));
}

// What the exponentials of a row are multiplied by. A total of 0: there are no others, or all are -inf.
FP_INLINE V factor_of_others(V derivative, V total) {
  return select((total == 0.f) & (derivative == derivative), V{}, -derivative / total);
}

struct Worker {
  using Plan = RowwisePlan;

  const Plan &plan;
  Found &found;
  const Call &call = plan.call;
  const int64_t classes = plan.classes.size, step = round_up(plan.step);
  int64_t rows = 0, padded = 0;  // of the tile, and these rounded up to whole vectors
  int64_t pitch = 0;             // from class to class, or from row to row
  int64_t is_clamped = 0;        // whether a derivative is not that of the margin itself
  std::vector<Run> runs{};
  // Logits, then exponentials, then gradients of the tile; and what it has one of per row.
  Buffers &buffers = Buffers::of_thread();
  float *const x = buffers.take<float>(std::max(classes * step, round_up(classes) * plan.step));
  float *const target_logits = buffers.take<float>(step), *const margins = buffers.take<float>(step);
  float *const greatest = buffers.take<float>(step), *const totals = buffers.take<float>(step);
  float *const results = buffers.take<float>(step), *const factors = buffers.take<float>(step);
  float *const values = buffers.take<float>(step);  // beside derivatives
  // Of gradients, multiplied last: as PyTorch multiplies the gradient that one pass has left behind.
  const float after = static_cast<float>(call.after);
  float *const parameters = buffers.take<float>(step * plan.variant.parameters);
  int32_t *const labels = buffers.take<int32_t>(step);

  double process(int64_t tile, bool, double *) {
    place(tile * plan.step);
    read_labels();
    read_logits();
    if (plan.across_rows) {
      call.derivative ? find_exps<true, true>() : find_exps<true, false>();
    } else {
      call.derivative ? find_exps<false, true>() : find_exps<false, false>();
    }
    find_margins();
    is_clamped = 0;
    run_variant(call.derivative, results);
    const double total = call.both ? sum_of_both() : 0;
    weigh(call.derivative, call.output.data != nullptr ? static_cast<float>(call.scale) : 1.f, results);
    if (call.output.data == nullptr) return sum_rows(results, 1, padded, nullptr);
    if (!call.derivative) {
      for (const Run &run : runs) {
        copy_out(call.output, run.at[kOutput], row_stride(kOutput), run.count, results + run.first);
      }
    } else if (plan.across_rows) {
      spread_across_rows();
    } else {
      spread_across_classes();
    }
    return total;
  }

  void place(int64_t first) {
    rows = std::min(plan.step, plan.row_count - first);
    padded = round_up(rows);
    pitch = plan.across_rows ? padded : round_up(classes);
    runs.clear();
    plan.each_run(first, rows, [&](const Run &run) { runs.push_back(run); });
  }

  int64_t row_stride(Role role) const { return plan.rows.back().stride[role]; }

  void read_labels() {
    const int64_t *from = static_cast<const int64_t *>(call.target.data);
    std::fill(labels, labels + padded, kIgnored);
    for (const Run &run : runs) {
      for (int64_t i = 0; i < run.count; ++i) {
        const int64_t at = run.at[kTarget] + i * row_stride(kTarget), y = from[at];
        if (call.has_ignore_index && y == call.ignore_index) continue;
        const bool is_class = y >= 0 && y < classes;
        if (is_class) labels[run.first + i] = static_cast<int32_t>(y);
        if (!is_class) found.bad_row = at;
      }
    }
  }

  // use(where in the operand, stride, count, its floats) for each line of logits that vector lanes lie along.
  template <class Use>
  void each_line(Role role, Use use) {
    const int64_t by_row = row_stride(role), by_class = plan.classes.stride[role];
    for (const Run &run : runs) {
      for (int64_t c = 0; plan.across_rows && c < classes; ++c) {
        use(run.at[role] + c * by_class, by_row, run.count, x + c * pitch + run.first);
      }
      for (int64_t i = 0; !plan.across_rows && i < run.count; ++i) {
        use(run.at[role] + i * by_row, by_class, classes, x + (run.first + i) * pitch);
      }
    }
  }

  // The logits, with those of the labels taken out: target_logits hold them, and -inf is in their places.
  void read_logits() {
    each_line(kInput, [&](int64_t from, int64_t stride, int64_t count, float *to) {
      copy_in(call.input, from, stride, count, to);
    });
    const int64_t lines = plan.across_rows ? classes : rows, length = plan.across_rows ? rows : classes;
    const float filler = plan.across_rows ? 0.f : -kInfinity;
    for (int64_t i = 0; i < lines; ++i) std::fill(x + i * pitch + length, x + (i + 1) * pitch, filler);
    for (int64_t r = 0; r < padded; ++r) {
      target_logits[r] = 0.f;
      if (labels[r] == kIgnored) continue;
      float &logit = plan.across_rows ? x[labels[r] * pitch + r] : x[r * pitch + labels[r]];
      target_logits[r] = std::exchange(logit, -kInfinity);
    }
  }

  // The greatest other logit and the sum of exponentials of every row. The logits become exponentials for a gradient.
  template <bool ACROSS_ROWS, bool DERIVATIVE>
  void find_exps() {
    // A group is what vector lanes lie across: kLanes rows or, in steps of as many classes, one row.
    const int64_t groups = ACROSS_ROWS ? padded / kLanes : rows, apart = ACROSS_ROWS ? kLanes : pitch;
    const int64_t steps = ACROSS_ROWS ? classes : pitch / kLanes, stride = ACROSS_ROWS ? pitch : kLanes;
    for (int64_t group = 0; group < groups; ++group) {
      float *const logits = x + group * apart;
      V top = all(-kInfinity);
      for (int64_t i = 0; i < steps; ++i) top = greater(load(logits + i * stride), top);
      if (!ACROSS_ROWS) top = all(greatest_lane(top));
      const V finite = clamp(top, kLargest);
      V total_of_lanes{};
      double total = 0;
      for (int64_t from = 0; from < steps; from += kSumRun) {
        V sum{};
        for (int64_t i = from; i < std::min(steps, from + kSumRun); ++i) {
          const V exps = exp_below(load(logits + i * stride), finite);
          sum += exps;
          if (DERIVATIVE) store(logits + i * stride, exps);
        }
        if (ACROSS_ROWS) total_of_lanes += sum;
        if (!ACROSS_ROWS) total = add_lanes(total, sum);
      }
      if (ACROSS_ROWS) {
        store(greatest + group * kLanes, top);
        store(totals + group * kLanes, total_of_lanes);
      } else {
        greatest[group] = top[0];
        totals[group] = static_cast<float>(total);
      }
    }
    std::fill(greatest + rows, greatest + padded, 0.f);
    std::fill(totals + rows, totals + padded, 1.f);
  }

  void find_margins() {
    for (int64_t r = 0; r < padded; r += kLanes) {
      const V logit = load(target_logits + r), top = load(greatest + r);
      // What logit - top loses by rounding is put back: the error of a margin is multiplied by gamma + 1.
      const V near = logit - top, back = near - logit;
      const V lost = (logit - (near - back)) - (top + back);
      const Mask finite = near - near == 0.f;
      store(margins + r, near - (log_nonnegative(load(totals + r)) - select(finite, lost, V{})));
    }
  }

  void run_variant(bool derivative, float *output) {
    Loop loop{};
    loop.x = margins;
    loop.output = output;
    if (call.both && derivative) loop.value = values;
    loop.count = padded;
    loop.scale = 1.f;
    loop.is_clamped = &is_clamped;
    for (int k = 0; k < plan.variant.parameters; ++k) {
      loop.parameter[k] = call.parameter[k];
      if (call.per_class_parameters == nullptr) continue;
      const float *const from = call.per_class_parameters + k * classes;
      float *const plane = parameters + k * padded;
      for (int64_t r = 0; r < padded; ++r) plane[r] = from[std::max(labels[r], 0)];
      loop.per_element[k] = plane;
    }
    const bool by_class = call.per_class_parameters != nullptr;
    plan.variant.loop(kPositive, derivative, false, call.exponent, by_class)(loop);
  }

  // The weighted sum of the values beside derivatives.
  double sum_of_both() {
    if (is_clamped) run_variant(false, values);
    weigh(false, 1.f, values);
    return sum_rows(values, 1, padded, nullptr);
  }

  // The variant's values or derivatives, each times its row's factor; 0 in ignored rows.
  void weigh(bool derivative, float scale, float *output) {
    std::fill(factors, factors + padded, scale);
    for (const Role role : {kWeight, kUpstream}) {
      const Operand &operand = *plan.operand[role];
      if (operand.data == nullptr) continue;
      for (const Run &run : runs) multiply_by(operand, run.at[role], row_stride(role), run.count, factors + run.first);
    }
    for (int64_t r = 0; r < padded; r += kLanes) {
      const V result = load(output + r), by = load(factors + r), margin = load(margins + r);
      V product = result * by;
      // Losses of infinite margins, silenced by a factor of 0: by alpha already, or by the row's.
      const Mask is_infinite = (margin == kInfinity) | (margin == -kInfinity);
      if (!derivative && any(is_infinite)) {
        product = select(is_infinite & ((result != result) | (by == 0.f)), V{}, product);
      }
      store(output + r, select(load_labels(labels + r) == kIgnored, V{}, product));
    }
  }

  void spread_across_classes() {
    for (int64_t r = 0; r < padded; r += kLanes) {
      store(factors + r, factor_of_others(load(results + r), load(totals + r)));
    }
    const bool in_place = call.output.type == kFloat && plan.classes.stride[kOutput] == 1;
    int64_t r = 0;
    each_line(kOutput, [&](int64_t at, int64_t stride, int64_t, float *row) {
      float *const to = in_place ? static_cast<float *>(call.output.data) + at : row;
      if (labels[r] == kIgnored) {
        std::fill(to, to + classes, 0.f);
      } else {
        const float by = factors[r];
#pragma omp simd
        for (int64_t c = 0; c < classes; ++c) to[c] = row[c] * by * after;
        to[labels[r]] = results[r] * after;
      }
      if (!in_place) copy_out(call.output, at, stride, classes, row);
      ++r;
    });
  }

  void spread_across_rows() {
    for (int64_t r = 0; r < padded; r += kLanes) {
      const V derivative = load(results + r);
      const V by = factor_of_others(derivative, load(totals + r));
      const Mask label = load_labels(labels + r);
      for (int64_t c = 0; c < classes; ++c) {
        float *const to = x + c * pitch + r;
        const V spread = select(label == static_cast<int32_t>(c), derivative, load(to) * by);
        store(to, select(label == kIgnored, V{}, spread * after));
      }
    }
    each_line(kOutput, [&](int64_t to, int64_t stride, int64_t count, const float *from) {
      copy_out(call.output, to, stride, count, from);
    });
  }
};

}  // namespace

FP_EXPORT void focal_plugin_run_rows(Call *call, const Variant *variant) { run<Worker>(*call, *variant); }

}  // namespace focal_plugin
