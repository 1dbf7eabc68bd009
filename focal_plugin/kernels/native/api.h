// The plain C interface: loader.py mirrors these structures.
#pragma once
#include <cstdint>

namespace focal_plugin {

constexpr int kMaxDims = 64;

enum Type : int64_t { kFloat, kBFloat16, kHalf, kByte, kInt64 };

// Strides are in elements; a broadcast dimension has stride 0. data is null where the operand is absent.
struct Operand {
  void *data;
  int64_t type;
  int64_t stride[kMaxDims];
};

struct Call {
  int64_t dims;
  int64_t size[kMaxDims];  // the logits' shape; the last dimension holds the classes
  Operand input, target, score, weight, upstream, output;  // output: one value an element, or by_row (class stride 0)
  int64_t by_row;
  const int64_t *channel;  // of each row of a call of two dimensions, or null: input and output begin so many strides on
  int64_t channels, channel_stride[2];
  const float *table;  // (parameters, classes), or null
  float parameter[8];
  int64_t exponent;  // 0, 1 or 2 where the first parameter is that number, else -1
  int64_t labels;    // the target holds class labels: its stride of the class dimension is ignored
  int64_t activated, derivative;
  int64_t both;  // derivatives are stored and values are summed, in one pass
  int64_t has_ignore_index, ignore_index;
  double scale, after;  // `after`, an upstream gradient, multiplies last: what the statistics have not seen
  double *statistics;   // (2, classes): absolute derivatives of positives and of negatives are added, or null
  int64_t threads;
  void *gomp_parallel;  // torch's own OpenMP runtime; null: threads of our own
  double sum;           // out: where output is absent, or with both
  int64_t bad_row;      // out: where the label of a row is outside [0, classes] (its channel outside [0, channels)), or -1
  int64_t is_out_of_range;  // out: whether a dense target, or the score of a positive, is outside [0, 1]
};

}  // namespace focal_plugin
