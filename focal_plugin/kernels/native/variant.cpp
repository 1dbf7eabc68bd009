// Compiled once per variant: HEADER, VARIANT and SYMBOL come from the compiler's command line.
#include "variant.h"

#include <type_traits>

#include HEADER

namespace focal_plugin {
namespace {

constexpr bool reads_y(int kind) { return kind == kHard || kind == kScored || kind == kSoft; }

template <int KIND>
FP_INLINE auto target_at(const Loop &loop, int64_t i) {
  if constexpr (KIND == kNegative) return Negative{};
  if constexpr (KIND == kPositive) return Positive{};
  if constexpr (KIND == kScored) return Soft{load(loop.y + i), Mask{} - 1};
  // A NaN is no negative.
  if constexpr (KIND == kHard || KIND == kSoft) return Soft{load(loop.y + i), ~(load(loop.y + i) <= 0.f)};
}

template <bool PER_ELEMENT>
struct Parameters {
  const Loop &loop;
  int64_t start;
  inline __attribute__((always_inline)) V operator[](int k) const {
    return PER_ELEMENT ? load(loop.per_element[k] + start) : all(loop.parameter[k]);
  }
  // Whether the parameter may be this number in some lane.
  inline __attribute__((always_inline)) bool may_be(int k, float value) const {
    return PER_ELEMENT || loop.parameter[k] == value;
  }
  // Whether the parameter is this number in every lane: a branch that the loop takes one way.
  inline __attribute__((always_inline)) bool is(int k, float value) const {
    return !PER_ELEMENT && loop.parameter[k] == value;
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

template <int KIND, bool DERIVATIVE, bool ACTIVATED, int EXPONENT, bool PER_ELEMENT>
FP_INLINE void vectors(const Loop &loop) {
  Mask is_out_of_range{};
  Bits clamped{};
  for (int64_t i = 0; i < loop.count; i += kLanes) {
    for (const uint16_t *ahead : loop.ahead) {
      if (ahead != nullptr) __builtin_prefetch(ahead + i);
    }
    const V given = load(loop.x + i), x = DERIVATIVE && !ACTIVATED ? clamp(given, kLargestLogit) : given;
    clamped |= bits_as<Bits>(x) ^ bits_as<Bits>(given);
    constexpr int mode = VARIANT::probabilities;
    const Terms terms = ACTIVATED ? terms_of_probability<mode>(x) : terms_of_logit(x);
    const auto target = target_at<KIND>(loop, i);
    const Parameters<PER_ELEMENT> parameter{loop, i};
    Point point = point_at<KIND, EXPONENT>(terms, target, parameter);
    if (ACTIVATED && DERIVATIVE) point.derivative *= outer_derivative_of_probability<mode>(terms, target.y + V{});
    store(loop.output + i, (DERIVATIVE ? point.derivative : point.value) * loop.scale);
    if (DERIVATIVE && loop.value != nullptr) store(loop.value + i, point.value);
    if constexpr (KIND == kScored || KIND == kSoft) is_out_of_range |= (target.y < 0.f) | (target.y > 1.f);
  }
  if (DERIVATIVE && !ACTIVATED && any(clamped != 0)) *loop.is_clamped = 1;
  if ((KIND == kScored || KIND == kSoft) && any(is_out_of_range)) *loop.is_out_of_range = 1;
}

template <int KIND, bool DERIVATIVE, bool ACTIVATED, int EXPONENT, bool PER_ELEMENT>
void run(const Loop &shared) {
  Loop loop = shared;  // a copy that the stores can't reach, so that its members stay in registers
  loop.count = shared.count / kLanes * kLanes;
  vectors<KIND, DERIVATIVE, ACTIVATED, EXPONENT, PER_ELEMENT>(loop);
  const int64_t done = loop.count, rest = shared.count - done;
  if (rest == 0) return;
  // The last elements, in a vector of their own: the caller's memory may end with them.
  float x[kLanes] = {}, y[kLanes] = {}, output[kLanes], value[kLanes], per_element[kMaxParameters][kLanes] = {};
  const auto copy = [&](float *to, const float *from) { std::memcpy(to, from + done, rest * sizeof(float)); };
  copy(x, shared.x);
  if (reads_y(KIND)) copy(y, shared.y);
  for (int k = 0; PER_ELEMENT && k < VARIANT::parameters; ++k) {
    copy(per_element[k], shared.per_element[k]);
    loop.per_element[k] = per_element[k];
  }
  loop.x = x;
  loop.y = y;
  loop.output = output;
  if (shared.value != nullptr) loop.value = value;
  loop.count = kLanes;
  vectors<KIND, DERIVATIVE, ACTIVATED, EXPONENT, PER_ELEMENT>(loop);
  std::memcpy(shared.output + done, output, rest * sizeof(float));
  if (shared.value != nullptr) std::memcpy(shared.value + done, value, rest * sizeof(float));
}

// use(constant) with the one of these numbers that `value` is, or the last.
template <int NUMBER, int... OTHERS, class Use>
LoopFunction with_constant(int value, Use use) {
  if constexpr (sizeof...(OTHERS) > 0) {
    if (value != NUMBER) return with_constant<OTHERS...>(value, use);
  }
  return use(std::integral_constant<int, NUMBER>{});
}

template <class Kind, class Derivative, class Activated>
LoopFunction loop_of(Kind, Derivative, Activated, int exponent, bool per_element) {
  if (per_element) return run<Kind::value, Derivative::value, Activated::value, -1, true>;
  return with_constant<0, 1, 2, 4, -1>(exponent, [](auto exponent) -> LoopFunction {
    return run<Kind::value, Derivative::value, Activated::value, decltype(exponent)::value, false>;
  });
}

LoopFunction loop_for(Kind kind, bool derivative, bool activated, int exponent, bool per_element) {
  constexpr int probabilities = VARIANT::probabilities != kNoProbabilities;
  return with_constant<kNegative, kPositive, kHard, kScored, kSoft>(kind, [&](auto kind) {
    return with_constant<0, 1>(derivative, [&](auto derivative) {
      return with_constant<0, probabilities>(
          activated, [&](auto activated) { return loop_of(kind, derivative, activated, exponent, per_element); });
    });
  });
}

}  // namespace

FP_EXPORT const Variant SYMBOL;
const Variant SYMBOL = {VARIANT::parameters, loop_for};

}  // namespace focal_plugin
