// What a compiled variant hands to the skeleton: one loop over contiguous floats for each kind of target.
#pragma once
#include <cstdint>

namespace focal_plugin {

constexpr int kMaxParameters = 8;
constexpr float kLargestLogit = 1e30f;  // derivatives are those of a logit no larger: an infinite one would meet a 0

// kHard: y is 1 or 0, a positive or a negative; kScored: positives with a y of their own.
enum Kind : int { kNegative, kPositive, kHard, kScored, kSoft };

struct Loop {
  const float *input;                   // logits or probabilities
  const float *y;                       // of kHard, kScored and kSoft
  float *output;                        // values or derivatives, times scale
  float *value;                         // beside derivatives: values, not scaled; or null
  int64_t count;
  float scale;
  int64_t *is_out_of_range;             // set where a y of kScored or kSoft is outside [0, 1]
  float parameter[kMaxParameters];      // one number each, or ...
  const float *table[kMaxParameters];   // ... one number an element each
};

using LoopFunction = void (*)(const Loop &);

struct Variant {
  int parameters;
  // exponent is 0, 1 or 2 where the first parameter is that number, else -1; table: numbers an element.
  LoopFunction (*loop)(Kind kind, bool derivative, bool activated, int exponent, bool table);
};

}  // namespace focal_plugin
