// Compiled once per variant: HEADER, VARIANT and SYMBOL come from the compiler's command line.
#include "variant.h"

#include HEADER

namespace focal_plugin {
namespace {

template <int KIND>
FP_INLINE auto target_at(const float *y) {
  if constexpr (KIND == kNegative) return Negative{};
  if constexpr (KIND == kPositive) return Positive{};
  if constexpr (KIND == kScored) return Soft{load(y), Mask{} - 1};
  if constexpr (KIND == kHard || KIND == kSoft) return Soft{load(y), ~(load(y) <= 0.f)};  // NaN is no negative
}

template <bool TABLE>
struct Parameters {
  const Loop &loop;
  int64_t start;
  inline __attribute__((always_inline)) V operator[](int k) const {
    return TABLE ? load(loop.table[k] + start) : all(loop.parameter[k]);
  }
  // Whether the parameter may be this number in some lane.
  inline __attribute__((always_inline)) bool may_be(int k, float value) const {
    return TABLE || loop.parameter[k] == value;
  }
  // Whether the parameter is this number in every lane: a branch that the loop takes one way.
  inline __attribute__((always_inline)) bool is(int k, float value) const {
    return !TABLE && loop.parameter[k] == value;
  }
};

template <int KIND, int EXPONENT, class Target, class Parameters>
FP_INLINE Point point_at(const Terms &terms, const Target &target, const Parameters &parameter) {
  if constexpr (KIND != kHard) {
    return VARIANT::value_and_grad<EXPONENT>(terms, target, parameter);
  } else {
    return select(target.is_positive, VARIANT::value_and_grad<EXPONENT>(terms, Positive{}, parameter),
                  VARIANT::value_and_grad<EXPONENT>(terms, Negative{}, parameter));
  }
}

template <int KIND, bool DERIVATIVE, bool ACTIVATED, int EXPONENT, bool TABLE>
FP_INLINE void vectors(const Loop &loop) {
  Mask is_out_of_range{};
  for (int64_t i = 0; i < loop.count; i += kLanes) {
    V input = load(loop.input + i);
    if (DERIVATIVE && !ACTIVATED) input = clamp(input, kLargestLogit);
    constexpr int mode = VARIANT::probabilities;
    const Terms terms = ACTIVATED ? terms_of_probability<mode>(input) : terms_of_logit(input);
    const auto target = target_at<KIND>(loop.y + i);
    const Parameters<TABLE> parameter{loop, i};
    Point point = point_at<KIND, EXPONENT>(terms, target, parameter);
    if (ACTIVATED && DERIVATIVE) point.derivative *= outer_derivative_of_probability<mode>(terms, target.y + V{});
    store(loop.output + i, (DERIVATIVE ? point.derivative : point.value) * loop.scale);
    if (DERIVATIVE && loop.value != nullptr) store(loop.value + i, point.value);
    if constexpr (KIND == kScored || KIND == kSoft) is_out_of_range |= (load(loop.y + i) < 0.f) | (load(loop.y + i) > 1.f);
  }
  if ((KIND == kScored || KIND == kSoft) && any(is_out_of_range)) *loop.is_out_of_range = 1;
}

template <int KIND, bool DERIVATIVE, bool ACTIVATED, int EXPONENT, bool TABLE>
void run(const Loop &shared) {
  Loop loop = shared;  // a copy that the stores can't reach, so that its members stay in registers
  loop.count = shared.count / kLanes * kLanes;
  vectors<KIND, DERIVATIVE, ACTIVATED, EXPONENT, TABLE>(loop);
  const int64_t rest = shared.count - loop.count;
  if (rest == 0) return;
  // The last elements, in a vector of their own: the caller's memory may end with them.
  float input[kLanes] = {}, y[kLanes] = {}, output[kLanes], value[kLanes], table[kMaxParameters][kLanes] = {};
  const auto copy = [&](float *to, const float *from) { std::memcpy(to, from + loop.count, rest * sizeof(float)); };
  copy(input, shared.input);
  if (KIND == kScored || KIND == kHard || KIND == kSoft) copy(y, shared.y);
  for (int k = 0; TABLE && k < VARIANT::parameters; ++k) {
    copy(table[k], shared.table[k]);
    loop.table[k] = table[k];
  }
  loop.input = input, loop.y = y, loop.output = output, loop.value = shared.value == nullptr ? nullptr : value;
  float *const end = shared.output + loop.count;
  loop.count = kLanes;
  vectors<KIND, DERIVATIVE, ACTIVATED, EXPONENT, TABLE>(loop);
  std::memcpy(end, output, rest * sizeof(float));
  if (shared.value != nullptr) std::memcpy(shared.value + shared.count - rest, value, rest * sizeof(float));
}

template <int KIND, bool DERIVATIVE, bool ACTIVATED>
LoopFunction by_exponent(int exponent, bool table) {
  if (table) return run<KIND, DERIVATIVE, ACTIVATED, -1, true>;
  switch (exponent) {
    case 0: return run<KIND, DERIVATIVE, ACTIVATED, 0, false>;
    case 1: return run<KIND, DERIVATIVE, ACTIVATED, 1, false>;
    case 2: return run<KIND, DERIVATIVE, ACTIVATED, 2, false>;
    case 4: return run<KIND, DERIVATIVE, ACTIVATED, 4, false>;
    default: return run<KIND, DERIVATIVE, ACTIVATED, -1, false>;
  }
}

template <int KIND>
LoopFunction of_kind(bool derivative, bool activated, int exponent, bool table) {
  constexpr bool takes_them = VARIANT::probabilities != kNoProbabilities;
  if (takes_them && activated) {
    return derivative ? by_exponent<KIND, true, takes_them>(exponent, table)
                      : by_exponent<KIND, false, takes_them>(exponent, table);
  }
  return derivative ? by_exponent<KIND, true, false>(exponent, table) : by_exponent<KIND, false, false>(exponent, table);
}

LoopFunction loop_for(Kind kind, bool derivative, bool activated, int exponent, bool table) {
  switch (kind) {
    case kNegative: return of_kind<kNegative>(derivative, activated, exponent, table);
    case kPositive: return of_kind<kPositive>(derivative, activated, exponent, table);
    case kHard: return of_kind<kHard>(derivative, activated, exponent, table);
    case kScored: return of_kind<kScored>(derivative, activated, exponent, table);
    default: return of_kind<kSoft>(derivative, activated, exponent, table);
  }
}

}  // namespace
}  // namespace focal_plugin

extern "C" __attribute__((visibility("default"))) const focal_plugin::Variant SYMBOL;
const focal_plugin::Variant SYMBOL = {focal_plugin::VARIANT::parameters, focal_plugin::loop_for};
