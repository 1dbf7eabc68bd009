// What a compiled variant hands to the families: one loop over contiguous floats for each kind of target.
#pragma once
#include "api.h"

namespace focal_plugin {

constexpr int kMaxParameters = 8;
constexpr int kMostAhead = 3;           // operands that are as large as the logits: they, a dense target and the output
constexpr float kLargestLogit = 1e30f;  // derivatives are those of a logit no larger: an infinite one would meet a 0

// kHard: y is 1 or 0, a positive or a negative; kScored: positives with a y of their own.
enum Kind : int { kNegative, kPositive, kHard, kScored, kSoft };

struct Loop {
  const float *x;  // logits or probabilities
  const float *y;  // of kHard, kScored and kSoft
  float *output;   // values or derivatives, times scale
  float *value;    // beside derivatives: values, not scaled; or null
  int64_t count;
  float scale;
  // Elements of 2 bytes that are converted before or after the loop, one for each of its own, or null: it has the
  // processor load them meanwhile, since a conversion is too short to hide what memory takes.
  const uint16_t *ahead[kMostAhead];
  int64_t *is_clamped;                       // set where a logit was clamped to kLargestLogit for its derivative
  int64_t *is_out_of_range;                  // set where a y of kScored or kSoft is outside [0, 1]
  float parameter[kMaxParameters];           // a number for all elements, or ...
  const float *per_element[kMaxParameters];  // ... one per element
};

using LoopFunction = void (*)(const Loop &);

struct Variant {
  int parameters;
  // exponent: as in Call; per_element: whether the loop takes parameters per element.
  LoopFunction (*loop)(Kind kind, bool derivative, bool activated, int exponent, bool per_element);
};

}  // namespace focal_plugin
