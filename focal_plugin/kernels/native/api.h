// The plain C interface: call.py mirrors these structures.
#pragma once
#include <cstdint>

#define FP_EXPORT extern "C" __attribute__((visibility("default")))

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
  Operand input, target, score, weight, upstream;
  Operand output;  // of the logits' shape, or by_row: its stride of the class dimension is then 0
  int64_t by_row;  // the output holds the sum of each row
  // Row r of input and output starts at channel[r], which is in [0, channels), times the channel's stride. Null: at 0.
  const int64_t *channel;
  int64_t channels, input_channel_stride, output_channel_stride;
  const float *per_class_parameters;  // (parameters, classes), or null
  float parameter[8];
  int64_t exponent;    // the first parameter where the variants are compiled for that number: 0, 1, 2 or 4; else -1
  int64_t has_labels;  // the target holds class labels: its stride of the class dimension is ignored
  int64_t activated, derivative;
  int64_t both;  // derivatives are stored and values are summed, in one pass
  int64_t has_ignore_index, ignore_index;
  double scale;
  double after;        // an upstream gradient that multiplies last, so that the statistics are without it
  double *statistics;  // (2, classes), to which absolute derivatives of positives and of negatives are added, or null
  int64_t threads;
  void *gomp_parallel;      // torch's own OpenMP runtime; null: threads of our own
  double sum;               // out: where output is absent, or with both
  int64_t bad_row;          // out: where a label outside [0, classes] lies, or which row has a bad channel, or -1
  int64_t is_out_of_range;  // out: whether a dense target, or the score of a positive, is outside [0, 1]
};

}  // namespace focal_plugin
