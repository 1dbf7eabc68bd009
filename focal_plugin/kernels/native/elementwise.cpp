// The elementwise losses: what is the same for all their variants, around the variant's loop.
//
// A tile is read into contiguous floats (not copied where it lies so already), the variant's loop runs over all of it
// as negatives, and the few positives are gathered, computed and put in their places. Then come weights and sums.
#include <utility>

#include "labels.h"
#include "schedule.h"
#include "subnormals.h"

namespace focal_plugin {
namespace {

constexpr int64_t kPeriod = 640;  // elements that per-class parameters are laid out for: eight rows of 80 classes

struct Worker {
  using Plan = ElementwisePlan;

  const Plan &plan;
  Found &found;
  const Call &call = plan.call;
  const bool by_class = call.per_class_parameters != nullptr;
  const SubnormalsToZero subnormals{by_class};
  Buffers &buffers = Buffers::of_thread();
  Tile tile{plan, buffers.take<float>(kTile), buffers.take<int64_t>(kRoles * kTile)};
  Labels labels{tile, found.bad_row, buffers.take<int32_t>(kTile), buffers.take<int32_t>(kTile)};
  float *const x = buffers.take<float>(kTile), *const y = buffers.take<float>(kTile);
  float *const result = buffers.take<float>(kTile), *const value = buffers.take<float>(kTile);
  double *const row_sums = buffers.take<double>(kTile);
  int64_t is_clamped = 0;  // whether a derivative of the tile is not that of the logit itself
  // The listed positives: where they are among the tile's elements, and what was gathered from there.
  int64_t positives = 0;
  int32_t *const positive_at = buffers.take<int32_t>(kTile);
  float *const positive_x = buffers.take<float>(kTile), *const positive_score = buffers.take<float>(kTile);
  float *const positive_result = buffers.take<float>(kTile), *const positive_value = buffers.take<float>(kTile);
  // Planes of kTile floats, in whose first `period` the per-class parameters are those of all the tile's elements.
  int64_t period = kTile;
  float *const parameters = buffers.take<float>(by_class ? plan.variant.parameters * kTile : 0);
  float *const positive_parameters = buffers.take<float>(by_class ? plan.variant.parameters * kTile : 0);

  Worker(const Plan &plan, Found &found) : plan(plan), found(found) {
    if (!has_one_layout()) return;
    tile.place(0);
    lay_out_parameters();
  }

  double process(int64_t index, bool new_rows, double *statistics) {
    tile.place(index);
    if (by_class && !has_one_layout()) lay_out_parameters();
    // Not over the logits themselves, of which the positives are read last.
    const bool is_direct = call.output.data != nullptr && call.output.data != call.input.data && !call.by_row &&
                           call.output.type == kFloat && tile.is_contiguous(kOutput);
    float *const to = is_direct ? static_cast<float *>(call.output.data) + tile.at(kOutput, 0) : result;
    const float scale = call.output.data != nullptr ? static_cast<float>(call.scale) : 1.f;
    const float *const logits = tile.read(kInput, x), *const targets = read_targets(new_rows);
    Loop whole{logits, targets, to, call.both ? value : nullptr, tile.count(), scale};
    whole.ahead[0] = tile.next_halves(kInput);
    if (targets == y) whole.ahead[1] = tile.next_halves(kTarget);
    whole.ahead[2] = tile.halves(kOutput);
    is_clamped = 0;
    evaluate(call.derivative, whole);
    if (call.output.data == nullptr) return sum(whole, to);
    const double total = call.both ? sum_of_both(whole) : 0;
    if (call.derivative) {
      tile.multiply(kWeight, to);
      labels.silence_ignored(to);
      if (call.statistics != nullptr) add_statistics(whole, to, statistics);
      multiply_upstream(to);
    } else {
      weigh(whole);
    }
    if (call.by_row) {
      add_to_rows(to, index % plan.class_tiles);
    } else if (!is_direct) {
      tile.write(kOutput, to);
    }
    return total;
  }

  // y of every element; or null, where the positives are listed.
  const float *read_targets(bool new_rows) {
    if (!call.has_labels) return tile.read(kTarget, y);
    if (plan.classes.size == 1 && call.score.data == nullptr) return labels.targets_of_one_class(y);
    if (new_rows) labels.list();
    return nullptr;
  }

  // Whether per-class parameters, once laid out, serve all tiles: those of whole rows.
  bool has_one_layout() const { return by_class && !plan.rows_inner && plan.class_tiles == 1; }

  // Lays per-class parameters out as the tile's elements are, one plane per parameter: of the whole tile where its rows
  // are inner, else of as many rows as leave room for the logits in the first-level cache.
  void lay_out_parameters() {
    const int64_t inner = tile.inner, most = std::max<int64_t>(1, kPeriod / inner);
    const int64_t outer = plan.rows_inner ? tile.outer : std::min(tile.outer, most);
    period = outer * inner;
    for (int k = 0; k < plan.variant.parameters; ++k) {
      const float *from = call.per_class_parameters + k * plan.classes.size + tile.first_class;
      float *to = parameters + k * kTile;
      for (int64_t o = 0; o < outer; ++o) {
        for (int64_t i = 0; i < inner; ++i) to[o * inner + i] = from[plan.rows_inner ? o : i];
      }
    }
  }

  // The variant's loop over elements whose per-class parameters, if any, repeat after `period`.
  void run(Kind kind, bool derivative, const Loop &loop, const float *planes, int64_t period) {
    const auto function = plan.variant.loop(kind, derivative, call.activated, call.exponent, by_class);
    for (int64_t i = 0; i < loop.count; i += period) {
      Loop part = loop;
      part.x += i;
      if (loop.y != nullptr) part.y += i;
      part.output += i;
      if (loop.value != nullptr) part.value += i;
      for (const uint16_t *&ahead : part.ahead) {
        if (ahead != nullptr) ahead += i;
      }
      part.count = std::min(period, loop.count - i);
      part.is_clamped = &is_clamped;
      part.is_out_of_range = &found.is_out_of_range;
      for (int k = 0; k < plan.variant.parameters; ++k) {
        part.parameter[k] = call.parameter[k];
        if (by_class) part.per_element[k] = planes + k * kTile;
      }
      function(part);
    }
  }

  void evaluate(bool derivative, const Loop &whole) {
    const Kind kind = whole.y == nullptr ? kNegative : call.has_labels ? kHard : kSoft;
    run(kind, derivative, whole, parameters, period);
    if (whole.y == nullptr) evaluate_positives(derivative, whole);
  }

  void evaluate_positives(bool derivative, const Loop &whole) {
    positives = 0;
    for (int64_t i = 0; i < labels.count; ++i) {
      const int64_t c = labels.label[i] - tile.first_class;
      if (c < 0 || c >= tile.classes()) continue;
      positive_at[positives++] = static_cast<int32_t>(tile.element(labels.row[i], c));
    }
    if (positives == 0) return;
    const bool scored = call.score.data != nullptr;
    for (int64_t i = 0; i < positives; ++i) {
      const int64_t at = positive_at[i];
      positive_x[i] = whole.x[at];
      if (scored) copy_in(call.score, tile.row_at(kScore, tile.row_of(at)), 1, 1, &positive_score[i]);
      for (int k = 0; by_class && k < plan.variant.parameters; ++k) {
        positive_parameters[k * kTile + i] = parameters[k * kTile + at % period];
      }
    }
    float *const value = whole.value == nullptr ? nullptr : positive_value;
    const Loop compact{positive_x, positive_score, positive_result, value, positives, whole.scale};
    run(scored ? kScored : kPositive, derivative, compact, positive_parameters, kTile);
    for (int64_t i = 0; i < positives; ++i) whole.output[positive_at[i]] = positive_result[i];
    for (int64_t i = 0; value != nullptr && i < positives; ++i) whole.value[positive_at[i]] = value[i];
  }

  void multiply_upstream(float *values) {
    const float after = static_cast<float>(call.after);
    if (after != 1.f) {
      // As PyTorch multiplies the gradient that one pass has left behind.
      subnormals.suspend();
      for (int64_t i = 0; i < tile.count(); ++i) values[i] *= after;
      subnormals.resume();
    }
    tile.multiply(kUpstream, values);
    labels.silence_ignored(values);
    // The derivative by a probability reaches 1e12 at the ends.
    if (call.activated) saturate(call.output, values, tile.count());
  }

  // Weighs losses: where a factor is 0, also that of an infinite loss is 0.
  void weigh(const Loop &whole) {
    float *const values = whole.output;
    tile.multiply(kWeight, values);
    int nan = 0;
    for (int64_t i = 0; i < whole.count; ++i) nan |= values[i] != values[i] ? 1 : 0;
    if (nan != 0) weigh_with_care(whole, values, whole.scale);
    labels.silence_ignored(values);
  }

  // The weighted sum; a weight that is the same along the inner direction multiplies on the way.
  double sum(const Loop &whole, float *values) {
    const bool weighed = call.weight.data != nullptr && !call.has_ignore_index;
    double total;
    if (weighed && plan.inner.stride[kWeight] == 0 && tile.inner >= kLanes) {
      total = sum_rows(values, tile.outer, tile.inner, tile.read_outer(kWeight));
    } else {
      tile.multiply(kWeight, values);
      labels.silence_ignored(values);
      total = sum_rows(values, 1, tile.count(), nullptr);
    }
    if (total == total) return total;
    weigh_with_care(whole, values, 1.f);
    labels.silence_ignored(values);
    return sum_rows(values, 1, tile.count(), nullptr);
  }

  // The sum of the values beside derivatives.
  double sum_of_both(const Loop &whole) {
    if (is_clamped) evaluate(false, {whole.x, whole.y, value, nullptr, tile.count(), 1.f});
    return sum(whole, value);
  }

  // The weighted losses anew, in a tile that has a NaN: it is one where an input is, and elsewhere the product of a 0
  // (of a parameter, the weight or the scale) and the infinite loss of an infinite logit, whose limit is 0.
  void weigh_with_care(const Loop &whole, float *values, float scale) {
    const int64_t count = tile.count();
    evaluate(false, {whole.x, whole.y, values, nullptr, count, 1.f});
    std::vector<float> weights(count, 1.f);
    tile.multiply(kWeight, weights.data());
    std::vector<bool> unknown(count);
    for (int64_t i = 0; i < count; ++i) unknown[i] = whole.y != nullptr && whole.y[i] != whole.y[i];
    for (int64_t i = 0; whole.y == nullptr && call.score.data != nullptr && i < positives; ++i) {
      unknown[positive_at[i]] = positive_score[i] != positive_score[i];
    }
    for (int64_t i = 0; i < count; ++i) {
      if (std::isinf(whole.x[i]) && values[i] != values[i] && !unknown[i]) values[i] = 0.f;
      for (const float factor : {weights[i], scale}) {
        values[i] = factor == 0.f && std::isinf(values[i]) ? 0.f : values[i] * factor;
      }
    }
  }

  // Adds this tile's rows to their sums, which are whole after the last tile of these rows.
  void add_to_rows(const float *values, int64_t class_tile) {
    const int64_t rows = tile.rows();
    if (class_tile == 0) std::fill(row_sums, row_sums + rows, 0.0);
    for (int64_t o = 0; o < tile.outer; ++o) {
      const float *from = values + o * tile.inner;
      if (!plan.rows_inner) {
        row_sums[o] += sum_rows(from, 1, tile.inner, nullptr);
      } else {
        for (int64_t i = 0; i < tile.inner; ++i) row_sums[i] += from[i];
      }
    }
    for (int64_t row = 0; class_tile == plan.class_tiles - 1 && row < rows; ++row) {
      const float sum = static_cast<float>(row_sums[row]);
      copy_out(call.output, tile.row_at(kOutput, row), 1, 1, &sum);
    }
  }

  // Adds the absolute derivatives of positives and of negatives, class by class.
  void add_statistics(const Loop &whole, float *values, double *statistics) {
    if (whole.y != nullptr) {
      positives = 0;
      for (int64_t i = 0; i < tile.count(); ++i) {
        if (!(whole.y[i] <= 0.f)) positive_at[positives++] = static_cast<int32_t>(i);
      }
    }
    // The positives step aside while the others are added.
    for (int64_t i = 0; i < positives; ++i) {
      float &value = values[positive_at[i]];
      statistics[tile.first_class + tile.class_of(positive_at[i])] += std::fabs(value);
      positive_value[i] = std::exchange(value, 0.f);
    }
    double *negatives = statistics + plan.classes.size + tile.first_class;
    for (int64_t o = 0; o < tile.outer; ++o) {
      const float *from = values + o * tile.inner;
      if (plan.rows_inner) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < tile.inner; ++i) sum += std::fabs(from[i]);
        negatives[o] += sum;
      } else {
#pragma omp simd
        for (int64_t i = 0; i < tile.inner; ++i) negatives[i] += std::fabs(from[i]);
      }
    }
    for (int64_t i = 0; i < positives; ++i) values[positive_at[i]] = positive_value[i];
  }
};

}  // namespace

FP_EXPORT void focal_plugin_run(Call *call, const Variant *variant) { run<Worker>(*call, *variant); }

FP_EXPORT void focal_plugin_advise(void *data, int64_t bytes) { advise(data, bytes); }

}  // namespace focal_plugin
