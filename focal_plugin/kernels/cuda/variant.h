// The variant's loss of one logit where VALUE, its derivative where GRADIENT, or both.
#pragma once
#include "operand.h"
#include "point.h"
#include HEADER

namespace focal_plugin {

constexpr bool BOTH = VALUE && GRADIENT;

struct Parameters {
  const Call &call;
  int column;
  FP_METHOD float operator[](int k) const {
    if (k == 0 && GIVEN_EXPONENT >= 0) return GIVEN_EXPONENT;
    if (is_zero(k)) return 0.f;
    return PER_CLASS ? call.per_class[k * call.classes + column] : call.parameter[k];
  }
  // Whether the parameter may be this number for some class, and whether it is for all.
  FP_METHOD bool may_be(int k, float value) const { return PER_CLASS || call.parameter[k] == value; }
  FP_METHOD bool is(int k, float value) const {
    return value == 0.f ? is_zero(k) : !PER_CLASS && call.parameter[k] == value;
  }
  FP_METHOD static constexpr bool is_zero(int k) { return ZEROS >> k & 1; }
};

// The terms of a logit whose target is 0, in fewer instructions: exp(x) is formed as it is, up to just below 2^126,
// whose reciprocal is normal. Errors are about 1e-6 of float32 logits and 5e-6 of others, which are rounded to far
// less. Of an infinite logit, x is what the terms say of it.
FP_INLINE Terms terms_of_negative(float given, float x) {
  constexpr bool precise = sizeof(X) == 4;
  const float below = lesser(given, 87.3365f), near = precise ? greater(below, -1e30f) : below;
  const float power_of_two = near * 1.44269504f;
  float e = exp2(power_of_two);
  if (precise) e = fma(e, fma(power_of_two, -0.693147181f, near), e);
  const float r = reciprocal(1.f + e);
  const float series = precise ? polynomial(e, 0.123940043f, -0.235129654f, 0.332076907f, -0.499961942f, 0.999999821f)
                               : polynomial(e, 0.311179757f, -0.499490201f, 0.999998271f);
  float log1p = select(e < (precise ? 0.25f : 0.0625f), series * e, log2(1.f + e) * 0.693147181f);
  if (VALUE) log1p = greater(log1p, x);
  const float p = e * r, q = GRADIENT ? select(given > 87.3365448f, 0.f, r) : r;
  return {x, p, q, select(x < 0.f, x - log1p, log2(p) * 0.693147181f), -log1p, e, e, r};
}

template <class Target>
FP_INLINE Terms terms_of(float, float x, const Target &) {
  return terms_of_logit(x);
}
FP_INLINE Terms terms_of(float given, float x, const Negative &) {
  return GIVEN_EXPONENT < 0 ? terms_of_logit(x) : terms_of_negative(given, x);
}

// The loss, or the derivative where that alone is wanted; BOTH: into *derivative the other.
//
// VANISHES: a factor of the loss may be 0, which silences the infinite loss of an infinite logit. Derivatives, and
// losses beside them or then, are those of a logit no larger than 1e30: an infinite one would meet a 0.
template <class Target>
FP_INLINE float value_at(float given, const Target &target, const Parameters &parameter, float *derivative = nullptr) {
  constexpr int mode = VARIANT::probabilities;
  if constexpr (ACTIVATED) {
    const Terms terms = terms_of_probability<mode>(given);
    Point point = VARIANT::template value_and_grad<GIVEN_EXPONENT>(terms, target, parameter);
    if (GRADIENT) point.derivative *= outer_derivative_of_probability<mode>(terms, target.y + 0.f);
    if (BOTH) *derivative = point.derivative;
    return VALUE ? point.value : point.derivative;
  } else {
    const float x = GRADIENT || VANISHES ? clamp(given, 1e30f) : given;
    const Point point = VARIANT::template value_and_grad<GIVEN_EXPONENT>(terms_of(given, x, target), target, parameter);
    if (BOTH) *derivative = point.derivative;
    if (!VALUE) return point.derivative;
    // Near a finite limit, or grown with the logit.
    if ((GRADIENT || VANISHES) && fabsf(given) == infinity() && point.value > 1e8f) return infinity();
    return point.value;
  }
}

// What is the same along a row: its label (of a wrong one any, of an ignored one -1), the target of its positive, and
// its factors.
struct Row {
  int label = -1;
  float y = 1.f, factor = 0.f;
  bool is_kept = true;

  FP_METHOD void read(const Call &call, const Place &place, float scale) {
    factor = scale;
    if (ROW_WEIGHT) factor *= at<WEIGHT>(call.weight, place.of_row(call.weight));
    if (!LABELS) return;
    const int64 read = static_cast<const int64 *>(call.target.data)[place.of_row(call.target)];
    is_kept = !HAS_IGNORE || read != call.ignore_index;
    if (is_kept) label = static_cast<int>(read);
    if (is_kept && static_cast<unsigned long long>(read) > static_cast<unsigned>(LAST_LABEL)) factor = not_a_number();
    if (HAS_SCORE) y = at<SCORE>(call.score, place.of_row(call.score));
  }
  FP_METHOD bool has_positive(const Call &call) const { return static_cast<unsigned>(label) < call.classes; }
};

// The same of the positive of a row.
FP_INLINE float positive_at(float x, const Row &row, const Parameters &parameter, float *derivative = nullptr) {
  if constexpr (HAS_SCORE) return value_at(x, Soft{row.y, true}, parameter, derivative);
  return value_at(x, Positive{}, parameter, derivative);
}

}  // namespace focal_plugin
