// The elementwise losses. A thread takes groups of NEIGHBOURS logits that lie one behind the other:
//
// ALONG_ROWS: of a class, in as many rows; the thread goes through the classes (CLASSES of them, unless that is 1), and
// finds once what is the same along a row. Else: of a row, whose end a group may cross where WRAPS; the places of all
// rows are walked in their order, in which logits and gradients lie too where IN_ORDER.
#include "variant.h"

namespace focal_plugin {

constexpr bool STORES = GRADIENT || OUTPUT == kElement, ADDS = VALUE && OUTPUT != kElement;
constexpr float kNothing = -0.f;  // to which adding takes no instruction
// A group is computed as negatives first, and of those that are none the results are then replaced, one by one.
constexpr bool MOSTLY_NEGATIVE = LABELS || MOSTLY_ZERO;

// Of a sum alone, which is scaled at the end, the rows have none; beside one, the upstream gradient is 1.
FP_INLINE float factor_of(const Call &call) {
  if (!STORES && OUTPUT == kSum) return 1.f;
  if (!GRADIENT || OUTPUT != kSum) return call.scale;
  if (BOTH) return divided(call.scale, call.avg);
  return divided(call.scale, call.avg) * widened(*static_cast<const UPSTREAM *>(call.upstream.data));
}

// A group of an operand, whose i-th element lies at offset(operand, i); TOGETHER: one access brings all.
template <class Stored, bool TOGETHER, class Offset>
FP_INLINE void read(const Operand &operand, int count, Offset offset, float (&to)[NEIGHBOURS]) {
  const Stored *from = static_cast<const Stored *>(operand.data);
  if constexpr (TOGETHER) {
    if (count == NEIGHBOURS) return load(from + offset(operand, 0), to);
  }
#pragma unroll
  for (int i = 0; i < NEIGHBOURS; ++i) to[i] = i < count ? widened(from[offset(operand, i)]) : 0.f;
}

// Whether any is not 0, or is -0.
FP_INLINE bool any_bits(const float (&y)[NEIGHBOURS]) {
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < NEIGHBOURS; ++i) bits |= __float_as_uint(y[i]);
  return bits != 0;
}

FP_INLINE Soft soft(float y) { return {y, !(y <= 0.f)}; }  // a NaN is no negative

// Evaluates a group: stores its results, and calls add(i, value) with what its rows' factors have still to multiply.
// A logit is read by the thread alone that stores its gradient, and before that: so the gradients may be stored over
// the logits.
template <class Offset, class RowOf, class ClassOf, class Add>
FP_INLINE void evaluate(const Call &call, int count, Offset offset, RowOf row_of, ClassOf class_of, bool has_positive,
                        Add add) {
  float x[NEIGHBOURS], y[NEIGHBOURS], weight[NEIGHBOURS], upstream[NEIGHBOURS], result[NEIGHBOURS],
      derivative[NEIGHBOURS];
  read<X, X_TOGETHER>(call.x, count, offset, x);
  if (!LABELS) read<TARGET, TARGET_TOGETHER>(call.target, count, offset, y);
  if (ELEMENT_WEIGHT) read<WEIGHT, WEIGHT_TOGETHER>(call.weight, count, offset, weight);
  if (GRADIENT && OUTPUT != kSum) read<UPSTREAM, UPSTREAM_TOGETHER>(call.upstream, count, offset, upstream);
#pragma unroll
  for (int i = 0; i < NEIGHBOURS; ++i) {
    const Parameters parameter{call, class_of(i)};
    result[i] = MOSTLY_NEGATIVE ? value_at(x[i], Negative{}, parameter, &derivative[i])
                                : value_at(x[i], soft(y[i]), parameter, &derivative[i]);
  }
  if (!LABELS) has_positive = MOSTLY_ZERO && any_bits(y);
  if (has_positive) {
    unsigned positives = 0;
#pragma unroll
    for (int i = 0; i < NEIGHBOURS; ++i) {
      positives |= ((LABELS ? row_of(i).label == class_of(i) : y[i] != 0.f) ? 1u : 0u) << i;
    }
    for (; positives != 0; positives &= positives - 1) {  // seldom one, and then seldom another
      const int n = __ffs(positives) - 1;
      float x_at = 0.f, y_at = 0.f;
      if (MOSTLY_ZERO) {  // read again: both kept would take registers of all threads
        x_at = at<X>(call.x, offset(call.x, n)), y_at = at<TARGET>(call.target, offset(call.target, n));
      }
      Row row;
      int column = 0;
#pragma unroll
      for (int i = 0; i < NEIGHBOURS; ++i) {
        if (i == n) row = row_of(i), column = class_of(i);
        if (LABELS && i == n) x_at = x[i];
      }
      float derivative_of_positive;
      const Parameters parameter{call, column};
      const float positive = LABELS ? positive_at(x_at, row, parameter, &derivative_of_positive)
                                    : value_at(x_at, soft(y_at), parameter, &derivative_of_positive);
#pragma unroll
      for (int i = 0; i < NEIGHBOURS; ++i) {
        result[i] = i == n ? positive : result[i];
        if (BOTH) derivative[i] = i == n ? derivative_of_positive : derivative[i];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < NEIGHBOURS; ++i) {
    if (ELEMENT_WEIGHT) result[i] = VALUE ? times(weight[i], result[i]) : weight[i] * result[i];
    if (ADDS) add(i, result[i]);
    if (!STORES) continue;
    if (BOTH) result[i] = ELEMENT_WEIGHT ? weight[i] * derivative[i] : derivative[i];
    const Row row = row_of(i);
    result[i] = GRADIENT ? row.factor * result[i] : times(row.factor, result[i]);
    if (GRADIENT && OUTPUT != kSum) result[i] *= upstream[i];
    if (HAS_IGNORE && !row.is_kept) result[i] = 0.f;
    if (ACTIVATED && GRADIENT) result[i] = clamp(result[i], LARGEST);  // the derivative by a probability reaches 1e12
  }
  if (!STORES) return;
  OUT *to = static_cast<OUT *>(call.out.data);
  if constexpr (OUT_TOGETHER) {
    if (count == NEIGHBOURS) return store(to + offset(call.out, 0), result);
  }
#pragma unroll
  for (int i = 0; i < NEIGHBOURS; ++i) {
    if (i < count) narrow(result[i], to[offset(call.out, i)]);
  }
}

FP_INLINE float total_of(const Row &row, float sum) {
  const float total = times(row.factor, sum);
  return HAS_IGNORE && !row.is_kept ? 0.f : total;
}

FP_INLINE int channel_of(const Call &call, int row, Row &read) {
  const unsigned long long channel = call.channel[row];
  if (channel < call.channels) return static_cast<int>(channel);
  read.factor = not_a_number();
  return 0;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) elementwise(const GRID_CONSTANT Call call) {
  const float factor = factor_of(call);
  float total = kNothing;
#if ALONG_ROWS
  // Threads beside each other take rows beside each other; LANES of them share the classes of the same rows.
  constexpr int across = THREADS / LANES, of_block = across * ITEMS;
  const int tiles = (call.n2 + of_block - 1) / of_block, of_tile = threadIdx.x % across, count = NEIGHBOURS;
  const int begin = CLASSES > 1 ? 0 : blockIdx.y * call.span + threadIdx.x / across,
            end = CLASSES > 1 ? CLASSES : min((blockIdx.y + 1) * call.span, call.classes);
#pragma unroll
  for (int item = 0; item < ITEMS; item += NEIGHBOURS) {
    const int first = (blockIdx.x % tiles) * of_block + item * across + of_tile * NEIGHBOURS;
    if (first >= call.n2) continue;
    const Place place(call, blockIdx.x / tiles, first);
    Row rows[NEIGHBOURS];
    float sums[NEIGHBOURS];
    bool has_positive = false;
#pragma unroll
    for (int i = 0; i < NEIGHBOURS; ++i) {
      sums[i] = kNothing;
      rows[i].read(call, place.after(i), factor);
      if (!rows[i].has_positive(call)) rows[i].label = -1;
      has_positive |= rows[i].label >= 0;
    }
#pragma unroll CLASSES
    for (int c = begin; c < end; c += LANES) {
      evaluate(
          call, count,
          [&](const Operand &operand, int i) {
            return place.in(operand) + wide(i, operand.row[2]) + wide(c, operand.step);
          },
          [&](int i) -> Row { return rows[i]; }, [&](int) { return c; }, has_positive,
          [&](int i, float value) { sums[i] += value; });
    }
#pragma unroll
    for (int i = 0; i < NEIGHBOURS; ++i) {
      if (!ADDS) continue;
      const float of_row = total_of(rows[i], sums[i]);
      if (OUTPUT == kSum) {
        total += of_row;
      } else {
        narrow(of_row, static_cast<OUT *>(call.out.data)[place.in(call.out) + wide(i, call.out.row[2])]);
      }
    }
  }
#else
  constexpr int C = CLASSES;  // a constant, by which the compiler divides in a few instructions
  const FLAT all = static_cast<FLAT>(call.rows) * C;
  const FLAT begin = static_cast<FLAT>(blockIdx.x) * (THREADS * ITEMS) + threadIdx.x * NEIGHBOURS;
#pragma unroll
  for (int item = 0; item < ITEMS; item += NEIGHBOURS) {
    const FLAT first = begin + item * THREADS;
    if (first >= all) break;
    const int count = WRAPS && all - first < NEIGHBOURS ? static_cast<int>(all - first) : NEIGHBOURS;
    const int at_row = static_cast<int>(first / C), column = static_cast<int>(first - static_cast<FLAT>(at_row) * C);
    const int kept_in_row = C - column;  // from that element on a group is in the next row
    const bool wraps = WRAPS && kept_in_row < count;
    const Place place(call, at_row);
    Row row, next;
    row.read(call, place, factor);
    if (wraps) next.read(call, Place(call, at_row + 1), factor);
    const int channel = HAS_CHANNEL ? channel_of(call, at_row, row) : 0;
    // Without a branch, whose code might be placed behind that which the threads of a warp execute together.
    const bool has_positive =
        static_cast<unsigned>(row.label - column) < NEIGHBOURS & (!WRAPS | row.has_positive(call)) |
        wraps & next.has_positive(call);
    float sum = kNothing, sum_of_next = kNothing;
    evaluate(
        call, count,
        [&](const Operand &operand, int i) {
          if (IN_ORDER && (&operand == &call.x || &operand == &call.out)) return static_cast<int64>(first) + i;
          const int64 of_channel = !HAS_CHANNEL            ? 0
                                   : &operand == &call.x   ? wide(channel, call.x_channel)
                                   : &operand == &call.out ? wide(channel, call.out_channel)
                                                           : 0;
          if (WRAPS && i >= kept_in_row) {
            return Place(call, at_row + 1).in(operand) + wide(column + i - C, operand.step);
          }
          return place.in(operand) + of_channel + wide(column + i, operand.step);
        },
        [&](int i) -> Row { return WRAPS && i >= kept_in_row ? next : row; },
        [&](int i) { return WRAPS && i >= kept_in_row ? column + i - C : column + i; }, has_positive,
        [&](int i, float value) {
          const bool is_next = WRAPS && i >= kept_in_row;  // or behind the last row
          sum += is_next ? kNothing : value;
          if (WRAPS) sum_of_next += is_next ? value : kNothing;
        });
    if (ADDS) total += total_of(row, sum) + (wraps ? total_of(next, sum_of_next) : kNothing);
  }
#endif
  if (!ADDS || OUTPUT != kSum) return;
  total = times(BOTH ? 1.f : call.scale, sum_of_block(total));
  if (threadIdx.x == 0) call.partial[blockIdx.y * gridDim.x + blockIdx.x] = total;
}

}  // namespace focal_plugin
