// What a launch is given; call.py mirrors these structures, and nvrtc.py says what the macros mean.
#pragma once

namespace focal_plugin {

typedef long long int64;

enum Output { kElement, kRow, kSum };

// Strides are in elements: of the dimensions of the rows, the outermost first, and from class to class.
struct Operand {
  void *data;
  int row[3], step;
};

struct Call {
  Operand x, target, score, weight, upstream, out;
  const int64
      *channel;  // row r of logits and gradients begins at channel[r], in [0, channels), times its stride; or null
  int channels, x_channel, out_channel;
  const float *per_class;  // (parameters, classes), or null
  const void *avg;         // what a sum is divided by, or null
  float *partial;          // a sum for each block, or (2, classes) statistics
  int rows, n1, n2;        // n1, n2: the two innermost dimensions of the rows
  int classes, span;       // span: of them, those of a block
  int64 ignore_index;
  float scale;
  float parameter[6];
};

}  // namespace focal_plugin
