// The softmax losses: each row becomes one margin, which the variant's loop takes as the logit of a positive.
//
// With d = x_y - log(sum of exp(x_j), j != y), p_y = sigmoid(d). A tile of rows is read into contiguous floats; its rows'
// greatest other logits, sums of exponentials and margins are found, the variant's loop runs over the margins, and the
// derivative L'(d) is spread over the row: L'(d) to x_y, -L'(d) exp(x_j) / sum to the others.
//
// Vector lanes lie across the classes of a row, or, where these are few or the logits lie closer together from row to row
// (a permuted map), across rows.
#include <limits>

#include "operand.h"
#include "schedule.h"
#include "variant.h"
#include "vmath.h"
#include "plan.h"

namespace focal_plugin {
namespace {

constexpr int64_t kTile = 8192;       // floats: with what else a row needs they stay in the first-level cache
constexpr int64_t kShortestRun = 64;  // of rows in a permuted map: shorter runs waste what a memory access brings
constexpr int64_t kMostRows = 256;
constexpr int64_t kFewClasses = 2 * kLanes;
constexpr int64_t kSumRun = 64;  // terms added one after the other, before their sum is added to the total
constexpr int32_t kDead = -1;    // label of a row that gives nothing
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t round_up(int64_t n) { return ceil_div(n, kLanes) * kLanes; }

struct Plan {
  const Call &call;
  const Variant &variant;
  std::vector<Dim> dims;  // of rows, outermost first
  Dim classes;
  int64_t rows;
  bool across_rows;  // of vector lanes
  int64_t step;      // rows of a tile
};

Plan plan_of(const Call &call, const Variant &variant) {
  std::vector<Dim> dims = dims_of(call);
  const Dim classes = dims.back();
  dims.pop_back();
  Plan plan{call, variant, coalesce(dims), classes, 1, false, 0};
  if (plan.dims.empty()) plan.dims.push_back(Dim{1, {}});
  for (const Dim &dim : plan.dims) plan.rows *= dim.size;
  const bool permuted = plan.dims.back().size > 1 && plan.dims.back().stride[kInput] < classes.stride[kInput];
  plan.across_rows = classes.size < kFewClasses || permuted;
  const int64_t shortest = plan.across_rows ? kShortestRun : 1;
  plan.step = std::min(plan.rows, std::min(kMostRows, std::max(shortest, kTile / round_up(classes.size))));
  return plan;
}

// Rows of a tile that lie one stride apart in every operand.
struct Run {
  int64_t first, count;
  int64_t at[kRoles];
};

// A thread's buffers, kept from call to call. Those of one number a row are padded to whole vectors.
struct Scratch {
  std::vector<float> logits, own, top, total, margin, result, factor, table;
  std::vector<int32_t> label;
  std::vector<Run> runs;

  void reserve(const Plan &plan) {
    const auto at_least = [](auto &values, int64_t size) {
      if (static_cast<int64_t>(values.size()) < size) values.resize(size);
    };
    const int64_t rows = round_up(plan.step);
    at_least(logits, plan.across_rows ? plan.classes.size * rows : round_up(plan.classes.size) * plan.step);
    for (auto *values : {&own, &top, &total, &margin, &result, &factor}) at_least(*values, rows);
    at_least(label, rows);
    at_least(table, plan.call.table == nullptr ? 0 : plan.variant.parameters * rows);
  }
};

Scratch &scratch_of_thread() {
  static thread_local Scratch scratch;
  return scratch;
}

FP_INLINE Mask load_labels(const int32_t *from) {
  Mask m;
  std::memcpy(&m, from, sizeof m);
  return m;
}

FP_INLINE V greater(V a, V b) { return select(a > b, a, b); }  // b where a is NaN

// exp(x - greatest), where `finite` is the greatest logit or, in place of an infinite one, the largest number.
FP_INLINE V power_of(V x, V finite) {
  const V below = x - finite;
  return exp_nonpositive(select(below > 0.f, V{}, below));
}

struct Worker {
  const Plan &plan;
  const Call &call;
  Scratch &scratch;
  int64_t rows = 0, padded = 0, pitch = 0;  // pitch: from class to class, or from row to row
  float *const x = scratch.logits.data();
  const int32_t *const label = scratch.label.data();
  int64_t bad_row = -1;

  explicit Worker(const Plan &p) : plan(p), call(p.call), scratch(reserved(p)) {}

  static Scratch &reserved(const Plan &plan) {
    Scratch &scratch = scratch_of_thread();
    scratch.reserve(plan);
    return scratch;
  }

  void place(int64_t first) {
    rows = std::min(plan.step, plan.rows - first);
    padded = round_up(rows);
    pitch = plan.across_rows ? padded : round_up(plan.classes.size);
    scratch.runs.clear();
    for (int64_t done = 0; done < rows;) {
      Run run{done, 0, {}};
      int64_t rest = first + done;
      for (size_t d = plan.dims.size(); d-- > 0;) {
        const Dim &dim = plan.dims[d];
        const int64_t index = rest % dim.size;
        rest /= dim.size;
        for (int role = 0; role < kRoles; ++role) run.at[role] += index * dim.stride[role];
        if (d + 1 == plan.dims.size()) run.count = std::min(rows - done, dim.size - index);
      }
      done += run.count;
      scratch.runs.push_back(run);
    }
  }

  int64_t step(Role role) const { return plan.dims.back().stride[role]; }  // from row to row of a run

  void read_labels() {
    const int64_t *from = static_cast<const int64_t *>(call.target.data);
    std::fill(scratch.label.begin(), scratch.label.begin() + padded, kDead);
    for (const Run &run : scratch.runs) {
      for (int64_t i = 0; i < run.count; ++i) {
        const int64_t at = run.at[kTarget] + i * step(kTarget), y = from[at];
        if (call.has_ignore_index && y == call.ignore_index) continue;
        if (y >= 0 && y < plan.classes.size) {
          scratch.label[run.first + i] = static_cast<int32_t>(y);
        } else {
          bad_row = at;
        }
      }
    }
  }

  // The logits, with those of the labels taken out: own holds them, and -inf is in their places.
  void read_logits() {
    for (const Run &run : scratch.runs) {
      if (plan.across_rows) {
        for (int64_t c = 0; c < plan.classes.size; ++c) {
          const int64_t at = run.at[kInput] + c * plan.classes.stride[kInput];
          copy_in(call.input, at, step(kInput), run.count, x + c * pitch + run.first);
        }
      } else {
        for (int64_t i = 0; i < run.count; ++i) {
          const int64_t at = run.at[kInput] + i * step(kInput);
          copy_in(call.input, at, plan.classes.stride[kInput], plan.classes.size, x + (run.first + i) * pitch);
        }
      }
    }
    if (plan.across_rows) {
      for (int64_t c = 0; c < plan.classes.size; ++c) std::fill(x + c * pitch + rows, x + (c + 1) * pitch, 0.f);
    } else {
      for (int64_t r = 0; r < rows; ++r) std::fill(x + r * pitch + plan.classes.size, x + (r + 1) * pitch, -kInfinity);
    }
    for (int64_t r = 0; r < padded; ++r) {
      scratch.own[r] = 0.f;
      if (label[r] == kDead) continue;
      float &mine = plan.across_rows ? x[label[r] * pitch + r] : x[r * pitch + label[r]];
      scratch.own[r] = mine;
      mine = -kInfinity;
    }
  }

  // top and total of every row; the logits become exponentials where a gradient needs them.
  template <bool DERIVATIVE>
  void powers_across_classes() {
    for (int64_t r = 0; r < rows; ++r) {
      float *const row = x + r * pitch;
      V most = load(row);
      for (int64_t c = kLanes; c < pitch; c += kLanes) most = greater(load(row + c), most);
      float top = -kInfinity;
      for (int lane = 0; lane < kLanes; ++lane) top = most[lane] > top ? most[lane] : top;
      const V finite = clamp(all(top), kLargest);
      double total = 0;
      for (int64_t from = 0; from < pitch; from += kSumRun * kLanes) {
        V sum{};
        for (int64_t c = from; c < std::min(pitch, from + kSumRun * kLanes); c += kLanes) {
          const V power = power_of(load(row + c), finite);
          sum += power;
          if (DERIVATIVE) store(row + c, power);
        }
        for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
      }
      scratch.top[r] = top;
      scratch.total[r] = static_cast<float>(total);
    }
    std::fill(scratch.top.begin() + rows, scratch.top.begin() + padded, 0.f);
    std::fill(scratch.total.begin() + rows, scratch.total.begin() + padded, 1.f);
  }

  template <bool DERIVATIVE>
  void powers_across_rows() {
    const int64_t classes = plan.classes.size;
    for (int64_t r = 0; r < padded; r += kLanes) {
      V top = all(-kInfinity);
      for (int64_t c = 0; c < classes; ++c) top = greater(load(x + c * pitch + r), top);
      const V finite = clamp(top, kLargest);
      V total{};
      for (int64_t from = 0; from < classes; from += kSumRun) {
        V sum{};
        for (int64_t c = from; c < std::min(classes, from + kSumRun); ++c) {
          const V power = power_of(load(x + c * pitch + r), finite);
          sum += power;
          if (DERIVATIVE) store(x + c * pitch + r, power);
        }
        total += sum;
      }
      store(&scratch.top[r], top);
      store(&scratch.total[r], total);
    }
  }

  void margins() {
    for (int64_t r = 0; r < padded; r += kLanes) {
      const V own = load(&scratch.own[r]), top = load(&scratch.top[r]);
      // What own - top loses by rounding is put back: the error of a margin is multiplied by gamma + 1.
      const V near = own - top, back = near - own;
      const V lost = (own - (near - back)) - (top + back);
      const Mask finite = near - near == 0.f;
      store(&scratch.margin[r], near - (log_nonnegative(load(&scratch.total[r])) - select(finite, lost, V{})));
    }
  }

  // The variant's values or derivatives, each times its row's factor; 0 in dead rows.
  void results() {
    Loop loop{};
    loop.input = scratch.margin.data(), loop.output = scratch.result.data(), loop.count = padded, loop.scale = 1.f;
    for (int k = 0; k < plan.variant.parameters; ++k) {
      loop.parameter[k] = call.parameter[k];
      if (call.table == nullptr) continue;
      float *const plane = scratch.table.data() + k * padded;
      for (int64_t r = 0; r < padded; ++r) plane[r] = call.table[k * plan.classes.size + std::max(label[r], 0)];
      loop.table[k] = plane;
    }
    plan.variant.loop(kPositive, call.derivative, false, static_cast<int>(call.exponent), call.table != nullptr)(loop);

    float *const factor = scratch.factor.data();
    std::fill(factor, factor + padded, call.output.data != nullptr ? static_cast<float>(call.scale) : 1.f);
    const std::pair<Role, const Operand *> factors[] = {{kWeight, &call.weight}, {kUpstream, &call.upstream}};
    for (const auto &[role, operand] : factors) {
      if (operand->data == nullptr) continue;
      for (const Run &run : scratch.runs) multiply_by(*operand, run.at[role], step(role), run.count, factor + run.first);
    }
    const float after = static_cast<float>(call.after);
    for (int64_t r = 0; r < padded; r += kLanes) {
      const V result = load(&scratch.result[r]), by = load(factor + r), margin = load(&scratch.margin[r]);
      V product = result * by * after;
      // Losses of infinite margins, silenced by a factor of 0: by alpha already, or by the row's.
      const Mask is_infinite = (margin == kInfinity) | (margin == -kInfinity);
      if (!call.derivative && any(is_infinite)) {
        product = select(is_infinite & ((result != result) | (by == 0.f)), V{}, product);
      }
      store(&scratch.result[r], select(load_labels(label + r) == kDead, V{}, product));
    }
  }

  double sum_of_results() const {
    double total = 0;
    V sum{};
    for (int64_t r = 0; r < padded; r += kLanes) sum += load(&scratch.result[r]);
    for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
    return total;
  }

  // What the exponentials of a row are multiplied by. A total of 0: there are no others, or all are -inf.
  FP_INLINE V inverse(V slope, V total) { return select((total == 0.f) & (slope == slope), V{}, -slope / total); }

  void spread_across_classes() {
    const int64_t classes = plan.classes.size;
    float *const factor = scratch.factor.data();
    for (int64_t r = 0; r < padded; r += kLanes) {
      store(factor + r, inverse(load(&scratch.result[r]), load(&scratch.total[r])));
    }
    for (const Run &run : scratch.runs) {
      for (int64_t r = run.first; r < run.first + run.count; ++r) {
        const int64_t at = run.at[kOutput] + (r - run.first) * step(kOutput);
        const bool in_place = call.output.type == kFloat && plan.classes.stride[kOutput] == 1;
        float *const row = x + r * pitch, *const to = in_place ? static_cast<float *>(call.output.data) + at : row;
        if (label[r] == kDead) {
          std::fill(to, to + classes, 0.f);
        } else {
          const float by = factor[r];
#pragma omp simd
          for (int64_t c = 0; c < classes; ++c) to[c] = row[c] * by;
          to[label[r]] = scratch.result[r];
        }
        if (!in_place) copy_out(call.output, at, plan.classes.stride[kOutput], classes, row);
      }
    }
  }

  void spread_across_rows() {
    const int64_t classes = plan.classes.size;
    for (int64_t r = 0; r < padded; r += kLanes) {
      const V slope = load(&scratch.result[r]);
      const V by = inverse(slope, load(&scratch.total[r]));
      const Mask own = load_labels(label + r);
      for (int64_t c = 0; c < classes; ++c) {
        float *const to = x + c * pitch + r;
        const V spread = select(own == static_cast<int32_t>(c), slope, load(to) * by);
        store(to, select(own == kDead, V{}, spread));
      }
    }
    for (const Run &run : scratch.runs) {
      for (int64_t c = 0; c < classes; ++c) {
        const int64_t at = run.at[kOutput] + c * plan.classes.stride[kOutput];
        copy_out(call.output, at, step(kOutput), run.count, x + c * pitch + run.first);
      }
    }
  }

  // The sum of a tile's values, where they are not stored.
  double process(int64_t tile) {
    place(tile * plan.step);
    read_labels();
    read_logits();
    if (plan.across_rows) {
      call.derivative ? powers_across_rows<true>() : powers_across_rows<false>();
    } else {
      call.derivative ? powers_across_classes<true>() : powers_across_classes<false>();
    }
    margins();
    results();
    if (call.derivative) {
      plan.across_rows ? spread_across_rows() : spread_across_classes();
    } else if (call.output.data != nullptr) {
      for (const Run &run : scratch.runs) {
        copy_out(call.output, run.at[kOutput], step(kOutput), run.count, &scratch.result[run.first]);
      }
    } else {
      return sum_of_results();
    }
    return 0;
  }
};

struct Shared {
  const Plan &plan;
  int64_t tiles;
  std::vector<double> sums;  // one a tile, added in the tiles' order: the same bits for any number of threads
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> bad_row{-1};
};

void work(void *state) {
  Shared &shared = *static_cast<Shared *>(state);
  Worker worker(shared.plan);
  // A few tiles at a time, neighbours together: one thread then touches a page first and last.
  const int64_t batch = std::max<int64_t>(1, std::min<int64_t>(64, shared.tiles / (8 * shared.plan.call.threads)));
  for (;;) {
    const int64_t first = shared.next.fetch_add(batch);
    if (first >= shared.tiles) break;
    for (int64_t tile = first; tile < std::min(first + batch, shared.tiles); ++tile) {
      const double sum = worker.process(tile);
      if (!shared.sums.empty()) shared.sums[tile] = sum;
    }
  }
  if (worker.bad_row >= 0) shared.bad_row = worker.bad_row;
}

void run_call(Call &call, const Variant &variant) {
  call.sum = 0;
  call.bad_row = -1;
  call.is_out_of_range = 0;
  const Plan plan = plan_of(call, variant);
  const int64_t elements = plan.rows * plan.classes.size;
  if (elements == 0) return;
  const int64_t tiles = ceil_div(plan.rows, plan.step);
  Shared shared{plan, tiles, std::vector<double>(call.output.data == nullptr ? tiles : 0)};
  if (call.derivative) advise(call, elements);
  parallel(call.gomp_parallel, elements < kParallelFrom ? 1 : std::min(call.threads, tiles), work, &shared);
  for (const double sum : shared.sums) call.sum += sum;
  call.sum = scaled(call.sum, call.scale);
  call.bad_row = shared.bad_row;
}

}  // namespace
}  // namespace focal_plugin

extern "C" __attribute__((visibility("default"))) void focal_plugin_run_rows(focal_plugin::Call *call,
                                                                              const focal_plugin::Variant *variant) {
  focal_plugin::run_call(*call, *variant);
}
