// What a variant's point function is given, and what it gives back: kLanes elements at a time.
#pragma once
#include "vmath.h"

namespace focal_plugin {

// What one logit or probability gives. The compiler drops what a variant does not use.
struct Terms {
  V x, p, q, log_p, log_q;  // logit, sigmoid(x), 1 - p, log p, log(1 - p)
};

struct Point {
  V value, derivative;  // the derivative is with respect to the logit
};

// Targets. choose(one, zero) is the mean of two terms weighted by y, exact at y = 1 and y = 0 whatever the other is.
struct Negative {
  static constexpr bool is_hard = true;
  static constexpr float y = 0.f;
  FP_INLINE V choose(V, V zero) { return zero; }
};

struct Positive {
  static constexpr bool is_hard = true;
  static constexpr float y = 1.f;
  FP_INLINE V choose(V one, V) { return one; }
};

struct Soft {
  static constexpr bool is_hard = false;
  V y;
  Mask is_positive;
  inline __attribute__((always_inline)) V choose(V one, V zero) const {
    const V mixed = y * one + (1.f - y) * zero;
    return select(y == 1.f, one, select(y == 0.f, zero, mixed));
  }
};

FP_INLINE Terms terms_of_logit(V x) {
  const Mask negative = x < 0.f;
  const V e = exp_nonpositive(select(negative, x, -x));
  const V l = log1p_unit(e);
  const V r = 1.f / (1.f + e);
  const V er = e * r;
  return {x, select(negative, er, r), select(negative, r, er), select(negative, x, V{}) - l, select(negative, V{}, -x) - l};
}

// As torch's binary_cross_entropy: a logarithm is never below -100.
FP_INLINE Terms terms_of_probability(V p) {
  const V q = 1.f - p;
  const V log_p = log_nonnegative(p), log_q = log_nonnegative(q);
  // Near 0 the logarithm of 1 - p is taken from p, which 1 - p has rounded away.
  const V series = -p * (1.f + p * (0.5f + p * (0.333333333f + p * (0.25f + p * 0.2f))));
  const V exact_log_q = select(p < 0.03125f, series, log_q);
  const V low = all(-100.f);
  return {log_p - exact_log_q, p, q, select(log_p < low, low, log_p), select(exact_log_q < low, low, exact_log_q)};
}

// What the derivative by the logit is multiplied by to become the derivative by a probability.
FP_INLINE V outer_derivative_of_probability(const Terms &t) {
  const V v = t.p * t.q;
  return 1.f / select(v < 1e-12f, all(1e-12f), v);
}

// base^exponent: EXPONENT 0, 1 and 2 are fixed at compile time, anything else comes through the logarithm of the base.
template <int EXPONENT>
FP_INLINE V power(V base, V log_base, V exponent) {
  if (EXPONENT == 0) return all(1.f);
  if (EXPONENT == 1) return base;
  if (EXPONENT == 2) return base * base;
  return select(exponent == 0.f, all(1.f), exp_nonpositive(exponent * log_base));
}

}  // namespace focal_plugin
